//! `status`: what lies in the staging directory, how the last run ended, and when `--check` sounds the alarm.

use std::fs;

use serde_json::Value;

use crate::logins::login;
use crate::reject_policy::logins;
use crate::testenv::{Server, TestEnv};

const FAILED: i32 = 1;

fn status(env: &TestEnv) -> Value {
    env.pgsluice(&["status", "--json"]).succeeds().json()
}

fn state(status: &Value, name: &str) -> Value {
    let all = status["staging"]["states"].as_array().unwrap();
    all.iter().find(|state| state["state"] == name).unwrap_or_else(|| panic!("no {name}: {status}")).clone()
}

#[test]
fn each_state_is_told_with_its_segments_messages_and_bytes() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&logins(20));
    env.pgsluice(&["drain"]).succeeds();
    env.pgsluice(&["transform"]).succeeds();
    let drained = status(&env);
    let size = fs::metadata(&env.staged_files("spool")[0]).unwrap().len();
    for name in ["sealed", "staged"] {
        let state = state(&drained, name);
        assert_eq!([&state["segments"], &state["messages"], &state["bytes"]], [1, 20, size], "{drained}");
        assert!(state["oldest_at"].is_string());
    }
    assert_eq!(state(&drained, "loaded")["segments"], 0);
    assert_eq!(drained["queue"]["in_flight"], 20);

    env.pgsluice(&["load"]).succeeds();
    let loaded = status(&env);
    assert_eq!(state(&loaded, "committed")["messages"], 20);
    assert_eq!([&loaded["ledger"]["segments"], &loaded["ledger"]["loaded"]], [1, 20]);
    env.pgsluice(&["ack"]).succeeds();
    let done = status(&env);
    assert_eq!(state(&done, "acknowledged")["messages"], 20);
    assert_eq!(
        done["queue"],
        serde_json::json!({
            "visible": 0, "in_flight": 0, "delayed": 0, "oldest_not_before": null
        })
    );
}

#[test]
fn a_segment_that_was_left_open_or_is_damaged_is_told() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&[login("a").to_string()]);
    env.pgsluice(&["drain"]).succeeds();
    let sealed = env.staged_files("spool").remove(0);
    let whole = fs::read_to_string(&sealed).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    fs::write(format!("{}.open", sealed.display()), lines[..2].concat()).unwrap();
    fs::remove_file(&sealed).unwrap();
    let open = status(&env);
    assert_eq!([&state(&open, "open")["segments"], &state(&open, "open")["messages"]], [1, 1]);

    let damaged = env.path("staging/damaged").join(sealed.file_name().unwrap());
    fs::rename(format!("{}.open", sealed.display()), &damaged).unwrap();
    let found = status(&env);
    let segment = sealed.file_stem().unwrap().to_str().unwrap();
    let file = format!("staging/damaged/{segment}.ndjson");
    assert_eq!(found["staging"]["damaged"], serde_json::json!([{ "segment": segment, "file": file }]));
    assert!(env.pgsluice(&["status"]).succeeds().stdout.contains(&format!("damaged: {file}")));
}

#[test]
fn the_last_run_and_the_last_that_ended_well_are_told() {
    let mut env = TestEnv::new(Server::Embedded);
    assert_eq!(status(&env)["staging"]["last_run"], Value::Null);
    env.queue.send(&logins(20));
    env.run().succeeds();
    let first = status(&env)["staging"].clone();
    assert_eq!(first["last_run"], first["last_done"]);
    let last = &first["last_run"];
    assert_eq!([&last["exit_code"], &last["loaded"], &last["pending"]], [0, 20, 0]);
    assert_eq!((last["ended_by"].as_str(), last["queue_empty"].as_bool()), (Some("done"), Some(true)));

    // What fails before anything is received counts as well; a stage alone is no run.
    let database = env.database.url();
    env.set("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nowhere");
    env.run().ends_with(FAILED);
    env.set("DATABASE_URL", database);
    env.pgsluice(&["transform"]).succeeds();
    let second = status(&env)["staging"].clone();
    assert_eq!([&second["last_run"]["exit_code"], &second["last_run"]["loaded"]], [1, 0]);
    assert_eq!(second["last_run"]["ended_by"], "error");
    assert_eq!(second["last_done"], first["last_done"]);
    let text = env.pgsluice(&["status"]).succeeds().stdout;
    assert!(text.contains("by error with exit code 1; 0 received"), "{text}");
}

#[test]
fn a_run_that_was_killed_has_no_end() {
    let env = TestEnv::new(Server::Embedded);
    let running = env.start(&["run", "--follow"]);
    crate::testenv::wait_until(|| status(&env)["staging"]["last_run"]["run_id"].is_string());
    running.kill();
    assert_eq!(status(&env)["staging"]["last_run"]["exit_code"], Value::Null);
    assert!(env.pgsluice(&["status"]).succeeds().stdout.contains("it runs, or was killed"));
}

#[test]
fn the_check_fails_where_something_waits_and_no_run_ended_well_since() {
    let env = TestEnv::new(Server::Embedded);
    env.pgsluice(&["status", "--check"]).succeeds();
    env.queue.send(&logins(10));
    let waiting = env.pgsluice(&["status", "--check"]).ends_with(FAILED);
    let problem = "problem: the queue holds messages, and no run has ended with exit code 0 here\n";
    assert!(waiting.stdout.ends_with(problem), "{waiting}");
    // Without --check, it is told and no more.
    env.pgsluice(&["status"]).succeeds();

    env.pgsluice(&["drain"]).succeeds();
    let young = env.pgsluice(&["status", "--check", "--json"]).ends_with(FAILED).json();
    assert_eq!(young["problems"].as_array().unwrap().len(), 1, "what is spooled is young: {young}");
    let old = env.pgsluice(&["status", "--check", "--json", "--max-age", "0s"]).ends_with(FAILED).json();
    assert_eq!(old["problems"].as_array().unwrap().len(), 2, "{old}");

    env.run().succeeds();
    env.queue.send(&logins(10));
    env.pgsluice(&["status", "--check"]).succeeds();
    let stale = env.pgsluice(&["status", "--check", "--max-age", "0s"]).ends_with(FAILED);
    assert!(stale.stdout.contains("none was sent before"), "{stale}");
}

#[test]
fn the_check_fails_where_a_part_is_unreachable() {
    let mut env = TestEnv::new(Server::Embedded);
    env.set("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    let unreachable = env.pgsluice(&["status", "--check", "--json"]).ends_with(FAILED).json();
    assert!(unreachable["queue"]["error"].as_str().unwrap().contains("cannot reach SQS"), "{unreachable}");
    assert!(unreachable["problems"][0].as_str().unwrap().starts_with("the queue: "), "{unreachable}");
}
