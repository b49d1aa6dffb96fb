//! What becomes of rejected messages: kept, left to the queue's redrive policy, or sent to a dead-letter queue; and
//! the number of them that stops a run.

use std::collections::BTreeSet;
use std::fs;

use crate::logins::login;
use crate::testenv::{Counts, Queue, QueueKind, Server, TestEnv};

/// A login without its device type, which the built-in mapping requires.
pub(crate) fn misfit(user_id: &str) -> String {
    let mut body = login(user_id);
    body.as_object_mut().unwrap().remove("device_type");
    body.to_string()
}

pub(crate) fn logins(count: usize) -> Vec<String> {
    (0..count).map(|index| login(&format!("user {index}")).to_string()).collect()
}

/// A mapping in which a misfit fits.
const MENDED: &str = r#"
    [[column]]
    name = "user_id"
    max_length = 128
    [[column]]
    name = "device_type"
    max_length = 32
    [[column]]
    name = "locale"
    max_length = 32
"#;

pub(crate) fn mend(env: &TestEnv, pipeline: &str) {
    env.configure(&format!("[pipeline]\n{pipeline}\n{MENDED}"));
}

fn leave_is_over_when_the_redrive_policy_has_moved_the_message(server: Server) {
    let env = TestEnv::new(server);
    let dead_letters = Queue::create(server, QueueKind::Standard);
    env.queue.redrive_to(&dead_letters, 3);
    env.configure("[pipeline]\non_reject = \"leave\"\n");
    env.queue.send(&[logins(5), vec![misfit("bad")]].concat());

    let outcome = env.run().succeeds();
    // Each of the three deliveries of the misfit was received, and rejected.
    let expected = Counts { received: 8, loaded: 5, rejected: 3, acknowledged: 5, ..Counts::default() };
    assert_eq!(outcome.counts(), expected, "{outcome}");
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
    assert_eq!(env.database.count("user_logins"), 5);
    assert_eq!(env.database.count("pgsluice.message"), 5, "a message that is left is not decided");
    assert_eq!(env.database.count("pgsluice.reject"), 0);
    assert!(env.staged_objects("rejects").iter().all(|line| line["field"] == "device_type"));
    let bodies: Vec<_> = dead_letters.receive_all().into_iter().filter_map(|message| message.body).collect();
    assert_eq!(bodies, [misfit("bad")]);
}

on_each_server!(leave_is_over_when_the_redrive_policy_has_moved_the_message, a_dead_letter_says_why);

#[test]
fn a_row_that_postgres_refuses_is_left_as_well() {
    let server = Server::Embedded;
    let env = TestEnv::new(server);
    let dead_letters = Queue::create(server, QueueKind::Standard);
    env.queue.redrive_to(&dead_letters, 2);
    env.configure("[pipeline]\non_reject = \"leave\"\n");
    env.database.execute("alter table user_logins add constraint known check (user_id <> 'bad')");
    env.queue.send(&[logins(3), vec![login("bad").to_string()]].concat());

    env.run().succeeds();
    assert_eq!((env.database.count("user_logins"), env.database.count("pgsluice.message")), (3, 3));
    assert_eq!(dead_letters.counts().visible, 1);
}

#[test]
fn a_message_that_was_left_loads_when_it_fits_at_last() {
    for dedupe in ["message", "segment"] {
        let server = Server::Embedded;
        let env = TestEnv::new(server);
        let dead_letters = Queue::create(server, QueueKind::Standard);
        env.queue.redrive_to(&dead_letters, 100);
        let policy = format!("on_reject = \"leave\"\ndedupe = \"{dedupe}\"");
        env.configure(&format!("[pipeline]\n{policy}\n"));
        env.queue.send(&[misfit("late")]);
        env.job(&["drain"]).succeeds();
        for stage in ["transform", "load", "ack"] {
            env.job(&[stage]).succeeds();
        }
        assert_eq!(env.queue.counts().visible, 1, "it can be received again");

        mend(&env, &policy);
        assert_eq!(env.run().succeeds().counts().loaded, 1);
        assert_eq!(env.database.texts("select user_id from user_logins"), ["late"]);
        assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
        assert!(dead_letters.is_empty());
    }
}

#[test]
fn what_a_segment_left_stays_left_when_the_configuration_changes_before_it_is_acknowledged() {
    let server = Server::Embedded;
    let env = TestEnv::new(server);
    let dead_letters = Queue::create(server, QueueKind::Standard);
    env.queue.redrive_to(&dead_letters, 100);
    env.configure("[pipeline]\non_reject = \"leave\"\n");
    env.queue.send(&[logins(2), vec![misfit("bad")]].concat());
    for stage in ["drain", "transform", "load"] {
        env.job(&[stage]).succeeds();
    }
    env.configure("");
    // Not even the reject file is needed to know.
    for file in env.staged_files("rejects") {
        fs::remove_file(file).unwrap();
    }
    assert_eq!(env.job(&["ack"]).succeeds().counts().acknowledged, 2);
    assert_eq!(env.queue.counts().visible, 1);
}

