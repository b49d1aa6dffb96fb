//! The drain: parallel long-polling receives into sealed spool segments, until the queue is proven empty.
//!
//! Always true: a message counts as received once it is in the spool; messages in flight never exceed the cap; what waits
//! in memory is bounded in bytes; the drain deletes nothing. Stopped or failed, it seals what it has, so what was
//! received is never thrown away; what a poller held in memory at that moment is still in SQS. The same is true when the
//! disk is full: that ends the drain, too, and leaves the stages behind it room to finish.
//!
//! Pollers receive and hand their messages to one spooler, which appends them to the open segment and seals it at
//! its limits, and at once when every poller came back empty. `crew` decides how many pollers there are, `budget` how
//! many messages they may receive, `memory` how many bytes may wait, and `proof` when the queue is empty, by what
//! `emptiness` knows of the pollers; `started` when it holds nothing that was sent before the run began.

mod budget;
pub(crate) mod crew;
mod emptiness;
mod memory;
mod polling;
mod proof;
mod spooler;
mod started;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::{QueueSettings, SpoolSettings};
use crate::counters::Counters;
use crate::error::Error;
use crate::in_flight::{InFlight, Keeper, SetAside};
use crate::keyring::Key;
use crate::queue::{BATCH_MESSAGES, Depth, Queue};
use crate::spool::{Origin, SealedSegment};
use crate::staging::Staging;

use polling::Polling;
pub use proof::Proof;
use proof::Verdict;
use spooler::{Spooler, Taken};

/// When a drain ends.
#[derive(Debug, Clone, Copy)]
pub struct DrainLimits {
    /// How long messages that others hold, or that are delayed, are waited for. `None` follows the queue without end.
    pub idle: Option<Duration>,
    /// Stop after this many messages.
    pub max_messages: Option<u64>,
    /// Only what was sent before this time, in milliseconds since the epoch, is to be drained. Where others go on sending,
    /// the queue need not become empty.
    pub started_at_ms: Option<i64>,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainEnd {
    /// The queue is proven empty.
    Empty,
    /// Nothing came for the idle time, but the queue's counts say that there is something: in flight elsewhere, or
    /// delayed. A part of what is in flight is in segments that this run could do nothing for.
    NotEmpty {
        /// What the queue says.
        depth: Depth,
        /// What was set aside.
        set_aside: SetAside,
    },
    /// Nothing shows that the queue still holds a message that was sent before the run began.
    Started,
    /// Nothing came any more, but the queue did not tell its counts.
    Unproven,
    /// `max_messages` were received.
    Limit,
    /// As many messages are in flight as `max_in_flight` allows, and this drain deletes none.
    AtCap,
    /// It was stopped: by a signal, or because its time was over.
    Stopped,
    /// The disk of the staging directory is full, so nothing more can be received.
    DiskFull,
}

/// One drain of one queue.
#[derive(Debug)]
pub struct Drain<Q> {
    /// Where messages come from.
    pub queue: Arc<Q>,
    /// Where segments go.
    pub staging: Staging,
    /// Whose they are.
    pub origin: Origin,
    /// What encrypts them, if anything.
    pub spool_key: Option<Key>,
    /// How to receive.
    pub settings: QueueSettings,
    /// When to seal.
    pub spool: SpoolSettings,
    /// When to end.
    pub limits: DrainLimits,
    /// What proves that nothing is left to do.
    pub proof: Proof,
    /// While it holds `false`, no receive begins, and the queue is not called empty. See [`crate::gate`].
    pub gate: watch::Receiver<bool>,
    /// The messages received and not yet deleted.
    pub in_flight: Arc<InFlight>,
    /// Where to count.
    pub counters: Arc<Counters>,
    /// Ends the drain in an orderly way. The drain cancels it at its own end, too.
    pub stop: CancellationToken,
    /// The drain cancels it once it receives nothing any more and everything it received is sealed.
    pub all_sealed: CancellationToken,
}

impl<Q: Queue> Drain<Q> {
    /// What keeps this drain's messages invisible to others.
    #[must_use]
    pub fn keeper(&self) -> Keeper<Q> {
        let (queue, in_flight) = (Arc::clone(&self.queue), Arc::clone(&self.in_flight));
        Keeper::new(queue, in_flight, self.staging.clone(), self.settings.pollers)
    }

    /// Drains until the queue is empty, a limit is met or `stop` is cancelled. Sends each segment as it is sealed.
    pub async fn run(self, sealed: mpsc::Sender<SealedSegment>) -> Result<DrainEnd, Error> {
        // What waits here is bounded by the pollers, in bytes.
        let (arrivals, waiting) = mpsc::unbounded_channel();
        let polling = Arc::new(Polling::of(self, arrivals));
        let spooler = tokio::spawn(Spooler::new(&polling, sealed).run(waiting));
        let end = polling.until_done().await;
        // Without the pollers' way to it, the spooler ends.
        drop(polling);
        // The spooler's own failure ends the pollers, so it is the one to tell.
        match spooler.await.map_err(Error::panicked)?? {
            Taken::Everything => end,
            Taken::WhatFits => end.and(Ok(DrainEnd::DiskFull)),
        }
    }

    /// More of them than the cap has room for would only wait for each other.
    fn most_pollers(&self) -> usize {
        self.settings.pollers.min(self.in_flight.cap() as usize / BATCH_MESSAGES).max(1)
    }

    /// How many messages may be received, and how the drain ends then. A drain on its own deletes nothing, so the cap is
    /// a limit, too: waiting brings no room.
    fn most_messages(&self) -> (Option<u64>, DrainEnd) {
        let room = u64::from(self.in_flight.cap()).saturating_sub(self.in_flight.messages());
        match (self.proof, self.limits.max_messages) {
            (Proof::Spooled, limit) if limit.is_none_or(|limit| room < limit) => (Some(room), DrainEnd::AtCap),
            (_, limit) => (limit, DrainEnd::Limit),
        }
    }
}

impl From<Verdict> for DrainEnd {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Empty => Self::Empty,
            Verdict::NotEmpty { depth, set_aside } => Self::NotEmpty { depth, set_aside },
            Verdict::Unknown => Self::Unproven,
        }
    }
}
