//! The end of a drain that is to empty the queue of what was sent before the run began, while others go on sending.
//!
//! A queue has no order, so nothing proves that a message which was sent before is not there any more. This counts as
//! the end:
//! - every poller has come back without an older message since the last older one arrived;
//! - since then, as many messages were received as the queue then had visible: a full round; or it gave none at all;
//! - nobody else holds messages and none is delayed, or that has been so for the idle time: those may be older ones.
//!
//! Always true: what was sent later and is received is loaded like any other. A message whose time of sending the queue
//! does not tell counts as older, so a queue that tells none is drained until it is empty.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::DrainEnd;
use super::emptiness::Emptiness;
use super::proof::{ask, until_open};
use crate::in_flight::InFlight;
use crate::queue::{Message, Queue, QueueError};

const RECHECK: Duration = Duration::from_millis(500);

/// What the pollers found of older messages.
#[derive(Debug)]
pub(super) struct Started {
    /// In milliseconds since the epoch.
    at_ms: i64,
    /// Which pollers have come back without an older message since the last arrival of one.
    pub(super) older: Emptiness,
    received: AtomicU64,
}

/// The time since the last older message.
struct Quiet {
    arrivals: u64,
    since: Instant,
    /// Messages that the queue had visible when it was asked first, and those received until then.
    round: Option<(u64, u64)>,
}

impl Started {
    pub(super) fn at(at_ms: i64, pollers: usize) -> Self {
        Self { at_ms, older: Emptiness::of_pollers(pollers), received: AtomicU64::new(0) }
    }

    /// A poller came back with these messages, or with none.
    pub(super) fn came_back(&self, poller: usize, messages: &[Message]) {
        self.received.fetch_add(messages.len() as u64, Ordering::AcqRel);
        if messages.iter().any(|message| self.is_older(message)) {
            self.older.arrived();
        } else {
            self.older.came_back_empty(poller);
        }
    }

    fn is_older(&self, message: &Message) -> bool {
        let is_told = message.sent_at_is_stable || message.sent_at != message.received_at;
        message.sent_at < self.at_ms || !is_told
    }

    /// Waits until nothing shows that the queue still has an older message.
    pub(super) async fn prove<Q: Queue>(
        &self,
        queue: &Q,
        all: &Emptiness,
        in_flight: &InFlight,
        gate: &watch::Receiver<bool>,
        idle: Duration,
    ) -> Result<DrainEnd, QueueError> {
        let mut quiet = Quiet { arrivals: self.older.arrivals(), since: Instant::now(), round: None };
        loop {
            self.older.all_came_back_empty().await;
            until_open(gate).await;
            if !self.older.is_shown() {
                continue;
            }
            let arrivals = self.older.arrivals();
            if quiet.arrivals != arrivals {
                quiet = Quiet { arrivals, since: Instant::now(), round: None };
            }
            let Some(depth) = ask(queue).await? else { return Ok(DrainEnd::Unproven) };
            if self.older.arrivals() != arrivals {
                continue;
            }
            let received = self.received.load(Ordering::Acquire);
            let (visible, before) = *quiet.round.get_or_insert((depth.visible, received));
            let is_round = received - before >= visible || all.is_shown();
            let is_elsewhere = depth.in_flight > in_flight.messages() || depth.delayed > 0;
            if is_round && (!is_elsewhere || quiet.since.elapsed() >= idle) {
                return Ok(DrainEnd::Started);
            }
            all.resume_pollers();
            tokio::time::sleep(RECHECK).await;
        }
    }
}
