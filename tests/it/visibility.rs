//! Visibility timeouts: what a run holds stays its own however long the database takes, and what it will not finish is
//! given back at once.

use std::fs;
use std::time::Duration;

use pgsluice::local::Fault::Refused;
use pgsluice::local::Operation::ChangeVisibility;
use pgsluice::local::When::Always;
use pgsluice::local::{Faults, Rule};
use serde_json::Value;

use crate::logins::{generated, logins_of};
use crate::testenv::{Counts, Database, Queue, QueueKind, Running, Server, TestEnv, wait_until};

const MESSAGES: usize = 60;
const VISIBILITY: Duration = Duration::from_secs(2);

/// A table that nobody else may use until it is dropped.
struct LockedTable(Database);

impl LockedTable {
    fn new(env: &TestEnv) -> Self {
        let database = env.database.again();
        database.execute("begin; lock table user_logins in access exclusive mode");
        Self(database)
    }
}

impl Drop for LockedTable {
    fn drop(&mut self) {
        self.0.execute("rollback");
    }
}

fn env_with(bodies: &[String], visibility: Duration, server: Server) -> TestEnv {
    let env = TestEnv::new(server);
    let queue = format!("[queue]\nvisibility_seconds = {}\nshutdown_grace_ms = 300\n", visibility.as_secs());
    env.configure(&(queue + "[spool]\nsegment_max_messages = 20\n"));
    env.queue.send(bodies);
    env
}

fn everything_is_in_flight(env: &TestEnv) -> bool {
    env.queue.counts().in_flight == MESSAGES
}

/// What is received and in no segment yet is lost to the next run by a kill, until its visibility timeout has passed.
fn everything_is_sealed(env: &TestEnv) -> bool {
    let some_are_transformed = !env.staged_files("chunks").is_empty();
    some_are_transformed && sealed_messages(env) == MESSAGES && everything_is_in_flight(env)
}

/// Returns when the server has let this number of visibility timeouts pass: a message that nobody extends is received
/// once more after each.
fn visibility_timeouts_pass(server: Server, timeouts: usize) {
    let clock = Queue::create(server, QueueKind::Standard);
    clock.set_visibility_timeout(u32::try_from(VISIBILITY.as_secs()).unwrap());
    clock.send(&["tick"]);
    for _ in 0..=timeouts {
        clock.receive_next();
    }
}

/// The messages stay invisible for three visibility timeouts, and are received once.
fn a_slow_database_leads_to_no_redelivery(server: Server) {
    let bodies = generated(MESSAGES);
    let env = env_with(&bodies, VISIBILITY, server);
    let locked = LockedTable::new(&env);
    let run = env.start(&["run"]);
    wait_until(|| everything_is_in_flight(&env));
    visibility_timeouts_pass(server, 3);
    assert!(everything_is_in_flight(&env), "{:?}", env.queue.counts());
    drop(locked);
    let counts = run.wait().succeeds().counts();
    let received = MESSAGES as u64;
    let loaded = logins_of(&bodies).len() as u64;
    let expected =
        Counts { received, loaded, rejected: received - loaded, acknowledged: received, ..Counts::default() };
    assert_eq!(counts, expected);
}

/// A drain extended nothing: what took longer than the visibility timeout was delivered again, to itself, again and
/// again.
fn a_drain_on_its_own_keeps_what_it_received(server: Server) {
    let env = env_with(&generated(MESSAGES), VISIBILITY, server);
    let drain = env.start(&["drain", "--follow"]);
    wait_until(|| everything_is_in_flight(&env));
    visibility_timeouts_pass(server, 3);
    assert!(everything_is_in_flight(&env), "{:?}", env.queue.counts());
    drain.terminate();
    let counts = drain.wait().succeeds().counts();
    assert_eq!(env.staged_objects("spool").len(), MESSAGES);
    assert_eq!(counts, Counts { received: 60, pending: 60, ..Counts::default() });
}

/// A queue whose messages stay visible gave each of them hundreds of times.
fn the_queues_own_visibility_timeout_does_not_count(server: Server) {
    let bodies = generated(MESSAGES);
    let env = TestEnv::new(server);
    env.queue.set_visibility_timeout(0);
    env.queue.send(&bodies);
    let counts = env.run().succeeds().counts();
    assert_eq!((counts.received, counts.duplicates), (MESSAGES as u64, 0));
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
}

/// A run that was killed leaves messages in flight, under handles that lie in its spool. The next one took them for
/// those of other consumers, and ended with 3 after `--idle`, although it loaded and deleted them all.
fn messages_that_a_killed_run_holds_are_the_next_ones_own(server: Server) {
    let bodies = generated(MESSAGES);
    let env = env_with(&bodies, Duration::from_mins(10), server);
    let locked = LockedTable::new(&env);
    let first = env.start(&["run"]);
    wait_until(|| everything_is_sealed(&env));
    first.kill();
    // Its sessions go on waiting, because Postgres looks after its client only then.
    let orphans = env.database.sessions_waiting_for_a_lock();
    let second = env.start(&["run", "--idle", "1s"]);
    wait_until(|| env.database.sessions_waiting_for_a_lock() > orphans);
    // As long as others would be waited for, and longer: nothing to wait for but time itself.
    std::thread::sleep(Duration::from_secs(4));
    drop(locked);
    let counts = second.wait().succeeds().counts();
    assert_eq!((counts.received, counts.acknowledged, counts.duplicates), (60, 60, 0));
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
    assert_eq!(env.database.count("user_logins"), logins_of(&bodies).len() as u64);
}

