//! Appends what the pollers bring to the open segment, and seals it: at its limits, and at once when every poller
//! came back empty, because then waiting brings nothing and a FIFO group waits for its deletes.
//!
//! Always true: while a segment is begun, the disk has room for it and for the chunk that it becomes, so however full
//! the disk gets, what is sealed can be loaded, and then it is less full. Should the disk be full all the same, because
//! others write to it or a quota ends, the open segment is cut after its last whole line and sealed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Drain;
use super::emptiness::Emptiness;
use crate::config::SpoolSettings;
use crate::error::{Error, StagingError};
use crate::queue::Message;
use crate::report::Counters;
use crate::spool::{Record, SealedSegment, SegmentWriter};
use crate::staging::Staging;

/// Segments that are being flushed to disk while the next one fills.
const SEALING_SEGMENTS: usize = 2;
/// A segment, its chunk and rejects, which are as large at most, and something for what is under way: that many times
/// the largest segment is free when one is begun.
const ROOM_IN_SEGMENTS: u64 = 3;

pub(super) struct Spooler {
    staging: Staging,
    settings: SpoolSettings,
    counters: Arc<Counters>,
    emptiness: Arc<Emptiness>,
    sealed: mpsc::Sender<SealedSegment>,
    open: Option<OpenSegment>,
    sealing: JoinSet<Result<Spooled, Error>>,
}

/// How much of what was received is in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spooled {
    Everything,
    /// The disk is full. The rest is in SQS alone.
    WhatFits,
}

struct OpenSegment {
    writer: SegmentWriter,
    seal_at: tokio::time::Instant,
}

impl Spooler {
    pub(super) fn new<Q>(drain: &Drain<Q>, emptiness: Arc<Emptiness>, sealed: mpsc::Sender<SealedSegment>) -> Self {
        Self {
            staging: drain.staging.clone(),
            settings: drain.spool,
            counters: Arc::clone(&drain.counters),
            emptiness,
            sealed,
            open: None,
            sealing: JoinSet::new(),
        }
    }

    /// Spools until the pollers are gone, or the disk is full; then everything is sealed.
    pub(super) async fn run(mut self, mut batches: mpsc::Receiver<Vec<Message>>) -> Result<Spooled, Error> {
        let mut spooled = Spooled::Everything;
        while spooled == Spooled::Everything {
            let seal_at = self.open.as_ref().map(|open| open.seal_at);
            let emptiness = Arc::clone(&self.emptiness);
            tokio::select! {
                // What was received is spooled before anything is sealed for want of more.
                biased;
                batch = batches.recv() => match batch {
                    Some(messages) => spooled = self.append(&messages).await?,
                    None => break,
                },
                () = emptiness.all_came_back_empty(), if seal_at.is_some() => spooled = self.seal().await?,
                () = sleep_until(seal_at), if seal_at.is_some() => spooled = self.seal().await?,
                // A seal that failed ends the drain at once: nothing would settle its messages.
                Some(sealed) = self.sealing.join_next() => spooled = sealed.map_err(Error::panicked)??,
            }
        }
        // Without the pollers' way to it, they end while the rest is sealed.
        drop(batches);
        spooled = spooled.and(self.seal().await?);
        while let Some(sealed) = self.sealing.join_next().await {
            spooled = spooled.and(sealed.map_err(Error::panicked)??);
        }
        Ok(spooled)
    }

    async fn append(&mut self, messages: &[Message]) -> Result<Spooled, Error> {
        let started = Instant::now();
        let mut bytes = 0;
        for message in messages {
            let open = match &mut self.open {
                Some(open) => open,
                none => match begin_segment(&self.staging, self.settings.segment_max_bytes)? {
                    Some(writer) => none.insert(OpenSegment {
                        writer,
                        seal_at: tokio::time::Instant::now() + Duration::from_millis(self.settings.segment_max_age_ms),
                    }),
                    None => return Ok(Spooled::WhatFits),
                },
            };
            let before = open.writer.bytes();
            match open.writer.append(&Record::from(message)) {
                Err(error) if error.is_disk_full() => return Ok(Spooled::WhatFits),
                appended => appended?,
            }
            bytes += open.writer.bytes() - before;
            if (open.writer.messages() >= self.settings.segment_max_messages
                || open.writer.bytes() >= self.settings.segment_max_bytes)
                && self.seal().await? == Spooled::WhatFits
            {
                return Ok(Spooled::WhatFits);
            }
        }
        self.counters.drain.add(started, 0, bytes);
        Ok(Spooled::Everything)
    }

    /// Seals the open segment, if there is one, while the next one may already fill. Tells of an earlier one whether
    /// the disk took it.
    async fn seal(&mut self) -> Result<Spooled, Error> {
        let Some(OpenSegment { writer, .. }) = self.open.take() else { return Ok(Spooled::Everything) };
        let mut spooled = Spooled::Everything;
        if self.sealing.len() >= SEALING_SEGMENTS
            && let Some(earlier) = self.sealing.join_next().await
        {
            spooled = earlier.map_err(Error::panicked)??;
        }
        let (sealed, counters) = (self.sealed.clone(), Arc::clone(&self.counters));
        self.sealing.spawn(async move {
            let started = Instant::now();
            let (segment, spooled) =
                tokio::task::spawn_blocking(|| seal_what_fits(writer)).await.map_err(Error::panicked)??;
            counters.drain.add(started, 0, 0);
            if let Some(segment) = segment {
                counters.enter(&segment);
                // With the next stage gone, the segment waits in the spool for the next run.
                _ = sealed.send(segment).await;
            }
            Ok::<_, Error>(spooled)
        });
        Ok(spooled)
    }
}

impl Spooled {
    fn and(self, other: Self) -> Self {
        if self == Self::Everything { other } else { self }
    }
}

/// `None` where the disk has no room for it.
fn begin_segment(staging: &Staging, max_bytes: u64) -> Result<Option<SegmentWriter>, StagingError> {
    if !staging.has_room(max_bytes.saturating_mul(ROOM_IN_SEGMENTS))? {
        tracing::error!(segment_max_bytes = max_bytes, "no room for a segment and its chunk; receiving stops");
        return Ok(None);
    }
    match SegmentWriter::create(staging) {
        Err(error) if error.is_disk_full() => Ok(None),
        created => created.map(Some),
    }
}

/// Nothing is sealed where no line fits, and where the disk is too full even for a seal: then the next run recovers
/// the open segment.
fn seal_what_fits(writer: SegmentWriter) -> Result<(Option<SealedSegment>, Spooled), StagingError> {
    let appended = writer.messages();
    match writer.seal_what_fits() {
        Ok(Some(segment)) if segment.messages == appended => Ok((Some(segment), Spooled::Everything)),
        Ok(segment) => {
            let left = appended - segment.map_or(0, |segment| segment.messages);
            tracing::error!(messages = left, "the disk is full: receiving stops, and these messages stay in the queue");
            Ok((segment, Spooled::WhatFits))
        }
        Err(error) if error.is_disk_full() => {
            tracing::error!("{error}: the disk is full; receiving stops, and the segment is recovered by the next run");
            Ok((None, Spooled::WhatFits))
        }
        Err(error) => Err(error),
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
