//! Reject lines: messages that could not become rows, each with the reason.
//!
//! A line is the message's spool line without its checksum, plus `source` (as in the segment's header), `pipeline`,
//! `stage`, `reason` and `field` (null where the reason concerns no single field). So nothing of the message is lost, and
//! the line is itself a valid spool line that can be tried again, also when its segment is gone. The reason names fields
//! and limits, never a value. `transform` writes such lines as a part of a chunk; `load` alone writes them to `rejects/`.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use serde::Deserialize;

use super::{Opener, Record, Source, SpoolError, SpoolKeys, Unopened, identity_time_ms, line_fields};
use crate::durable::{FileError, Place};
use crate::reason::{Reason, Stage};

/// What a reject line says beside the message's body.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Fields")]
pub struct RejectEntry {
    /// SQS's id of the message.
    pub message_id: String,
    /// When it was sent, in milliseconds since the epoch.
    pub sent_at: i64,
    /// See [`super::Record::sent_at_is_stable`].
    pub sent_at_is_stable: bool,
    /// The pipeline that refused it; not in lines of format 1.
    pub pipeline: Option<String>,
    /// Where it came from; not in lines of format 1.
    pub source: Option<Source>,
    /// Who refused it, and why.
    pub reason: Reason,
}

/// The fields as they stand in the line, side by side: `#[serde(flatten)]` would decode all others too, which may not be
/// possible, to find those of the reason among them.
#[derive(Deserialize)]
struct Fields {
    message_id: String,
    sent_at: i64,
    #[serde(default = "yes")]
    sent_at_is_stable: bool,
    #[serde(default)]
    pipeline: Option<String>,
    #[serde(default)]
    source: Option<Source>,
    stage: Stage,
    reason: String,
    #[serde(default)]
    field: Option<String>,
}

impl From<Fields> for RejectEntry {
    fn from(fields: Fields) -> Self {
        let Fields { message_id, sent_at, sent_at_is_stable, pipeline, source, stage, reason, field } = fields;
        let reason = Reason { stage, field, text: reason };
        Self { message_id, sent_at, sent_at_is_stable, pipeline, source, reason }
    }
}

impl RejectEntry {
    /// The time in the message's identity.
    #[must_use]
    pub const fn identity_time_ms(&self) -> i64 {
        identity_time_ms(self.sent_at, self.sent_at_is_stable)
    }

    /// Whether this pipeline refused it. A line of format 1 does not say which one did, and counts as any's.
    #[must_use]
    pub fn is_of(&self, pipeline: &str) -> bool {
        self.pipeline.as_deref().is_none_or(|refused_by| refused_by == pipeline)
    }
}

const fn yes() -> bool {
    true
}

/// Appends a reject line to `out`; `spool_line` is the message's line as it stands in its segment, and `source` where that
/// says that its messages came from.
pub fn push_reject(out: &mut Vec<u8>, spool_line: &[u8], pipeline: &str, source: Option<&Source>, reason: &Reason) {
    let quoted = |text: Option<&str>| serde_json::Value::from(text).to_string();
    out.extend_from_slice(line_fields(spool_line));
    if let Some(source) = source.and_then(|source| serde_json::to_string(source).ok()) {
        out.extend_from_slice(format!(",\"source\":{source}").as_bytes());
    }
    let Reason { stage, field, text } = reason;
    let fields = [
        ("pipeline", Some(pipeline)),
        ("stage", Some(stage.name())),
        ("reason", Some(text)),
        ("field", field.as_deref()),
    ];
    for (name, value) in fields {
        out.extend_from_slice(format!(",\"{name}\":{}", quoted(value)).as_bytes());
    }
    out.extend_from_slice(b"}\n");
}

/// Reads a reject file line by line; no body is kept. A file that does not exist holds no rejects.
pub fn read_rejects(place: &Place) -> Result<Rejects, FileError> {
    let file = match place.open() {
        Ok(file) => Some(BufReader::new(file)),
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok(Rejects { place: place.clone(), file, line: Vec::new(), line_start: 0, offset: 0 })
}

/// The entries of a reject file, in file order. Ends after its first error.
#[derive(Debug)]
pub struct Rejects {
    place: Place,
    file: Option<BufReader<File>>,
    line: Vec<u8>,
    /// Where it begins, and where the next one does.
    line_start: u64,
    offset: u64,
}

impl Rejects {
    /// The line of the entry that was read last, and a line feed, which the last one of a copied or edited file may lack.
    #[must_use]
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// The message in that line.
    pub fn record(&self) -> Result<Record<'_>, SpoolError> {
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        Record::parse_line(line).map_err(|problem| self.damaged(problem))
    }

    /// The body of the message in that line.
    pub fn body(&self, keys: &SpoolKeys) -> Result<String, SpoolError> {
        let (record, mut opener) = (self.record()?, Opener::default());
        let message = opener.open(&record, keys);
        let message = message.map_err(|problem| match problem {
            Unopened::Damaged(problem) => self.damaged(problem),
            unknown @ Unopened::UnknownKey(_) => SpoolError::unopened(self.place.path(), self.line_start, unknown),
        })?;
        let text = message.body.text(&mut String::new()).map(str::to_owned);
        text.map_err(|problem| self.damaged(problem))
    }

    fn damaged(&self, problem: &'static str) -> SpoolError {
        SpoolError::RejectsDamaged { path: self.place.path().to_owned(), offset: self.line_start, problem }
    }

    fn read_entry(&mut self) -> Result<Option<RejectEntry>, SpoolError> {
        let Some(file) = &mut self.file else { return Ok(None) };
        self.line.clear();
        self.line_start = self.offset;
        let read = file.read_until(b'\n', &mut self.line).map_err(self.place.failed("read"))?;
        if read == 0 {
            return Ok(None);
        }
        let entry = serde_json::from_slice(&self.line).map_err(|_| self.damaged("not a reject line"))?;
        self.offset += read as u64;
        if !self.line.ends_with(b"\n") {
            self.line.push(b'\n');
        }
        Ok(Some(entry))
    }
}

