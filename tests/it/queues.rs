//! What queues do beside holding logins: order within groups, attributes, large bodies, several consumers, other
//! host names, limits and signals. Where servers differ, on each of them.

use pgsluice::local::Faults;
use serde_json::{Value, json};

use crate::logins::{generated, login, logins_of};
use crate::testenv::{Counts, Queue, QueueKind, Server, TestEnv, wait_until};

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
    two_processes_empty(&env);
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
    two_processes_empty(&env);
    assert_eq!(env.database.count("user_logins"), logins_of(&bodies).len() as u64);
    let received = env.database.number("select sum(received) from pgsluice.segment");
    assert_eq!(received, 450);
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
}

fn two_processes_empty(env: &TestEnv) {
    let processes = ["staging-1", "staging-2"].map(|name| env.start_as(name, &["run"]));
    for process in processes {
        process.wait().succeeds();
    }
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

/// A limit that the user gave is no failure: where all that was received is done, the exit code is 0.
#[test]
fn a_run_stops_after_as_many_messages_as_it_is_told() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&generated(40));
    let first = env.job(&["run", "--max-messages", "15"]).succeeds();
    assert_eq!((first.counts().received, first.counts().acknowledged), (15, 15));
    assert_eq!(first.report().queue_empty, Some(false));
    let counts = env.queue.counts();
    assert_eq!((counts.visible, counts.in_flight), (25, 0));
    assert_eq!(env.run().succeeds().counts().received, 25);
}

/// The last ten messages of the limit were asked for and did not come, and the run took that for its end: exit code 3.
#[test]
fn a_limit_beyond_what_the_queue_holds_ends_with_the_proof_that_it_is_empty() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&generated(300));
    let outcome = env.job(&["run", "--max-messages", "310"]).succeeds();
    assert_eq!((outcome.counts().received, outcome.report().queue_empty), (300, Some(true)));
}

#[test]
fn a_run_whose_time_is_over_ends_well_where_all_that_it_received_is_done() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&generated(40));
    let outcome = env.job(&["run", "--follow", "--max-duration", "3s"]).succeeds();
    assert_eq!((outcome.counts().acknowledged, outcome.report().queue_empty), (40, Some(false)));
}

/// Each reject was sent to the queue that it came from, received as a new message and sent again, without end.
fn a_dead_letter_queue_that_is_the_queue_itself_is_refused(server: Server) {
    let env = TestEnv::new(server);
    env.queue.send(&["not a login"]);
    // The same queue by another URL: the host does not matter, because the endpoint is given.
    let path = env.queue.url().splitn(4, '/').last().unwrap();
    for url in [env.queue.url(), &format!("http://queue.invalid:4566/{path}")] {
        env.configure(&format!("[pipeline]\non_reject = \"dlq\"\ndlq_url = \"{url}\"\n"));
        for command in ["run", "ack"] {
            env.job(&[command]).fails(2, "is the queue that the messages come from", "dlq_url");
        }
    }
    assert_eq!((env.queue.counts().visible, env.queue.counts().in_flight), (1, 0));
}

/// Nothing it received is deleted, so waiting for room would last without end.
#[test]
fn a_drain_on_its_own_ends_at_the_in_flight_cap() {
    let env = TestEnv::new(Server::Embedded);
    env.configure("[queue]\npollers = 2\nmax_in_flight = 30\n");
    env.queue.send(&generated(50));
    assert_eq!(env.job(&["drain"]).ends_with(3).counts().received, 30);
    assert_eq!(env.queue.counts().visible, 20);
}

/// To be told to stop is how it ends, so that is no failure.
#[test]
fn a_run_that_follows_the_queue_stops_at_a_signal_with_its_work_done() {
    let env = TestEnv::new(Server::Embedded);
    let follower = env.start(&["run", "--follow"]);
    for round in 1..=2 {
        env.queue.send(&[login(&format!("round {round}")).to_string()]);
        wait_until(|| env.database.count("user_logins") == round && env.queue.is_empty());
    }
    follower.terminate();
    follower.wait().ends_with(0);
    assert_eq!(env.staged_objects("archive").len(), 2);
}

/// Messages that are delayed count as the queue's, so the run waits for them.
fn delayed_messages_that_arrive_in_time_are_loaded(server: Server) {
    let env = TestEnv::new(server);
    env.queue.send(&generated(10));
    env.queue.send_delayed(&[login("delayed").to_string()], 2);
    assert_eq!(env.run().succeeds().counts().received, 11);
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
}

/// What cannot be waited for is named: the queue is not proven empty.
fn messages_that_do_not_arrive_in_time_are_named(server: Server) {
    let env = TestEnv::new(server);
    env.queue.send(&[login("held").to_string()]);
    assert_eq!(env.queue.receive(600), 1);
    env.queue.send_delayed(&[login("delayed").to_string(), login("later").to_string()], 600);
    env.queue.send(&[login("ready").to_string()]);
    let outcome = env.job(&["run", "--idle", "1s"]).ends_with(3);
    assert_eq!((outcome.counts().loaded, outcome.report().queue_empty), (1, Some(false)));
    let named = "the queue is not empty: 0 visible, 1 in flight with other consumers, 2 delayed";
    assert!(outcome.stderr.contains(named), "{outcome}");
}

fn messages_that_another_consumer_gives_up_are_loaded(server: Server) {
    let env = TestEnv::new(server);
    env.queue.send(&[login("held").to_string()]);
    assert_eq!(env.queue.receive(3), 1);
    assert_eq!(env.run().succeeds().counts().loaded, 1);
}

fn a_dead_letter_queue_is_drained_like_any_other(server: Server) {
    let env = TestEnv::new(server);
    let source = Queue::create(server, QueueKind::Standard);
    source.redrive_to(&env.queue, 1);
    let bodies = generated(10);
    source.send(&bodies);
    wait_until(|| {
        source.receive(0);
        env.queue.counts().visible == bodies.len()
    });
    assert_eq!(env.run().succeeds().counts().received, bodies.len() as u64);
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
}

/// Several receives of a group may be under way at once on a server that gives several messages of it.
fn long_fifo_groups_are_emptied_in_order(server: Server) {
    let env = TestEnv::with_fifo_queue(server);
    let groups = ["a", "b", "c"];
    for index in 0..15 {
        for group in groups {
            env.queue.send_to_group(group, &login(&format!("{group}{index}")).to_string());
        }
    }
    assert_eq!(env.run().succeeds().counts().loaded, 45);
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
    let lines = env.staged_objects("archive");
    for group in groups {
        let numbers: Vec<&str> = lines
            .iter()
            .filter(|line| line["group_id"] == json!(group))
            .map(|line| line["sequence_number"].as_str().unwrap())
            .collect();
        assert_eq!(numbers.len(), 15);
        assert!(numbers.is_sorted(), "{numbers:?}");
    }
}

on_each_server!(
    a_dead_letter_queue_is_drained_like_any_other,
    a_dead_letter_queue_that_is_the_queue_itself_is_refused,
    delayed_messages_that_arrive_in_time_are_loaded,
    long_fifo_groups_are_emptied_in_order,
    messages_that_another_consumer_gives_up_are_loaded,
    messages_that_do_not_arrive_in_time_are_named,
    a_fifo_queue_is_emptied_group_by_group,
    attributes_are_kept_in_the_spool,
    large_messages_load,
    two_processes_share_a_queue,
);
