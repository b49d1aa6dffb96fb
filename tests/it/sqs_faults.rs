//! SQS's faults, each injected between the real binary and a queue server: whatever happens, every message is loaded
//! once or rejected once with the right values, nothing is deleted before its fate is in the ledger, and fresh messages
//! still flow.

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use pgsluice::local::Fault::{
    ClockAhead, CountsAhead, CutAnswer, DamagedBodies, FailedEntries, LostAnswer, QueueDeleted, Refused, Slow,
};
use pgsluice::local::Operation::{Attributes, ChangeVisibility, Delete, Receive};
use pgsluice::local::When::{Always, Every, EveryOfFirst, First, Nth};
use pgsluice::local::{Faults, Rule};

use crate::logins::{PLAIN_COLUMNS, expected_rows, generated, login, logins_of};
use crate::testenv::{Outcome, Server, TestEnv};

const MESSAGES: usize = 120;
/// Longer than the visibility timeout, so that what a fault hid is waited for.
const RUN: [&str; 3] = ["run", "--idle", "8s"];
const SMALL_SEGMENTS: &str = "[spool]\nsegment_max_messages = 20\n";
/// So short that what a fault hides is visible again within the test.
const SHORT_VISIBILITY: &str = "[queue]\nvisibility_seconds = 2\n";
/// Receives among which some hide messages: few more than the queue is emptied with. Without an end, one message can be
/// hit again each time that it comes back, for longer than `--idle`, and the run rightly says that the queue is not empty.
const HIDING: u32 = 20;
/// Requests to delete or to extend among which some fail, where receives hide messages, too. Without an end, deletes
/// can be slower than messages come back, on a machine that is busy enough, and such a run does not end either.
const HINDERED: u32 = 60;
const DAYS_AHEAD_MS: i64 = 40 * 86_400_000;

/// A queue whose faults a test declares, and a witness of what is deleted from it.
struct FaultyEnv {
    env: TestEnv,
    deleted_too_early: Arc<Mutex<BTreeSet<String>>>,
}

impl FaultyEnv {
    fn holding(bodies: &[String], redeliver_every: Option<u32>) -> Self {
        let env = TestEnv::new(Server::Faulty(Faults { redeliver_every }));
        env.configure(&[SHORT_VISIBILITY, SMALL_SEGMENTS].concat());
        env.queue.send(bodies);
        let deleted_too_early = Arc::new(Mutex::new(BTreeSet::new()));
        let (early, database) = (Arc::clone(&deleted_too_early), env.database.again());
        env.queue.witness_deletes(move |messages| {
            let list: Vec<String> = messages.iter().map(|id| format!("'{id}'")).collect();
            let sql = format!("select message_id from pgsluice.message where message_id in ({})", list.join(","));
            let decided = database.texts(&sql);
            early.lock().unwrap().extend(messages.iter().filter(|id| !decided.contains(id)).cloned());
        });
        Self { env, deleted_too_early }
    }

    /// Conservation and integrity: each body became its row or a reject, once, and is gone from the queue.
    fn assert_all_done(&self, bodies: &[String]) {
        let Self { env, deleted_too_early } = self;
        assert!(deleted_too_early.lock().unwrap().is_empty(), "deleted before its commit");
        assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
        let rows = env.database.rows(&format!("select {PLAIN_COLUMNS} from user_logins"));
        let logins = logins_of(bodies).len();
        assert_eq!((rows.len(), env.database.count("pgsluice.reject")), (logins, (bodies.len() - logins) as u64));
        assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), expected_rows(bodies));
        assert!(env.staged_files("spool").is_empty(), "something remains in the spool");
    }
}

/// A run among faults ends with this exit code; the next one, without faults, finishes the work and takes fresh messages.
fn survives(redeliver_every: Option<u32>, rules: &[Rule], exit_code: i32) {
    let mut bodies = generated(MESSAGES);
    let faulty = FaultyEnv::holding(&bodies, redeliver_every);
    let env = &faulty.env;
    env.queue.inject(rules);
    env.job(&RUN).ends_with(exit_code);
    if exit_code == 0 {
        faulty.assert_all_done(&bodies);
    }

    env.queue.inject(&[]);
    let fresh = login("fresh").to_string();
    env.queue.send(&[&fresh]);
    bodies.push(fresh);
    env.job(&RUN).succeeds();
    faulty.assert_all_done(&bodies);
}

