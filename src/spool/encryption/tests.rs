//! What is encrypted is opened as it was, in its own message and with its own key alone.

use std::collections::HashSet;
use std::fs;

use proptest::prelude::*;

use super::*;
use crate::keyring::SecretKey;
use crate::segment::SegmentId;
use crate::spool::{Receipt, SegmentReader, SegmentWriter, origin};
use crate::staging::Staging;

fn key(byte: u8) -> Key {
    Key::spool(SecretKey::from_hex("key", &hex::encode([byte; 32])).unwrap(), None)
}

fn keys(bytes: &[u8]) -> SpoolKeys {
    let ring = bytes.iter().map(|byte| key(*byte)).try_fold(Keyring::default(), Keyring::with);
    SpoolKeys::of(&ring.unwrap())
}

fn line_of(sealer: &mut Sealer, record: &Record<'_>) -> Vec<u8> {
    let mut line = Vec::new();
    sealer.write_line(record, &mut line).unwrap();
    assert_eq!(line.pop(), Some(b'\n'));
    line
}

fn json_of(record: &Record<'_>) -> String {
    serde_json::to_string(record).unwrap()
}

fn opened(line: &[u8], keys: &SpoolKeys) -> Result<String, Unopened> {
    let record = Record::parse_line(line).unwrap();
    Opener::default().open(&record, keys).map(|record| json_of(&record))
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), r#"[a"\\,:{}\n/ é]{0,40}"#]
}

