//! The ids of a chunk's rows: `sent_at` and `message_id`, a CSV line for each row, in the chunk's order.
//!
//! Always true: `sent_at` has the one form that [`UtcText`] writes.

use std::fs::File;

use super::csv::{push_field, push_separator};
use super::{ChunkError, UtcText};
use crate::durable::{FileError, Place};
use crate::segment::SegmentId;

const BUFFER_BYTES: usize = 256 * 1024;

/// Appends the line of one row.
pub fn push_id(out: &mut Vec<u8>, sent_at: &UtcText, message_id: &str) {
    out.extend_from_slice(sent_at.as_str().as_bytes());
    push_separator(out, 1);
    push_field(out, message_id.as_bytes());
    out.push(b'\n');
}

/// The identity of one row's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowId<'a> {
    /// When it was sent, in milliseconds since the epoch.
    pub sent_at_ms: i64,
    /// The message's id as it stands in the spool.
    pub message_id: &'a str,
}

/// Reads ids from first to last.
#[derive(Debug)]
pub struct IdReader {
    segment: SegmentId,
    lines: ::csv::Reader<File>,
    record: ::csv::ByteRecord,
}

impl IdReader {
    /// Opens the ids file of a segment.
    pub fn open(place: &Place, segment: SegmentId) -> Result<Self, FileError> {
        let file = place.open()?;
        let lines = ::csv::ReaderBuilder::new().has_headers(false).buffer_capacity(BUFFER_BYTES).from_reader(file);
        Ok(Self { segment, lines, record: ::csv::ByteRecord::new() })
    }

    /// The next id, or `None` after the last.
    pub fn next_id(&mut self) -> Result<Option<RowId<'_>>, ChunkError> {
        let damaged = ChunkError::Inconsistent { segment: self.segment, problem: "its ids file is damaged" };
        match self.lines.read_byte_record(&mut self.record) {
            Ok(true) => parse(&self.record).map(Some).ok_or(damaged),
            Ok(false) => Ok(None),
            Err(_) => Err(damaged),
        }
    }
}

/// Measured: reading only the one form of a time, and only the id as UTF-8, saves an eighth of the CPU of a load by
/// `dedupe = "segment"`.
fn parse(record: &::csv::ByteRecord) -> Option<RowId<'_>> {
    let sent_at_ms = UtcText::milliseconds_of(record.get(0)?)?;
    Some(RowId { sent_at_ms, message_id: std::str::from_utf8(record.get(1)?).ok()? })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_are_read_as_they_were_written(
            ids in proptest::collection::vec((0..253_402_207_200_000_i64, any::<String>()), 0..8),
        ) {
            let mut bytes = Vec::new();
            for (sent_at, message_id) in &ids {
                push_id(&mut bytes, &UtcText::from_milliseconds(*sent_at).unwrap(), message_id);
            }
            let directory = tempfile::tempdir().unwrap();
            let path = Place::in_test(&directory, "ids.csv");
            fs::write(&path, bytes).unwrap();
            let mut reader = IdReader::open(&path, SegmentId::now()).unwrap();
            for (sent_at, message_id) in &ids {
                let expected = RowId { sent_at_ms: *sent_at, message_id };
                prop_assert_eq!(reader.next_id().unwrap(), Some(expected));
            }
            prop_assert_eq!(reader.next_id().unwrap(), None);
        }
    }

    #[test]
    fn a_line_of_another_form_is_damage() {
        for line in ["2026-01-02T03:04:05Z,m\n", "m\n", "2026-01-02T03:04:05.678Z\n"] {
            let directory = tempfile::tempdir().unwrap();
            let path = Place::in_test(&directory, "ids.csv");
            fs::write(&path, line).unwrap();
            let read = IdReader::open(&path, SegmentId::now()).unwrap().next_id().map(|_| ());
            assert!(matches!(read, Err(ChunkError::Inconsistent { .. })), "{line}");
        }
    }
}