/// Makes a test of each line; a fault that only the program retries, or that hides messages, ends before its
/// patience does, whichever call meets it.
/// A line is what goes wrong, and how the run ends that meets it.
macro_rules! faults {
    ($($test:ident: $exit_code:literal, $redeliver_every:expr, [$($operation:expr, $when:expr, $fault:expr);+ $(;)?])+) => {
        $(#[test] fn $test() {
            let rules = [$(Rule { operation: $operation, when: $when, fault: $fault }),+];
            survives($redeliver_every, &rules, $exit_code);
        })+
    };
}

faults! {
    receives_fail: 0, None, [Receive, Every(3), Refused(500, "InternalFailure")]
    receives_are_throttled: 0, None, [Receive, Every(3), Refused(400, "RequestThrottled")]
    the_key_service_is_throttled: 0, None, [Receive, First(8), Refused(400, "KmsThrottled")]
    answers_to_receives_are_lost: 0, None, [Receive, EveryOfFirst(4, HIDING), LostAnswer]
    answers_to_receives_are_cut: 0, None, [Receive, EveryOfFirst(4, HIDING), CutAnswer]
    bodies_do_not_match_their_md5: 0, None, [Receive, EveryOfFirst(3, HIDING), DamagedBodies]
    answers_are_slow: 0, None, [
        Receive, Every(2), Slow(Duration::from_millis(500));
        Delete, Every(3), Slow(Duration::from_millis(500));
    ]
    the_queue_is_at_its_in_flight_cap_now_and_then: 0, None, [Receive, Every(2), Refused(403, "OverLimit")]
    deletes_fail: 0, None, [Delete, First(5), Refused(500, "InternalFailure")]
    deletes_are_throttled: 0, None, [Delete, First(7), Refused(400, "KmsThrottled")]
    answers_to_deletes_are_lost: 0, Some(2), [Delete, Every(2), LostAnswer]
    answers_to_deletes_are_cut: 0, Some(3), [Delete, Every(2), CutAnswer]
    entries_of_deletes_fail_by_the_fault_of_sqs: 0, None, [
        Delete, First(7), FailedEntries { code: "InternalError", sender_fault: false };
    ]
    entries_of_deletes_are_throttled: 0, None, [
        Delete, First(7), FailedEntries { code: "KmsThrottled", sender_fault: true };
    ]
    receipt_handles_are_stale: 0, Some(5), [
        Delete, First(4), FailedEntries { code: "ReceiptHandleIsInvalid", sender_fault: true };
    ]
    receipt_handles_have_expired: 0, None, [
        Delete, First(4), FailedEntries { code: "InvalidParameterValue", sender_fault: true };
    ]
    the_clock_of_sqs_is_far_ahead: 0, None, [Receive, Always, ClockAhead { ms: DAYS_AHEAD_MS }]
    the_clock_of_sqs_is_far_behind: 0, None, [Receive, Always, ClockAhead { ms: -DAYS_AHEAD_MS }]
    the_counts_fail: 0, None, [Attributes, Every(2), Refused(500, "InternalFailure")]
    the_credentials_expire: 1, None, [
        Receive, Nth(9), Refused(403, "ExpiredToken");
        Delete, Nth(9), Refused(403, "ExpiredToken");
    ]
    everything_fails_now_and_then: 0, Some(7), [
        Receive, EveryOfFirst(5, HIDING), LostAnswer;
        Receive, Every(7), Refused(500, "InternalFailure");
        Receive, EveryOfFirst(11, HIDING), DamagedBodies;
        Delete, EveryOfFirst(3, HINDERED), LostAnswer;
        Delete, EveryOfFirst(4, HINDERED), FailedEntries { code: "InternalError", sender_fault: false };
        ChangeVisibility, EveryOfFirst(2, HINDERED), Refused(500, "InternalFailure");
        Attributes, Every(3), CutAnswer;
    ]
}

