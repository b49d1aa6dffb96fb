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
use crate::chunk::{ChunkError, Manifest};
use crate::error::Error;
use crate::load::Committed;
use crate::segment::SegmentId;
use crate::spool::{self, SealedSegment};
use crate::staging::Staging;

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
            let manifest = match blocking(move || Manifest::read(&staging, id)).await {
                Ok(manifest) => manifest,
                Err(error) => {
                    self.set_aside(id, 0, error.into(), None)?;
                    continue;
                }
            };
            let seal = manifest.seal;
            self.counters.enter(&SealedSegment { id, messages: manifest.messages, bytes: manifest.row_bytes(), seal });
            chunks.push(manifest);
        }
        for manifest in chunks {
            if self.stop.is_cancelled() {
                break;
            }
            let (staging, of_chunk) = (self.staging.clone(), manifest.clone());
            match blocking(move || is_whole(&staging, &of_chunk)).await {
                Ok(()) => {
                    if staged.send(StagedChunk { manifest, guard: self.chunks.begin() }).await.is_err() {
                        break;
                    }
                }
                Err(error) => self.set_aside(manifest.segment, manifest.messages, error, None)?,
            }
        }
        Ok(())
    }
}

/// The chunk is as its manifest says and, where the segment lies here, was made of it.
fn is_whole(staging: &Staging, manifest: &Manifest) -> Result<(), Error> {
    manifest.verify(staging)?;
    let segment = manifest.segment;
    if staging.find_segment(segment).is_some() && spool::sealed_segment(staging, segment)?.seal != manifest.seal {
        let problem = "it was made of another segment of this name";
        return Err(ChunkError::Inconsistent { segment, problem }.into());
    }
    Ok(())
}
