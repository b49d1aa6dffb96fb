//! Tries rejects again, after the mapping or the table was corrected.
//!
//! Always true: a reject becomes a row only in the transaction that deletes it from the ledger ([`Loader::readmit`]), so it
//! counts once however often it is retried. A line leaves the reject file only when this process saw that transaction
//! commit, or when the ledger says that the message is decided and is no reject: then an earlier retry loaded it, or a
//! person gave it up, and the process died before it removed the line. That is believed only where the ledger has as many
//! rejects of the segment as it counts: else somebody removed some, and what has none may be no row either. Lines of
//! another pipeline, and lines that the ledger knows nothing of, stay.
//!
//! A retry works in `retry/` in the staging directory, a staging directory of its own that is removed at the end, and by
//! the next retry if this one is killed.

use std::collections::HashSet;
use std::sync::Arc;

use uuid::Uuid;

use crate::blocking::blocking;
use crate::chunk::Manifest;
use crate::durable::FileError;
use crate::error::Error;
use crate::load::{Committed, Loader, Readmitted, settle_kept_rejects};
use crate::reason::{Reason, ReasonTally};
use crate::segment::SegmentId;
use crate::spool::{Header, Origin, RejectEntry, SegmentWriter, Source, SpoolError, message_uuid, read_rejects};
use crate::staging::Staging;
use crate::transform::{Plan, transform};

/// What a retry of one segment's rejects came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retried {
    /// Rejects that it found.
    pub tried: u64,
    /// Those that are rows now.
    pub loaded: u64,
    /// Why the others are not.
    pub reasons: ReasonTally,
}

/// Loads those rejects of a segment that fit by now. `None`: the ledger does not know the segment, so nothing of it
/// is decided yet. Needs the staging lock.
pub async fn retry_rejects(
    staging: &Staging,
    segment: SegmentId,
    plan: &Arc<Plan>,
    loader: &mut Loader,
) -> Result<Option<Retried>, Error> {
    let Some(known) = loader.known(&[segment]).await?.remove(&segment) else { return Ok(None) };
    let (files, own) = (staging.clone(), plan.pipeline().to_owned());
    let lines = blocking(move || own_lines(&files, segment, &own, |_| true)).await?;
    let rejects: HashSet<Uuid> = loader.rejects_of(segment).await?.into_iter().map(|row| row.message_id).collect();
    let already = settled(loader, &known, lines, &rejects).await?;

    let workshop = Workshop::open(staging)?;
    let (files, scratch, shared) = (staging.clone(), workshop.staging.clone(), Arc::clone(plan));
    let (wanted, recorded) = (rejects.clone(), rejects.len() as u64);
    let staged = blocking(move || stage(&files, segment, &scratch, &shared, wanted)).await?;
    let mut readmitted = match &staged {
        Some(staged) => loader.readmit(segment, &workshop.staging, staged).await?,
        None => Readmitted::default(),
    };
    let now_rows = readmitted.loaded.len() as u64;
    let reasons = readmitted.reasons.values().collect();
    readmitted.loaded.extend(already);
    let (files, own) = (staging.clone(), plan.pipeline().to_owned());
    let settle = move || settle_kept_rejects(&files, segment, &own, &readmitted);
    blocking(settle).await?;

    let tried = staged.map_or(0, |staged| staged.messages);
    let missing = recorded.saturating_sub(tried);
    if missing > 0 {
        tracing::warn!(%segment, rejects = missing, "not in the segment's reject file, so they could not be tried");
    }
    Ok(Some(Retried { tried, loaded: now_rows, reasons }))
}

/// Which of these lines nobody needs any more: their message is decided, and is no reject. Believed only where the ledger
/// has as many rejects of the segment as it counts.
pub(super) async fn settled(
    loader: &mut Loader,
    segment: &Committed,
    mut lines: Vec<(i64, String)>,
    rejects: &HashSet<Uuid>,
) -> Result<HashSet<Uuid>, Error> {
    let (counted, recorded) = (segment.recorded_rejects(), rejects.len() as u64);
    if counted != recorded {
        let segment = segment.segment();
        tracing::warn!(%segment, counted, rejects = recorded, "rejects were removed from the ledger; their bodies stay");
        return Ok(HashSet::new());
    }
    lines.retain(|(_, id)| !rejects.contains(&message_uuid(id)));
    Ok(loader.decided(segment, &lines).await?)
}

/// The identities in those lines of this pipeline that are wanted.
pub(super) fn own_lines(
    staging: &Staging,
    segment: SegmentId,
    pipeline: &str,
    is_wanted: impl Fn(&Reason) -> bool,
) -> Result<Vec<(i64, String)>, SpoolError> {
    let mut lines = Vec::new();
    for entry in read_rejects(&staging.rejects(segment))? {
        let entry = entry?;
        if entry.is_of(pipeline) && is_wanted(&entry.reason) {
            lines.push((entry.identity_time_ms(), entry.message_id));
        }
    }
    Ok(lines)
}

/// Writes the wanted lines of the reject file as a segment of its own, and transforms it. `None`: there are none.
fn stage(
    staging: &Staging,
    segment: SegmentId,
    scratch: &Staging,
    plan: &Plan,
    mut wanted: HashSet<Uuid>,
) -> Result<Option<Manifest>, Error> {
    let mut writer: Option<SegmentWriter> = None;
    let mut lines = read_rejects(&staging.rejects(segment))?;
    while let Some(entry) = lines.next().transpose()? {
        if !entry.is_of(plan.pipeline()) || !wanted.remove(&message_uuid(&entry.message_id)) {
            continue;
        }
        if writer.is_none() {
            let origin =
                Origin { pipeline: plan.pipeline().to_owned(), source: source_of(staging, segment, &entry, plan)? };
            writer = Some(SegmentWriter::create(scratch, &origin)?);
        }
        if let Some(writer) = &mut writer {
            writer.append(&lines.record()?)?;
        }
    }
    let Some(writer) = writer else { return Ok(None) };
    let sealed = writer.seal()?;
    Ok(Some(transform(scratch, sealed.id, plan)?))
}

/// What a column takes from the message around the body is what it was when the message was received. A line of format 1
/// does not tell where that was, nor does its segment.
fn source_of(staging: &Staging, segment: SegmentId, line: &RejectEntry, plan: &Plan) -> Result<Source, SpoolError> {
    let mut source = line.source.clone();
    if let (None, Some(file)) = (&source, staging.find_segment(segment)) {
        source = Header::of_file(&file)?.map(|header| header.source);
    }
    Ok(source.unwrap_or_else(|| Source::QueueUrl(plan.queue_of(None).unwrap_or_default().to_owned())))
}

/// The name of [`Workshop`].
const WORKSHOP: &str = "retry";

/// A staging directory for one retry.
struct Workshop {
    staging: Staging,
    around: Staging,
}

impl Workshop {
    /// Without what a killed retry left.
    fn open(around: &Staging) -> Result<Self, FileError> {
        Ok(Self { staging: around.emptied_within(WORKSHOP)?, around: around.clone() })
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        _ = self.around.remove_within(WORKSHOP);
    }
}
