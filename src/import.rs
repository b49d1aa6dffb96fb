//! Brings message bodies from elsewhere into the spool: NDJSON, one body a line.
//!
//! Always true: a line's `message_id` is the UUIDv5 of the file's name and the line's byte offset, and `sent_at` is
//! the file's modification time unless given, so importing a file twice loads it once. Imported messages have no
//! receipt handle: nothing acknowledges them, and after their commit they go to the archive.
//!
//! A failure leaves the segments that were sealed by then; importing the file again completes it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use thiserror::Error;
use uuid::Uuid;

use crate::advice::{Advice, Advised, fatal};
use crate::config::SpoolSettings;
use crate::durable::FileError;
use crate::spool::{Record, SealedSegment, SegmentWriter};
use crate::staging::Staging;

const READ_BUFFER_BYTES: usize = 256 * 1024;

/// A file could not be imported to its end.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is the documentation")]
pub enum ImportError {
    #[error(transparent)]
    Unreadable(FileError),
    #[error("the line at byte {offset} of {} is not UTF-8; the other lines are imported", path.display())]
    NotUtf8 { path: PathBuf, offset: u64 },
    #[error(transparent)]
    Spool(#[from] FileError),
}

impl ImportError {
    /// The disk is full that holds the staging directory.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Spool(error) if error.is_disk_full())
    }
}

impl Advised for ImportError {
    fn advice(&self) -> Advice {
        match self {
            Self::Unreadable(_) => fatal("check that the argument is a file, and that this user may read it"),
            Self::NotUtf8 { .. } => fatal("no message can hold the line: correct it, or do without it"),
            Self::Spool(error) => error.advice(),
        }
    }
}

/// Imports one file; empty lines are skipped.
///
/// A line that is not UTF-8, which no SQS message can be, is an error with its offset, after all others are imported.
pub fn import(
    staging: &Staging,
    settings: SpoolSettings,
    path: &Path,
    sent_at: Option<Timestamp>,
) -> Result<Vec<SealedSegment>, ImportError> {
    let io = |action| {
        let error = FileError::of(action, path);
        |source| ImportError::Unreadable(error(source))
    };
    let file = File::open(path).map_err(io("open"))?;
    let sent_at = match sent_at {
        Some(sent_at) => sent_at,
        None => modification_time(&file).map_err(io("inspect"))?,
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut lines = BufReader::with_capacity(READ_BUFFER_BYTES, file);
    let (mut line, mut offset, mut unreadable) = (Vec::new(), 0_u64, None);
    let (mut sealed, mut open) = (Vec::new(), None);
    while lines.read_until(b'\n', &mut line).map_err(io("read"))? > 0 {
        match str::from_utf8(without_line_end(&line)) {
            Ok("") => {}
            Ok(body) => {
                let writer = match &mut open {
                    Some(writer) => writer,
                    none => none.insert(SegmentWriter::create(staging)?),
                };
                writer.append(&imported(&name, offset, sent_at, body))?;
                if writer.messages() >= settings.segment_max_messages || writer.bytes() >= settings.segment_max_bytes {
                    sealed.extend(open.take().map(SegmentWriter::seal).transpose()?);
                }
            }
            Err(_) => _ = unreadable.get_or_insert(offset),
        }
        offset += line.len() as u64;
        line.clear();
    }
    sealed.extend(open.map(SegmentWriter::seal).transpose()?);
    match unreadable {
        None => Ok(sealed),
        Some(offset) => Err(ImportError::NotUtf8 { path: path.to_owned(), offset }),
    }
}

fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn imported<'a>(file_name: &str, offset: u64, sent_at: Timestamp, body: &'a str) -> Record<'a> {
    let message_id = Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("{file_name}#{offset}").as_bytes());
    Record {
        message_id: message_id.to_string().into(),
        sent_at: sent_at.as_millisecond(),
        received_at: Timestamp::now().as_millisecond(),
        receive_count: 1,
        receipt_handle: "".into(),
        body: body.into(),
        attributes: None,
        group_id: None,
        sequence_number: None,
    }
}

fn modification_time(file: &File) -> std::io::Result<Timestamp> {
    let modified = file.metadata()?.modified()?;
    Timestamp::try_from(modified).map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::SegmentReader;

    const SETTINGS: SpoolSettings =
        SpoolSettings { segment_max_messages: 2, segment_max_bytes: 1 << 20, segment_max_age_ms: 1, archive_days: 0 };

    fn bodies(staging: &Staging) -> Vec<String> {
        let mut bodies = Vec::new();
        for segment in staging.sealed_segments().unwrap() {
            let mut reader = SegmentReader::open(&staging.spool(segment)).unwrap();
            while let Some(block) = reader.next_block().unwrap() {
                bodies.extend(
                    block.lines().map(|line| line.unwrap().record.body.text(&mut String::new()).unwrap().to_owned()),
                );
            }
        }
        bodies
    }

    #[test]
    fn a_line_that_is_not_utf_8_is_named_and_costs_its_neighbours_nothing() {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::open(&root.path().join("staging")).unwrap();
        let file = root.path().join("bodies.ndjson");
        std::fs::write(&file, b"one \r\n\n\xff\nthree\nfour").unwrap();

        let error = import(&staging, SETTINGS, &file, None).unwrap_err();

        assert!(matches!(error, ImportError::NotUtf8 { offset: 7, .. }), "{error}");
        assert_eq!(bodies(&staging), ["one ", "three", "four"], "in segments of two, byte for byte");
    }
}
