//! Gives up rejects of one reason: a person decides that nobody will load them.
//!
//! Always true:
//! - a reject's record goes first, in one transaction a segment, and its body only after this process saw the COMMIT. Killed
//!   between the two, what remains is a line that no record needs, which the next `rejects drop` of this reason, or the next
//!   `rejects retry`, removes;
//! - the message stays decided in the ledger, so that a redelivery and a replay take it for a duplicate;
//! - records and lines of other pipelines stay.

use std::collections::{BTreeMap, HashSet};

use uuid::Uuid;

use super::retrying::{own_lines, settled};
use crate::blocking::blocking;
use crate::error::Error;
use crate::load::{Loader, Readmitted, settle_kept_rejects};
use crate::segment::SegmentId;
use crate::spool::{SpoolError, message_uuid, read_rejects};
use crate::staging::{Staging, StagingError};

use super::Owner;

/// What was given up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Rejects that the ledger had.
    pub rejects: u64,
    /// Segments that they were of.
    pub segments: u64,
    /// Bodies that were removed here, also those that an earlier one had left.
    pub bodies: u64,
    /// Rejects whose body is not here, by the host that recorded them.
    pub elsewhere: BTreeMap<String, u64>,
}

/// Gives up the rejects of this pipeline that have this reason. `named`: only those of these segments; none means all.
/// Needs the staging lock.
pub async fn drop_rejects(
    staging: &Staging,
    owner: &Owner,
    reason: &str,
    named: &[SegmentId],
    loader: &mut Loader,
) -> Result<Dropped, Error> {
    let known = loader.known(named).await?;
    for &segment in named.iter().filter(|segment| !known.contains_key(segment)) {
        refuse_stranger(staging, owner, segment)?;
    }
    let mut dropped = Dropped::default();
    for found in loader.rejected_for(reason, named).await? {
        let ids = loader.drop_rejects(found.segment_no, reason).await?;
        let rejects = ids.len() as u64;
        dropped.rejects += rejects;
        dropped.segments += 1;
        let Some((segment, host)) = found.loaded else { continue };
        let bodies = remove_lines(staging, owner, segment, ids).await?;
        dropped.bodies += bodies;
        if bodies < rejects {
            *dropped.elsewhere.entry(host).or_default() += rejects - bodies;
        }
    }
    for segment in staging.rejected_segments()? {
        if named.is_empty() || named.contains(&segment) {
            dropped.bodies += remove_leftovers(staging, owner, segment, reason, loader).await?;
        }
    }
    Ok(dropped)
}

/// A segment that is named, and that the ledger does not have for this pipeline: another one's, or nowhere, or not loaded
/// yet.
fn refuse_stranger(staging: &Staging, owner: &Owner, segment: SegmentId) -> Result<(), Error> {
    owner.check(staging, segment)?;
    let place = staging.rejects(segment);
    if !place.is_taken() && staging.find_segment(segment).is_none() {
        return Err(StagingError::NoSuchSegment { segment }.into());
    }
    let mut others = None;
    for line in read_rejects(&place)? {
        let line = line?;
        if line.is_of(&owner.pipeline) {
            return Ok(());
        }
        others = others.or(line.pipeline);
    }
    match others {
        Some(pipeline) => {
            let (path, configured) = (place.path().to_owned(), owner.pipeline.clone());
            Err(SpoolError::OtherPipeline { path, pipeline, configured }.into())
        }
        None => Ok(()),
    }
}

/// Removes this pipeline's lines of these messages; returns their number.
async fn remove_lines(staging: &Staging, owner: &Owner, segment: SegmentId, ids: HashSet<Uuid>) -> Result<u64, Error> {
    let (staging, pipeline) = (staging.clone(), owner.pipeline.clone());
    blocking(move || {
        let mut lines = 0;
        for line in read_rejects(&staging.rejects(segment))? {
            let line = line?;
            lines += u64::from(line.is_of(&pipeline) && ids.contains(&message_uuid(&line.message_id)));
        }
        if lines > 0 {
            settle_kept_rejects(&staging, segment, &pipeline, &Readmitted { loaded: ids, ..Readmitted::default() })?;
        }
        Ok(lines)
    })
    .await
}

/// Removes lines of this reason that an earlier one left, which died after its COMMIT.
async fn remove_leftovers(
    staging: &Staging,
    owner: &Owner,
    segment: SegmentId,
    reason: &str,
    loader: &mut Loader,
) -> Result<u64, Error> {
    let (files, pipeline, wanted) = (staging.clone(), owner.pipeline.clone(), reason.to_owned());
    let lines = blocking(move || own_lines(&files, segment, &pipeline, |reason| reason.text == wanted)).await?;
    if lines.is_empty() {
        return Ok(0);
    }
    let Some(known) = loader.known(&[segment]).await?.remove(&segment) else { return Ok(0) };
    let rejects: HashSet<Uuid> = loader.rejects_of(segment).await?.into_iter().map(|row| row.message_id).collect();
    let settled = settled(loader, &known, lines, &rejects).await?;
    remove_lines(staging, owner, segment, settled).await
}
