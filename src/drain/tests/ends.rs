//! How a drain ends: by its limits, by the proof that the queue is empty, or not at all while its gate is closed.

use super::*;
use crate::in_flight::SetAside;

const LAG: Duration = Duration::from_secs(20);
const HALF_MINUTE: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn a_drain_ends_at_its_last_message() {
    let limits = DrainLimits { max_messages: Some(1005), ..UNTIL_EMPTY };
    let running = Setup { limits, ..Setup::default() }.start(PLENTY);
    let queue = Arc::clone(&running.queue);
    assert_eq!(running.ends().await, DrainEnd::Limit);
    assert_eq!(queue.received(), 1005);
}

/// Pollers for which the limit leaves nothing were waited for without end.
#[tokio::test(start_paused = true)]
async fn a_limit_beyond_what_the_queue_has_ends_with_the_queue() {
    for max_messages in [3, 15, 1000] {
        let limits = DrainLimits { max_messages: Some(max_messages), ..UNTIL_EMPTY };
        let running = Setup { limits, ..Setup::default() }.start(2);
        assert_eq!(running.ends().await, DrainEnd::Empty);
    }
}

/// A poller that found the whole limit asked for gave up, so a limit of 310 ended 300 messages with the limit instead of with
/// the empty queue, and one of 400 among 1,500 after 360, where receives came back empty.
#[tokio::test(start_paused = true)]
async fn a_limit_is_reached_exactly_or_the_queue_is_empty() {
    for (sent, max_messages, expected) in [
        (300, 310, (300, DrainEnd::Empty)),
        (300, 300, (300, DrainEnd::Limit)),
        (1500, 400, (400, DrainEnd::Limit)),
        (1500, 399, (399, DrainEnd::Limit)),
        (1500, 3, (3, DrainEnd::Limit)),
    ] {
        let limits = DrainLimits { max_messages: Some(max_messages), ..UNTIL_EMPTY };
        let setup = Setup { limits, latency_ms: 5, ..Setup::default() };
        let queue = setup.queue(sent).with_empty_receives(3);
        let running = setup.start_on(queue);
        let queue = Arc::clone(&running.queue);
        let end = running.ends().await;
        assert_eq!((queue.received(), end), expected, "{max_messages} of {sent}");
    }
}

/// What receives under way had reserved was taken for received, so a queue of 25 messages ended a drain at a cap of 30.
#[tokio::test(start_paused = true)]
async fn a_drain_on_its_own_ends_at_the_cap_only_where_it_received_as_many() {
    for (sent, expected) in [(25, (25, DrainEnd::Empty)), (50, (30, DrainEnd::AtCap))] {
        let setup = Setup { limits: UNTIL_EMPTY, cap: 30, proof: Proof::Spooled, ..Setup::default() };
        let running = Setup { behind: Behind::StandsStill, ..setup }.start(sent);
        let queue = Arc::clone(&running.queue);
        let end = running.ends().await;
        assert_eq!((queue.received(), end), expected);
    }
}

/// A queue that was emptied was called not empty, because its counts lagged for longer than `--idle`.
#[tokio::test(start_paused = true)]
async fn counts_that_lag_do_not_hold_an_emptied_queue_for_full() {
    for proof in [Proof::Acknowledged, Proof::Spooled] {
        let began = Instant::now();
        let setup = Setup { limits: UNTIL_EMPTY, proof, ..Setup::default() };
        let queue = setup.queue(0).with_lagging_counts(LAG);
        queue.send(500);
        assert_eq!(setup.start_on(queue).ends().await, DrainEnd::Empty);
        assert!((LAG..HALF_MINUTE).contains(&began.elapsed()), "{:?}", began.elapsed());
    }
}

/// The pollers go on meanwhile.
#[tokio::test(start_paused = true)]
async fn a_message_that_comes_while_the_counts_are_doubted_is_received() {
    let setup = Setup { limits: UNTIL_EMPTY, ..Setup::default() };
    let queue = setup.queue(0).with_lagging_counts(LAG);
    queue.send(500);
    let running = setup.start_on(queue);
    sleep(LAG / 2).await;
    running.queue.send(7);
    assert_eq!(running.received_within(4).await, 7);
    assert_eq!(running.ends().await, DrainEnd::Empty);
}

/// More than this run deleted cannot be its own; fewer may be, until the counts must know better.
#[tokio::test(start_paused = true)]
async fn what_others_hold_is_believed_at_once_or_when_the_counts_cannot_lag_any_more() {
    for (own, others, seconds) in [(0, 5, 10..13), (4, 5, 10..16), (500, 5, 90..100)] {
        let began = Instant::now();
        let running = Setup { limits: UNTIL_EMPTY, ..Setup::default() }.start(own);
        running.queue.hold_elsewhere(others);
        let depth = Depth { visible: 0, in_flight: others, delayed: 0 };
        assert_eq!(running.ends().await, DrainEnd::NotEmpty { depth, set_aside: SetAside::default() });
        assert!(seconds.contains(&began.elapsed().as_secs()), "{own} own: {:?}", began.elapsed());
    }
}

