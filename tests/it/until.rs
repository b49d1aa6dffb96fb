//! `--until started`: a run on a queue that others go on sending to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::logins::login;
use crate::reject_policy::logins;
use crate::testenv::{Outcome, Queue, Server, TestEnv, wait_until};

const BEFORE: usize = 300;
const USAGE: i32 = 2;

on_each_server! {
    a_run_ends_beside_a_producer_that_never_stops,
    a_drain_ends_beside_a_producer_that_never_stops,
}

/// Sends one message after the other while `act` runs. Returns how many it sent.
fn beside_a_producer<T>(queue: &Queue, act: impl FnOnce() -> T) -> (T, usize) {
    let (stop, began) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let mut sent = 0;
            while !stop.load(Ordering::Acquire) {
                queue.send(&[login(&format!("late-{sent}")).to_string()]);
                began.store(true, Ordering::Release);
                sent += 1;
            }
            sent
        });
        wait_until(|| began.load(Ordering::Acquire));
        let done = act();
        stop.store(true, Ordering::Release);
        (done, producer.join().unwrap())
    })
}

fn assert_ended_well(outcome: &Outcome) {
    assert_eq!(outcome.report().queue_empty, Some(false), "others go on sending: {outcome}");
    assert!(outcome.stderr.contains("what was sent before this run began is no longer in the queue"), "{outcome}");
}

fn a_run_ends_beside_a_producer_that_never_stops(server: Server) {
    let env = TestEnv::new(server);
    env.queue.send(&logins(BEFORE));
    let arguments = ["run", "--until", "started", "--idle", "2s"];
    let (outcome, late) = beside_a_producer(&env.queue, || env.job(&arguments).succeeds());
    assert_ended_well(&outcome);
    let early = env.database.number("select count(*) from user_logins where user_id not like 'late-%'");
    assert_eq!(early, BEFORE as u64, "{outcome}");
    assert_eq!(outcome.counts().pending, 0);
    // What came later is loaded once, by this run or the next.
    env.run().succeeds();
    assert_eq!(env.database.count("user_logins"), (BEFORE + late) as u64);
}

fn a_drain_ends_beside_a_producer_that_never_stops(server: Server) {
    let env = TestEnv::new(server);
    env.queue.send(&logins(BEFORE));
    let arguments = ["drain", "--until", "started", "--idle", "2s"];
    let (outcome, _) = beside_a_producer(&env.queue, || env.job(&arguments).succeeds());
    assert_ended_well(&outcome);
    let bodies = env.staged_objects("spool");
    let early = bodies.iter().filter(|object| !object["body"].as_str().unwrap().contains("late-")).count();
    assert_eq!(early, BEFORE);
}

/// Another consumer may hold a message that was sent before: it is waited for.
#[test]
fn a_message_that_others_give_back_in_time_is_loaded() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&[login("early").to_string()]);
    let held = env.queue.take(60).remove(0);
    let (outcome, _) = beside_a_producer(&env.queue, || {
        let run = env.start(&["run", "--until", "started", "--idle", "30s"]);
        // It has found only later messages by then, and has not ended.
        wait_until(|| env.database.count("user_logins") > 0);
        env.queue.release(held.receipt_handle().unwrap());
        run.wait().succeeds()
    });
    assert_ended_well(&outcome);
    assert_eq!(env.database.count("user_logins where user_id = 'early'"), 1);
}

#[test]
fn a_queue_that_nobody_sends_to_is_emptied_as_always() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&logins(30));
    let outcome = env.job(&["run", "--until", "started"]).succeeds();
    assert_eq!(outcome.counts().loaded, 30);
    assert!(env.queue.is_empty());
}

#[test]
fn a_run_cannot_both_follow_and_end() {
    let env = TestEnv::new(Server::Embedded);
    let outcome = env.pgsluice(&["run", "--until", "started", "--follow"]).ends_with(USAGE);
    assert!(outcome.stderr.contains("cannot be used with"), "{outcome}");
}
