//! Segments that an earlier run left unfinished enter the stages: those that the ledger knows go straight to the
//! acknowledgement, sealed ones to the transform, staged ones to the load.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::Stages;
use super::chunks::StagedChunk;
use crate::blocking::blocking;
use crate::chunk::StagedSegment;
use crate::error::Error;
use crate::load::Committed;
use crate::segment::SegmentId;
use crate::spool::{self, SealedSegment};

impl Stages {
    pub(super) async fn enter_sealed(
        self: Arc<Self>,
        segments: Vec<SegmentId>,
        mut known: HashMap<SegmentId, Committed>,
        sealed: mpsc::Sender<SealedSegment>,
        committed: mpsc::Sender<Committed>,
    ) -> Result<(), Error> {
        for id in segments {
            if self.leaves_out_the_next() {
                break;
            }
            if let Some(segment) = known.remove(&id) {
                tracing::info!(segment = %id, "in the ledger already, skipped");
                self.counters.enter_known(&segment);
                self.remove_chunk(id).await?;
                if committed.send(segment).await.is_err() {
                    break;
                }
            } else {
                let staging = self.staging.clone();
                let segment = blocking(move || spool::sealed_segment(&staging, id)).await?;
                self.counters.enter(&segment);
                if sealed.send(segment).await.is_err() {
                    break;
                }
            }
        }
        Ok(())
    }

    pub(super) async fn enter_staged(
        self: Arc<Self>,
        segments: Vec<SegmentId>,
        staged: mpsc::Sender<StagedChunk>,
    ) -> Result<(), Error> {
        for id in segments {
            if self.leaves_out_the_next() {
                break;
            }
            let staging = self.staging.clone();
            let segment = blocking(move || StagedSegment::open(&staging, id)).await?;
            self.counters.enter(&SealedSegment { id, messages: segment.received, bytes: segment.chunk_bytes });
            if staged.send(StagedChunk { segment, guard: self.chunks.begin() }).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}
