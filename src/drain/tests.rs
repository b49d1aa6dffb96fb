//! A whole drain of a simulated queue, on a clock that is moved: seconds pass at once, and always in the same way.

mod ends;
mod full_disk;

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::queue::ReceiveAttempt;
use crate::queue::simulated::{LONG_POLL, SimulatedQueue};
use crate::spool::origin;

const MOST: usize = 64;
const FEWEST: usize = 2;
/// More than any test receives.
const PLENTY: u64 = 1_000_000_000;
const FOLLOW: DrainLimits = DrainLimits { idle: None, max_messages: None, started_at_ms: None };
const UNTIL_EMPTY: DrainLimits = DrainLimits { idle: Some(Duration::from_secs(10)), ..FOLLOW };

/// What the next stage does with a sealed segment.
enum Behind {
    /// It deletes the messages after this time, one segment after the other.
    Deletes(Duration),
    StandsStill,
}

struct Setup {
    latency_ms: u64,
    /// Messages a second that the queue gives at most.
    ceiling: u32,
    limits: DrainLimits,
    cap: u32,
    segment_max_messages: u64,
    segment_max_bytes: u64,
    proof: Proof,
    behind: Behind,
}

struct RunningDrain {
    queue: Arc<SimulatedQueue>,
    in_flight: Arc<InFlight>,
    counters: Arc<Counters>,
    staging: Staging,
    stop: CancellationToken,
    gate: watch::Sender<bool>,
    drain: JoinHandle<Result<DrainEnd, Error>>,
    _behind: JoinHandle<()>,
    _root: tempfile::TempDir,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            latency_ms: 100,
            ceiling: 1_000_000,
            limits: FOLLOW,
            cap: 100_000,
            segment_max_messages: 1000,
            segment_max_bytes: 1 << 20,
            proof: Proof::Acknowledged,
            behind: Behind::Deletes(Duration::ZERO),
        }
    }
}

impl Setup {
    fn queue(&self, messages: u64) -> SimulatedQueue {
        let queue = SimulatedQueue::with_latency(Duration::from_millis(self.latency_ms), self.ceiling);
        queue.send(messages);
        queue
    }

    fn start(self, messages: u64) -> RunningDrain {
        let queue = self.queue(messages);
        self.start_on(queue)
    }

    fn start_on(self, queue: SimulatedQueue) -> RunningDrain {
        let (root, queue) = (tempfile::tempdir().unwrap(), Arc::new(queue));
        let gate = watch::Sender::new(true);
        let in_flight = Arc::new(InFlight::with_cap(self.cap));
        let staging = Staging::open(root.path()).unwrap();
        let counters = Arc::<Counters>::default();
        let stop = CancellationToken::new();
        let drain = Drain {
            queue: Arc::clone(&queue),
            staging: staging.clone(),
            origin: origin(),
            spool_key: None,
            settings: QueueSettings {
                pollers: MOST,
                wait_seconds: 1,
                visibility_seconds: 30,
                max_in_flight: self.cap,
                shutdown_grace: Duration::ZERO,
            },
            spool: SpoolSettings {
                segment_max_messages: self.segment_max_messages,
                segment_max_bytes: self.segment_max_bytes,
                segment_max_age_ms: 2000,
                archive_days: 0,
                rejects_days: 90,
                encryption: false,
            },
            limits: self.limits,
            proof: self.proof,
            gate: gate.subscribe(),
            in_flight: Arc::clone(&in_flight),
            counters: Arc::clone(&counters),
            stop: stop.clone(),
            all_sealed: CancellationToken::new(),
        };
        let (sealed, segments) = mpsc::channel(1);
        let behind = tokio::spawn(self.behind.go(segments, Arc::clone(&queue), Arc::clone(&in_flight)));
        let drain = tokio::spawn(drain.run(sealed));
        RunningDrain { queue, in_flight, counters, staging, stop, gate, drain, _behind: behind, _root: root }
    }
}

impl Behind {
    async fn go(
        self,
        mut segments: mpsc::Receiver<SealedSegment>,
        queue: Arc<SimulatedQueue>,
        in_flight: Arc<InFlight>,
    ) {
        let Self::Deletes(after) = self else { return std::future::pending().await };
        while let Some(segment) = segments.recv().await {
            sleep(after).await;
            queue.delete_messages(segment.messages);
            in_flight.deleted(segment.messages);
            in_flight.settle(segment.id, segment.messages);
        }
    }
}

impl RunningDrain {
    async fn received_within(&self, seconds: u64) -> u64 {
        let before = self.queue.received();
        sleep(Duration::from_secs(seconds)).await;
        self.queue.received() - before
    }

    async fn ends(self) -> DrainEnd {
        self.drain.await.unwrap().unwrap()
    }
}

/// What this number of tasks receives, with nothing behind them.
async fn received_by(pollers: usize, setup: &Setup, seconds: u64) -> u64 {
    let queue = Arc::new(setup.queue(PLENTY));
    let mut receiving = JoinSet::new();
    for _ in 0..pollers {
        let queue = Arc::clone(&queue);
        receiving.spawn(async move { while queue.receive(BATCH_MESSAGES, &ReceiveAttempt::begin()).await.is_ok() {} });
    }
    sleep(Duration::from_secs(seconds)).await;
    queue.received()
}

