//! A connection breaks at any byte of a load, or is held.

use std::thread;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::MESSAGES;
use super::books::{Books, wait_for_a_waiting_load};
use crate::testenv::{Break, Point, Traffic};

/// How many connections a test breaks; more with `PGSLUICE_FAULT_ROUNDS`.
const ROUNDS: u64 = 8;
/// How many of them at once: a run mostly waits for the queue.
const PARALLEL: usize = 6;
/// Of a run, by default.
const CONNECTIONS: usize = 2;

/// Points spread over a conversation of `length` bytes, other ones each time; printed where a test fails.
fn points(length: u64) -> Vec<u64> {
    let variable = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seed = variable("PGSLUICE_SEED").unwrap_or_else(rand::random);
    let rounds = variable("PGSLUICE_FAULT_ROUNDS").unwrap_or(ROUNDS);
    eprintln!("PGSLUICE_SEED={seed} PGSLUICE_FAULT_ROUNDS={rounds}");
    let mut random = StdRng::seed_from_u64(seed);
    (0..rounds).map(|round| (length * round + random.random_range(0..length)) / rounds).collect()
}

/// What a run without faults sends and gets.
fn traffic_without_faults() -> Traffic {
    let mut books = Books::open();
    let proxy = books.connect_through_proxy("");
    books.send(MESSAGES);
    books.run_and_balance(&"none");
    proxy.traffic()
}

/// Breaks a connection at each point, side by side; returns how the runs ended.
fn break_at(points: &[Point], what: Break, parameters: &str) -> Vec<i32> {
    let broken: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = points
            .chunks(points.len().div_ceil(PARALLEL))
            .map(|points| scope.spawn(|| break_one_by_one(points, what, parameters)))
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    // A run is not as long as another to the byte, so some points are never met.
    assert!(broken.len() * 2 > points.len(), "only {} of {} points were met", broken.len(), points.len());
    broken
}

fn break_one_by_one(points: &[Point], what: Break, parameters: &str) -> Vec<i32> {
    let mut books = Books::open();
    let proxy = books.connect_through_proxy(parameters);
    let broken = |&point: &Point| {
        books.send(MESSAGES);
        proxy.arm(point, what);
        let outcome = books.run_and_balance(&point);
        if proxy.is_armed() { None } else { outcome.code }
    };
    points.iter().filter_map(broken).collect()
}

#[test]
fn a_connection_cut_after_any_number_of_bytes_sent_loses_and_repeats_nothing() {
    let points: Vec<_> = points(traffic_without_faults().sent).into_iter().map(Point::Sent).collect();
    let ends = break_at(&points, Break::Cut, "");
    assert!(ends.iter().all(|&end| end == 0), "a connection that is cut once fails no run: {ends:?}");
}

#[test]
fn a_connection_cut_after_any_number_of_bytes_answered_loses_and_repeats_nothing() {
    let points: Vec<_> = points(traffic_without_faults().answered).into_iter().map(Point::Answered).collect();
    let ends = break_at(&points, Break::Cut, "");
    assert!(ends.iter().all(|&end| end == 0), "a connection that is cut once fails no run: {ends:?}");
}

#[test]
fn a_commit_that_is_lost_or_whose_answer_is_lost_counts_once() {
    let ends = break_at(&[Point::Commit, Point::CommitAnswer], Break::Cut, "");
    assert_eq!(ends, [0, 0]);
}

#[test]
fn a_connection_that_is_held_is_given_up_and_its_work_repeated() {
    let Traffic { sent, answered } = traffic_without_faults();
    let impatient = "?connect_timeout=2&keepalives_idle=1";
    // During the start, during the ids or rows, during the answers to them.
    let points =
        [Point::Sent(200), Point::Sent(sent / 3), Point::Sent(sent * 3 / 4), Point::Answered(answered * 9 / 10)];
    break_at(&points, Break::Hold, impatient);
    let ends = break_at(&[Point::Commit, Point::CommitAnswer], Break::Hold, impatient);
    assert_eq!(ends, [0, 0]);
}

#[test]
fn a_slow_transaction_is_not_taken_for_a_lost_one() {
    let mut books = Books::open();
    let proxy = books.connect_through_proxy("?keepalives_idle=1");
    books.send(MESSAGES);
    let database = &books.env.database;
    database.execute("begin; lock table user_logins in access exclusive mode");
    let run = books.env.start(&["run"]);
    wait_for_a_waiting_load(database);
    // Each look at the load is a connection; three of them are more than it takes to give one up.
    proxy.wait_for_connections(CONNECTIONS + 3);
    database.execute("commit");
    let outcome = run.wait().succeeds();
    assert!(!outcome.stderr.contains("trying Postgres again"), "{outcome}");
    books.balance(&"a lock");
}
