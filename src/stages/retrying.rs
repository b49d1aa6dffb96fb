//! Tries rejects again, after the mapping or the table was corrected.
//!
//! Always true: a reject becomes a row only in the transaction that deletes it from the ledger ([`Loader::readmit`]),
//! so it counts once however often it is retried. The reject file follows after COMMIT, replaced as a whole. A crash
//! before that leaves lines whose reject is gone from the ledger; the next retry drops them.
//!
//! A retry works in `retry/` in the staging directory, a staging directory of its own that is removed at the end, and by
//! the next retry if this one is killed.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use uuid::Uuid;

use crate::blocking::blocking;
use crate::chunk::StagedSegment;
use crate::durable::{AtomicFile, FileError, remove_if_present};
use crate::error::Error;
use crate::load::{LoadError, Loader};
use crate::segment::SegmentId;
use crate::spool::{SegmentReader, SegmentWriter, SpoolError, message_uuid};
use crate::staging::Staging;
use crate::transform::{Plan, transform};

/// What a retry of one segment's rejects came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retried {
    /// Rejects that it found.
    pub tried: u64,
    /// Those that are rows now.
    pub loaded: u64,
}

/// Loads those rejects of a segment that fit by now. `None`: the ledger does not have the segment, so nothing of it
/// is decided yet. Needs the staging lock.
pub async fn retry_rejects(
    staging: &Staging,
    segment: SegmentId,
    plan: &Arc<Plan>,
    loader: &mut Loader,
) -> Result<Option<Retried>, Error> {
    let Some(committed) = loader.known(&[segment]).await?.remove(&segment) else { return Ok(None) };
    let before = message_ids(loader, segment).await?;
    let left_in_queue: HashSet<Uuid> = committed.left_in_queue().iter().copied().collect();
    let workshop = Workshop::open(staging)?;

    let (files, scratch, plan, wanted) = (staging.clone(), workshop.staging.clone(), Arc::clone(plan), before.clone());
    let staged = blocking(move || stage(&files, segment, &scratch, &plan, wanted)).await?;
    if let Some(staged) = &staged {
        loader.readmit(segment, &workshop.staging, staged).await?;
    }
    let after = message_ids(loader, segment).await?;

    let (files, scratch) = (staging.clone(), workshop.staging.clone());
    let unfit = staged.map(|staged| scratch.rejects(staged.id));
    blocking(move || replace_reject_file(&files, segment, &left_in_queue, unfit).map_err(Error::from)).await?;
    let tried = staged.map_or(0, |staged| staged.received);
    let missing = (before.len() as u64).saturating_sub(tried);
    if missing > 0 {
        tracing::warn!(%segment, rejects = missing, "not in the segment's reject file, so they could not be tried");
    }
    Ok(Some(Retried { tried, loaded: (before.len() - after.len()) as u64 }))
}

async fn message_ids(loader: &mut Loader, segment: SegmentId) -> Result<HashSet<Uuid>, LoadError> {
    Ok(loader.rejects_of(segment).await?.into_iter().map(|reject| reject.message_id).collect())
}

/// Writes the wanted lines of the reject file as a segment of its own, and transforms it. `None`: there are none.
fn stage(
    staging: &Staging,
    segment: SegmentId,
    scratch: &Staging,
    plan: &Plan,
    mut wanted: HashSet<Uuid>,
) -> Result<Option<StagedSegment>, Error> {
    let mut writer = SegmentWriter::create(scratch)?;
    let path = staging.rejects(segment);
    if !path.exists() {
        return Ok(None);
    }
    let mut reader = SegmentReader::open(&path)?;
    while let Some(block) = reader.next_block()? {
        for line in block.lines() {
            let record = line?.record;
            if wanted.remove(&message_uuid(&record.message_id)) {
                writer.append(&record)?;
            }
        }
    }
    if writer.messages() == 0 {
        return Ok(None);
    }
    let sealed = writer.seal()?;
    Ok(Some(transform(scratch, sealed.id, plan)?))
}

/// The new file holds the messages that were left in the queue, which the ledger has no reject for, and those that
/// still do not fit.
fn replace_reject_file(
    staging: &Staging,
    segment: SegmentId,
    left_in_queue: &HashSet<Uuid>,
    unfit: Option<PathBuf>,
) -> Result<(), SpoolError> {
    let path = staging.rejects(segment);
    let mut file = AtomicFile::create(&path)?;
    let mut lines = 0_u64;
    for (source, only) in [(Some(path.clone()), Some(left_in_queue)), (unfit, None)] {
        let Some(source) = source.filter(|source| source.exists()) else { continue };
        let mut reader = SegmentReader::open(&source)?;
        while let Some(block) = reader.next_block()? {
            for line in block.lines() {
                let line = line?;
                if only.is_none_or(|ids| ids.contains(&message_uuid(&line.record.message_id))) {
                    file.write(line.bytes)?;
                    file.write(b"\n")?;
                    lines += 1;
                }
            }
        }
    }
    if lines > 0 { Ok(file.finish()?) } else { Ok(remove_if_present(&path)?) }
}

/// A staging directory for one retry.
struct Workshop {
    staging: Staging,
}

impl Workshop {
    fn open(staging: &Staging) -> Result<Self, FileError> {
        let root = staging.root().join("retry");
        // What a retry left that was killed.
        match fs::remove_dir_all(&root) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(FileError::of("remove", &root)(error));
            }
            _ => {}
        }
        Ok(Self { staging: Staging::open(&root)? })
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(self.staging.root());
    }
}