#[test]
fn without_a_redrive_policy_nothing_is_left_and_nothing_is_received() {
    let env = TestEnv::new(Server::Embedded);
    env.configure("[pipeline]\non_reject = \"leave\"\n");
    env.queue.send(&[misfit("bad")]);
    env.run().fails(2, "no redrive policy", "RedrivePolicy");
    assert_eq!(env.queue.counts().visible, 1);
}

fn a_dead_letter_says_why(server: Server) {
    let env = TestEnv::new(server);
    let dead_letters = Queue::create(server, QueueKind::Standard);
    env.configure(&format!("[pipeline]\non_reject = \"dlq\"\ndlq_url = \"{}\"\n", dead_letters.url()));
    env.queue.send(&logins(20));
    env.queue.send_with_attributes(&misfit("bad"), ("trace", "t1"), ("digest", &[0, 255]));
    env.queue.send(&["not json"; 12]);

    let expected = Counts { received: 33, loaded: 20, rejected: 13, acknowledged: 33, ..Counts::default() };
    assert_eq!(env.run().succeeds().counts(), expected);
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
    assert_eq!(env.database.count("pgsluice.reject"), 13);

    let sent = dead_letters.receive_all();
    assert_eq!(sent.len(), 13);
    let ids: BTreeSet<_> = sent.iter().map(|letter| attribute(letter, "pgsluice_message_id").unwrap()).collect();
    let rejected: BTreeSet<_> = env.database.texts("select message_id from pgsluice.reject").into_iter().collect();
    assert_eq!(ids, rejected);
    let letter = sent.iter().find(|letter| letter.body() == Some(&misfit("bad"))).unwrap();
    assert_eq!(attribute(letter, "pgsluice_stage").as_deref(), Some("transform"));
    assert_eq!(attribute(letter, "pgsluice_field").as_deref(), Some("device_type"));
    assert!(attribute(letter, "pgsluice_reason").unwrap().contains("device_type"));
    assert_eq!(attribute(letter, "trace").as_deref(), Some("t1"));
    let digest = letter.message_attributes().unwrap()["digest"].binary_value().unwrap();
    assert_eq!(digest.as_ref(), [0, 255]);
}

#[test]
fn a_dead_letter_queue_may_be_a_fifo_queue() {
    let env = TestEnv::new(Server::Embedded);
    let dead_letters = Queue::create(Server::Embedded, QueueKind::Fifo);
    env.configure(&format!("[pipeline]\non_reject = \"dlq\"\ndlq_url = \"{}\"\n", dead_letters.url()));
    env.queue.send(&[misfit("bad"), misfit("worse")]);
    env.run().succeeds();
    assert_eq!(dead_letters.counts().visible, 2);
}

fn attribute(letter: &aws_sdk_sqs::types::Message, name: &str) -> Option<String> {
    letter.message_attributes()?.get(name)?.string_value().map(str::to_owned)
}

#[test]
fn a_dead_letter_is_sent_also_when_the_run_that_loaded_its_segment_ended_before() {
    let server = Server::Embedded;
    let env = TestEnv::new(server);
    let dead_letters = Queue::create(server, QueueKind::Standard);
    env.configure(&format!("[pipeline]\non_reject = \"dlq\"\ndlq_url = \"{}\"\n", dead_letters.url()));
    env.queue.send(&[misfit("bad")]);
    for stage in ["drain", "transform", "load"] {
        env.job(&[stage]).succeeds();
    }
    assert!(dead_letters.is_empty());
    env.run().succeeds();
    assert_eq!(dead_letters.counts().visible, 1);
    env.run().succeeds();
    assert_eq!(dead_letters.counts().visible, 1);
}

#[test]
fn without_its_dead_letter_queue_a_run_receives_nothing() {
    let env = TestEnv::new(Server::Embedded);
    let url = env.queue.url().replace("test-", "missing-");
    env.configure(&format!("[pipeline]\non_reject = \"dlq\"\ndlq_url = \"{url}\"\n"));
    env.queue.send(&[misfit("bad")]);
    env.run().fails(1, "missing-", "check");
    assert_eq!(env.queue.counts().visible, 1);
}