/// After a kill and a restart with slow loads the run ended with "in flight with other consumers", although they were
/// its own spool's, and all of them got done.
#[tokio::test(start_paused = true)]
async fn what_an_earlier_run_left_in_the_spool_is_waited_for_and_not_taken_for_others() {
    let running = Setup { limits: UNTIL_EMPTY, ..Setup::default() }.start(0);
    let segment = SealedSegment::of_messages(60);
    running.in_flight.inherit(&[segment]);
    running.queue.hold_elsewhere(60);
    let (queue, in_flight) = (Arc::clone(&running.queue), Arc::clone(&running.in_flight));
    let slow_load = async {
        sleep(2 * HALF_MINUTE).await;
        queue.hold_elsewhere(0);
        in_flight.settle(segment.id, 60);
    };
    let (end, ()) = tokio::join!(running.ends(), slow_load);
    assert_eq!(end, DrainEnd::Empty);
}

/// A segment that was set aside is no reason to doubt the counts for a minute and a half. One whose messages nobody could
/// count was.
#[tokio::test(start_paused = true)]
async fn what_was_set_aside_is_known_to_be_in_flight() {
    for messages in [Some(10), None] {
        let began = Instant::now();
        let running = Setup { limits: UNTIL_EMPTY, ..Setup::default() }.start(500);
        let segment = SealedSegment::of_messages(messages.unwrap_or(0));
        running.in_flight.inherit(&[segment]);
        running.in_flight.set_aside(segment.id, messages);
        running.queue.hold_elsewhere(10);
        let depth = Depth { visible: 0, in_flight: 10, delayed: 0 };
        let set_aside = match messages {
            Some(messages) => SetAside { messages, uncounted: 0 },
            None => SetAside { messages: 0, uncounted: 1 },
        };
        assert_eq!(running.ends().await, DrainEnd::NotEmpty { depth, set_aside });
        assert!(began.elapsed() < HALF_MINUTE, "{:?}", began.elapsed());
    }
}

/// A second drain called the messages of the first one those of other consumers.
#[tokio::test(start_paused = true)]
async fn what_an_earlier_drain_spooled_is_no_reason_to_wait_and_not_taken_for_others() {
    for (held, end) in [
        (60, DrainEnd::Empty),
        (
            61,
            DrainEnd::NotEmpty {
                depth: Depth { visible: 0, in_flight: 61, delayed: 0 },
                set_aside: SetAside::default(),
            },
        ),
    ] {
        let running = Setup { limits: UNTIL_EMPTY, proof: Proof::Spooled, ..Setup::default() }.start(0);
        running.in_flight.inherit(&[20, 40].map(SealedSegment::of_messages));
        running.queue.hold_elsewhere(held);
        assert_eq!(running.ends().await, end);
    }
}

/// One failure that the SDK did not get over failed a run that had done all its work.
#[tokio::test(start_paused = true)]
async fn counts_that_cannot_be_asked_for_are_asked_again_and_never_fail_a_drain() {
    for (unanswered, expected) in [(8, DrainEnd::Empty), (u32::MAX, DrainEnd::Unproven)] {
        let running = Setup { limits: UNTIL_EMPTY, ..Setup::default() }.start(20);
        running.queue.leave_unanswered(unanswered);
        let began = Instant::now();
        assert_eq!(running.ends().await, expected);
        assert!(expected == DrainEnd::Empty || began.elapsed() >= HALF_MINUTE, "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_gate_is_closed_nothing_is_received_and_nothing_is_proven() {
    let running = Setup { limits: UNTIL_EMPTY, ..Setup::default() }.start(0);
    running.gate.send_replace(false);
    sleep(HALF_MINUTE).await;
    running.queue.send(5);
    assert_eq!(running.received_within(30).await, 0);
    assert!(!running.drain.is_finished(), "an empty receive from before the gate was closed proved the queue empty");
    running.gate.send_replace(true);
    assert_eq!(running.received_within(3).await, 5);
    assert_eq!(running.ends().await, DrainEnd::Empty);
}

#[tokio::test(start_paused = true)]
async fn a_drain_before_a_closed_gate_can_be_stopped() {
    let running = Setup { limits: UNTIL_EMPTY, ..Setup::default() }.start(100);
    running.gate.send_replace(false);
    running.received_within(5).await;
    running.stop.cancel();
    let stopped = timeout(2 * LONG_POLL, running.ends()).await;
    assert_eq!(stopped.expect("in the time of a receive"), DrainEnd::Stopped);
}
