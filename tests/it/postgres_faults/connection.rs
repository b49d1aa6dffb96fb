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

/// Breaks a connection at each point, side by side.
fn break_at(points: &[Point], what: Break, parameters: &str) {
    let met = thread::scope(|scope| {
        let workers: Vec<_> = points
            .chunks(points.len().div_ceil(PARALLEL))
            .map(|points| scope.spawn(|| break_one_by_one(points, what, parameters)))
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum::<usize>()
    });
    assert!(met * 2 > points.len(), "only {met} of {} points were met", points.len());
}

fn break_one_by_one(points: &[Point], what: Break, parameters: &str) -> usize {
    let mut books = Books::open();
    let proxy = books.connect_through_proxy(parameters);
    let broken = |&point: &Point| {
        books.send(MESSAGES);
        proxy.arm(point, what);
        books.run_and_balance(&point);
        !proxy.is_armed()
    };
    points.iter().filter(|point| broken(point)).count()
}

#[test]
fn a_connection_cut_after_any_number_of_bytes_sent_loses_and_repeats_nothing() {
    let points: Vec<_> = points(traffic_without_faults().sent).into_iter().map(Point::Sent).collect();
    break_at(&points, Break::Cut, "");
}

#[test]
fn a_connection_cut_after_any_number_of_bytes_answered_loses_and_repeats_nothing() {
    let points: Vec<_> = points(traffic_without_faults().answered).into_iter().map(Point::Answered).collect();
    break_at(&points, Break::Cut, "");
}

#[test]
fn a_commit_that_is_lost_or_whose_answer_is_lost_counts_once() {
    break_at(&[Point::Commit, Point::CommitAnswer], Break::Cut, "");
}

#[test]
fn a_connection_that_is_held_for_ever_is_given_up_and_its_work_done_over() {
    let Traffic { sent, answered } = traffic_without_faults();
    // In the midst of: the start, the ids or rows, the answers to them, COMMIT.
    let points =
        [Point::Sent(200), Point::Sent(sent / 3), Point::Sent(sent * 3 / 4), Point::Answered(answered * 9 / 10)];
    let commits = [Point::Commit, Point::CommitAnswer];
    break_at(&[&points[..], &commits].concat(), Break::Hold, "?connect_timeout=2&keepalives_idle=1");
}

#[test]
fn a_slow_transaction_is_not_taken_for_a_lost_one() {
    let mut books = Books::open();
    let proxy = books.connect_through_proxy("?keepalives_idle=1");
    books.send(MESSAGES);
    let database = &books.env.database;
    database.execute("begin; lock table user_logins in access exclusive mode");
    let outcome = thread::scope(|scope| {
        let run = scope.spawn(|| books.env.run());
        wait_for_a_waiting_load(database);
        // Each look at the load is a connection; three of them are more than it takes to give one up.
        proxy.wait_for_connections(CONNECTIONS + 3);
        database.execute("commit");
        run.join().unwrap()
    });
    let outcome = outcome.succeeds();
    assert!(!outcome.stderr.contains("trying Postgres again"), "{outcome}");
    books.balance(&"a lock");
}