#[test]
fn beyond_max_rejects_a_run_stops_before_the_segment_is_loaded_or_deleted() {
    let env = TestEnv::new(Server::Embedded);
    env.configure("[pipeline]\nmax_rejects = 2\n");
    env.queue.send(&[logins(5), (0..3).map(|index| misfit(&format!("bad {index}"))).collect()].concat());

    let outcome = env.run().fails(4, "3 rejects in 8 messages, and max_rejects is 2", "max_rejects");
    let expected = Counts { received: 8, pending: 8, ..Counts::default() };
    assert_eq!(outcome.counts(), expected);
    assert_eq!((env.database.count("user_logins"), env.database.count("pgsluice.segment")), (0, 0));
    assert_eq!(env.staged_objects("rejects").len(), 3, "the reasons are there to be read");

    env.configure("[pipeline]\nmax_rejects = 3\n");
    let counts = env.run().succeeds().counts();
    assert_eq!((counts.loaded, counts.rejected), (5, 3));
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
}

#[test]
fn rejects_are_counted_over_all_segments_of_a_run_and_a_share_is_one_of_its_messages() {
    let env = TestEnv::new(Server::Embedded);
    // One connection, so that segments are loaded in their order.
    env.configure("[pipeline]\nmax_rejects = \"2%\"\n[spool]\nsegment_max_messages = 10\n[load]\nconnections = 1\n");
    let bodies = |bad: usize| [logins(20), (0..bad).map(|index| misfit(&index.to_string())).collect()].concat();
    env.queue.send(&bodies(2));
    assert_eq!(env.run().succeeds().counts().rejected, 2, "2 % of 100 messages at least");
    env.queue.send(&bodies(3));
    env.run().fails(4, "max_rejects is 2%", "");
    assert!(env.database.number("select coalesce(sum(rejected), 0) from pgsluice.segment") < 5);
}

#[test]
fn a_replay_stops_at_max_rejects_as_well_also_for_what_postgres_refuses() {
    let env = TestEnv::new(Server::Embedded);
    env.configure("[pipeline]\nmax_rejects = 0\n");
    env.database.execute("alter table user_logins add constraint known check (user_id <> 'bad')");
    fs::write(env.path("bodies.ndjson"), format!("{}\n{}\n", login("good"), login("bad"))).unwrap();
    env.job(&["import", "bodies.ndjson"]).succeeds();
    env.job(&["replay"]).fails(4, "1 rejects in 2 messages", "max_rejects");
    assert_eq!(env.database.count("user_logins"), 0);
}

#[cfg(feature = "crash-points")]
mod killed {
    use super::*;

    #[test]
    fn after_sending_a_dead_letter_it_is_sent_twice_and_nothing_else_is_done_twice() {
        let mut env = TestEnv::new(Server::Embedded);
        let dead_letters = Queue::create(Server::Embedded, QueueKind::Standard);
        env.configure(&format!("[pipeline]\non_reject = \"dlq\"\ndlq_url = \"{}\"\n", dead_letters.url()));
        env.queue.send(&[logins(2), vec![misfit("bad")]].concat());
        env.set("PGSLUICE_CRASH_POINT", "send-dead-letters");
        env.job(&["run"]).dies();
        assert_eq!(env.queue.counts().in_flight, 3, "sent before anything is deleted");

        env.unset("PGSLUICE_CRASH_POINT");
        env.run().succeeds();
        assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
        assert_eq!((env.database.count("user_logins"), env.database.count("pgsluice.reject")), (2, 1));
        let sent = dead_letters.receive_all();
        let ids: BTreeSet<_> = sent.iter().map(|letter| attribute(letter, "pgsluice_message_id").unwrap()).collect();
        assert_eq!((sent.len(), ids.len()), (2, 1), "by its id a copy is known");
    }

    #[test]
    fn after_the_commit_or_the_deletes_what_is_left_still_goes_to_the_dead_letter_queue() {
        for point in ["commit", "delete"] {
            let mut env = TestEnv::new(Server::Embedded);
            let dead_letters = Queue::create(Server::Embedded, QueueKind::Standard);
            env.queue.redrive_to(&dead_letters, 4);
            // Long enough for a delivery to be loaded and deleted before the next one of the same message.
            env.configure("[queue]\nvisibility_seconds = 5\n[pipeline]\non_reject = \"leave\"\n");
            env.queue.send(&[logins(2), vec![misfit("bad")]].concat());
            env.set("PGSLUICE_CRASH_POINT", point);
            env.job(&["run"]).dies();

            env.unset("PGSLUICE_CRASH_POINT");
            env.run().succeeds();
            assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
            assert_eq!((env.database.count("user_logins"), env.database.count("pgsluice.message")), (2, 2));
            let bodies: Vec<_> = dead_letters.receive_all().into_iter().filter_map(|message| message.body).collect();
            assert_eq!(bodies, [misfit("bad")], "{point}");
        }
    }
}