impl Iterator for Rejects {
    type Item = Result<RejectEntry, SpoolError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.read_entry().transpose();
        if !matches!(entry, Some(Ok(_))) {
            self.file = None;
        }
        entry
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::spool::{SegmentReader, SegmentWriter, origin};
    use crate::staging::Staging;

    fn reason(stage: Stage, text: &str, field: Option<&str>) -> Reason {
        Reason { stage, field: field.map(str::to_owned), text: text.to_owned() }
    }

    #[test]
    fn a_reject_line_is_read_back_and_is_still_a_spool_line() {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::open(root.path()).unwrap();
        let mut writer = SegmentWriter::create(&staging, &origin()).unwrap();
        let record = Record {
            message_id: "m\"1".into(),
            sent_at: 5,
            group_id: Some("g".into()),
            ..Record::with_body("{\"ip\": 1}")
        };
        writer.append(&record).unwrap();
        let segment = writer.seal().unwrap().id;

        let written_by_us = fs::read(staging.spool(segment)).unwrap();
        let written_by_us = written_by_us.split(|&byte| byte == b'\n').nth(1).unwrap();
        let written_by_hand = concat!(
            r#"{"message_id":"h","sent_at":1,"received_at":2,"receive_count":1,"receipt_handle":"","body":""}"#,
            " \r"
        );
        let mut out = Vec::new();
        let not_a_string = reason(Stage::Transform, "ip is not a string", Some("ip"));
        let refused = reason(Stage::Load, "refused: \"23514\"", None);
        let source = origin().source;
        push_reject(&mut out, written_by_us, "logins", Some(&source), &not_a_string);
        push_reject(&mut out, written_by_hand.as_bytes(), "logins", None, &refused);
        let path = staging.rejects(segment);
        fs::write(&path, &out).unwrap();

        let entries: Vec<RejectEntry> = read_rejects(&path).unwrap().map(Result::unwrap).collect();
        let entry = |message_id: &str, sent_at, source, reason| RejectEntry {
            message_id: message_id.to_owned(),
            sent_at,
            sent_at_is_stable: true,
            pipeline: Some("logins".to_owned()),
            source,
            reason,
        };
        assert_eq!(entries, [entry("m\"1", 5, Some(source), not_a_string), entry("h", 1, None, refused)]);
        assert!(entries[0].is_of("logins") && !entries[0].is_of("others"));

        let block = SegmentReader::open(&path).unwrap().next_block().unwrap().unwrap();
        let again = block.lines().next().unwrap().unwrap().record;
        assert_eq!(serde_json::to_string(&again).unwrap(), serde_json::to_string(&record).unwrap());
        assert!(!String::from_utf8(out).unwrap().contains("crc32"));
    }

    /// Such a line was once refused, and with it all rejects of its segment: to find the fields of the reason, the others
    /// were decoded, also those that nothing needs.
    #[test]
    fn an_entry_is_read_whatever_stands_in_fields_that_it_does_not_need() {
        let line = br#"{"message_id":"m","sent_at":1,"received_at":2,"receive_count":1,"receipt_handle":"r","body":"b","attributes":{"a":"\ud83e"},"later":1e999}"#;
        let mut out = Vec::new();
        push_reject(&mut out, line, "logins", None, &reason(Stage::Load, "refused", None));
        assert!(Record::parse_line(line).is_ok());
        let entry: RejectEntry = serde_json::from_slice(&out).unwrap();
        assert_eq!(entry.reason, reason(Stage::Load, "refused", None));
    }

    /// What was written behind the last line of a file that had been edited, or copied in part, became one with it.
    #[test]
    fn the_last_line_has_a_line_feed_also_where_its_file_has_none() {
        let root = tempfile::tempdir().unwrap();
        let path = Place::in_test(&root, "rejects.ndjson");
        let good = r#"{"message_id":"m","sent_at":1,"stage":"load","reason":"r","field":null}"#;
        fs::write(&path, format!("{good}\n{good}")).unwrap();
        let mut rejects = read_rejects(&path).unwrap();
        let mut copied = Vec::new();
        while rejects.next().transpose().unwrap().is_some() {
            copied.extend_from_slice(rejects.line());
        }
        assert_eq!(copied, format!("{good}\n{good}\n").into_bytes());
    }

    #[test]
    fn no_file_means_no_rejects_and_damage_is_an_error_at_its_line() {
        let root = tempfile::tempdir().unwrap();
        let path = Place::in_test(&root, "rejects.ndjson");
        assert!(read_rejects(&path).unwrap().next().is_none());
        let good = r#"{"message_id":"m","sent_at":1,"stage":"load","reason":"r","field":null}"#;
        fs::write(&path, format!("{good}\n{good}x\n{good}\n")).unwrap();
        let entries: Vec<_> = read_rejects(&path).unwrap().collect();
        assert_eq!(entries.len(), 2);
        assert!(
            matches!(&entries[1], Err(SpoolError::RejectsDamaged { offset, .. }) if *offset == good.len() as u64 + 1)
        );
    }
}
