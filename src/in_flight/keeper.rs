//! Keeps what this run received invisible to other consumers until it is settled, and gives back what it will not
//! finish.
//!
//! Always true:
//! - only what this run received or inherited is touched: sealed segments, whose receipt handles are read from their spool
//!   files when they are needed, and before that the batches of messages that are not sealed yet;
//! - time is this process's own monotonic time, so neither a clock that is wrong nor one that is set matters. Only how old
//!   an inherited segment is, its name tells; a clock that is wrong costs there a request that SQS refuses, or an extension;
//! - nothing is asked for that SQS refuses: a message can be held for 12 hours from its receive, and a request that
//!   goes beyond is an error there, not a clamp.
//!
//! On failure messages become visible and are delivered again, which the ledger recognises: the keeper warns once
//! and goes on trying, and the run never fails because of it.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::vec;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::InFlight;
use super::holdings::{Held, Holding, Place};
use crate::error::Error;
use crate::queue::{BATCH_MESSAGES, FailedEntry, Queue};
use crate::spool::Receipts;
use crate::staging::Staging;

/// SQS's limit from a message's receive to the end of its last extension.
const HELD_AT_MOST: Duration = Duration::from_hours(12);
/// The request itself takes time, and SQS counts from before the answer to the receive was here.
const MARGIN: Duration = Duration::from_mins(1);
/// Giving back is a courtesy; the process ends soon whether or not SQS answers.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);

/// Whether SQS may still hold what was received then.
pub(super) fn can_be_held(received: Instant) -> bool {
    received.elapsed() + MARGIN < HELD_AT_MOST
}

/// Extends and releases what is in flight.
#[derive(Debug)]
pub struct Keeper<Q> {
    queue: Arc<Q>,
    in_flight: Arc<InFlight>,
    staging: Staging,
    parallel: usize,
    /// The last round failed, and the warning about it is written.
    failing: AtomicBool,
}

/// What is to change its visibility, and for how long it is invisible then.
struct Change {
    holding: Holding,
    handles: VecDeque<String>,
    duration: Duration,
}

/// What came of the changes of one [`Holding`].
#[derive(Debug, Clone, Copy, Default)]
struct Changed {
    /// Some were not made, and can be.
    failed: bool,
    /// SQS made some.
    made: bool,
}

/// The receipt handles whose visibility is to change, a request's worth at a time.
struct Requests<'a> {
    staging: &'a Staging,
    in_flight: &'a InFlight,
    changes: vec::IntoIter<Change>,
    reading: Option<(Holding, Duration, Handles)>,
}

/// The receipt handles of one [`Holding`].
enum Handles {
    InMemory(VecDeque<String>),
    InFile(Box<Receipts>),
}

impl<Q: Queue> Keeper<Q> {
    /// Keeps what `in_flight` holds, by up to `parallel` requests at a time.
    pub const fn new(queue: Arc<Q>, in_flight: Arc<InFlight>, staging: Staging, parallel: usize) -> Self {
        Self { queue, in_flight, staging, parallel, failing: AtomicBool::new(false) }
    }

