//! The reject file of a segment, seen from the load: which messages `transform` rejected, and the rows that Postgres
//! refused, which the load adds.
//!
//! The file is replaced as a whole before COMMIT, and lines of stage `load` that an earlier attempt wrote are dropped,
//! so that however often a segment is tried, the file says what the last attempt found. A crash between the two
//! leaves lines of a load that is then tried again.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};

use uuid::Uuid;

use super::isolate::Refusal;
use super::keys::{Key, SegmentKeys, message_uuid};
use crate::error::{LoadError, SpoolError, StagingError};
use crate::spool::SegmentReader;
use crate::staging::{AtomicFile, SegmentId, Staging};
use crate::transform::reject::{self, RejectEntry, Stage};

/// A reject as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectRow {
    /// The message's id.
    pub message_id: Uuid,
    /// The name of the stage that refused it.
    pub stage: Cow<'static, str>,
    /// The field, column or constraint that is at fault, if it is one.
    pub field: Option<String>,
    /// Why, without any value of the message.
    pub reason: String,
}

/// A reject that an attempt found.
#[derive(Debug, Clone)]
pub(super) struct NewReject {
    pub(super) key: Key,
    pub(super) row: RejectRow,
}

impl NewReject {
    fn new(key: Key, stage: Stage, field: Option<String>, reason: String) -> Self {
        Self { key, row: RejectRow { message_id: key.message_id, stage: stage.name().into(), field, reason } }
    }
}

/// What `transform` rejected, as the ledger keeps it. Blocks.
pub(super) fn of_transform(
    staging: &Staging,
    segment: SegmentId,
    claimed: impl Fn(usize) -> bool,
) -> Result<Vec<NewReject>, LoadError> {
    let mut rows = Vec::new();
    let mut index = 0;
    for entry in reject::read(&staging.rejects(segment))? {
        let RejectEntry { message_id, sent_at, stage, reason, field } = entry?;
        if stage == Stage::Load {
            continue;
        }
        if claimed(index) {
            rows.push(NewReject::new(Key::new(sent_at, &message_id, index), stage, field, reason));
        }
        index += 1;
    }
    Ok(rows)
}

/// Adds refused rows to the reject file, and returns them as the ledger keeps them. Blocks.
pub(super) fn add_refusals(
    staging: &Staging,
    segment: SegmentId,
    keys: &SegmentKeys,
    refusals: Vec<Refusal>,
) -> Result<Vec<NewReject>, LoadError> {
    if refusals.is_empty() && !keys.has_load_rejects {
        return Ok(Vec::new());
    }
    let refused = keys.at(refusals.iter().map(|refusal| refusal.row))?;
    let rows: Vec<NewReject> = refused
        .into_iter()
        .zip(refusals)
        .map(|(key, Refusal { reason, field, .. })| NewReject::new(key, Stage::Load, field, reason))
        .collect();
    let mut file = AtomicFile::create(&staging.rejects(segment))?;
    copy_lines_of_transform(staging, segment, &mut file)?;
    append_spool_lines(staging, segment, &rows, &mut file)?;
    file.finish()?;
    Ok(rows)
}

fn copy_lines_of_transform(staging: &Staging, segment: SegmentId, out: &mut AtomicFile) -> Result<(), LoadError> {
    let path = staging.rejects(segment);
    let mut file = match File::open(&path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StagingError::io("open", &path)(error).into()),
    };
    let mut line = Vec::new();
    let mut offset = 0;
    loop {
        line.clear();
        let read = file.read_until(b'\n', &mut line).map_err(StagingError::io("read", &path))?;
        if read == 0 {
            return Ok(());
        }
        let Ok(entry) = serde_json::from_slice::<RejectEntry>(&line) else {
            return Err(SpoolError::Damaged { path, offset, problem: "not a reject line" }.into());
        };
        if entry.stage != Stage::Load {
            out.write(&line)?;
        }
        offset += read as u64;
    }
}

/// Appends the messages themselves, which only the spool still has.
fn append_spool_lines(
    staging: &Staging,
    segment: SegmentId,
    rows: &[NewReject],
    out: &mut AtomicFile,
) -> Result<(), LoadError> {
    let mut missing: HashMap<Uuid, &RejectRow> = rows.iter().map(|new| (new.key.message_id, &new.row)).collect();
    let path = staging.find_segment(segment).ok_or(StagingError::NoSuchSegment { segment })?;
    let mut reader = SegmentReader::open(&path)?;
    while !missing.is_empty() {
        let Some(block) = reader.next_block()? else {
            let problem = "a refused row's message is not in the segment";
            return Err(LoadError::InconsistentChunk { segment, problem });
        };
        for line in block.lines() {
            let line = line?;
            let Some(row) = missing.remove(&message_uuid(&line.record.message_id)) else { continue };
            let mut appended = Vec::with_capacity(line.bytes.len() + 256);
            reject::append(&mut appended, line.bytes, Stage::Load, &row.reason, row.field.as_deref());
            out.write(&appended)?;
        }
    }
    Ok(())
}
