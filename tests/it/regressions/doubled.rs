//! Messages that became two rows.

use pgsluice::local::Fault::{ClockAhead, NoSentTimestamp};
use pgsluice::local::Operation::Receive;
use pgsluice::local::When::Always;
use pgsluice::local::{Fault, Faults, Rule};

use super::{OTHER_HOST, STAGING, redeliver, users};
use crate::logins::login;
use crate::reject_policy::{logins, mend, misfit};
use crate::testenv::{Queue, QueueKind, Server, TestEnv};

const MESSAGES: usize = 40;
const SMALL_SEGMENTS: &str = "[spool]\nsegment_max_messages = 10\n";

/// Forty messages are in the table, and their four segments in the archive.
fn loaded() -> TestEnv {
    let env = TestEnv::new(Server::Embedded);
    env.configure(SMALL_SEGMENTS);
    env.queue.send(&logins(MESSAGES));
    env.run().succeeds();
    env
}

fn assert_each_once(env: &TestEnv, what: &str) {
    assert_eq!(env.database.count("user_logins"), MESSAGES as u64, "{what}");
    assert_eq!(env.database.number("select count(distinct user_id) from user_logins"), MESSAGES as u64, "{what}");
}

/// `replay --again` forgot each segment just before it loaded it. Killed in the middle and repeated, it forgot and loaded
/// once more what the first one had loaded.
#[cfg(feature = "crash-points")]
#[test]
fn a_replay_that_is_killed_in_the_middle_and_repeated_loads_each_message_once() {
    for point in ["copy-rows", "before-commit:2", "commit", "commit:3", "commit:4", "remove-chunk:4"] {
        let mut env = loaded();
        env.database.execute("truncate user_logins");
        env.set("PGSLUICE_CRASH_POINT", point);
        env.job(&["replay", "--again"]).dies();
        if env.job(&["replay", "--again"]).was_killed() {
            env.unset("PGSLUICE_CRASH_POINT");
            env.job(&["replay", "--again"]).succeeds();
        }
        assert_each_once(&env, point);
        env.job(&["replay", "--again"]).fails(2, "is not empty", "--keep-rows");
        assert_each_once(&env, point);
    }
}

/// The same beside rows that are to stay: there, too, the second one forgot what the first one had loaded.
#[cfg(feature = "crash-points")]
#[test]
fn a_replay_beside_other_rows_that_is_killed_and_repeated_loads_each_message_once() {
    for point in ["copy-rows", "commit", "commit:3", "commit:4"] {
        let mut env = loaded();
        env.database.execute("truncate user_logins; create table others (like user_logins)");
        env.database
            .execute("insert into user_logins select 'other', '', '', '', '', 1, now() from generate_series(1, 5)");
        env.set("PGSLUICE_CRASH_POINT", point);
        env.job(&["replay", "--again", "--keep-rows"]).dies();
        env.unset("PGSLUICE_CRASH_POINT");
        env.job(&["replay", "--again", "--keep-rows"]).succeeds();
        env.database.execute("delete from user_logins where user_id = 'other'");
        assert_each_once(&env, point);
    }
}

/// An unfinished `replay --again --keep-rows` of one segment is no reason to load others again into a table that holds
/// their rows.
#[cfg(feature = "crash-points")]
#[test]
fn a_replay_that_was_told_to_keep_rows_does_not_speak_for_the_next_one() {
    let mut env = loaded();
    let segment = env.database.texts("select id from pgsluice.segment order by segment_no limit 1").remove(0);
    let of_segment = env.staged_files("archive").into_iter().find(|file| file.to_string_lossy().contains(&segment));
    let bodies = std::fs::read_to_string(of_segment.unwrap()).unwrap();
    env.database
        .execute(&format!("delete from user_logins where position(user_id || '\\\"' in $body${bodies}$body$) > 0"));
    assert_eq!(env.database.count("user_logins"), 30);
    env.set("PGSLUICE_CRASH_POINT", "before-commit");
    env.job(&["replay", "--again", "--keep-rows", &segment]).dies();
    env.unset("PGSLUICE_CRASH_POINT");
    env.job(&["replay", "--again"]).fails(2, "is not empty", "--keep-rows");
    env.job(&["replay"]).succeeds();
    assert_each_once(&env, "the segment that was forgotten");
}

/// A table that was not emptied got every row a second time, without a question.
#[test]
fn a_table_that_holds_rows_is_not_loaded_again() {
    for dedupe in ["message", "segment"] {
        let env = loaded();
        env.configure(&format!("[pipeline]\ndedupe = \"{dedupe}\"\n{SMALL_SEGMENTS}"));
        env.job(&["replay", "--again"]).fails(2, "is not empty", "--keep-rows");
        assert_each_once(&env, dedupe);
        assert_eq!(env.database.count("pgsluice.segment"), 4, "nothing is forgotten");
    }
}

