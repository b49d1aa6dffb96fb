//! `find`: one line that says what became of a message.

use std::fs;

use crate::logins::login;
use crate::testenv::{Outcome, Server, TestEnv};

const UNKNOWN: &str = "00000000-0000-4000-8000-000000000000";

fn find(env: &TestEnv, message_id: &str) -> Outcome {
    let outcome = env.pgsluice(&["find", message_id]);
    assert_eq!(outcome.stdout.lines().count(), 1, "{outcome}");
    outcome
}

/// The line of the file that the answer names must be the message's.
fn assert_points_to(env: &TestEnv, answer: &str, message_id: &str) {
    let (before, offset) = answer.split_once(" offset ").unwrap_or_else(|| panic!("{answer}"));
    let (_, file) = before.split_once(" file ").unwrap();
    let digits = offset.split([' ', '\n']).next().unwrap();
    let text = fs::read_to_string(env.path(file)).unwrap();
    let line = text[digits.parse().unwrap()..].lines().next().unwrap();
    assert!(line.starts_with(&format!("{{\"message_id\":\"{message_id}\"")), "{answer}: {line}");
}

#[test]
fn a_message_is_followed_from_the_spool_to_the_table() {
    let env = TestEnv::new(Server::Embedded);
    let row = env.queue.send_one(&login("a").to_string());
    // A body that holds the id of another message is not that message.
    let reject = env.queue.send_one(&format!("not json {row}"));
    assert_eq!(find(&env, &row).succeeds().stdout, "unknown\n");
    env.pgsluice(&["drain"]).succeeds();
    for id in [&row, &reject] {
        let pending = find(&env, id).succeeds().stdout;
        assert!(pending.starts_with("pending segment "), "{pending}");
        assert_points_to(&env, &pending, id);
    }
    env.run().succeeds();
    let segment = env.database.texts("select id::text from pgsluice.segment").remove(0);
    let found = find(&env, &row).succeeds().stdout;
    assert!(found.starts_with(&format!("row segment {segment} host ")), "{found}");
    assert_points_to(&env, &found, &row);
    let found = find(&env, &reject).succeeds().stdout;
    assert!(found.starts_with(&format!("reject segment {segment} host ")), "{found}");
    assert!(found.contains("file staging/rejects/") && found.contains("(the body is not JSON"), "{found}");
    assert_points_to(&env, &found, &reject);

    // Also where the files are gone.
    fs::remove_dir_all(env.path("staging")).unwrap();
    let found = find(&env, &row).succeeds();
    assert!(found.stdout.starts_with(&format!("row segment {segment} host ")), "{found}");
    assert!(!found.stdout.contains(" file "), "{found}");
    assert_eq!(found.stderr, "");
}

#[test]
fn a_second_delivery_on_another_host_is_a_duplicate_there() {
    let env = TestEnv::new(Server::Embedded);
    let id = env.queue.send_one(&login("a").to_string());
    env.start_as("first", &["drain"]).wait().succeeds();
    let line = fs::read_to_string(&crate::testenv::files_below(&env.path("first/spool"))[0]).unwrap();
    let handle = line.split("\"receipt_handle\":\"").nth(1).unwrap().split('"').next().unwrap();
    env.queue.release(handle);
    env.start_as("second", &["run"]).wait().succeeds();
    let owner = env.database.texts("select id::text from pgsluice.segment").remove(0);
    let found = env.pgsluice(&["find", &id, "--staging-dir", "first"]).succeeds().stdout;
    assert!(found.starts_with("duplicate segment "), "{found}");
    assert!(found.contains(&format!("its row is of segment {owner}, loaded by ")), "{found}");
    let found = env.pgsluice(&["find", &id, "--staging-dir", "second"]).succeeds().stdout;
    assert!(found.starts_with(&format!("row segment {owner} ")), "{found}");
}

#[test]
fn what_could_not_be_asked_is_said() {
    let mut env = TestEnv::new(Server::Embedded);
    let id = env.queue.send_one(&login("a").to_string());
    env.run().succeeds();
    let unknown = find(&env, UNKNOWN).succeeds();
    assert_eq!(unknown.stdout, "unknown\n");
    assert!(unknown.stderr.contains("a queue cannot be asked for one message"), "{unknown}");

    env.set("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nowhere");
    let found = find(&env, &id).ends_with(1);
    assert!(found.stdout.starts_with("row segment "), "{found}");
    assert!(found.stderr.contains("the ledger could not be asked: cannot connect to Postgres"), "{found}");
}

/// Without an entry for each message, the segment's own entry has to do.
#[test]
fn a_segment_that_is_loaded_as_a_whole_answers_for_its_messages() {
    let env = TestEnv::new(Server::Embedded);
    env.configure("[pipeline]\ndedupe = \"segment\"\n");
    let id = env.queue.send_one(&login("a").to_string());
    env.run().succeeds();
    let found = find(&env, &id).succeeds().stdout;
    assert!(found.starts_with("row segment ") && found.contains("file staging/archive/"), "{found}");
}
