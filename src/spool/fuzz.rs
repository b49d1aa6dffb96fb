//! What holds for any line and any file in the spool, see [`crate::fuzz`].

#![allow(clippy::expect_used, reason = "a property that does not hold is a panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::value::RawValue;

use super::checksum::push_checksum;
use super::{
    Header, Opener, Receipt, Record, RejectEntry, Seal, SegmentReader, SpoolKeys, line_fields, push_reject,
    read_rejects, recover, sealed_segment,
};
use crate::keyring::{Key, Keyring, SecretKey};
use crate::reason::{Reason, Stage};
use crate::segment::SegmentId;
use crate::staging::Staging;

/// A line as it is, and with a checksum that matches: then the quick reader must agree with the JSON parser.
pub(crate) fn line(input: &[u8]) {
    one_line(input);
    let mut sealed = input.to_vec();
    push_checksum(&mut sealed, 0);
    one_line(sealed.strip_suffix(b"\n").unwrap_or(&sealed));
}

fn one_line(line: &[u8]) {
    let by_parser = std::str::from_utf8(line).ok().and_then(|text| serde_json::from_str::<Record<'_>>(text).ok());
    let Ok(record) = Record::parse_line(line) else { return };
    let mut memory = String::new();
    let has_text = record.body.text(&mut memory).is_ok();
    let shown = || serde_json::to_string(&record).ok();
    if let Some(by_parser) = &by_parser {
        assert_eq!(shown(), serde_json::to_string(by_parser).ok(), "the two readers differ");
        let receipt = Receipt::of_line(line).expect("a record has a receipt");
        assert_eq!(
            (receipt.message_id, receipt.receipt_handle),
            (record.message_id.clone(), record.receipt_handle.clone())
        );
        one_reject(line, &record);
    }
    opened(&record);
    if has_text {
        let mut written = Vec::new();
        record.write_line(&mut written).expect("a record can be written");
        let again = Record::parse_line(written.strip_suffix(b"\n").expect("a line")).expect("it can be read again");
        assert_eq!(shown(), serde_json::to_string(&again).ok(), "what is written is read back");
    }
}

/// What is encrypted opens, or says why not; so does a line that names a key that is there.
fn opened(record: &Record<'_>) {
    let key = Key::spool(SecretKey::from_hex("key", &"07".repeat(32)).expect("a key"), None);
    let keys = SpoolKeys::of(&Keyring::default().with(key.clone()).expect("a ring of one key"));
    let named = record.enc.as_deref().and_then(|enc| enc.split_once('.'));
    let named = named.map(|(_, rest)| format!("{}.{rest}", key.id()).into());
    for enc in [record.enc.clone(), named] {
        _ = Opener::default().open(&Record { enc, ..record.clone() }, &keys);
    }
}

/// A reject line is an entry and still the record. Keys that a line has twice are no record.
fn one_reject(line: &[u8], record: &Record<'_>) {
    let reason =
        Reason { stage: Stage::Transform, field: Some("ip".to_owned()), text: "ip is not a string".to_owned() };
    let mut written = Vec::new();
    push_reject(&mut written, line, "logins", None, &reason);
    assert_eq!(line_feeds(&written), 1 + line_feeds(line_fields(line)));
    // Values as they stand: what nothing needs may not be decodable.
    let Ok(known) = serde_json::from_slice::<BTreeMap<String, &RawValue>>(line) else { return };
    if ["source", "pipeline", "stage", "reason", "field", "crc32"].iter().any(|key| known.contains_key(*key)) {
        return;
    }
    let entry: RejectEntry = serde_json::from_slice(&written).expect("a reject line");
    assert_eq!(entry.message_id, record.message_id);
    let again: Record<'_> = serde_json::from_slice(&written).expect("a spool line");
    assert_eq!(serde_json::to_string(&again).ok(), serde_json::to_string(record).ok());
}

fn line_feeds(bytes: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', bytes).count()
}

/// The first line of a segment, and the last.
pub(crate) fn header(input: &[u8]) {
    let mut sealed = input.to_vec();
    push_checksum(&mut sealed, 0);
    for line in [input, sealed.strip_suffix(b"\n").unwrap_or(&sealed)] {
        let mut written = Vec::new();
        if let Ok(header) = Header::parse_line(line) {
            header.write_line(&mut written).expect("a header can be written");
            let again = Header::parse_line(written.strip_suffix(b"\n").expect("a line"));
            assert_eq!(again, Ok(header));
        }
        written.clear();
        if let Ok(seal) = Seal::parse_line(line) {
            seal.write_line(&mut written).expect("a seal can be written");
            assert_eq!(Seal::parse_line(written.strip_suffix(b"\n").expect("a line")), Ok(seal));
        }
    }
}

/// A whole file: as a segment, as rejects, and as what a process left open. Recovery gives a segment that is whole, or
/// nothing; and what it gives, it leaves.
pub(crate) fn segment(input: &[u8]) {
    let scratch = Scratch::new();
    let staging = &Staging::open(&scratch.0).expect("a directory");
    let id = SegmentId::now();
    fs::write(staging.spool(id), input).expect("a file");
    if let Ok(sealed) = sealed_segment(staging, id)
        && let Some(messages) = read_whole(staging, id)
        && sealed.seal.is_some()
    {
        assert_eq!(sealed.messages, messages, "the seal that matches tells the messages");
    }
    _ = Header::of_file(&staging.spool(id));
    for entry in read_rejects(&staging.spool(id)).expect("a file") {
        _ = entry;
    }
    fs::rename(staging.spool(id), staging.open_segment(id)).expect("a file");
    for recovered in recover(staging).expect("a directory that can be used") {
        let messages = read_whole(staging, id).expect("a recovered segment is whole");
        assert_eq!(recovered.messages, messages);
        assert_eq!(sealed_segment(staging, id).expect("a segment"), recovered);
    }
}

/// The number of messages, if every line is whole and the seal matches.
fn read_whole(staging: &Staging, id: SegmentId) -> Option<u64> {
    let mut reader = SegmentReader::open(&staging.spool(id)).ok()?;
    let mut messages = 0;
    while let Some(block) = reader.next_block().ok()? {
        for line in block.lines() {
            line.ok()?;
            messages += 1;
        }
        reader.reuse(block);
    }
    Some(messages)
}

/// A directory that goes when it is dropped; in memory where that is possible, because a target runs thousands of times
/// a second.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let memory = PathBuf::from("/dev/shm");
        let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self(parent.join(format!("pgsluice-fuzz-{}-{number}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}
