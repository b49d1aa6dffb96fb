//! What queues do beside holding logins: order within groups, attributes, large bodies, several consumers, other
//! host names, limits and signals. Where servers differ, on each of them.

use std::process::Stdio;
use std::thread;

use pgsluice::local::Faults;
use serde_json::{Value, json};

use crate::logins::{generated, login, logins_of};
use crate::testenv::{Counts, Server, TestEnv, wait_until};

/// SQS gives no more of a group until the messages that it gave are deleted, so the run must not wait for more.
fn a_fifo_queue_is_emptied_group_by_group(server: Server) {
    let env = TestEnv::with_fifo_queue(server);
    for index in 0..3 {
        for group in ["a", "b"] {
            env.queue.send_to_group(group, &login(&format!("{group}{index}")).to_string());
        }
    }
    assert_eq!(env.run().succeeds().counts().loaded, 6);
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
    let groups: Vec<Value> = env.staged_objects("archive").iter().map(|line| line["group_id"].clone()).collect();
    assert_eq!(groups.iter().filter(|group| **group == json!("a")).count(), 3, "{groups:?}");
}

fn attributes_are_kept_in_the_spool(server: Server) {
    let env = TestEnv::new(server);
    env.queue.send_with_attributes(&login("with").to_string(), ("trace", "t\u{fc}\""), ("blob", &[0, 255, 10]));
    env.run().succeeds();
    let line = env.staged_objects("archive").remove(0);
    assert_eq!(line["attributes"]["trace"], json!({"type": "String", "value": "t\u{fc}\""}));
    assert_eq!(line["attributes"]["blob"], json!({"type": "Binary", "value": "AP8K"}));
}

fn large_messages_load(server: Server) {
    let env = TestEnv::new(server);
    for index in 0..3 {
        let mut body = login(&format!("large {index}"));
        body["ballast"] = "\u{e9}\n".repeat(50_000).into();
        env.queue.send(&[body.to_string()]);
    }
    assert_eq!(env.run().succeeds().counts().loaded, 3);
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
}

fn two_processes_share_a_queue(server: Server) {
    let env = TestEnv::new(server);
    let bodies = generated(200);
    env.queue.send(&bodies);
    thread::scope(|scope| {
        for directory in ["staging-1", "staging-2"] {
            let env = &env;
            scope.spawn(move || env.pgsluice(&["run", "--staging-dir", directory]).succeeds());
        }
    });
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
    assert_eq!(env.database.count("user_logins"), logins_of(&bodies).len() as u64);
    assert_eq!(env.database.number("select sum(received) from pgsluice.segment"), bodies.len() as u64);
}

/// What at-least-once delivery means for two consumers: both get some of the messages.
#[test]
fn two_processes_that_get_the_same_messages_load_them_once() {
    let env = TestEnv::new(Server::Faulty(Faults { redeliver_every: Some(2) }));
    env.configure("[spool]\nsegment_max_messages = 20\n");
    let bodies = generated(300);
    env.queue.send(&bodies);
    thread::scope(|scope| {
        for directory in ["staging-1", "staging-2"] {
            let env = &env;
            scope.spawn(move || env.pgsluice(&["run", "--staging-dir", directory]).succeeds());
        }
    });
    assert_eq!(env.database.count("user_logins"), logins_of(&bodies).len() as u64);
    let received = env.database.number("select sum(received) from pgsluice.segment");
    assert_eq!(received, 450);
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
}

/// With `dedupe = "segment"` a redelivery in another segment is loaded again: that is what it says.
#[test]
fn without_dedupe_of_messages_a_redelivery_becomes_a_second_row() {
    let env = TestEnv::new(Server::Faulty(Faults { redeliver_every: Some(1) }));
    env.configure("[pipeline]\ndedupe = \"segment\"\n[spool]\nsegment_max_messages = 1\n");
    env.queue.send(&[login("twice").to_string()]);
    assert_eq!(env.run().succeeds().counts(), Counts { received: 2, loaded: 2, acknowledged: 2, ..Counts::default() });
    assert_eq!(env.database.count("pgsluice.message"), 0);
}

/// Some servers give queues a URL on a host name that only they know.
#[test]
fn the_endpoint_wins_over_the_host_of_the_queues_url() {
    let mut env = TestEnv::new(Server::Embedded);
    env.queue.send(&generated(10));
    let path = env.queue.url().strip_prefix(env.queue.endpoint()).unwrap().to_owned();
    env.set("PGSLUICE_QUEUE_URL", format!("http://queue.invalid:4566{path}"));
    env.run().succeeds();
    assert!(env.queue.is_empty());

    let endpoint = env.queue.endpoint().to_owned();
    env.unset("AWS_ENDPOINT_URL");
    env.set("AWS_ENDPOINT_URL_SQS", endpoint);
    env.queue.send(&generated(10));
    env.run().succeeds();
    assert!(env.queue.is_empty());
}

#[test]
fn a_run_stops_after_as_many_messages_as_it_is_told() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&generated(40));
    let first = env.job(&["run", "--max-messages", "15"]).ends_with(3);
    assert_eq!((first.counts().received, first.counts().acknowledged), (15, 15));
    assert_eq!(first.report().queue_empty, Some(false));
    let counts = env.queue.counts();
    assert_eq!((counts.visible, counts.in_flight), (25, 0));
    assert_eq!(env.run().succeeds().counts().received, 25);
}

#[test]
fn a_run_that_follows_the_queue_stops_at_a_signal_with_its_work_done() {
    let env = TestEnv::new(Server::Embedded);
    let mut command = env.command(env!("CARGO_BIN_EXE_pgsluice"));
    command.args(["run", "--follow", "--report", "report.json"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut follower = command.spawn().unwrap();
    for round in 1..=2 {
        env.queue.send(&[login(&format!("round {round}")).to_string()]);
        wait_until(|| env.database.count("user_logins") == round && env.queue.is_empty());
    }
    let terminated = std::process::Command::new("kill").arg(follower.id().to_string()).status().unwrap();
    assert!(terminated.success());
    assert_eq!(follower.wait().unwrap().code(), Some(3));
    assert_eq!(env.staged_objects("archive").len(), 2);
}

on_each_server!(
    a_fifo_queue_is_emptied_group_by_group,
    attributes_are_kept_in_the_spool,
    large_messages_load,
    two_processes_share_a_queue,
);
