//! Visibility timeouts: what a run holds stays its own however long the database takes, and what it will not finish is
//! given back at once.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use pgsluice::local::Fault::Refused;
use pgsluice::local::Operation::ChangeVisibility;
use pgsluice::local::When::Always;
use pgsluice::local::{Faults, Rule};

use crate::logins::{generated, logins_of};
use crate::testenv::{Counts, Database, Server, TestEnv, wait_until};

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

/// A command in the background, whose report and log are files.
struct Running(Child);

impl Running {
    fn start(env: &TestEnv, arguments: &[&str]) -> Self {
        Self::start_command(env, "run", arguments)
    }

    fn start_command(env: &TestEnv, name: &str, arguments: &[&str]) -> Self {
        let mut command = env.command(env!("CARGO_BIN_EXE_pgsluice"));
        command.args([name, "--report", "report.json", "--log-file", "log.txt"]).args(arguments);
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn terminate(&self) {
        Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    fn ends_with(mut self, code: i32) {
        assert_eq!(self.0.wait().unwrap().code(), Some(code));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn env_with(bodies: &[String], visibility: Duration, server: Server) -> TestEnv {
    let env = TestEnv::new(server);
    let queue = format!("[queue]\nvisibility_seconds = {}\nshutdown_grace_ms = 300\n", visibility.as_secs());
    env.configure(&(queue + "[spool]\nsegment_max_messages = 20\n"));
    env.queue.send(bodies);
    env
}

fn counts(env: &TestEnv) -> Counts {
    let report = fs::read(env.path("report.json")).unwrap();
    serde_json::from_slice(&report).unwrap()
}

fn everything_is_in_flight(env: &TestEnv) -> bool {
    env.queue.counts().in_flight == MESSAGES
}

/// The messages stay invisible for three visibility timeouts, and are received once.
fn a_slow_database_leads_to_no_redelivery(server: Server) {
    let bodies = generated(MESSAGES);
    let env = env_with(&bodies, VISIBILITY, server);
    let locked = LockedTable::new(&env);
    let run = Running::start(&env, &[]);
    wait_until(|| everything_is_in_flight(&env));
    // Nothing to wait for but time itself.
    thread::sleep(3 * VISIBILITY);
    assert!(everything_is_in_flight(&env), "{:?}", env.queue.counts());
    drop(locked);
    run.ends_with(0);
    let received = MESSAGES as u64;
    let loaded = logins_of(&bodies).len() as u64;
    let expected =
        Counts { received, loaded, rejected: received - loaded, acknowledged: received, ..Counts::default() };
    assert_eq!(counts(&env), expected);
}

/// A drain extended nothing: what took longer than the visibility timeout was delivered again, to itself, again and
/// again.
fn a_drain_on_its_own_keeps_what_it_received(server: Server) {
    let env = env_with(&generated(MESSAGES), VISIBILITY, server);
    let drain = Running::start_command(&env, "drain", &["--follow"]);
    wait_until(|| everything_is_in_flight(&env));
    // Nothing to wait for but time itself.
    thread::sleep(3 * VISIBILITY);
    assert!(everything_is_in_flight(&env), "{:?}", env.queue.counts());
    drain.terminate();
    drain.ends_with(0);
    assert_eq!(env.staged_objects("spool").len(), MESSAGES);
    assert_eq!(counts(&env), Counts { received: 60, pending: 60, ..Counts::default() });
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
    let first = Running::start(&env, &[]);
    wait_until(|| env.staged_files("chunks").len() >= 6);
    assert!(everything_is_in_flight(&env), "{:?}", env.queue.counts());
    first.kill();
    // Its sessions go on waiting, because Postgres looks after its client only then.
    let orphans = env.database.sessions_waiting_for_a_lock();
    let second = Running::start(&env, &["--idle", "1s"]);
    wait_until(|| env.database.sessions_waiting_for_a_lock() > orphans);
    // As long as others would be waited for, and longer.
    thread::sleep(Duration::from_secs(4));
    drop(locked);
    second.ends_with(0);
    let second = counts(&env);
    assert_eq!((second.received, second.acknowledged, second.duplicates), (60, 60, 0));
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
    assert_eq!(env.database.count("user_logins"), logins_of(&bodies).len() as u64);
}

/// The keeper says once that it cannot extend; the run goes on, and what is delivered again makes no second row.
#[test]
fn a_keeper_that_is_cut_off_leads_to_redelivery_and_no_second_row() {
    let bodies = generated(MESSAGES);
    let env = env_with(&bodies, VISIBILITY, Server::Faulty(Faults::default()));
    env.queue.inject(&[Rule { operation: ChangeVisibility, when: Always, fault: Refused(500, "InternalFailure") }]);
    let locked = LockedTable::new(&env);
    let run = Running::start(&env, &[]);
    wait_until(|| everything_is_in_flight(&env));
    thread::sleep(3 * VISIBILITY);
    drop(locked);
    run.ends_with(0);
    let counts = counts(&env);
    assert!(counts.duplicates > 0, "{counts:?}");
    assert_eq!(env.database.count("user_logins"), logins_of(&bodies).len() as u64);
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
    let log = fs::read_to_string(env.path("log.txt")).unwrap();
    assert_eq!(log.matches("cannot change visibility timeouts").count(), 1, "{log}");
}

/// Any other run loads the released messages; the segments in the spool are recognised then, or the other way round.
fn given_back(server: Server, how_to_stop: &[&str], stop: impl FnOnce(&Running)) {
    let bodies = generated(MESSAGES);
    let env = env_with(&bodies, Duration::from_mins(10), server);
    let locked = LockedTable::new(&env);
    let run = Running::start(&env, how_to_stop);
    wait_until(|| everything_is_in_flight(&env));
    stop(&run);
    run.ends_with(3);
    assert_eq!((env.queue.counts().visible, env.queue.counts().in_flight), (MESSAGES, 0));
    assert_eq!(counts(&env), Counts { received: 60, pending: 60, ..Counts::default() });

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

/// However long the grace would be.
#[test]
fn a_second_signal_stops_at_once() {
    let env = env_with(&generated(MESSAGES), Duration::from_mins(10), Server::Embedded);
    env.configure("[queue]\nshutdown_grace_ms = 3_600_000\n");
    let _locked = LockedTable::new(&env);
    let run = Running::start(&env, &[]);
    wait_until(|| everything_is_in_flight(&env));
    run.terminate();
    wait_until(|| fs::read_to_string(env.path("log.txt")).is_ok_and(|log| log.contains("stopping:")));
    run.terminate();
    run.ends_with(3);
    assert!(everything_is_in_flight(&env), "{:?}", env.queue.counts());
}

on_each_server!(
    a_drain_on_its_own_keeps_what_it_received,
    a_signal_releases_what_the_grace_is_too_short_for,
    a_slow_database_leads_to_no_redelivery,
    messages_that_a_killed_run_holds_are_the_next_ones_own,
    the_queues_own_visibility_timeout_does_not_count,
);
