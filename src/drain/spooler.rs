//! Appends what the pollers bring to the open segment, and seals it: at its limits, and at once where waiting brings
//! nothing. That is when every poller came back empty (and a FIFO group waits for its deletes), and when a receive waits
//! for room in flight and none is under way. A segment that is worth it is sealed at the first lull already, so that it
//! is loaded while the pollers still wait for more.
//!
//! Always true:
//! - sealing never waits for the next stage; segments that wait for it are bounded by what may be in flight;
//! - a message is held by the keeper until the segment that has it is held, however slow the disk is; and the keeper knows
//!   which messages are in no file, whatever the disk does;
//! - a segment is begun only while the disk has room for it and for the chunk that it becomes. So however full the disk
//!   gets, what is sealed can be loaded, and then it is less full.
//!
//! Where the disk is full all the same, because others write to it or a quota ends, the open segment is cut after its
//! last whole line and sealed. What did not fit stays with the keeper, which releases it at the end.

#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::crew::Crew;
use super::emptiness::Emptiness;
use super::polling::{Arrival, Polling};
use crate::blocking::blocking;
use crate::config::SpoolSettings;
use crate::counters::{Counters, RunStage};
use crate::durable::FileError;
use crate::error::Error;
use crate::in_flight::{Batch, BatchPart, InFlight};
use crate::keyring::Key;
use crate::queue::Queue;
use crate::segment::SegmentId;
use crate::spool::{Origin, Record, SealedSegment, SegmentWriter};
use crate::staging::Staging;

/// Segments that are being flushed to disk while the next one fills.
const FLUSHING_SEGMENTS: u32 = 2;
/// Nothing arrived for this time: far more than there is between two receives of a queue that has messages.
const LULL: Duration = Duration::from_millis(200);
/// A segment is sealed at a lull from this part of `segment_max_messages` on: a trickle must not become many tiny ones.
const WORTH_SEALING: u64 = 20;
/// A new segment is opened only if the disk has room for three segments of the maximum size: the segment, its chunk and
/// rejects, and work in progress.
const ROOM_IN_SEGMENTS: u64 = 3;

pub(super) struct Spooler {
    staging: Staging,
    origin: Origin,
    spool_key: Option<Key>,
    settings: SpoolSettings,
    counters: Arc<Counters>,
    crew: Arc<Crew>,
    emptiness: Arc<Emptiness>,
    in_flight: Arc<InFlight>,
    max_age: Duration,
    sealed: mpsc::Sender<SealedSegment>,
    open: Option<OpenSegment>,
    sealing: JoinSet<Result<Taken, Error>>,
    flushing: Arc<Semaphore>,
    all_sealed: CancellationToken,
}

/// How much of what was received the spool took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Everything,
    /// The disk is full. The rest is in SQS alone.
    WhatFits,
}

struct OpenSegment {
    writer: SegmentWriter,
    begun: Instant,
    last_arrival: Instant,
    /// What was appended, in that order.
    parts: Vec<BatchPart>,
}

/// What the disk took of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnDisk {
    Whole(SealedSegment),
    /// Its first messages.
    Cut(SealedSegment),
    /// No message, and no file is left.
    Nothing,
    /// An open file, which the next run recovers.
    LeftOpen,
}

impl Spooler {
    pub(super) fn new<Q: Queue>(polling: &Polling<Q>, sealed: mpsc::Sender<SealedSegment>) -> Self {
        let drain = &polling.drain;
        Self {
            in_flight: Arc::clone(&drain.in_flight),
            max_age: Duration::from_millis(drain.spool.segment_max_age_ms),
            flushing: Arc::new(Semaphore::new(FLUSHING_SEGMENTS as usize)),
            all_sealed: drain.all_sealed.clone(),
            staging: drain.staging.clone(),
            origin: drain.origin.clone(),
            spool_key: drain.spool_key.clone(),
            settings: drain.spool,
            counters: Arc::clone(&drain.counters),
            crew: Arc::clone(&polling.crew),
            emptiness: Arc::clone(&polling.emptiness),
            sealed,
            open: None,
            sealing: JoinSet::new(),
        }
    }

