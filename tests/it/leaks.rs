//! What is secret stands nowhere: one life of a pipeline among hostile messages, faults of the queue and of Postgres,
//! and mistakes of its people, in which all that it prints, writes, posts and stores is searched after each command.
//!
//! The bodies of messages are in the files of the spool, the rejects and the archive, in dead letters, and in what
//! `rejects show` and `reveal` print. This is documented, and shows here that the values which are searched for were there.

mod pipeline;
mod search;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use pgsluice::local::Fault::{CutAnswer, DamagedBodies, MalformedAnswer, Refused};
use pgsluice::local::Operation::{Delete, Receive};
use pgsluice::local::Rule;
use pgsluice::local::When::Nth;

use crate::metrics::{following, get};
use crate::notify::server;
use crate::rejects;
use crate::testenv::{Outcome, Queue, TestEnv, wait_until};
pub(crate) use pipeline::hostile_bodies;
use pipeline::{env_of_secrets, good, make_the_table_talk, send_all};
use search::{
    IDS, KEY, KEYRING, OTHER_KEY, PERSONAL, SAMPLE, SECRET, assert_clean, assert_database_clean, assert_files_clean,
    assert_outcome_clean, searched,
};

const FAILED: i32 = 1;
const USAGE: i32 = 2;

#[test]
fn no_secret_and_no_masked_plaintext_is_anywhere_whatever_happens() {
    let (mut env, dead_letters) = env_of_secrets();
    make_the_table_talk(&env, "P0001");
    questions_before_a_run(&env);
    mistakes(&env);
    #[cfg(feature = "crash-points")]
    a_death(&mut env);
    an_error_of_postgres(&env);
    broken_answers(&env);
    a_run_that_is_watched(&env);
    a_run_that_is_told_of(&mut env);
    questions_after_a_run(&env);
    what_came_to_the_dead_letter_queue(&dead_letters);
    second_thoughts(&mut env);
    what_may_hold_bodies_does(&env);
}

fn questions_before_a_run(env: &TestEnv) {
    let others = rejects::hostile_bodies().into_iter().map(|(.., body)| body).collect();
    fs::write(env.path(SAMPLE), [good(20), others].concat().join("\n")).unwrap();
    env.queue.send(&good(10));
    for command in [
        &["check", "--sample", SAMPLE][..],
        &["check", "--sample", SAMPLE, "--json"],
        &["check", "--peek", "5", "-vv"],
        &["config", "show"],
        &["status", "--json"],
    ] {
        searched(env, command).succeeds();
    }
    fs::write(env.path(SAMPLE), good(20).join("\n")).unwrap();
    searched(env, &["infer", SAMPLE]).succeeds();
}

/// Runs with one setting that is wrong.
fn mistakes(env: &TestEnv) {
    let url = env.database.url();
    let (_, address) = url.rsplit_once('@').unwrap();
    for (name, wrong, code) in [
        ("DATABASE_URL", format!("postgres://postgres:{SECRET}-wrong@{address}"), FAILED),
        ("DATABASE_URL", format!("postgres://loader:{SECRET}@127.0.0.1:1/app"), FAILED),
        ("DATABASE_URL", format!("postgres://loader:{SECRET}@x@{address}"), USAGE),
        ("PGSLUICE_KEY", format!("{KEY}00"), USAGE),
        ("PGSLUICE_KEY", format!("{SECRET}{}", &KEY[SECRET.len()..]), USAGE),
        ("PGSLUICE_NOTIFY_URL", format!("ftp://robot:{SECRET}@host/{SECRET}"), USAGE),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1".to_owned(), FAILED),
    ] {
        with_setting(env, name, &wrong).ends_with(code);
    }
}

fn with_setting(env: &TestEnv, name: &str, value: &str) -> Outcome {
    let mut command = env.command(env!("CARGO_BIN_EXE_pgsluice"));
    command.args(["run", "-vv", "--report", "report.json"]).env(name, value);
    let outcome = env.run_to_end(command);
    assert_outcome_clean(&outcome);
    assert_files_clean(env);
    outcome
}

/// Rows are in a transaction that is open, and in a chunk that stays.
#[cfg(feature = "crash-points")]
fn a_death(env: &mut TestEnv) {
    send_all(env);
    env.set("PGSLUICE_CRASH_POINT", "copy-rows");
    searched(env, &["run", "-vv", "--report", "report.json"]).dies();
    env.unset("PGSLUICE_CRASH_POINT");
    assert!(!env.staged_files("chunks").is_empty());
}

/// Of a class that is no fault of a row, whose text is shown where it quotes none.
fn an_error_of_postgres(env: &TestEnv) {
    send_all(env);
    make_the_table_talk(env, "25006");
    let outcome = searched(env, &["run", "-vv", "--report", "report.json"]);
    outcome.fails(FAILED, "25006", "");
    make_the_table_talk(env, "P0001");
}

/// The first half of the messages is in an answer that is no JSON.
fn broken_answers(env: &TestEnv) {
    send_all(env);
    let rule = |operation, when, fault| Rule { operation, when, fault };
    let run = ["run", "-vv", "--idle", "8s", "--report", "report.json", "--metrics-file", "pgsluice.prom"];
    for operation in [Receive, Delete] {
        env.queue.inject(&[rule(operation, Nth(1), MalformedAnswer)]);
        searched(env, &run).ends_with(FAILED);
    }
    env.queue.inject(&[
        rule(Receive, Nth(2), DamagedBodies),
        rule(Receive, Nth(4), CutAnswer),
        rule(Delete, Nth(1), CutAnswer),
        rule(Delete, Nth(2), Refused(500, "InternalFailure")),
    ]);
    searched(env, &run).succeeds();
    env.queue.inject(&[]);
}

