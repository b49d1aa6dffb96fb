//! The proof that a queue is empty, by what every poller found, by the queue's own counts and by the run's books.
//!
//! A queue is drained when every poller has had an empty long poll since the last arrival, everything that this run
//! received or inherited is where it should be, and the queue's counts are zero except for what this run holds. SQS's
//! counts lag: where they speak of no more messages than this run received or deleted a moment ago, they are asked for
//! again until that is longer ago than their lag, and only then believed. The pollers go on meanwhile, so a message that
//! is really there is received. Where a segment was set aside, its messages are in the queue, so the counts are not doubted:
//! the queue is not empty either way.
//!
//! On failure: counts that cannot be asked for are asked for again for half a minute, and then the queue is not proven
//! empty, which is no failure of a run that has done its work.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder, Retryable};
use tokio::sync::watch;
use tokio::time::Instant;

use super::emptiness::Emptiness;
use crate::advice::Advised;
use crate::in_flight::{InFlight, SetAside};
use crate::queue::{Depth, Queue, QueueError};

/// How often the counts are asked for while somebody else holds messages.
const RECHECK: Duration = Duration::from_millis(500);
/// Between two questions, while the counts contradict the books, at most.
const PATIENT_RECHECK: Duration = Duration::from_secs(5);
/// Questions after one that had no answer. With the delays below they take 31 s at least.
const RETRIES: usize = 10;

/// What must have become of this run's own messages before a queue counts as drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// They are in sealed segments: a drain on its own.
    Spooled,
    /// They are deleted: a whole run.
    Acknowledged,
}

/// What the queue holds in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Empty,
    /// This, of which a part is in segments that this run can do nothing for.
    NotEmpty { depth: Depth, set_aside: SetAside },
    /// The queue did not say.
    Unknown,
}

/// How the counts compare with the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Empty,
    /// The counts may not know yet what this run did.
    Contradicted,
    NotEmpty,
}

/// What the run knows by itself.
#[derive(Debug, Clone, Copy)]
struct Books {
    /// Messages in flight that this run received or inherited.
    in_flight: u64,
    set_aside: SetAside,
    /// Messages that SQS's counts may still hold although this run has moved them on.
    recent: u64,
}

/// Waits until the queue is drained, or until nothing came for `idle` although the counts are not zero.
pub(super) async fn prove<Q: Queue>(
    queue: &Q,
    emptiness: &Emptiness,
    in_flight: &InFlight,
    proof: Proof,
    gate: &watch::Receiver<bool>,
    idle: Duration,
) -> Result<Verdict, QueueError> {
    let mut quiet = Quiet::begin(emptiness.arrivals());
    loop {
        emptiness.all_came_back_empty().await;
        until_open(gate).await;
        if proof == Proof::Acknowledged {
            in_flight.none_remaining().await;
        }
        if !emptiness.is_shown() {
            continue;
        }
        let arrivals = emptiness.arrivals();
        if quiet.arrivals != arrivals {
            quiet = Quiet::begin(arrivals);
        }
        let Some(depth) = ask(queue).await? else { return Ok(Verdict::Unknown) };
        if emptiness.arrivals() != arrivals {
            continue;
        }
        let books = Books::of(in_flight, proof);
        let pause = match books.compare(depth) {
            Comparison::Empty => return Ok(Verdict::Empty),
            Comparison::Contradicted => quiet.next_pause(),
            Comparison::NotEmpty if quiet.since.elapsed() < idle => RECHECK.min(idle),
            Comparison::NotEmpty => return Ok(Verdict::NotEmpty { depth, set_aside: books.set_aside }),
        };
        emptiness.resume_pollers();
        tokio::time::sleep(pause).await;
    }
}

