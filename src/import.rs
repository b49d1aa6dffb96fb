//! Brings message bodies from elsewhere into the spool: NDJSON, one body a line.
//!
//! Always true: a line's `message_id` is the UUIDv5 of the file's name and the line's byte offset, and `sent_at` is
//! the file's modification time unless given, so importing a file twice loads it once. Imported messages have no
//! receipt handle: nothing acknowledges them, and after their commit they go to the archive.
//!
//! On failure the segments sealed so far stay; importing the file again completes it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use jiff::Timestamp;
use uuid::Uuid;

use crate::config::SpoolSettings;
use crate::error::{Error, SpoolError, StagingError};
use crate::spool::{Record, SealedSegment, SegmentWriter};
use crate::staging::Staging;

/// Imports one file; empty lines are skipped. A line that is not UTF-8, which no SQS message can be, ends it.
pub fn import(
    staging: &Staging,
    settings: SpoolSettings,
    path: &Path,
    sent_at: Option<Timestamp>,
) -> Result<Vec<SealedSegment>, Error> {
    let io = |action| StagingError::io(action, path);
    let file = File::open(path).map_err(io("open"))?;
    let sent_at = match sent_at {
        Some(sent_at) => sent_at,
        None => modification_time(&file).map_err(io("inspect"))?,
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut lines = BufReader::with_capacity(256 * 1024, file);
    let (mut line, mut offset) = (Vec::new(), 0_u64);
    let (mut sealed, mut open) = (Vec::new(), None);
    loop {
        line.clear();
        let read = lines.read_until(b'\n', &mut line).map_err(io("read"))?;
        if read == 0 {
            break;
        }
        let body = str::from_utf8(line.trim_ascii_end()).map_err(|_| SpoolError::Damaged {
            path: path.to_owned(),
            offset,
            problem: "the line is not UTF-8",
        })?;
        if !body.is_empty() {
            let writer = match &mut open {
                Some(writer) => writer,
                none => none.insert(SegmentWriter::create(staging)?),
            };
            writer.append(&imported(&name, offset, sent_at, body))?;
            if writer.messages() >= settings.segment_max_messages || writer.bytes() >= settings.segment_max_bytes {
                sealed.extend(open.take().map(SegmentWriter::seal).transpose()?);
            }
        }
        offset += read as u64;
    }
    sealed.extend(open.map(SegmentWriter::seal).transpose()?);
    Ok(sealed)
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
