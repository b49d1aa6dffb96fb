//! A spool line: one message as it was received, and the checksum at the line's end.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Body;
use super::checksum::{self, push_checksum};
use crate::queue::Message;

/// The time in the identity of a message whose time of sending may differ in its next delivery.
const UNSTABLE_TIME_MS: i64 = 0;
const UNSTABLE: &str = ",\"sent_at_is_stable\":false";

/// One message as it was received, in the order of a spool line's fields.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record<'a> {
    /// SQS's id of the message: the same in every delivery.
    #[serde(borrow)]
    pub message_id: Cow<'a, str>,
    /// SQS `SentTimestamp`, in milliseconds since the epoch.
    pub sent_at: i64,
    /// When this delivery reached us, in milliseconds since the epoch.
    pub received_at: i64,
    /// SQS `ApproximateReceiveCount`: 1 at the first delivery.
    pub receive_count: u32,
    /// What deletes this delivery; empty for an imported message, which no queue holds.
    #[serde(borrow)]
    pub receipt_handle: Cow<'a, str>,
    /// The raw body.
    #[serde(borrow, default, skip_serializing_if = "Body::is_encrypted")]
    pub body: Body<'a>,
    /// Body, attributes and group, where they are encrypted: see [`super::Opener`].
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub enc: Option<Cow<'a, str>>,
    /// The message attributes, `{name: {type, value}}`, where the message has some; a binary value is base64.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<&'a RawValue>,
    /// The FIFO group, where the message has one.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<Cow<'a, str>>,
    /// In place of an encrypted group: the same for all messages of the group in its segment.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub group_tag: Option<Cow<'a, str>>,
    /// The FIFO sequence number, where the message has one.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub sequence_number: Option<Cow<'a, str>>,
    /// Every delivery of the message tells the same time of sending. Not so for a message of a group, whose time a redrive
    /// resets in a FIFO queue, where a server tells no time, and for an imported message.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub sent_at_is_stable: bool,
}

const fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_yes(value: &bool) -> bool {
    *value
}

/// The time in a message's identity, in milliseconds since the epoch: the time of sending where that is stable, else a
/// constant, so that the id alone decides.
#[must_use]
pub const fn identity_time_ms(sent_at: i64, is_stable: bool) -> i64 {
    if is_stable { sent_at } else { UNSTABLE_TIME_MS }
}

impl<'a> From<&'a Message> for Record<'a> {
    fn from(message: &'a Message) -> Self {
        Self {
            message_id: message.message_id.as_str().into(),
            sent_at: message.sent_at,
            received_at: message.received_at,
            receive_count: message.receive_count,
            receipt_handle: message.receipt_handle.as_str().into(),
            body: message.body.as_str().into(),
            enc: None,
            group_tag: None,
            attributes: message.attributes.as_deref(),
            group_id: message.group_id.as_deref().map(Cow::Borrowed),
            sequence_number: message.sequence_number.as_deref().map(Cow::Borrowed),
            sent_at_is_stable: message.sent_at_is_stable,
        }
    }
}

impl<'a> Record<'a> {
    /// Appends the record as a spool line, checksum and line feed included.
    pub(super) fn write_line(&self, line: &mut Vec<u8>) -> serde_json::Result<()> {
        let start = line.len();
        serde_json::to_writer(&mut *line, self)?;
        push_checksum(line, start);
        Ok(())
    }

    /// Reads a spool line without its line feed; the error says what is wrong with it, without quoting it.
    pub(super) fn parse_line(line: &'a [u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(line).map_err(|_| "not UTF-8")?;
        if let Some((content, digits)) = checksum::split(line) {
            if !checksum::matches(content, digits) {
                return Err("the checksum does not match");
            }
            if let Some(record) = text.get(..content.len()).and_then(Self::as_written) {
                return Ok(record);
            }
        }
        // serde takes an array for a structure, too.
        if !text.trim_start().starts_with('{') {
            return Err("not a spool line");
        }
        let record: Self = serde_json::from_str(text).map_err(|_| "not a spool line")?;
        if record.body.is_encrypted() == record.enc.is_some() { Ok(record) } else { Err("not a spool line") }
    }