    /// Spools until the pollers are gone, or the disk is full; then everything is sealed.
    pub(super) async fn run(mut self, mut arrivals: mpsc::UnboundedReceiver<Arrival>) -> Result<Taken, Error> {
        let mut taken = Taken::Everything;
        while taken == Taken::Everything {
            let seal_at = self.open.as_ref().map(|open| self.seal_at(open));
            let (emptiness, in_flight) = (Arc::clone(&self.emptiness), Arc::clone(&self.in_flight));
            tokio::select! {
                // What was received is spooled before anything is sealed for want of more.
                biased;
                arrival = arrivals.recv() => match arrival {
                    Some(arrival) => taken = self.append(arrival).await?,
                    None => break,
                },
                () = emptiness.all_came_back_empty(), if seal_at.is_some() => taken = self.seal().await?,
                () = in_flight.until_full(), if seal_at.is_some() => taken = self.seal().await?,
                () = sleep_until(seal_at), if seal_at.is_some() => taken = self.seal().await?,
                // A seal that failed ends the drain at once: nothing would settle its messages.
                Some(sealed) = self.sealing.join_next() => taken = sealed.map_err(Error::panicked)??,
            }
        }
        // Without the pollers' way to it, they end while the rest is sealed.
        drop(arrivals);
        taken = taken.and(self.seal().await?);
        // Every flush has one permit; whether the next stage takes the segments is another matter.
        drop(self.flushing.acquire_many(FLUSHING_SEGMENTS).await);
        self.all_sealed.cancel();
        while let Some(sealed) = self.sealing.join_next().await {
            taken = taken.and(sealed.map_err(Error::panicked)??);
        }
        Ok(taken)
    }

    fn seal_at(&self, open: &OpenSegment) -> Instant {
        let at_age = open.begun + self.max_age;
        let is_worth_it = open.writer.messages() * WORTH_SEALING >= self.settings.segment_max_messages;
        if is_worth_it { at_age.min(open.last_arrival + LULL) } else { at_age }
    }

    async fn append(&mut self, arrival: Arrival) -> Result<Taken, Error> {
        let (started, max_bytes) = (Instant::now(), self.settings.segment_max_bytes);
        let mut bytes = 0;
        self.in_flight.append(arrival.batch);
        for (position, message) in arrival.messages.iter().enumerate() {
            let open = match &mut self.open {
                Some(open) => open,
                none => match begin_segment(&self.staging, &self.origin, self.spool_key.as_ref(), max_bytes)? {
                    Some(writer) => none.insert(OpenSegment::begin(writer)),
                    None => return Ok(self.takes_none_from(&arrival, position)),
                },
            };
            open.takes(arrival.batch, position);
            let before = open.writer.bytes();
            match open.writer.append(&Record::from(message)) {
                // The seal says whether this one is in the file.
                Err(error) if error.is_disk_full() => return Ok(self.takes_none_from(&arrival, position + 1)),
                appended => appended?,
            }
            bytes += open.writer.bytes() - before;
            if (open.writer.messages() >= self.settings.segment_max_messages
                || open.writer.bytes() >= self.settings.segment_max_bytes
                || open.begun.elapsed() >= self.max_age)
                && self.seal().await? == Taken::WhatFits
            {
                return Ok(self.takes_none_from(&arrival, position + 1));
            }
        }
        self.counters.drain.worked(started.into_std());
        self.counters.drain.wrote(bytes);
        Ok(Taken::Everything)
    }

    /// The messages of a batch from this position on are in no file.
    fn takes_none_from(&self, arrival: &Arrival, position: usize) -> Taken {
        self.in_flight.not_appended(&[BatchPart { batch: arrival.batch, messages: position..arrival.messages.len() }]);
        Taken::WhatFits
    }