/// Waits until receives are allowed; without end, where nobody can allow them any more.
pub(super) async fn until_open(gate: &watch::Receiver<bool>) {
    if gate.clone().wait_for(|is_open| *is_open).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The time since the last arrival.
struct Quiet {
    arrivals: u64,
    since: Instant,
    pauses: backon::ExponentialBackoff,
}

impl Quiet {
    fn begin(arrivals: u64) -> Self {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(RECHECK)
            .with_max_delay(PATIENT_RECHECK)
            .without_max_times()
            .build();
        Self { arrivals, since: Instant::now(), pauses }
    }

    fn next_pause(&mut self) -> Duration {
        self.pauses.next().unwrap_or(PATIENT_RECHECK)
    }
}

impl Books {
    fn of(in_flight: &InFlight, proof: Proof) -> Self {
        Self {
            in_flight: in_flight.messages() + in_flight.inherited(),
            set_aside: in_flight.what_is_set_aside(),
            recent: match proof {
                Proof::Spooled => in_flight.recently_received(),
                Proof::Acknowledged => in_flight.recently_deleted(),
            },
        }
    }

    fn compare(&self, depth: Depth) -> Comparison {
        let elsewhere = depth.in_flight.saturating_sub(self.in_flight);
        let others = depth.visible + depth.delayed;
        if others + elsewhere == 0 {
            return Comparison::Empty;
        }
        let is_doubted = self.set_aside == SetAside::default() && others + elsewhere <= self.recent;
        if is_doubted { Comparison::Contradicted } else { Comparison::NotEmpty }
    }
}

/// The queue's counts; `None` where it does not tell them, however often it is asked.
async fn ask<Q: Queue>(queue: &Q) -> Result<Option<Depth>, QueueError> {
    let retries = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(PATIENT_RECHECK)
        .with_max_times(RETRIES)
        .with_jitter();
    match (|| queue.depth()).retry(retries).when(QueueError::is_transient).await {
        Ok(depth) => Ok(Some(depth)),
        Err(error) if error.is_transient() => {
            tracing::warn!(%error, "the queue's counts could not be asked for");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_are_compared_with_the_books() {
        use Comparison::{Contradicted, Empty, NotEmpty};
        let depth = |visible, in_flight, delayed| Depth { visible, in_flight, delayed };
        let books =
            |in_flight, messages, recent| Books { in_flight, set_aside: SetAside { messages, uncounted: 0 }, recent };
        let uncounted = Books { in_flight: 0, set_aside: SetAside { messages: 0, uncounted: 1 }, recent: 9 };
        let cases = [
            (depth(0, 0, 0), books(0, 0, 0), Empty),
            // A drain on its own deletes nothing.
            (depth(0, 5, 0), books(5, 0, 5), Empty),
            (depth(0, 3, 0), books(5, 0, 5), Empty),
            (depth(0, 6, 0), books(5, 0, 5), Contradicted),
            (depth(0, 6, 0), books(5, 0, 0), NotEmpty),
            // Deleted a moment ago, and long ago.
            (depth(0, 9, 0), books(0, 0, 9), Contradicted),
            (depth(2, 7, 0), books(0, 0, 9), Contradicted),
            (depth(0, 9, 1), books(0, 0, 9), NotEmpty),
            (depth(0, 9, 0), books(0, 0, 0), NotEmpty),
            // What was set aside is in flight, and known to be.
            (depth(0, 4, 0), books(0, 4, 9), NotEmpty),
            (depth(0, 5, 0), books(0, 4, 9), NotEmpty),
            (depth(1, 4, 0), books(0, 4, 0), NotEmpty),
            (depth(0, 0, 0), books(0, 4, 9), Empty),
            // Of what was set aside nobody knows how much it is.
            (depth(0, 5, 0), uncounted, NotEmpty),
            (depth(0, 0, 0), uncounted, Empty),
        ];
        for (index, (depth, books, expected)) in cases.into_iter().enumerate() {
            assert_eq!(books.compare(depth), expected, "case {index}: {depth:?}, {books:?}");
        }
    }
}
