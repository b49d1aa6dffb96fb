//! What earlier runs left unfinished in the staging directory: taken before a command moves anything.
//!
//! Always true: a command goes on only where all of it is its own pipeline's and, where it deletes, its own queue's. A
//! segment of format 1 does not say whose it is, and counts as the command's own.

use crate::error::Error;
use crate::in_flight::InFlight;
use crate::segment::SegmentId;
use crate::spool::{self, Header, SealedSegment, Source, SpoolError};
use crate::staging::Staging;

/// Whose files a command may touch.
#[derive(Debug, Clone)]
pub struct Owner {
    /// The pipeline's name.
    pub pipeline: String,
    /// The queue's URL, where messages are received or deleted.
    pub queue_url: Option<String>,
}

/// The unfinished segments, in each state.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Sealed; of some the ledger may know the COMMIT.
    pub sealed: Vec<SealedSegment>,
    /// Committed, and not acknowledged.
    pub committed: Vec<SealedSegment>,
    /// Segments that cannot be read; each stays where it is.
    pub unreadable: Vec<SegmentId>,
}

impl Owner {
    /// The file is this owner's, as far as it says whose it is.
    pub fn check(&self, staging: &Staging, segment: SegmentId) -> Result<(), SpoolError> {
        let Some(place) = staging.find_segment(segment) else { return Ok(()) };
        let Some(header) = Header::of_file(&place)? else { return Ok(()) };
        if header.pipeline != self.pipeline {
            let (pipeline, configured) = (header.pipeline, self.pipeline.clone());
            let path = place.path().to_owned();
            return Err(SpoolError::OtherPipeline { path, pipeline, configured });
        }
        match (header.source, &self.queue_url) {
            (Source::QueueUrl(queue_url), Some(configured)) if queue_url != *configured => {
                let path = place.path().to_owned();
                Err(SpoolError::OtherQueue { path, queue_url, configured: configured.clone() })
            }
            _ => Ok(()),
        }
    }
}

impl Inventory {
    /// Looks at every unfinished segment; the first that is another owner's is the error. Blocks.
    pub fn take(staging: &Staging, owner: &Owner) -> Result<Self, Error> {
        let mut inventory = Self::default();
        let damaged = staging.damaged_segments()?;
        if let Some(first) = damaged.first() {
            let segments = damaged.len();
            tracing::warn!(segments, %first, "damaged segments lie in damaged/, until somebody restores or removes them");
        }
        for id in staging.sealed_segments()? {
            if let Some(segment) = inventory.look_at(staging, owner, id)? {
                inventory.sealed.push(segment);
            }
        }
        for id in staging.committed_segments()? {
            if let Some(segment) = inventory.look_at(staging, owner, id)? {
                inventory.committed.push(segment);
            }
        }
        Ok(inventory)
    }

    /// The segments' names.
    #[must_use]
    pub fn ids(&self) -> Vec<SegmentId> {
        self.sealed.iter().chain(&self.committed).map(|segment| segment.id).collect()
    }

    /// The messages of the segments that are not acknowledged yet.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.sealed.iter().chain(&self.committed).map(|segment| segment.messages).sum()
    }

    /// Tells a drain on its own, which does nothing for these segments, what may be in flight because of them.
    pub fn inherited_by(&self, in_flight: &InFlight) {
        let unfinished = [self.sealed.as_slice(), &self.committed].concat();
        let (counted, damaged): (Vec<_>, Vec<_>) = unfinished.into_iter().partition(|segment| segment.messages > 0);
        in_flight.inherit(&counted);
        for id in damaged.iter().map(|segment| segment.id).chain(self.unreadable.iter().copied()) {
            in_flight.set_aside(id, None);
        }
    }

    fn look_at(&mut self, staging: &Staging, owner: &Owner, id: SegmentId) -> Result<Option<SealedSegment>, Error> {
        let looked = owner.check(staging, id).and_then(|()| spool::sealed_segment(staging, id));
        match looked {
            Ok(segment) => Ok(Some(segment)),
            Err(error) if error.stops_its_segment_alone() => {
                tracing::error!(segment = %id, "{}; this segment stays, the others go on", Error::from(error).one_line());
                self.unreadable.push(id);
                Ok(None)
            }
            // The stage that reads the segment names the offset.
            Err(SpoolError::Damaged { .. }) => Ok(Some(SealedSegment { id, messages: 0, bytes: 0, seal: None })),
            Err(error) => Err(error.into()),
        }
    }
}