/// While one delete takes its time, at least one whole segment is deleted that was received after it.
#[test]
fn a_slow_delete_does_not_hold_up_the_next_segment() {
    let bodies = generated(MESSAGES);
    let env = TestEnv::new(Server::Faulty(Faults::default()));
    env.configure(SMALL_SEGMENTS);
    env.queue.send(&bodies);
    env.queue.inject(&[Rule { operation: Delete, when: Nth(1), fault: Slow(Duration::from_secs(5)) }]);
    let deleted: Arc<Mutex<Vec<String>>> = Arc::default();
    let witnessed = Arc::clone(&deleted);
    env.queue.witness_deletes(move |messages| witnessed.lock().unwrap().extend_from_slice(messages));
    env.job(&RUN).succeeds();

    let deleted = deleted.lock().unwrap();
    assert_eq!(deleted.len(), MESSAGES);
    let spans = env.staged_files("archive").into_iter().map(|segment| {
        let segment = fs::read_to_string(segment).unwrap();
        let mut positions = deleted.iter().enumerate().filter(|(_, message)| segment.contains(message.as_str()));
        let (first, _) = positions.next().unwrap();
        (first, positions.next_back().unwrap().0)
    });
    let spans: Vec<(usize, usize)> = spans.collect();
    let is_within = |inner: &(usize, usize), outer: &(usize, usize)| outer.0 < inner.0 && inner.1 < outer.1;
    assert!(spans.iter().any(|outer| spans.iter().any(|inner| is_within(inner, outer))), "{spans:?}");
}

/// Whatever SQS says is reported, the message is delivered again, recognised and deleted. The segment stays in the spool:
/// the exit code says that work is left, and the next run finds that there is nothing to delete any more.
#[test]
fn deletes_that_sqs_refuses_are_reported_and_done_later() {
    let bodies = generated(MESSAGES);
    let faulty = FaultyEnv::holding(&bodies, None);
    let env = &faulty.env;
    env.queue.inject(&[Rule {
        operation: Delete,
        when: First(2),
        fault: FailedEntries { code: "AccessDenied", sender_fault: true },
    }]);
    let outcome = env.start(&RUN).ended().ends_with(3);
    let report = outcome.report();
    assert_eq!(report.ack_failed, report.counts.duplicates, "{outcome}");
    assert!(report.ack_failed > 0 && outcome.stderr.contains("AccessDenied"), "{outcome}");

    env.queue.inject(&[]);
    env.job(&RUN).succeeds();
    faulty.assert_all_done(&bodies);
}

/// SQS's counts know of a delete up to a minute later. A run that had emptied its queue waited for `--idle` and then
/// ended with 3.
#[test]
fn counts_that_lag_behind_do_not_make_an_emptied_queue_full() {
    let bodies = generated(MESSAGES);
    let faulty = FaultyEnv::holding(&bodies, None);
    let env = &faulty.env;
    let fault = CountsAhead { visible: 20, in_flight: 100 };
    env.queue.inject(&[Rule { operation: Attributes, when: First(5), fault }]);
    let outcome = env.job(&["run", "--idle", "1s"]).succeeds();
    assert_eq!(outcome.report().queue_empty, Some(true));
    env.queue.inject(&[]);
    faulty.assert_all_done(&bodies);
}