/// What a killed run had sealed became visible while the next one could not load it yet. By `dedupe = "segment"`, which
/// cannot recognise a redelivery, it was loaded twice.
#[test]
fn what_a_killed_run_sealed_stays_invisible_until_the_next_one_has_loaded_it() {
    let bodies = generated(MESSAGES);
    // The next run takes over within half of that.
    let env = env_with(&bodies, 6 * VISIBILITY, Server::Embedded);
    let settings = fs::read_to_string(env.path("pgsluice.toml")).unwrap();
    env.configure(&format!("{settings}[pipeline]\ndedupe = \"segment\"\n"));
    let locked = LockedTable::new(&env);
    let first = env.start(&["run"]);
    wait_until(|| everything_is_sealed(&env));
    first.kill();
    let orphans = env.database.sessions_waiting_for_a_lock();
    let second = env.start(&["run", "--idle", "1s"]);
    wait_until(|| env.database.sessions_waiting_for_a_lock() > orphans);
    visibility_timeouts_pass(Server::Embedded, 8);
    assert!(everything_is_in_flight(&env), "{:?}", env.queue.counts());
    drop(locked);
    let counts = second.wait().succeeds().counts();
    assert_eq!((counts.received, counts.acknowledged), (60, 60));
    assert_eq!(env.database.count("user_logins"), logins_of(&bodies).len() as u64);
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
}

/// The keeper says once that it cannot extend; the run goes on, and what is redelivered makes no second row.
#[test]
fn a_keeper_that_is_cut_off_leads_to_redelivery_and_no_second_row() {
    let bodies = generated(MESSAGES);
    let env = env_with(&bodies, VISIBILITY, Server::Faulty(Faults::default()));
    env.queue.inject(&[Rule { operation: ChangeVisibility, when: Always, fault: Refused(500, "InternalFailure") }]);
    let locked = LockedTable::new(&env);
    let run = env.start(&["run"]);
    wait_until(|| everything_is_in_flight(&env));
    wait_until(|| sealed_messages(&env) > MESSAGES);
    run.until_stderr_contains("cannot change visibility timeouts");
    drop(locked);
    let outcome = run.wait().succeeds();
    assert!(outcome.counts().duplicates > 0, "{outcome}");
    assert_eq!(env.database.count("user_logins"), logins_of(&bodies).len() as u64);
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
    assert_eq!(outcome.stderr.matches("cannot change visibility timeouts").count(), 1, "{outcome}");
}

/// Messages in the sealed segments.
fn sealed_messages(env: &TestEnv) -> usize {
    let mut sealed = env.staged_files("spool");
    sealed.retain(|path| path.extension().is_some_and(|extension| extension == "ndjson"));
    let lines = |path| fs::read_to_string(path).map_or(0, |segment| segment.matches("\"message_id\"").count());
    sealed.iter().map(lines).sum()
}

/// Any other run loads the released messages; the segments in the spool are recognised then, or the other way round.
fn given_back(server: Server, how_to_stop: &[&str], stop: impl FnOnce(&Running)) {
    let bodies = generated(MESSAGES);
    let env = env_with(&bodies, Duration::from_mins(10), server);
    let locked = LockedTable::new(&env);
    let run = env.start(&[&["run"], how_to_stop].concat());
    wait_until(|| everything_is_in_flight(&env));
    stop(&run);
    let stopped = run.wait().ends_with(3).counts();
    assert_eq!((env.queue.counts().visible, env.queue.counts().in_flight), (MESSAGES, 0));
    assert_eq!(stopped, Counts { received: 60, pending: 60, ..Counts::default() });

    drop(locked);
    let other = env.job(&["run", "--staging-dir", "elsewhere"]).succeeds().counts();
    assert_eq!((other.received, other.duplicates), (60, 0));
    let second = env.run().succeeds().counts();
    assert_eq!((second.received, second.duplicates), (60, 60));
    assert_eq!(env.database.count("user_logins"), logins_of(&bodies).len() as u64);
    assert!(env.staged_files("spool").is_empty());
}

fn a_signal_releases_what_the_grace_is_too_short_for(server: Server) {
    given_back(server, &[], Running::terminate);
}

#[test]
fn the_end_of_max_duration_releases_what_the_grace_is_too_short_for() {
    given_back(Server::Embedded, &["--follow", "--max-duration", "2s"], |_| {});
}

/// Whichever of the two it is, and however long the grace would be.
#[test]
fn a_second_signal_stops_at_once() {
    let env = env_with(&generated(MESSAGES), Duration::from_mins(10), Server::Embedded);
    env.configure("[queue]\nshutdown_grace_ms = 3_600_000\n");
    let _locked = LockedTable::new(&env);
    let run = env.start(&["run"]);
    wait_until(|| everything_is_in_flight(&env));
    run.terminate();
    run.until_stderr_contains("stopping:");
    run.interrupt();
    let outcome = run.wait().ends_with(3);
    // It had left the report of a run that was under way.
    let counts = outcome.counts();
    assert_eq!((counts.received, counts.acknowledged), (counts.pending, 0));
    let report: Value = serde_json::from_slice(&fs::read(env.path("report.json")).unwrap()).unwrap();
    assert_eq!(report["ended_by"], "signal");
    assert!(everything_is_in_flight(&env), "{:?}", env.queue.counts());
}

on_each_server!(
    a_drain_on_its_own_keeps_what_it_received,
    a_signal_releases_what_the_grace_is_too_short_for,
    a_slow_database_leads_to_no_redelivery,
    messages_that_a_killed_run_holds_are_the_next_ones_own,
    the_queues_own_visibility_timeout_does_not_count,
);