    /// Seals the open segment, if there is one, while the next one may already fill. Tells of earlier ones whether the
    /// disk took them.
    async fn seal(&mut self) -> Result<Taken, Error> {
        let mut taken = Taken::Everything;
        while let Some(earlier) = self.sealing.try_join_next() {
            taken = taken.and(earlier.map_err(Error::panicked)??);
        }
        let Some(OpenSegment { writer, parts, begun, .. }) = self.open.take() else { return Ok(taken) };
        // The semaphore is never closed, so waiting cannot fail.
        let flushing = Arc::clone(&self.flushing).acquire_owned().await;
        let (sealed, crew) = (self.sealed.clone(), Arc::clone(&self.crew));
        let (counters, in_flight) = (Arc::clone(&self.counters), Arc::clone(&self.in_flight));
        self.sealing.spawn(async move {
            let started = Instant::now();
            let on_disk = blocking(|| seal_what_fits(writer)).await?;
            counters.drain.worked(started.into_std());
            match on_disk {
                OnDisk::Whole(segment) | OnDisk::Cut(segment) => {
                    counters.enter(&segment);
                    counters.passed(RunStage::Drain, segment.id, begun.into_std());
                    in_flight.hold(&segment, parts);
                    drop(flushing);
                    hand_on(&sealed, segment, &crew).await;
                }
                OnDisk::Nothing => in_flight.not_appended(&parts),
                OnDisk::LeftOpen => {}
            }
            let taken = if matches!(on_disk, OnDisk::Whole(_)) { Taken::Everything } else { Taken::WhatFits };
            Ok::<_, Error>(taken)
        });
        Ok(taken)
    }
}

impl OpenSegment {
    fn begin(writer: SegmentWriter) -> Self {
        let now = Instant::now();
        Self { writer, begun: now, last_arrival: now, parts: Vec::new() }
    }

    fn takes(&mut self, batch: Batch, position: usize) {
        match self.parts.last_mut() {
            Some(part) if part.batch == batch => part.messages.end = position + 1,
            _ => {
                self.last_arrival = Instant::now();
                self.parts.push(BatchPart { batch, messages: position..position + 1 });
            }
        }
    }
}

impl Taken {
    fn and(self, other: Self) -> Self {
        if self == Self::Everything { other } else { self }
    }
}

/// Gives a segment to the next stage. With that gone, it waits in the spool for the next run.
async fn hand_on(sealed: &mpsc::Sender<SealedSegment>, segment: SealedSegment, crew: &Crew) {
    if let Err(TrySendError::Full(segment)) = sealed.try_send(segment) {
        let _held_up = crew.held_up();
        _ = sealed.send(segment).await;
    }
}

/// `None` where the disk has no room for it.
fn begin_segment(
    staging: &Staging,
    origin: &Origin,
    spool_key: Option<&Key>,
    max_bytes: u64,
) -> Result<Option<SegmentWriter>, FileError> {
    if !staging.has_room(max_bytes.saturating_mul(ROOM_IN_SEGMENTS))? {
        tracing::error!(segment_max_bytes = max_bytes, "no room for a segment and its chunk; receiving stops");
        return Ok(None);
    }
    match SegmentWriter::create_as(SegmentId::now(), staging, origin, spool_key) {
        Err(error) if error.is_disk_full() => Ok(None),
        created => created.map(Some),
    }
}

/// Nothing is sealed where no line fits, and where the disk is too full even for a seal.
fn seal_what_fits(writer: SegmentWriter) -> Result<OnDisk, FileError> {
    let appended = writer.messages();
    match writer.seal_what_fits() {
        Ok(Some(segment)) if segment.messages == appended => Ok(OnDisk::Whole(segment)),
        Ok(segment) => {
            let untaken = appended - segment.map_or(0, |segment| segment.messages);
            tracing::error!(
                messages = untaken,
                "the disk is full: receiving stops, and these messages stay in the queue"
            );
            Ok(segment.map_or(OnDisk::Nothing, OnDisk::Cut))
        }
        Err(error) if error.is_disk_full() => {
            tracing::error!("{error}: the disk is full; receiving stops, and the segment is recovered by the next run");
            Ok(OnDisk::LeftOpen)
        }
        Err(error) => Err(error),
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