fn a_run_that_is_watched(env: &TestEnv) {
    send_all(env);
    let (run, address) = following(env, &["-vv", "--log-format", "json"]);
    wait_until(|| env.queue.is_empty());
    for format in ["text/plain", "application/openmetrics-text; version=1.0.0"] {
        let (_, metrics) = get(&address, "/metrics", &format!("Accept: {format}\r\n"));
        assert!(metrics.contains("pgsluice_messages_rejected_total"), "{metrics}");
        assert_clean("/metrics", &metrics);
    }
    run.terminate();
    assert_outcome_clean(&run.wait().succeeds());
    assert!(fs::read_to_string(env.path("log.txt")).unwrap().contains("\"level\":\"DEBUG\""));
    assert_files_clean(env);
    assert_database_clean(env);
}

fn a_run_that_is_told_of(env: &mut TestEnv) {
    send_all(env);
    let (url, posts) = server(&["503 Busy", "204 Thanks"]);
    env.set("PGSLUICE_NOTIFY_URL", url);
    searched(env, &["config", "show"]).succeeds();
    searched(env, &["run", "-vv", "--report", "report.json"]).succeeds();
    env.unset("PGSLUICE_NOTIFY_URL");
    let posts: Vec<_> = posts.iter().collect();
    assert_eq!(posts.len(), 2);
    for post in posts {
        assert_clean("what was posted", &String::from_utf8(post.body).unwrap());
    }
}

fn questions_after_a_run(env: &TestEnv) {
    let one = |table: &str| env.database.texts(&format!("select message_id::text from {table} limit 1")).remove(0);
    let (decided, rejected) = (one("pgsluice.message"), one("pgsluice.reject"));
    for command in [
        &["status"][..],
        &["status", "--json"],
        &["status", "--check", "--max-age", "0s"],
        &["find", &decided],
        &["find", &rejected],
        &["rejects", "list"],
        &["rejects", "list", "--entries"],
        &["report"],
        &["report", "--output", "page.html"],
        &["prune", "-vv"],
    ] {
        searched(env, command).succeeds();
    }
}

/// The message itself is there, and around it the reason.
fn what_came_to_the_dead_letter_queue(dead_letters: &Queue) {
    let letters = dead_letters.receive_all();
    assert!(letters.iter().any(|letter| letter.body().unwrap().contains(PERSONAL)));
    for letter in letters {
        let attributes = letter.message_attributes().unwrap();
        assert!(attributes.contains_key("pgsluice_message_id"), "{attributes:?}");
        assert_clean("the attributes of a dead letter", &format!("{attributes:?}"));
    }
}

/// What works on messages, rejects and rows that were there before: also with another key, refused and meant.
fn second_thoughts(env: &mut TestEnv) {
    with_setting(env, "PGSLUICE_KEY", OTHER_KEY).fails(USAGE, "has been written with key", "--new-key");
    searched(env, &["rejects", "retry", "-vv"]).succeeds();
    searched(env, &["replay", "-vv"]).succeeds();
    env.database.execute("truncate user_logins");
    searched(env, &["replay", "--again", "-vv", "--log-format", "json", "--log-file", "again.json"]).succeeds();
    assert!(env.database.count("user_logins") > 0);

    let key = |id: &str, key: &str| {
        format!("[[key]]\nid = \"{id}\"\nalgorithm = \"siv\"\ncreated = \"2026-01-02T03:04:05Z\"\nkey = \"{key}\"\n")
    };
    fs::write(env.path(KEYRING), key(IDS[1], OTHER_KEY) + &key(IDS[0], KEY)).unwrap();
    fs::set_permissions(env.path(KEYRING), PermissionsExt::from_mode(0o600)).unwrap();
    for name in ["PGSLUICE_KEY", "PGSLUICE_FIXED_IV"] {
        env.unset(name);
    }
    env.set("PGSLUICE_KEY_FILE", KEYRING);
    env.set("DATABASE_URL", env.database.url());
    searched(env, &["rekey", "-vv"]).succeeds();
    assert_eq!(env.database.count(&format!("user_logins where masked_ip not like '{}:%'", IDS[1])), 0);
}

fn what_may_hold_bodies_does(env: &TestEnv) {
    for part in ["rejects", "archive"] {
        assert!(env.staged_objects(part).iter().any(|line| line.to_string().contains(PERSONAL)), "{part}");
    }
    let refused = "select message_id::text from pgsluice.reject where stage = 'load' limit 1";
    let shown = env.pgsluice(&["rejects", "show", &env.database.texts(refused).remove(0)]).succeeds();
    assert!(shown.stdout.contains(PERSONAL), "{shown}");
    assert_clean("stderr of what shows", &shown.stderr);
    let masked = env.database.texts("select masked_ip from user_logins limit 1").remove(0);
    let revealed = env.pgsluice(&["reveal", "-vv", &masked]).succeeds();
    assert_eq!(revealed.stdout, format!("{PERSONAL}\n"));
    assert_clean("stderr of what reveals", &revealed.stderr);
}
