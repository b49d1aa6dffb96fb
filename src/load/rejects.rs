//! The kept rejects of a segment, `rejects/S.ndjson`: the bodies of what the ledger has as rejects.
//!
//! Always true:
//! - the bodies are durable before the record of their rejects commits;
//! - the file is replaced as a whole, and a line leaves it only after this process saw the transaction commit that loaded
//!   its message; so an attempt that rolls back, or dies, takes no line away, whatever an earlier one wrote;
//! - of a message that is rejected again, the line says the last reason;
//! - a pipeline neither removes nor changes a line of another, whose reject of the same message is one of its own;
//! - one writer at a time replaces a file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::value::RawValue;
use uuid::Uuid;

use super::LoadError;
use super::ledger::NewReject;
use super::message_keys::{MessageKey, SegmentKeys};
use super::readmit::Readmitted;
use crate::chunk::ChunkError;
use crate::durable::{AtomicFile, remove_if_present};
use crate::reason::{Reason, Stage};
use crate::segment::SegmentId;
use crate::spool::{SegmentReader, message_uuid, push_reject, read_rejects};
use crate::staging::{Staging, StagingError};

/// Segments are loaded side by side, and one may bring a reject of another again. The staging lock keeps other processes
/// away.
static WRITING: Mutex<()> = Mutex::new(());

/// Waits until nobody else in this process writes reject files.
pub(super) fn one_writer() -> MutexGuard<'static, ()> {
    WRITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the transform refused, as the ledger keeps it. Blocks.
pub(super) fn of_transform(
    staging: &Staging,
    segment: SegmentId,
    claimed: impl Fn(usize) -> bool,
) -> Result<Vec<NewReject>, LoadError> {
    let mut rejects = Vec::new();
    for (index, entry) in read_rejects(&staging.chunk_rejects(segment))?.enumerate() {
        let entry = entry?;
        if claimed(index) {
            let key = MessageKey::new(entry.identity_time_ms(), &entry.message_id, index);
            rejects.push(NewReject { key, reason: entry.reason });
        }
    }
    Ok(rejects)
}

/// Keeps the bodies of a segment's new rejects. Blocks until they are durable.
///
/// `loaded`: whether the chunk's row at this position is loaded by the transaction under way. Returns the messages that
/// have a line and will be rows once it has committed.
pub(super) fn keep(
    staging: &Staging,
    segment: SegmentId,
    pipeline: &str,
    rejects: &[NewReject],
    keys: &Arc<SegmentKeys>,
    loaded: impl Fn(usize) -> bool,
) -> Result<HashSet<Uuid>, LoadError> {
    let _alone = one_writer();
    let place = staging.rejects(segment);
    if rejects.is_empty() && !place.is_taken() {
        return Ok(HashSet::new());
    }
    let mut reasons: HashMap<Uuid, &Reason> =
        rejects.iter().map(|reject| (reject.key.message_id, &reject.reason)).collect();
    let mut file = AtomicFile::create(&place)?;
    let mut kept = HashSet::new();
    let mut earlier = read_rejects(&place)?;
    while let Some(entry) = earlier.next().transpose()? {
        let id = message_uuid(&entry.message_id);
        let is_own = entry.is_of(pipeline);
        if !is_own || !reasons.contains_key(&id) {
            file.write(earlier.line())?;
        }
        if is_own && !reasons.contains_key(&id) {
            kept.insert(id);
        }
    }
    let mut refused = read_rejects(&staging.chunk_rejects(segment))?;
    while let Some(entry) = refused.next().transpose()? {
        let id = message_uuid(&entry.message_id);
        if reasons.get(&id).is_some_and(|reason| reason.stage == Stage::Transform) {
            reasons.remove(&id);
            file.write(refused.line())?;
        }
    }
    append_spool_lines(staging, segment, pipeline, reasons, &mut file)?;
    file.finish()?;
    superseded(keys, &kept, loaded)
}