    /// Extends whatever is past half its visibility timeout, again and again.
    pub async fn keep(&self) -> Infallible {
        let visibility_timeout = self.queue.visibility_timeout();
        // An eighth late at most, so more than a third of the timeout remains for the requests.
        let mut rounds = interval(visibility_timeout / 8);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            self.extend_due(visibility_timeout).await;
        }
    }

    async fn extend_due(&self, visibility_timeout: Duration) {
        let started = Instant::now();
        let due = self.in_flight.holdings.not_extended_since(started - visibility_timeout / 2);
        if due.is_empty() {
            return;
        }
        let remaining = |received: Instant| HELD_AT_MOST.saturating_sub(started - received + MARGIN);
        let changes: Vec<Change> = due
            .iter()
            .map(|(holding, held)| Change {
                holding: *holding,
                handles: held.handles(|place| place != Place::Sealed).cloned().collect(),
                duration: visibility_timeout.min(remaining(held.received)),
            })
            .filter(|change| change.duration.as_secs() > 0)
            .collect();
        let outcomes = self.change_all(changes, self.parallel).await;
        for (holding, held) in due {
            let outcome = outcomes.get(&holding);
            let failed = outcome.is_some_and(|changed| changed.failed);
            if remaining(held.received) < visibility_timeout && !failed {
                tracing::warn!(
                    "{holding}: SQS lets nothing be in flight for more than 12 hours after its receive; what is not done by \
                     then is delivered again"
                );
                self.in_flight.holdings.let_go(holding);
            } else if outcome.is_none_or(|changed| changed.made && !changed.failed) {
                self.in_flight.holdings.extended(holding, started);
            } else if outcome.is_some_and(|changed| !changed.failed) {
                tracing::debug!("{holding}: not in flight any more under its handles");
                self.in_flight.holdings.let_go(holding);
            }
        }
        if !outcomes.values().any(|changed| changed.failed) && self.failing.swap(false, Ordering::AcqRel) {
            tracing::info!("visibility timeouts are extended again");
        }
    }

    /// Makes everything visible that this run received or inherited and did not settle; bounded, and without a promise.
    pub async fn release(&self) {
        let all = self.in_flight.holdings.all().into_iter();
        self.release_all(all.map(|(holding, held)| to_release(holding, &held, |place| place != Place::Sealed))).await;
    }

    /// Makes visible what is in the queue alone: neither in a sealed segment nor in one that the next run may recover.
    pub async fn release_unsealed(&self) {
        let mut unsealed = self.in_flight.holdings.all();
        unsealed.retain(|(holding, _)| matches!(holding, Holding::Batch(_)));
        let unsealed = unsealed.into_iter();
        self.release_all(unsealed.map(|(holding, held)| to_release(holding, &held, |place| place == Place::Received)))
            .await;
    }

    async fn release_all(&self, releases: impl Iterator<Item = Change>) {
        let is_any = |change: &Change| matches!(change.holding, Holding::Segment(_)) || !change.handles.is_empty();
        let releases: Vec<Change> = releases.filter(is_any).collect();
        if releases.is_empty() {
            return;
        }
        let segments = releases.iter().filter(|change| matches!(change.holding, Holding::Segment(_))).count();
        let unsealed: usize = releases.iter().map(|change| change.handles.len()).sum();
        tracing::info!(segments, unsealed, "giving back what was received and is not loaded");
        if timeout(RELEASE_LIMIT, self.change_all(releases, usize::MAX)).await.is_err() {
            tracing::warn!("SQS takes too long to give messages back; they become visible by themselves");
        }
    }

    /// Changes the visibility of all these messages; returns what came of it where something was to be changed.
    ///
    /// No request is tried again here, beyond what the SDK does: the next round is the retry of an extension. After
    /// `give_up_after` failures the others wait for that round, too: SQS is away.
    async fn change_all(&self, changes: Vec<Change>, give_up_after: usize) -> HashMap<Holding, Changed> {
        let (mut outcomes, mut failures) = (HashMap::<Holding, Changed>::new(), 0);
        let (staging, in_flight) = (&self.staging, &*self.in_flight);
        let mut requests = Requests { staging, in_flight, changes: changes.into_iter(), reading: None };
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < self.parallel
                && failures < give_up_after
                && let Some((holding, duration, handles)) = requests.next()
            {
                running.push(async move { (holding, self.change(&handles, duration).await) });
            }
            let Some((holding, one)) = running.next().await else { break };
            let all = outcomes.entry(holding).or_default();
            *all = Changed { failed: all.failed || one.failed, made: all.made || one.made };
            failures += usize::from(one.failed);
        }
        for holding in requests.unread() {
            outcomes.entry(holding).or_default().failed = true;
        }
        outcomes
    }

    async fn change(&self, handles: &[String], duration: Duration) -> Changed {
        let outcome = if duration.is_zero() {
            self.queue.release(handles).await
        } else {
            let outcome = self.queue.extend(handles, duration).await;
            if let Ok(failed) = &outcome {
                self.in_flight.count_extensions(handles.len() - failed.len().min(handles.len()));
            }
            outcome
        };
        let made = outcome.as_ref().is_ok_and(|failed| failed.len() < handles.len());
        let problem = match outcome {
            // What SQS refuses for another reason is deleted, or delivered again: there is nothing left to keep.
            Ok(failed) => failed.into_iter().find(FailedEntry::is_transient).map(|entry| entry.code),
            Err(error) => Some(Error::from(error).one_line()),
        };
        if let Some(problem) = &problem {
            self.warn_once(problem);
        }
        Changed { failed: problem.is_some(), made }
    }

    fn warn_once(&self, problem: &str) {
        if self.failing.swap(true, Ordering::AcqRel) {
            tracing::debug!(problem, "cannot change visibility timeouts");
        } else {
            tracing::warn!(
                problem,
                "cannot change visibility timeouts; messages may be delivered again, and recognised"
            );
        }
    }
}