/// A segment without duplicates was taken for the owner of all its messages. A message that it had left in the queue
/// belonged to the segment of a later delivery, and was loaded with both.
#[test]
fn a_message_that_was_left_in_the_queue_is_loaded_again_once() {
    let server = Server::Embedded;
    let env = TestEnv::new(server);
    let dead_letters = Queue::create(server, QueueKind::Standard);
    env.queue.redrive_to(&dead_letters, 100);
    let policy = "on_reject = \"leave\"";
    env.configure(&format!("[pipeline]\n{policy}\n"));
    env.queue.send(&[logins(3), vec![misfit("late")]].concat());
    for stage in ["drain", "transform", "load", "ack"] {
        env.job(&[stage]).succeeds();
    }
    mend(&env, policy);
    env.run().succeeds();
    let all = ["late", "user 0", "user 1", "user 2"];
    assert_eq!(users(&env), all);
    for _ in 0..2 {
        env.database.execute("truncate user_logins");
        env.job(&["replay", "--again"]).succeeds();
        assert_eq!(users(&env), all);
    }
}

/// The same with a message of which one segment was loaded with `dedupe = "segment"`, which records no messages.
#[test]
fn messages_that_were_loaded_without_their_ids_are_loaded_again_once() {
    let env = TestEnv::new(Server::Embedded);
    env.configure("[pipeline]\ndedupe = \"segment\"\n");
    env.queue.send(&logins(3));
    for stage in ["drain", "transform", "load"] {
        env.job(&[stage]).succeeds();
    }
    redeliver(&env, STAGING);
    env.configure("");
    env.start_as(OTHER_HOST, &["run"]).wait().succeeds();
    env.job(&["ack"]).succeeds();
    for file in env.staged_files("archive") {
        std::fs::copy(&file, env.path(OTHER_HOST).join("archive").join(file.file_name().unwrap())).unwrap();
    }
    for _ in 0..2 {
        env.database.execute("truncate user_logins");
        env.start_as(OTHER_HOST, &["replay", "--again"]).wait().succeeds();
        assert_eq!(users(&env), ["user 0", "user 1", "user 2"]);
    }
}

/// A message was known by the time of its sending and its id. A redrive on a FIFO queue resets the time, and some servers
/// send none; then the time of receiving stood in its place.
#[test]
fn a_message_whose_time_of_sending_changes_is_the_same_message() {
    for ms in [86_400_000, -3_600_000] {
        let env = TestEnv::with_fifo_queue(Server::Faulty(Faults::default()));
        (0..3).for_each(|group| {
            env.queue.send_to_group(&group.to_string(), &login(&format!("user {group}")).to_string());
        });
        redelivered_with(&env, ClockAhead { ms });
    }
    let env = TestEnv::new(Server::Faulty(Faults::default()));
    env.queue.inject(&[Rule { operation: Receive, when: Always, fault: NoSentTimestamp }]);
    env.queue.send(&logins(3));
    redelivered_with(&env, NoSentTimestamp);
}

fn redelivered_with(env: &TestEnv, fault: Fault) {
    for stage in ["drain", "transform", "load"] {
        env.job(&[stage]).succeeds();
    }
    assert_eq!(users(env), ["user 0", "user 1", "user 2"]);
    redeliver(env, STAGING);
    env.queue.inject(&[Rule { operation: Receive, when: Always, fault }]);
    let counts = env.start_as(OTHER_HOST, &["run"]).wait().succeeds().counts();
    assert_eq!((counts.loaded, counts.duplicates), (0, 3), "{fault:?}");
    assert_eq!(users(env), ["user 0", "user 1", "user 2"], "{fault:?}");
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
}

/// Each run over a table that refused everything received the whole backlog again. Four of them, and the queue moved most
/// of it to its dead-letter queue, while the spool loaded it later; redriven by hand, these were second rows.
#[test]
fn a_table_that_refuses_everything_drives_no_message_into_the_dead_letter_queue() {
    let env = TestEnv::new(Server::Embedded);
    let dead_letters = Queue::create(Server::Embedded, QueueKind::Standard);
    env.queue.redrive_to(&dead_letters, 2);
    env.configure(SMALL_SEGMENTS);
    env.database.execute(
        "create function refuse() returns trigger language plpgsql as
             'begin raise exception ''no'' using errcode = ''insufficient_privilege''; end';
         create trigger refuse before insert on user_logins for each row execute function refuse()",
    );
    env.queue.send(&logins(MESSAGES));
    for _ in 0..4 {
        env.job(&["run"]).ends_with(1);
        assert_eq!(env.queue.counts().visible, MESSAGES, "what it will not load is given back");
    }
    env.database.execute("drop trigger refuse on user_logins");
    env.run().succeeds();
    assert_each_once(&env, "after all");
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
    assert!(dead_letters.is_empty(), "{:?}", dead_letters.counts());
}
