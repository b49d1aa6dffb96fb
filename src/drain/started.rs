//! The end of a drain that is to empty the queue of what was sent before the run began, while others go on sending.
//!
//! A queue has no order, so nothing proves that a message which was sent before is not there any more. This counts as
//! the end:
//! - every poller has come back without an older message since the last older one arrived;
//! - since then, as many messages were received as the queue then had visible: a full round; or it gave none at all;
//! - no older one has come for the idle time, because others may hold some, or they may be delayed. Only where every poller
//!   came back empty and the counts are zero, except for what this run holds, there is nothing to wait for. While others
//!   send, the counts cannot be told apart from what this run holds at the same moment.
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
            let is_quiet = all.is_shown();
            let Some(depth) = ask(queue).await? else { return Ok(DrainEnd::Unproven) };
            if self.older.arrivals() != arrivals {
                continue;
            }
            let received = self.received.load(Ordering::Acquire);
            let (visible, before) = *quiet.round.get_or_insert((depth.visible, received));
            let is_quiet = is_quiet && all.is_shown();
            let is_round = received - before >= visible || is_quiet;
            let is_empty = depth.visible + depth.delayed == 0 && depth.in_flight <= in_flight.messages();
            if is_round && (is_quiet && is_empty || quiet.since.elapsed() >= idle) {
                return Ok(DrainEnd::Started);
            }
            all.resume_pollers();
            tokio::time::sleep(RECHECK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(sent_at: i64, received_at: i64, sent_at_is_stable: bool) -> Message {
        Message {
            message_id: "m".to_owned(),
            sent_at,
            sent_at_is_stable,
            received_at,
            receive_count: 1,
            receipt_handle: "r".to_owned(),
            body: String::new(),
            attributes: None,
            group_id: None,
            sequence_number: None,
        }
    }

    #[test]
    fn what_was_sent_before_is_older_and_so_is_what_tells_no_time() {
        let started = Started::at(1000, 1);
        assert!(started.is_older(&message(999, 2000, true)));
        assert!(!started.is_older(&message(1000, 2000, true)));
        // A FIFO queue tells a time, which a redrive may reset; a server that tells none leaves that of the receive.
        assert!(!started.is_older(&message(1500, 2000, false)));
        assert!(started.is_older(&message(2000, 2000, false)));
    }

    #[test]
    fn a_poller_that_brings_only_later_messages_counts_as_one_that_came_back_empty() {
        let started = Started::at(1000, 2);
        (0..2).for_each(|poller| started.older.polls(poller));
        started.came_back(0, &[message(1000, 2000, true)]);
        started.came_back(1, &[]);
        assert!(started.older.is_shown());
        started.came_back(1, &[message(1000, 2000, true), message(999, 2000, true)]);
        assert!(!started.older.is_shown(), "an older one came");
        started.came_back(0, &[message(1000, 2000, true)]);
        started.came_back(1, &[message(1000, 2000, true)]);
        assert!(started.older.is_shown());
    }
}
