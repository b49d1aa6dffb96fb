//! Unfinished segments enter the stages: those that the ledger knows go straight to the acknowledgement, the others to the
//! transform, staged ones to the load.
//!
//! All of them are counted before the first is begun, so a run that is stopped meanwhile says how much is pending.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::Stages;
use super::chunks::StagedChunk;
use crate::blocking::blocking;
use crate::chunk::Manifest;
use crate::error::Error;
use crate::load::Committed;
use crate::segment::SegmentId;
use crate::spool::{self, SealedSegment};

impl Stages {
    pub(super) fn count_unfinished(&self, segments: &[SealedSegment], known: &HashMap<SegmentId, Committed>) {
        for segment in segments {
            match known.get(&segment.id) {
                Some(committed) => self.counters.enter_known(committed),
                None => self.counters.enter(segment),
            }
        }
    }

    pub(super) async fn enter_unfinished(
        self: Arc<Self>,
        segments: Vec<SealedSegment>,
        mut known: HashMap<SegmentId, Committed>,
        sealed: mpsc::Sender<SealedSegment>,
        committed: mpsc::Sender<Committed>,
    ) -> Result<(), Error> {
        for segment in segments {
            if self.stop.is_cancelled() {
                break;
            }
            if let Some(known) = known.remove(&segment.id) {
                tracing::info!(segment = %segment.id, "in the ledger already, skipped");
                self.commit_segment(segment.id).await?;
                if committed.send(known).await.is_err() {
                    break;
                }
            } else if sealed.send(segment).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    pub(super) async fn enter_staged(
        self: Arc<Self>,
        segments: Vec<SegmentId>,
        staged: mpsc::Sender<StagedChunk>,
    ) -> Result<(), Error> {
        let mut chunks = Vec::new();
        for id in segments {
            let staging = self.staging.clone();
            let manifest = blocking(move || Manifest::read(&staging, id)).await?;
            let seal = manifest.seal;
            self.counters.enter(&SealedSegment { id, messages: manifest.messages, bytes: manifest.row_bytes(), seal });
            chunks.push(manifest);
        }
        for manifest in chunks {
            if self.stop.is_cancelled() {
                break;
            }
            let staging = self.staging.clone();
            let manifest = blocking(move || {
                manifest.verify(&staging)?;
                is_of_its_segment(&staging, &manifest)?;
                Ok::<_, Error>(manifest)
            })
            .await?;
            if staged.send(StagedChunk { manifest, guard: self.chunks.begin() }).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// Checks that the chunk was made of the segment that lies here, where one does.
fn is_of_its_segment(staging: &crate::staging::Staging, manifest: &Manifest) -> Result<(), Error> {
    let segment = manifest.segment;
    if staging.find_segment(segment).is_some() && spool::sealed_segment(staging, segment)?.seal != manifest.seal {
        let problem = "of another segment of this name";
        return Err(crate::chunk::ChunkError::OutOfDate { segment, problem }.into());
    }
    Ok(())
}