fn to_release(holding: Holding, held: &Held, is_wanted: impl Fn(Place) -> bool) -> Change {
    Change { holding, handles: held.handles(is_wanted).cloned().collect(), duration: Duration::ZERO }
}

impl Requests<'_> {
    fn next(&mut self) -> Option<(Holding, Duration, Vec<String>)> {
        loop {
            if let Some((holding, duration, handles)) = &mut self.reading
                && self.in_flight.holdings.holds(*holding)
                && let Some(request) = handles.next_request()
            {
                return Some((*holding, *duration, request));
            }
            self.reading = None;
            let Change { holding, handles, duration } = self.changes.next()?;
            let handles = match holding {
                Holding::Batch(_) => Some(Handles::InMemory(handles)),
                // A segment that was settled meanwhile is not among the unacknowledged any more; damage is for its
                // transform to report.
                Holding::Segment(segment) => {
                    let file = self.staging.find_unacknowledged(segment);
                    file.and_then(|file| Receipts::open(&file).ok()).map(|receipts| Handles::InFile(Box::new(receipts)))
                }
            };
            self.reading = handles.map(|handles| (holding, duration, handles));
        }
    }

    /// What was not read to its end.
    fn unread(self) -> impl Iterator<Item = Holding> {
        self.reading.map(|(holding, ..)| holding).into_iter().chain(self.changes.map(|change| change.holding))
    }
}

