//! The reject file of a segment, seen from the load: which messages `transform` rejected, and the rows that Postgres
//! refused, which the load adds.
//!
//! The file is replaced as a whole before COMMIT, and lines of stage `load` that an earlier attempt wrote are dropped,
//! so that however often a segment is tried, the file says what the last attempt found. A crash between the two
//! leaves lines of a load that is then tried again.

use std::collections::HashMap;

use uuid::Uuid;

use super::LoadError;
use super::isolate::RefusedRow;
use super::ledger::NewReject;
use super::message_keys::{MessageKey, SegmentKeys};
use crate::chunk::ChunkError;
use crate::durable::AtomicFile;
use crate::reason::{Reason, Stage};
use crate::segment::SegmentId;
use crate::spool::{RejectEntry, SegmentReader, message_uuid, push_reject, read_rejects};
use crate::staging::{Staging, StagingError};

/// What `transform` rejected, as the ledger keeps it. Blocks.
pub(super) fn of_transform(
    staging: &Staging,
    segment: SegmentId,
    claimed: impl Fn(usize) -> bool,
) -> Result<Vec<NewReject>, LoadError> {
    let mut rows = Vec::new();
    let mut index = 0;
    for entry in read_rejects(&staging.rejects(segment))? {
        let RejectEntry { message_id, sent_at, reason } = entry?;
        if reason.stage == Stage::Load {
            continue;
        }
        if claimed(index) {
            rows.push(NewReject { key: MessageKey::new(sent_at, &message_id, index), reason });
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
    refusals: Vec<RefusedRow>,
) -> Result<Vec<NewReject>, LoadError> {
    if refusals.is_empty() && !keys.has_load_rejects {
        return Ok(Vec::new());
    }
    let refused = keys.at(refusals.iter().map(|refusal| refusal.row))?;
    let rows: Vec<NewReject> =
        refused.into_iter().zip(refusals).map(|(key, RefusedRow { reason, .. })| NewReject { key, reason }).collect();
    let mut file = AtomicFile::create(&staging.rejects(segment))?;
    copy_lines_of_transform(staging, segment, &mut file)?;
    append_spool_lines(staging, segment, &rows, &mut file)?;
    file.finish()?;
    Ok(rows)
}

fn copy_lines_of_transform(staging: &Staging, segment: SegmentId, out: &mut AtomicFile) -> Result<(), LoadError> {
    let mut rejects = read_rejects(&staging.rejects(segment))?;
    while let Some(entry) = rejects.next() {
        if entry?.reason.stage != Stage::Load {
            out.write(rejects.line())?;
        }
    }
    Ok(())
}

/// Appends the messages themselves, which only the spool still has.
fn append_spool_lines(
    staging: &Staging,
    segment: SegmentId,
    rows: &[NewReject],
    out: &mut AtomicFile,
) -> Result<(), LoadError> {
    let mut missing: HashMap<Uuid, &Reason> = rows.iter().map(|new| (new.key.message_id, &new.reason)).collect();
    let path = staging.find_segment(segment).ok_or(StagingError::NoSuchSegment { segment })?;
    let mut reader = SegmentReader::open(&path)?;
    while !missing.is_empty() {
        let Some(block) = reader.next_block()? else {
            let problem = "a refused row's message is not in the segment";
            return Err(ChunkError::Inconsistent { segment, problem }.into());
        };
        for line in block.lines() {
            let line = line?;
            let Some(reason) = missing.remove(&message_uuid(&line.record.message_id)) else { continue };
            let mut appended = Vec::with_capacity(line.bytes.len() + 256);
            push_reject(&mut appended, line.bytes, reason);
            out.write(&appended)?;
        }
    }
    Ok(())
}