/// Which of the messages with a line are rows that are being loaded.
fn superseded(
    keys: &Arc<SegmentKeys>,
    kept: &HashSet<Uuid>,
    loaded: impl Fn(usize) -> bool,
) -> Result<HashSet<Uuid>, LoadError> {
    let mut superseded = HashSet::new();
    if kept.is_empty() {
        return Ok(superseded);
    }
    let mut runs = keys.runs();
    while let Some(run) = runs.next()? {
        let rows = run.iter().filter(|key| key.position < keys.rows && loaded(key.position));
        superseded.extend(rows.map(|key| key.message_id).filter(|id| kept.contains(id)));
    }
    Ok(superseded)
}

/// Appends the messages themselves, which only the segment still has.
pub(super) fn append_spool_lines(
    staging: &Staging,
    segment: SegmentId,
    pipeline: &str,
    mut reasons: HashMap<Uuid, &Reason>,
    out: &mut AtomicFile,
) -> Result<(), LoadError> {
    if reasons.is_empty() {
        return Ok(());
    }
    let file = staging.find_segment(segment).ok_or(StagingError::NoSuchSegment { segment })?;
    let mut reader = SegmentReader::open(&file)?;
    let source = reader.header().map(|header| header.source.clone());
    while !reasons.is_empty() {
        let Some(block) = reader.next_block()? else {
            let problem = "a rejected message is not in the segment";
            return Err(ChunkError::Inconsistent { segment, problem }.into());
        };
        for line in block.lines() {
            let line = line?;
            let Some(reason) = reasons.remove(&message_uuid(&line.record.message_id)) else { continue };
            let mut appended = Vec::with_capacity(line.bytes.len() + 256);
            push_reject(&mut appended, line.bytes, pipeline, source.as_ref(), reason);
            out.write(&appended)?;
        }
    }
    Ok(())
}

/// The transaction has committed that loaded these messages. Removes this pipeline's lines of them, and writes the new
/// reason of others. Blocks.
pub fn settle_kept_rejects(
    staging: &Staging,
    segment: SegmentId,
    pipeline: &str,
    Readmitted { loaded, reasons }: &Readmitted,
) -> Result<(), LoadError> {
    if loaded.is_empty() && reasons.is_empty() {
        return Ok(());
    }
    let _alone = one_writer();
    let place = staging.rejects(segment);
    let mut file = AtomicFile::create(&place)?;
    let mut lines = 0_u64;
    let mut earlier = read_rejects(&place)?;
    while let Some(entry) = earlier.next().transpose()? {
        let id = message_uuid(&entry.message_id);
        let is_own = entry.is_of(pipeline);
        if is_own && loaded.contains(&id) {
            continue;
        }
        match reasons.get(&id).filter(|_| is_own) {
            Some(reason) => file.write(&with_reason(earlier.line(), pipeline, reason)?)?,
            None => file.write(earlier.line())?,
        }
        lines += 1;
    }
    if lines > 0 { Ok(file.finish()?) } else { Ok(remove_if_present(&place)?) }
}

/// A reject line with another reason. Where its message came from stays in it.
fn with_reason(line: &[u8], pipeline: &str, reason: &Reason) -> Result<Vec<u8>, LoadError> {
    let fields = || -> serde_json::Result<Vec<u8>> {
        // Values as they stand: what nothing needs may not be decodable.
        let mut object: BTreeMap<String, &RawValue> = serde_json::from_slice(line)?;
        for name in ["pipeline", "stage", "reason", "field"] {
            object.remove(name);
        }
        serde_json::to_vec(&object)
    };
    let mut out = Vec::new();
    let message = fields().map_err(std::io::Error::from);
    let message = message.map_err(crate::durable::FileError::of("rewrite", "a line of rejects".as_ref()))?;
    push_reject(&mut out, &message, pipeline, None, reason);
    Ok(out)
}
