//! Appends what the pollers bring to the open segment, and seals it: at its limits, and at once when every poller
//! came back empty, because then waiting brings nothing and a FIFO group waits for its deletes.
//!
//! Always true: a message is in a sealed segment well before half its visibility timeout is over, also while the stages
//! behind stand still, because the keeper extends sealed segments only. So sealing never waits for the next stage;
//! segments that wait for it are bounded by what may be in flight.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::emptiness::Emptiness;
use super::{Arrival, Drain};
use crate::config::SpoolSettings;
use crate::error::Error;
use crate::queue::{InFlight, Queue};
use crate::report::Counters;
use crate::spool::{Record, SealedSegment, SegmentWriter};
use crate::staging::Staging;

/// Segments that are being flushed to disk while the next one fills.
const FLUSHING_SEGMENTS: u32 = 2;

pub(super) struct Spooler {
    staging: Staging,
    settings: SpoolSettings,
    counters: Arc<Counters>,
    emptiness: Arc<Emptiness>,
    in_flight: Arc<InFlight>,
    seal_within: Duration,
    sealed: mpsc::Sender<SealedSegment>,
    open: Option<OpenSegment>,
    sealing: JoinSet<Result<(), Error>>,
    flushing: Arc<Semaphore>,
    all_sealed: CancellationToken,
}

struct OpenSegment {
    writer: SegmentWriter,
    received: tokio::time::Instant,
    seal_at: tokio::time::Instant,
}

impl Spooler {
    pub(super) fn new<Q: Queue>(
        drain: &Drain<Q>,
        emptiness: Arc<Emptiness>,
        sealed: mpsc::Sender<SealedSegment>,
    ) -> Self {
        let max_age = Duration::from_millis(drain.spool.segment_max_age_ms);
        Self {
            in_flight: Arc::clone(&drain.in_flight),
            seal_within: max_age.min(drain.queue.visibility_timeout() / 4),
            flushing: Arc::new(Semaphore::new(FLUSHING_SEGMENTS as usize)),
            all_sealed: drain.all_sealed.clone(),
            staging: drain.staging.clone(),
            settings: drain.spool,
            counters: Arc::clone(&drain.counters),
            emptiness,
            sealed,
            open: None,
            sealing: JoinSet::new(),
        }
    }

    /// Spools until the pollers are gone; then everything is sealed.
    pub(super) async fn run(mut self, mut batches: mpsc::Receiver<Arrival>) -> Result<(), Error> {
        loop {
            let seal_at = self.open.as_ref().map(|open| open.seal_at);
            let emptiness = Arc::clone(&self.emptiness);
            tokio::select! {
                // What was received is spooled before anything is sealed for want of more.
                biased;
                batch = batches.recv() => match batch {
                    Some(arrival) => self.append(&arrival).await?,
                    None => break,
                },
                () = emptiness.all_came_back_empty(), if seal_at.is_some() => self.seal().await?,
                () = sleep_until(seal_at), if seal_at.is_some() => self.seal().await?,
                // A seal that failed ends the drain at once: nothing would settle its messages.
                Some(sealed) = self.sealing.join_next() => sealed.map_err(Error::panicked)??,
            }
        }
        self.seal().await?;
        // Every flush has one permit; whether the next stage takes the segments is another matter.
        drop(self.flushing.acquire_many(FLUSHING_SEGMENTS).await);
        self.all_sealed.cancel();
        while let Some(sealed) = self.sealing.join_next().await {
            sealed.map_err(Error::panicked)??;
        }
        Ok(())
    }

    async fn append(&mut self, arrival: &Arrival) -> Result<(), Error> {
        let started = Instant::now();
        let mut bytes = 0;
        for message in &arrival.messages {
            let open = match &mut self.open {
                Some(open) => open,
                none => none.insert(OpenSegment {
                    writer: SegmentWriter::create(&self.staging)?,
                    received: arrival.at,
                    seal_at: arrival.at + self.seal_within,
                }),
            };
            let before = open.writer.bytes();
            open.writer.append(&Record::from(message))?;
            bytes += open.writer.bytes() - before;
            if open.writer.messages() >= self.settings.segment_max_messages
                || open.writer.bytes() >= self.settings.segment_max_bytes
            {
                self.seal().await?;
            }
        }
        self.counters.drain.add(started, 0, bytes);
        Ok(())
    }

    /// Seals the open segment, if there is one, while the next one may already fill.
    async fn seal(&mut self) -> Result<(), Error> {
        let Some(OpenSegment { writer, received, .. }) = self.open.take() else { return Ok(()) };
        // The semaphore is never closed, so waiting cannot fail.
        let flushing = Arc::clone(&self.flushing).acquire_owned().await;
        let (sealed, counters, in_flight) =
            (self.sealed.clone(), Arc::clone(&self.counters), Arc::clone(&self.in_flight));
        self.sealing.spawn(async move {
            let started = Instant::now();
            let segment = tokio::task::spawn_blocking(|| writer.seal()).await.map_err(Error::panicked)??;
            counters.drain.add(started, 0, 0);
            counters.enter(&segment);
            in_flight.hold(segment.id, received);
            drop(flushing);
            // With the next stage gone, the segment waits in the spool for the next run.
            _ = sealed.send(segment).await;
            Ok::<(), Error>(())
        });
        Ok(())
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