    /// The same record, borrowed.
    pub(super) fn borrowed(&self) -> Record<'_> {
        fn borrowed<'b>(text: Option<&'b Cow<'_, str>>) -> Option<Cow<'b, str>> {
            text.map(|text| Cow::Borrowed(&**text))
        }
        Record {
            message_id: Cow::Borrowed(&self.message_id),
            sent_at: self.sent_at,
            received_at: self.received_at,
            receive_count: self.receive_count,
            receipt_handle: Cow::Borrowed(&self.receipt_handle),
            body: self.body.borrowed(),
            enc: borrowed(self.enc.as_ref()),
            attributes: self.attributes,
            group_id: borrowed(self.group_id.as_ref()),
            group_tag: borrowed(self.group_tag.as_ref()),
            sequence_number: borrowed(self.sequence_number.as_ref()),
            sent_at_is_stable: self.sent_at_is_stable,
        }
    }

    /// Reads what [`Self::write_line`] wrote of a message without attributes and group, in half the time of a JSON parser.
    /// It checks nothing else of the JSON, so the checksum of `fields` must be verified before.
    fn as_written(fields: &'a str) -> Option<Self> {
        let (message_id, rest) = fields.strip_prefix("{\"message_id\":\"")?.split_once('"')?;
        let (sent_at, rest) = rest.strip_prefix(",\"sent_at\":")?.split_once(',')?;
        let (received_at, rest) = rest.strip_prefix("\"received_at\":")?.split_once(',')?;
        let (receive_count, rest) = rest.strip_prefix("\"receive_count\":")?.split_once(',')?;
        let (receipt_handle, rest) = rest.strip_prefix("\"receipt_handle\":\"")?.split_once('"')?;
        let (rest, sent_at_is_stable) = match rest.strip_suffix(UNSTABLE) {
            Some(rest) => (rest, false),
            None => (rest, true),
        };
        let is_plain = |text: &str| memchr::memchr(b'\\', text.as_bytes()).is_none();
        let (body, enc) = if let Some(rest) = rest.strip_prefix(",\"body\":\"") {
            (Body::alone(rest.strip_suffix('"')?)?, None)
        } else {
            let enc = rest.strip_prefix(",\"enc\":\"")?.strip_suffix('"')?;
            let is_alone = is_plain(enc) && memchr::memchr(b'"', enc.as_bytes()).is_none();
            (Body::Encrypted, Some(is_alone.then_some(enc)?))
        };
        if !is_plain(message_id) || !is_plain(receipt_handle) {
            return None;
        }
        Some(Self {
            message_id: message_id.into(),
            sent_at: sent_at.parse().ok()?,
            received_at: received_at.parse().ok()?,
            receive_count: receive_count.parse().ok()?,
            receipt_handle: receipt_handle.into(),
            body,
            enc: enc.map(Cow::Borrowed),
            attributes: None,
            group_id: None,
            group_tag: None,
            sequence_number: None,
            sent_at_is_stable,
        })
    }

    /// The time in the message's identity, see [`identity_time_ms`].
    #[must_use]
    pub const fn identity_time_ms(&self) -> i64 {
        identity_time_ms(self.sent_at, self.sent_at_is_stable)
    }
}

impl<'a> Record<'a> {
    /// A first delivery without a receipt handle, of a message that has nothing beside its body. `sent_at`: milliseconds
    /// since the epoch, and also the time of the delivery.
    #[must_use]
    pub fn first_delivery(message_id: impl Into<Cow<'a, str>>, sent_at: i64, body: impl Into<Body<'a>>) -> Self {
        Self {
            message_id: message_id.into(),
            sent_at,
            received_at: sent_at,
            receive_count: 1,
            receipt_handle: "".into(),
            body: body.into(),
            enc: None,
            attributes: None,
            group_id: None,
            group_tag: None,
            sequence_number: None,
            sent_at_is_stable: true,
        }
    }

    /// A first delivery, for tests of something else.
    #[cfg(test)]
    pub(crate) fn with_body(body: &'a str) -> Self {
        Self { received_at: 2, receipt_handle: "r".into(), ..Self::first_delivery("m", 1, body) }
    }
}

/// A message's id as the ledger stores it: SQS's ids are UUIDs; any other text becomes the `UUIDv5` of itself.
#[must_use]
pub fn message_uuid(message_id: &str) -> Uuid {
    Uuid::parse_str(message_id).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, message_id.as_bytes()))
}

/// What settling a message needs of its spool line.
#[derive(Debug, Clone, Deserialize)]
pub struct Receipt<'a> {
    /// SQS's id of the message.
    #[serde(borrow)]
    pub message_id: Cow<'a, str>,
    /// What deletes, extends or releases the delivery; empty for an imported message, which no queue holds.
    #[serde(borrow)]
    pub receipt_handle: Cow<'a, str>,
    /// The FIFO group, where the message has one and it is not encrypted.
    #[serde(borrow, default)]
    pub group_id: Option<Cow<'a, str>>,
    /// What stands for a group that is encrypted.
    #[serde(borrow, default)]
    pub group_tag: Option<Cow<'a, str>>,
}

impl<'a> Receipt<'a> {
    /// Reads nothing else of a spool line, whose checksum is for the transform to verify.
    pub(super) fn of_line(line: &'a [u8]) -> Result<Self, &'static str> {
        serde_json::from_slice(line).map_err(|_| "not a spool line")
    }

    /// What all messages of its group in its segment have in common, and no others.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        self.group_id.as_deref().or(self.group_tag.as_deref())
    }

    /// The same, apart from the line that it was read from.
    pub(super) fn into_owned(self) -> Receipt<'static> {
        Receipt {
            message_id: self.message_id.into_owned().into(),
            receipt_handle: self.receipt_handle.into_owned().into(),
            group_id: self.group_id.map(|group| group.into_owned().into()),
            group_tag: self.group_tag.map(|tag| tag.into_owned().into()),
        }
    }
}