proptest! {
    #[test]
    fn an_encrypted_message_is_opened_as_it_was(
        body in any_text(), group in proptest::option::of(any_text()), id in any_text(),
        sent_at in any::<i64>(), has_attributes in any::<bool>(),
    ) {
        let attributes: Box<RawValue> = serde_json::from_str(r#"{"trace":{"type":"String","value":"x"}}"#).unwrap();
        let record = Record {
            message_id: id.into(),
            sent_at,
            attributes: has_attributes.then_some(&*attributes),
            group_id: group.map(Cow::Owned),
            ..Record::with_body(&body)
        };
        let line = line_of(&mut Sealer::new(&key(1)).unwrap(), &record);
        let stored = Record::parse_line(&line).unwrap();
        prop_assert!(stored.body.is_encrypted() && stored.attributes.is_none() && stored.group_id.is_none());
        let by_parser: Record<'_> = serde_json::from_slice(&line).unwrap();
        prop_assert_eq!(json_of(&by_parser), json_of(&stored));
        prop_assert_eq!(opened(&line, &keys(&[2, 1])).unwrap(), json_of(&record));
    }

    #[test]
    fn a_changed_bit_of_what_is_encrypted_is_found(
        body in any_text(), position in any::<prop::sample::Index>(), bit in 0..8_u32,
    ) {
        let line = line_of(&mut Sealer::new(&key(1)).unwrap(), &Record::with_body(&body));
        let mut record = Record::parse_line(&line).unwrap();
        let mut enc = record.enc.take().unwrap().into_owned().into_bytes();
        let position = position.index(enc.len());
        enc[position] ^= 1 << bit;
        let Ok(enc) = String::from_utf8(enc) else { return Ok(()) };
        record.enc = Some(enc.into());
        // Hexadecimal digits of the stream's name may be of either case: that changes nothing.
        if let Ok(opened) = Opener::default().open(&record, &keys(&[1])) {
            prop_assert_eq!(json_of(&opened), json_of(&Record::with_body(&body)));
        }
    }
}

/// Computed by Python from the description above (hmac, hashlib and cryptography), not by this code.
#[test]
fn a_line_of_an_independent_implementation_is_opened() {
    let line = concat!(
        r#"{"message_id":"5f2c6d0e-8a61-4b59-9d59-5a9f3f1f6c11","sent_at":1767323045000,"received_at":2,"receive_count":1,"#,
        r#""receipt_handle":"r","enc":"6dacde69.0198b1a4-7c1e-7000-8000-00000000002a.19999.89OVotQ6cuiimA0HjYFx7zynwj/cP70bdoshEq+0KGKPgviduTtg4Q6U+cLdOGyMj3pGQJs5KiaBQfZ1whNp0LJDS0tJ7ViM0MDmC5w","group_tag":"6a79fd3844dbb41e"}"#
    );
    let record = Record::parse_line(line.as_bytes()).unwrap();
    let mut opener = Opener::default();
    let message = opener.open(&record, &keys(&[7])).unwrap();
    assert_eq!(message.body.text(&mut String::new()), Ok("{\"ip\": \"199.172.111.135\"}"));
    assert_eq!(message.group_id.as_deref(), Some("Grüße"));
    let mut sealer = Sealer::new(&key(7)).unwrap();
    let stream = "0198b1a4-7c1e-7000-8000-00000000002a".parse().unwrap();
    sealer.groups = Hmac::new_from_slice(&*derived(&key(7), GROUP_INFO, stream).unwrap()).unwrap();
    let line = line_of(&mut sealer, &message);
    assert_eq!(Record::parse_line(&line).unwrap().group_tag, record.group_tag);
}

#[test]
fn what_is_encrypted_belongs_to_its_message() {
    let line = line_of(&mut Sealer::new(&key(1)).unwrap(), &Record::with_body("{}"));
    let record = Record::parse_line(&line).unwrap();
    for other in [
        Record { message_id: "n".into(), ..record.clone() },
        Record { sent_at: 2, ..record.clone() },
        Record { enc: record.enc.as_ref().map(|enc| enc.replacen(".0.", ".1.", 1).into()), ..record.clone() },
    ] {
        let problem = Opener::default().open(&other, &keys(&[1])).unwrap_err();
        assert_eq!(problem, Unopened::Damaged(CHANGED));
    }
    // When and how often it was received is another matter.
    let later = Record { received_at: 9, receive_count: 3, receipt_handle: "s".into(), ..record.clone() };
    assert!(Opener::default().open(&later, &keys(&[1])).is_ok());
}

#[test]
fn a_key_that_is_not_there_is_named() {
    let line = line_of(&mut Sealer::new(&key(1)).unwrap(), &Record::with_body("{}"));
    let missing = Unopened::UnknownKey(key(1).id().to_owned());
    assert_eq!(opened(&line, &keys(&[2])), Err(missing));
}

/// An import gives a segment the same name each time, and one that was killed is written again.
#[test]
fn no_nonce_is_used_twice_under_a_key() {
    let root = tempfile::tempdir().unwrap();
    let staging = Staging::open(root.path()).unwrap();
    let (id, key) = (SegmentId::now(), key(1));
    let mut nonces = HashSet::new();
    for _ in 0..3 {
        let mut writer = SegmentWriter::create_as(id, &staging, &origin(), Some(&key)).unwrap();
        for _ in 0..5 {
            writer.append(&Record::with_body("{\"ip\":\"199.172.111.135\"}")).unwrap();
        }
        writer.seal().unwrap();
        let block = SegmentReader::open(&staging.spool(id)).unwrap().next_block().unwrap().unwrap();
        for line in block.lines() {
            let enc = line.unwrap().record.enc.unwrap().into_owned();
            assert!(nonces.insert(enc.rsplit_once('.').unwrap().0.to_owned()), "used twice: {enc}");
        }
        fs::remove_file(staging.spool(id)).unwrap();
    }
    assert_eq!(nonces.len(), 15);
}

/// A retry of rejects writes such lines as a segment of its own.
#[test]
fn a_message_that_is_encrypted_already_moves_as_it_is() {
    let line = line_of(&mut Sealer::new(&key(1)).unwrap(), &Record::with_body("{}"));
    let record = Record::parse_line(&line).unwrap();
    assert_eq!(line_of(&mut Sealer::new(&key(2)).unwrap(), &record), line);
}

#[test]
fn a_group_keeps_its_order_without_its_name() {
    let mut sealer = Sealer::new(&key(1)).unwrap();
    let group_of = |sealer: &mut Sealer, group: &'static str| {
        let record = Record { group_id: Some(group.into()), ..Record::with_body("{}") };
        let line = line_of(sealer, &record);
        assert!(!String::from_utf8_lossy(&line).contains(group));
        Receipt::of_line(&line).unwrap().group().unwrap().to_owned()
    };
    let [first, again, other] = ["tenant", "tenant", "others"].map(|group| group_of(&mut sealer, group));
    assert!(first == again && first != other);
    assert_ne!(first, group_of(&mut Sealer::new(&key(1)).unwrap(), "tenant"), "segments cannot be linked by it");
}

#[test]
fn a_line_has_either_a_body_or_an_encrypted_one() {
    let fields = r#""message_id":"m","sent_at":1,"received_at":2,"receive_count":1,"receipt_handle":"""#;
    for rest in ["", r#","body":"{}","enc":"a.b.0.c""#] {
        assert_eq!(Record::parse_line(format!("{{{fields}{rest}}}").as_bytes()).unwrap_err(), "not a spool line");
    }
}
