//! Appends what the pollers bring to the open segment, and seals it: at its limits, and at once when every poller
//! came back empty, because then waiting brings nothing and a FIFO group waits for its deletes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Drain;
use super::emptiness::Emptiness;
use crate::config::SpoolSettings;
use crate::error::Error;
use crate::queue::Message;
use crate::report::Counters;
use crate::spool::{Record, SealedSegment, SegmentWriter};
use crate::staging::Staging;

/// Segments that are being flushed to disk while the next one fills.
const SEALING_SEGMENTS: usize = 2;

pub(super) struct Spooler {
    staging: Staging,
    settings: SpoolSettings,
    counters: Arc<Counters>,
    emptiness: Arc<Emptiness>,
    sealed: mpsc::Sender<SealedSegment>,
    open: Option<OpenSegment>,
    sealing: JoinSet<Result<(), Error>>,
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

    /// Spools until the pollers are gone; then everything is sealed.
    pub(super) async fn run(mut self, mut batches: mpsc::Receiver<Vec<Message>>) -> Result<(), Error> {
        loop {
            let seal_at = self.open.as_ref().map(|open| open.seal_at);
            let emptiness = Arc::clone(&self.emptiness);
            tokio::select! {
                // What was received is spooled before anything is sealed for want of more.
                biased;
                batch = batches.recv() => match batch {
                    Some(messages) => self.append(&messages).await?,
                    None => break,
                },
                () = emptiness.all_came_back_empty(), if seal_at.is_some() => self.seal().await?,
                () = sleep_until(seal_at), if seal_at.is_some() => self.seal().await?,
                // A seal that failed ends the drain at once: nothing would settle its messages.
                Some(sealed) = self.sealing.join_next() => sealed.map_err(Error::panicked)??,
            }
        }
        self.seal().await?;
        while let Some(sealed) = self.sealing.join_next().await {
            sealed.map_err(Error::panicked)??;
        }
        Ok(())
    }

    async fn append(&mut self, messages: &[Message]) -> Result<(), Error> {
        let started = Instant::now();
        let mut bytes = 0;
        for message in messages {
            let open = match &mut self.open {
                Some(open) => open,
                none => none.insert(OpenSegment {
                    writer: SegmentWriter::create(&self.staging)?,
                    seal_at: tokio::time::Instant::now() + Duration::from_millis(self.settings.segment_max_age_ms),
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
        let Some(OpenSegment { writer, .. }) = self.open.take() else { return Ok(()) };
        if self.sealing.len() >= SEALING_SEGMENTS
            && let Some(earlier) = self.sealing.join_next().await
        {
            earlier.map_err(Error::panicked)??;
        }
        let (sealed, counters) = (self.sealed.clone(), Arc::clone(&self.counters));
        self.sealing.spawn(async move {
            let started = Instant::now();
            let segment = tokio::task::spawn_blocking(|| writer.seal()).await.map_err(Error::panicked)??;
            counters.drain.add(started, 0, 0);
            counters.enter(&segment);
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