/// A spool line without its checksum, its closing brace and what follows that: more fields can be appended.
pub(crate) fn line_fields(line: &[u8]) -> &[u8] {
    match checksum::split(line) {
        Some((fields, _)) => fields,
        None => line.trim_ascii_end().strip_suffix(b"}").unwrap_or(line),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line_of(record: &Record<'_>) -> Vec<u8> {
        let mut line = Vec::new();
        record.write_line(&mut line).unwrap();
        assert_eq!(line.pop(), Some(b'\n'));
        line
    }

    fn json_of(record: &Record<'_>) -> String {
        serde_json::to_string(record).unwrap()
    }

    fn any_record() -> impl Strategy<Value = Record<'static>> {
        let text = || prop_oneof![any::<String>(), r#"[a"\\,:{}\n/ é]{0,40}"#].prop_map(Cow::<'static, str>::Owned);
        let optional = || proptest::option::of(text());
        let numbers = (any::<i64>(), any::<i64>(), any::<u32>(), any::<bool>());
        (text(), numbers, text(), text(), optional(), optional()).prop_map(
            |(message_id, numbers, receipt_handle, body, group_id, sequence_number)| {
                let (sent_at, received_at, receive_count, sent_at_is_stable) = numbers;
                Record {
                    message_id,
                    sent_at,
                    received_at,
                    receive_count,
                    receipt_handle,
                    body: Body::Text(body),
                    enc: None,
                    attributes: None,
                    group_id,
                    group_tag: None,
                    sequence_number,
                    sent_at_is_stable,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn a_record_survives_its_line(record in any_record()) {
            let line = line_of(&record);
            prop_assert!(!line.contains(&b'\n'));
            let read = Record::parse_line(&line).unwrap();
            prop_assert_eq!(json_of(&read), json_of(&record));
        }

        #[test]
        fn a_line_is_read_in_the_short_way_just_as_in_the_long_one(record in any_record()) {
            let line = line_of(&record);
            let fields = std::str::from_utf8(line_fields(&line)).unwrap();
            let is_plain = |text: &str| serde_json::to_string(text).unwrap().len() == text.len() + 2;
            let has_short_way = is_plain(&record.message_id) && is_plain(&record.receipt_handle)
                && record.group_id.is_none() && record.sequence_number.is_none();
            let read = Record::as_written(fields);
            prop_assert_eq!(read.is_some(), has_short_way);
            if let Some(read) = read {
                prop_assert_eq!(json_of(&read), json_of(&record));
            }
        }

        #[test]
        fn a_flipped_bit_never_changes_a_record_unnoticed(
            record in any_record(), position in any::<prop::sample::Index>(), bit in 0..8_u32,
        ) {
            let mut line = line_of(&record);
            let position = position.index(line.len());
            line[position] ^= 1 << bit;
            if let Ok(read) = Record::parse_line(&line) {
                // A flip within the checksum's own field name leaves the record as it was.
                prop_assert_eq!(json_of(&read), json_of(&record));
            }
        }
    }

    #[test]
    fn attributes_are_kept_as_they_are() {
        let attributes: Box<RawValue> = serde_json::from_str(r#"{"trace":{"type":"String","value":"x"}}"#).unwrap();
        let line = line_of(&Record { attributes: Some(&attributes), ..Record::with_body("{}") });
        assert_eq!(Record::parse_line(&line).unwrap().attributes.unwrap().get(), attributes.get());
    }

    /// Another program's line, its checksum right, but not as we write it.
    #[test]
    fn a_line_of_another_make_is_read_as_json() {
        let fields = concat!(
            r#"{"message_id":"m","sent_at":1,"received_at":2,"receive_count":1,"receipt_handle":"","#,
            r#""body":"{}" , "group_id":"g""#
        );
        let line = format!("{fields},\"crc32\":\"{:08x}\"}}", crc32fast::hash(fields.as_bytes()));
        let record = Record::parse_line(line.as_bytes()).unwrap();
        assert_eq!(record.group_id.as_deref(), Some("g"));
        assert!(matches!(record.body, Body::Text(body) if body == "{}"));
    }

    #[test]
    fn half_of_a_surrogate_pair_in_a_body_is_damage() {
        let line =
            br#"{"message_id":"m","sent_at":1,"received_at":2,"receive_count":1,"receipt_handle":"","body":"\ud800"}"#;
        let body = Record::parse_line(line).unwrap().body;
        assert_eq!(body.text(&mut String::new()), Err("the body holds half of a surrogate pair"));
    }

    #[test]
    fn a_line_written_by_hand_needs_no_checksum() {
        let line =
            br#"{"message_id":"m","sent_at":1,"received_at":2,"receive_count":1,"receipt_handle":"","body":"{}"}"#;
        assert!(matches!(Record::parse_line(line).unwrap().body, Body::Text(body) if body == "{}"));
    }

    #[test]
    fn an_id_that_is_no_uuid_always_becomes_the_same_one() {
        let uuid = "5f2c6d0e-8a61-4b59-9d59-5a9f3f1f6c11";
        assert_eq!(message_uuid(uuid).to_string(), uuid);
        assert_eq!(message_uuid("17").to_string(), Uuid::new_v5(&Uuid::NAMESPACE_OID, b"17").to_string());
    }
}