/// Loads the messages, stops `ack` while its first delete is under way, and lets it go on to its end.
fn ack_told_to_stop(segment_max_messages: usize) -> (TestEnv, Outcome) {
    let env = TestEnv::new(Server::Faulty(Faults::default()));
    env.configure(&format!("[spool]\nsegment_max_messages = {segment_max_messages}\n"));
    env.queue.send(&generated(MESSAGES));
    for stage in ["drain", "transform", "load"] {
        env.job(&[stage]).succeeds();
    }
    let (deleting, begun) = mpsc::channel();
    let (go_on, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    env.queue.witness_deletes(move |_| {
        _ = deleting.send(());
        // Until the other end is dropped.
        _ = held.lock().unwrap().recv();
    });
    let ack = env.start(&["ack"]);
    begun.recv().unwrap();
    ack.terminate();
    ack.until_stderr_contains("stopping");
    drop(go_on);
    let ended = ack.ended();
    (env, ended)
}

/// A signal made the exit code 3, also where nothing was left to do.
#[test]
fn an_ack_that_is_told_to_stop_and_finishes_everything_succeeds() {
    let (env, outcome) = ack_told_to_stop(MESSAGES);
    outcome.succeeds();
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
}

#[test]
fn an_ack_that_is_told_to_stop_leaves_segments_that_it_has_not_begun() {
    let (env, outcome) = ack_told_to_stop(MESSAGES / 12);
    outcome.ends_with(3);
    let unfinished = env.staged_files("committed").len();
    assert!((1..12).contains(&unfinished), "{unfinished}");
    env.job(&["ack"]).succeeds();
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
}

/// It ended with 0, as if all had been deleted.
#[test]
fn an_ack_whose_deletes_fail_says_that_work_is_left() {
    let env = TestEnv::new(Server::Faulty(Faults::default()));
    env.queue.send(&[login("one").to_string()]);
    for stage in ["drain", "transform", "load"] {
        env.job(&[stage]).succeeds();
    }
    let fault = FailedEntries { code: "AccessDenied", sender_fault: true };
    env.queue.inject(&[Rule { operation: Delete, when: Always, fault }]);
    let outcome = env.start(&["ack"]).ended().ends_with(3);
    assert_eq!((outcome.report().ack_failed, outcome.counts().acknowledged), (1, 0));
    assert_eq!(env.staged_files("committed").len(), 1);

    env.queue.inject(&[]);
    env.job(&["ack"]).succeeds();
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
}

/// Others hold so much that SQS gives no more: waited for as long as for anything that others hold, and then named.
#[test]
fn a_queue_that_stays_at_its_in_flight_cap_is_not_called_empty() {
    let bodies = generated(MESSAGES);
    let faulty = FaultyEnv::holding(&bodies, None);
    let env = &faulty.env;
    env.queue.inject(&[Rule { operation: Receive, when: Always, fault: Refused(403, "OverLimit") }]);
    let outcome = env.job(&["run", "--idle", "1s"]).ends_with(3);
    assert!(outcome.stderr.contains("the queue is not empty: 120 visible"), "{outcome}");
    assert_eq!(outcome.report().queue_empty, Some(false));

    env.queue.inject(&[]);
    env.job(&RUN).succeeds();
    faulty.assert_all_done(&bodies);
}

/// What was received is safe in the spool or loaded, and the error says which queue is gone.
#[test]
fn the_queue_is_deleted_during_the_run() {
    let faulty = FaultyEnv::holding(&generated(MESSAGES), None);
    let env = &faulty.env;
    env.queue.inject(&[Rule { operation: Receive, when: Nth(8), fault: QueueDeleted }]);
    let outcome = env.job(&RUN).fails(1, "does not exist", "--queue-url");
    let counts = outcome.counts();
    assert!(counts.received > 0, "{outcome}");
    assert_eq!(
        env.database.number("select coalesce(sum(received), 0) from pgsluice.segment"),
        counts.received - counts.pending
    );

    let replayed = env.job(&["replay"]).succeeds().counts();
    assert_eq!(replayed.received, counts.received);
    assert_eq!(env.database.number("select sum(received) from pgsluice.segment"), counts.received);
    assert!(faulty.deleted_too_early.lock().unwrap().is_empty());
}

/// Without the same attempt, the groups of a lost answer would stand still for the visibility timeout.
#[test]
fn a_receive_of_a_fifo_queue_that_got_no_answer_is_asked_for_again_as_the_same_attempt() {
    let env = TestEnv::with_fifo_queue(Server::Faulty(Faults::default()));
    env.configure("[queue]\nvisibility_seconds = 600\n");
    for index in 0..4 {
        for group in ["a", "b", "c"] {
            env.queue.send_to_group(group, &login(&format!("{group}{index}")).to_string());
        }
    }
    env.queue.inject(&[Rule { operation: Receive, when: Every(2), fault: LostAnswer }]);
    let counts = env.job(&RUN).succeeds().counts();
    assert_eq!((counts.received, counts.loaded), (12, 12));
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
}