impl Handles {
    fn next_request(&mut self) -> Option<Vec<String>> {
        let handles = match self {
            Self::InMemory(handles) => handles.drain(..handles.len().min(BATCH_MESSAGES)).collect(),
            Self::InFile(receipts) => receipts.next_handles(BATCH_MESSAGES).ok()?,
        };
        Some(handles).filter(|handles| !handles.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Batch, BatchPart};
    use super::*;
    use crate::queue::simulated::{SimulatedQueue, VISIBILITY_TIMEOUT, messages};
    use crate::segment::SegmentId;
    use crate::spool::{Record, SealedSegment, SegmentWriter, origin};

    struct Bench {
        keeper: Keeper<SimulatedQueue>,
        _root: tempfile::TempDir,
    }

    impl Bench {
        fn new(queue: SimulatedQueue) -> Self {
            let root = tempfile::tempdir().unwrap();
            let staging = Staging::open(root.path()).unwrap();
            let in_flight = Arc::new(InFlight::with_cap(1000));
            Self { keeper: Keeper::new(Arc::new(queue), in_flight, staging, 1), _root: root }
        }

        fn sealed(&self, messages: usize) -> SealedSegment {
            let mut writer = SegmentWriter::create(&self.keeper.staging, &origin()).unwrap();
            for index in 0..messages {
                let receipt_handle = format!("r{index}");
                let record = Record { receipt_handle: receipt_handle.into(), ..Record::with_body("{}") };
                writer.append(&record).unwrap();
            }
            writer.seal().unwrap()
        }

        /// A sealed segment that was received this time ago.
        fn hold(&self, messages: usize, age: Duration) -> SegmentId {
            let segment = self.sealed(messages);
            let batch = self.receive(messages, age);
            self.keeper.in_flight.hold(&segment, vec![BatchPart { batch, messages: 0..messages }]);
            segment.id
        }

        /// The messages of one receive that ended this time ago.
        fn receive(&self, count: usize, age: Duration) -> Batch {
            let batch = self.keeper.in_flight.try_reserve(count).unwrap().arrived(&messages(count));
            self.keeper.in_flight.holdings.age(batch, age);
            batch
        }

        async fn round(&self) -> Vec<(usize, Duration)> {
            self.keeper.extend_due(VISIBILITY_TIMEOUT).await;
            self.keeper.queue.changes()
        }
    }

    #[tokio::test]
    async fn what_is_past_half_its_timeout_is_extended_in_batches_and_then_left_alone() {
        let bench = Bench::new(SimulatedQueue::default());
        bench.hold(25, Duration::from_secs(16));
        bench.hold(5, Duration::from_secs(14));
        assert_eq!(bench.round().await, [10, 10, 5].map(|messages| (messages, VISIBILITY_TIMEOUT)));
        assert!(bench.round().await.is_empty());
    }

    #[tokio::test]
    async fn the_last_extension_ends_within_twelve_hours_and_then_the_segment_is_let_go() {
        let bench = Bench::new(SimulatedQueue::default());
        // 12 hours, less a minute and 10.5 seconds.
        let segment = bench.hold(1, Duration::from_millis(43_129_500));
        let changes = bench.round().await;
        assert!(matches!(changes[..], [(1, duration)] if duration <= Duration::from_millis(10_500)), "{changes:?}");
        assert!(!bench.keeper.in_flight.holdings.holds(Holding::Segment(segment)));

        bench.hold(1, HELD_AT_MOST);
        assert!(bench.round().await.is_empty(), "SQS would refuse it");
    }

    #[tokio::test]
    async fn entries_that_sqs_failed_are_tried_again_and_stale_ones_are_not() {
        let bench = Bench::new(SimulatedQueue::refusing("InternalError", false));
        bench.hold(1, VISIBILITY_TIMEOUT);
        assert_eq!(bench.round().await.len(), 1);
        assert_eq!(bench.round().await.len(), 1);

        let bench = Bench::new(SimulatedQueue::refusing("ReceiptHandleIsInvalid", true));
        bench.hold(1, VISIBILITY_TIMEOUT);
        assert_eq!(bench.round().await.len(), 1);
        assert!(bench.round().await.is_empty());
    }

    /// After a failure the rest of a round is not asked for, and not taken for extended either.
    #[tokio::test]
    async fn a_round_that_is_given_up_is_made_up_for() {
        let bench = Bench::new(SimulatedQueue::refusing("InternalError", false));
        bench.hold(30, VISIBILITY_TIMEOUT);
        bench.hold(30, VISIBILITY_TIMEOUT);
        assert_eq!(bench.round().await.len(), 1);
        let due = bench.keeper.in_flight.holdings.not_extended_since(Instant::now() - VISIBILITY_TIMEOUT / 2);
        assert_eq!(due.len(), 2);
    }

    /// Messages that wait for a slow disk were not extended, so they were delivered again before they were sealed.
    #[tokio::test]
    async fn what_is_received_and_not_sealed_yet_is_extended_too() {
        let bench = Bench::new(SimulatedQueue::default());
        let unsealed = bench.receive(10, Duration::from_secs(16));
        assert_eq!(bench.round().await, [(10, VISIBILITY_TIMEOUT)]);
        assert!(bench.round().await.is_empty());

        let part = BatchPart { batch: unsealed, messages: 0..10 };
        bench.keeper.in_flight.hold(&SealedSegment::of_messages(10), vec![part]);
        assert!(bench.round().await.is_empty(), "the extension counts for the segment");
    }

    /// A full disk left them invisible for a visibility timeout.
    #[tokio::test]
    async fn what_no_segment_took_is_given_back_also_where_segments_are_not() {
        let bench = Bench::new(SimulatedQueue::default());
        bench.hold(5, Duration::ZERO);
        _ = bench.receive(3, Duration::ZERO);
        bench.keeper.release_unsealed().await;
        assert_eq!(bench.keeper.queue.changes(), [(3, Duration::ZERO)]);
        bench.keeper.release().await;
        let mut changes = bench.keeper.queue.changes();
        changes.sort_unstable();
        assert_eq!(changes, [(3, Duration::ZERO), (5, Duration::ZERO)]);
    }

    /// A full disk had a batch released as a whole of which a part was sealed. By `dedupe = "segment"` that part became
    /// second rows.
    #[tokio::test]
    async fn of_a_batch_that_the_disk_cut_only_what_is_in_no_file_is_given_back() {
        let bench = Bench::new(SimulatedQueue::default());
        let in_flight = &bench.keeper.in_flight;
        let [cut, open] = [0, 1].map(|_| bench.receive(10, Duration::ZERO));
        in_flight.append(cut);
        in_flight.hold(&bench.sealed(4), vec![BatchPart { batch: cut, messages: 0..9 }]);
        // The last one was not even begun; the next run may recover the file that the other batch is in.
        in_flight.not_appended(&[BatchPart { batch: cut, messages: 9..10 }]);
        in_flight.append(open);
        bench.keeper.release_unsealed().await;
        assert_eq!(bench.keeper.queue.changes(), [(6, Duration::ZERO)]);
    }

    /// Segments of a killed run were not extended, so the queue delivered them again while they waited for their load. By
    /// `dedupe = "segment"` that made second rows.
    #[tokio::test]
    async fn what_an_earlier_run_sealed_is_extended_at_once_until_its_handles_are_stale() {
        let bench = Bench::new(SimulatedQueue::default());
        let inherited = bench.sealed(25);
        bench.keeper.in_flight.inherit(&[inherited]);
        bench.keeper.in_flight.holdings.inherit(inherited.id, Instant::now() - VISIBILITY_TIMEOUT);
        assert_eq!(bench.round().await, [10, 10, 5].map(|messages| (messages, VISIBILITY_TIMEOUT)));
        assert!(bench.round().await.is_empty());

        let bench = Bench::new(SimulatedQueue::refusing("MessageNotInflight", true));
        let inherited = bench.sealed(25);
        bench.keeper.in_flight.holdings.inherit(inherited.id, Instant::now() - VISIBILITY_TIMEOUT);
        assert_eq!(bench.round().await.len(), 3);
        assert!(!bench.keeper.in_flight.holdings.holds(Holding::Segment(inherited.id)));
    }

    /// SQS would refuse it.
    #[tokio::test]
    async fn an_inherited_segment_without_a_time_or_older_than_twelve_hours_is_not_extended() {
        let bench = Bench::new(SimulatedQueue::default());
        for name in ["00000000-0000-770f-9677-e5113bc7cfc2", "01980000-0000-7000-8000-000000000000"] {
            let segment = SealedSegment { id: name.parse().unwrap(), ..bench.sealed(5) };
            bench.keeper.in_flight.inherit(&[segment]);
        }
        assert!(bench.round().await.is_empty());
        assert_eq!(bench.keeper.in_flight.inherited(), 10, "they count all the same");
    }

    #[tokio::test]
    async fn what_is_settled_is_neither_extended_nor_released() {
        let bench = Bench::new(SimulatedQueue::default());
        let segment = bench.hold(5, VISIBILITY_TIMEOUT);
        bench.hold(7, Duration::ZERO);
        bench.keeper.in_flight.settle(segment, 0);
        assert!(bench.round().await.is_empty());
        bench.keeper.release().await;
        assert_eq!(bench.keeper.queue.changes(), [(7, Duration::ZERO)]);
    }
}