/// After three seconds there are as many pollers as expected, and they bring what the best fixed number would.
async fn finds_its_number(latency_ms: u64, expected: usize) {
    const SECONDS: u64 = 3;
    let setup = || Setup { latency_ms, ceiling: 10_000, ..Setup::default() };
    let mut best = 0;
    for pollers in [1, 2, 4, 8, 16, 32, MOST] {
        best = best.max(received_by(pollers, &setup(), SECONDS).await);
    }
    let running = setup().start(PLENTY);
    running.received_within(3).await;
    running.queue.most_receiving();
    let received = running.received_within(SECONDS).await;
    assert!(received * 10 >= best * 9, "{received} of {best}");
    assert_eq!(running.queue.most_receiving(), expected);
}

#[tokio::test(start_paused = true)]
async fn at_a_latency_of_1_ms_two_pollers_bring_what_any_number_brings() {
    finds_its_number(1, 2).await;
}

#[tokio::test(start_paused = true)]
async fn at_a_latency_of_20_ms_thirty_two_pollers_bring_what_any_number_brings() {
    finds_its_number(20, 32).await;
}

#[tokio::test(start_paused = true)]
async fn at_a_latency_of_100_ms_sixty_four_pollers_bring_the_most() {
    finds_its_number(100, MOST).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_queue_keeps_the_fewest_pollers_and_they_grow_when_messages_come() {
    let running = Setup::default().start(20_000);
    running.queue.until_receiving(|&receiving| receiving == MOST).await;
    running.queue.until_receiving(|&receiving| receiving == FEWEST).await;
    let before = running.queue.receives();
    sleep(60 * LONG_POLL).await;
    assert!(running.queue.receives() - before <= 60 * FEWEST as u64, "each costs as much as a full one");
    running.queue.until_receiving(|&receiving| receiving == FEWEST).await;
    let room = running.in_flight.cap() as usize - FEWEST * BATCH_MESSAGES;
    assert!(running.in_flight.try_reserve(room).is_some(), "a parked poller holds no room");

    running.queue.send(PLENTY);
    let all = running.queue.until_receiving(|&receiving| receiving == MOST);
    timeout(Duration::from_secs(3), all).await.expect("within three seconds");
}

#[tokio::test(start_paused = true)]
async fn a_queue_is_proven_empty_while_the_number_of_pollers_changes() {
    // From one long poll to an end in the middle of growing.
    for messages in [0, 1, 25, 500, 2000, 10_000] {
        let running = Setup { limits: UNTIL_EMPTY, ..Setup::default() }.start(messages);
        let (queue, in_flight) = (Arc::clone(&running.queue), Arc::clone(&running.in_flight));
        assert_eq!(running.ends().await, DrainEnd::Empty);
        assert_eq!((queue.received(), in_flight.messages()), (messages, 0));
    }
}

/// A receive that begins while the verdict is near would have to be waited for.
#[tokio::test(start_paused = true)]
async fn one_long_poll_after_the_last_message_proves_the_queue_empty() {
    for messages in [0, 500] {
        let began = Instant::now();
        let running = Setup { latency_ms: 1, limits: UNTIL_EMPTY, ..Setup::default() }.start(messages);
        assert_eq!(running.ends().await, DrainEnd::Empty);
        assert!(began.elapsed() < LONG_POLL * 3 / 2, "{messages} messages: {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stage_behind_that_stands_still_stops_the_growth() {
    let running = Setup { behind: Behind::StandsStill, segment_max_messages: 20, ..Setup::default() }.start(PLENTY);
    running.received_within(5).await;
    assert_eq!(running.queue.most_receiving(), FEWEST);
}

#[tokio::test(start_paused = true)]
async fn in_flight_never_exceeds_the_cap_and_its_arithmetic_holds() {
    const CAP: u32 = 2000;
    let running = Setup {
        latency_ms: 20,
        cap: CAP,
        segment_max_messages: 500,
        behind: Behind::Deletes(Duration::from_millis(400)),
        ..Setup::default()
    }
    .start(PLENTY);
    running.received_within(5).await;
    let received = running.received_within(60).await;
    assert_eq!(running.queue.most_in_flight(), u64::from(CAP));
    assert!(running.in_flight.time_at_cap() > Duration::from_secs(30));
    let to_delete = running.in_flight.mean_time_to_delete().unwrap();
    let in_flight = u128::from(received) * to_delete.as_millis() / 60_000;
    assert!((1800..=2000).contains(&in_flight), "the rate times {to_delete:?} is {in_flight}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_is_told_to_stop_ends_with_the_receives_under_way() {
    let running = Setup::default().start(100);
    running.queue.until_receiving(|&receiving| receiving == FEWEST).await;
    running.stop.cancel();
    let stopped = timeout(LONG_POLL + Duration::from_millis(100), running.ends()).await;
    assert_eq!(stopped.expect("in the time of a receive"), DrainEnd::Stopped);
}

/// At the cap nothing told the spooler to seal before the segment was old enough: 2 s for each 500 messages.
#[tokio::test(start_paused = true)]
async fn a_receive_that_waits_for_room_in_flight_has_the_open_segment_sealed() {
    let began = Instant::now();
    let setup =
        Setup { latency_ms: 5, limits: UNTIL_EMPTY, cap: 500, segment_max_messages: 20_000, ..Setup::default() };
    let running = setup.start(3000);
    let queue = Arc::clone(&running.queue);
    assert_eq!(running.ends().await, DrainEnd::Empty);
    assert_eq!(queue.received(), 3000);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}
