//! `rejects show` and `rejects drop`: a person looks at a reject, and gives rejects up.

use std::fs;

use serde_json::Value;

use crate::reject_policy::{logins, misfit};
use crate::testenv::{Counts, Outcome, Server, TestEnv};

const MISSING: &str = "device_type is missing";
const OTHER_HOST: &str = "other-host";

/// Four rows, two rejects of one reason, and one of another.
fn with_rejects(dedupe: &str) -> TestEnv {
    let env = TestEnv::new(Server::Embedded);
    env.configure(&format!("[pipeline]\ndedupe = \"{dedupe}\"\n"));
    env.queue.send(&[logins(4), vec![misfit("one"), "not json".to_owned(), misfit("two")]].concat());
    assert_eq!(env.run().succeeds().counts().rejected, 3);
    env
}

fn drop_missing(env: &TestEnv) -> Outcome {
    env.pgsluice(&["rejects", "drop", "--reason", MISSING])
}

fn kept(env: &TestEnv) -> Vec<String> {
    let mut bodies: Vec<String> =
        env.staged_objects("rejects").iter().map(|line| line["body"].as_str().unwrap().to_owned()).collect();
    bodies.sort();
    bodies
}

fn recorded(env: &TestEnv) -> u64 {
    env.database.count("pgsluice.reject")
}

fn segment_of(env: &TestEnv) -> String {
    env.staged_files("rejects")[0].file_stem().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_drop_gives_up_the_rejects_of_one_reason_and_no_others() {
    let env = with_rejects("message");
    assert!(drop_missing(&env).succeeds().stderr.contains("dropped 2 rejects of 1 segments, and 2 bodies"));
    assert_eq!((recorded(&env), kept(&env)), (1, vec!["not json".to_owned()]));
    assert!(drop_missing(&env).succeeds().stderr.contains("dropped 0 rejects of 0 segments, and 0 bodies"));

    // The books of the segment hold, so a retry goes on with the other one, and says nothing of rejects that are gone.
    let outcome = env.job(&["rejects", "retry"]).succeeds();
    assert_eq!(outcome.counts(), Counts { received: 1, rejected: 1, ..Counts::default() });
    assert!(!outcome.stderr.contains("were removed from the ledger"), "{outcome}");
    // The messages stay decided.
    assert_eq!(env.job(&["replay"]).succeeds().counts().duplicates, 7);
    assert_eq!((env.database.count("user_logins"), recorded(&env)), (4, 1));
}

/// A person gave it up before its segment was acknowledged.
#[test]
fn a_message_that_was_dropped_is_deleted_from_the_queue_and_a_redelivery_is_a_duplicate() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&[logins(2), vec![misfit("one")]].concat());
    for stage in ["drain", "transform", "load"] {
        env.job(&[stage]).succeeds();
    }
    drop_missing(&env).succeeds();
    for line in env.staged_objects("committed") {
        env.queue.release(line["receipt_handle"].as_str().unwrap());
    }
    let counts = env.run().succeeds().counts();
    assert_eq!((counts.loaded, counts.rejected), (0, 0), "{counts:?}");
    assert!(env.queue.is_empty());
    assert_eq!((env.database.count("user_logins"), recorded(&env), kept(&env).len()), (2, 0, 0));
}

#[test]
fn a_drop_of_one_segment_leaves_those_of_others() {
    let env = TestEnv::new(Server::Embedded);
    for name in ["one", "two"] {
        env.queue.send(&[misfit(name)]);
        env.run().succeeds();
    }
    let segment = segment_of(&env);
    env.pgsluice(&["rejects", "drop", "--reason", MISSING, "--segment", &segment]).succeeds();
    assert_eq!((recorded(&env), kept(&env)), (1, vec![misfit("two")]));
    let nowhere = "018f0000-0000-7000-8000-000000000000";
    let outcome = env.pgsluice(&["rejects", "drop", "--reason", MISSING, "--segment", nowhere]);
    outcome.fails(1, "no segment 018f0000", "check --staging-dir");
}

/// Two pipelines refused the same message of one segment.
#[test]
fn a_drop_leaves_what_another_pipeline_rejected() {
    let env = with_rejects("message");
    env.database.execute("create table other_logins (like user_logins)");
    let other = "[pipeline]\nname = \"other\"\ntable = \"public.other_logins\"\n";
    fs::write(env.path("other.toml"), other).unwrap();
    let segment = segment_of(&env);
    let drop = ["rejects", "drop", "--reason", MISSING, "--config", "other.toml"];
    env.pgsluice(&drop).succeeds();
    env.pgsluice(&[&drop[..], &["--segment", &segment]].concat()).fails(2, "belongs to pipeline user_logins", "");
    assert_eq!((recorded(&env), kept(&env).len()), (3, 3));
    fs::remove_dir_all(env.path("staging/archive")).unwrap();
    env.pgsluice(&[&drop[..], &["--segment", &segment]].concat()).fails(2, "belongs to pipeline user_logins", "");
    assert_eq!((recorded(&env), kept(&env).len()), (3, 3));
}

#[test]
fn a_drop_beside_another_pipelines_rejects_of_the_same_segment_takes_its_own_alone() {
    let env = with_rejects("message");
    env.database.execute("create table other_logins (like user_logins)");
    fs::write(env.path("other.toml"), "[pipeline]\nname = \"other\"\ntable = \"public.other_logins\"\n").unwrap();
    env.job(&["replay", "--from", "user_logins", "--config", "other.toml"]).succeeds();
    assert_eq!((recorded(&env), kept(&env).len()), (6, 6));
    let segment = segment_of(&env);
    let drop = ["rejects", "drop", "--reason", MISSING, "--segment", &segment, "--config", "other.toml"];
    env.pgsluice(&drop).succeeds();
    let left =
        env.database.texts("select name from pgsluice.reject join pgsluice.pipeline on id = pipeline order by 1");
    assert_eq!(left, ["other", "user_logins", "user_logins", "user_logins"]);
    let owner = |line: &Value| line["pipeline"].as_str().unwrap().to_owned();
    let mut owners: Vec<String> = env.staged_objects("rejects").iter().map(owner).collect();
    owners.sort();
    assert_eq!(owners, left);
}

/// The record goes first, and the body after its COMMIT.
#[cfg(feature = "crash-points")]
#[test]
fn a_drop_that_is_killed_loses_nothing_else_and_is_made_good_by_the_next() {
    for dedupe in ["message", "segment"] {
        for (point, left_records, left_bodies) in [("before-commit", 3, 3), ("commit", 1, 3), ("rename", 1, 1)] {
            for repair in [&["rejects", "drop", "--reason", MISSING][..], &["rejects", "retry"]] {
                let mut env = with_rejects(dedupe);
                env.set("PGSLUICE_CRASH_POINT", point);
                drop_missing(&env).dies();
                assert_eq!((recorded(&env), kept(&env).len()), (left_records, left_bodies), "{dedupe}, {point}");
                env.unset("PGSLUICE_CRASH_POINT");
                env.pgsluice(repair).succeeds();
                if point == "before-commit" {
                    drop_missing(&env).succeeds();
                }
                assert_eq!((recorded(&env), kept(&env)), (1, vec!["not json".to_owned()]), "{dedupe}, {point}");
                assert_eq!(env.database.count("user_logins"), 4);
            }
        }
    }
}

/// Somebody else's disk has the bodies.
#[test]
fn a_drop_says_which_host_has_the_bodies_and_that_host_can_remove_them_afterwards() {
    let mut env = with_rejects("message");
    env.set("HOSTNAME", "laptop");
    let recorder = env.database.texts("select host from pgsluice.segment").remove(0);
    let arguments = ["rejects", "drop", "--reason", MISSING, "--staging-dir", OTHER_HOST];
    let outcome = env.pgsluice(&arguments).succeeds();
    assert!(outcome.stderr.contains(&format!("the bodies of 2 of them, which host {recorder} recorded")), "{outcome}");
    assert_eq!((recorded(&env), kept(&env).len()), (1, 3));
    assert!(drop_missing(&env).succeeds().stderr.contains("dropped 0 rejects of 0 segments, and 2 bodies"));
    assert_eq!(kept(&env), ["not json"]);
}

fn ids(env: &TestEnv) -> Vec<String> {
    env.database.texts("select distinct message_id::text from pgsluice.reject order by 1")
}

#[test]
fn a_reject_is_shown_with_its_body_byte_for_byte() {
    let env = TestEnv::new(Server::Embedded);
    let body = "{\"user_id\": \"\\u0007\",\r\n\t\"ip\": 7, \"é\": \"\u{1b}[2J\"}";
    env.queue.send(&[body.to_owned()]);
    env.run().succeeds();
    let id = ids(&env).remove(0);
    let outcome = env.pgsluice(&["rejects", "show", &id]).succeeds();
    assert_eq!(outcome.stdout, body);
    let record: Value = serde_json::from_str(&outcome.stderr).unwrap();
    assert_eq!((record["message_id"].as_str(), record["stage"].as_str()), (Some(&*id), Some("transform")));
    assert_eq!(record["segment"].as_str(), Some(&*segment_of(&env)));
    assert!(record["host"].is_string() && record["rejected_at"].is_string(), "{record}");
    assert_eq!(env.pgsluice(&["rejects", "show", "--quiet", &id]).succeeds().stderr, "");
}

/// A terminal obeys control characters, and whoever can send messages could write them.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_gets_no_control_character_of_a_body() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&["{\"a\": \"\u{1b}]0;title\u{7}\u{9b}2J\u{202e}\"}".to_owned()]);
    env.run().succeeds();
    let mut command = env.command("script");
    let show = format!("{} rejects show --quiet {}", env!("CARGO_BIN_EXE_pgsluice"), ids(&env)[0]);
    command.args(["--quiet", "--return", "--command", &show, "/dev/null"]).env("SHELL", "/bin/sh");
    command.env("PATH", std::env::var_os("PATH").unwrap());
    let outcome = env.run_to_end(command).succeeds();
    assert_eq!(outcome.stdout, "{\"a\": \"\\u{001b}]0;title\\u{0007}\\u{009b}2J\\u{202e}\"}\r\n");
}

#[test]
fn a_message_that_is_rejected_in_several_segments_is_shown_for_each() {
    let env = with_rejects("segment");
    let id = env.database.texts("select message_id::text from pgsluice.reject where field is null").remove(0);
    // The queue delivered it again, and by `dedupe = "segment"` that is another reject.
    let first = env.staged_files("archive").remove(0);
    let name = "018f0000-0000-7000-8000-000000000000";
    let old = first.file_stem().unwrap().to_str().unwrap();
    for part in ["archive", "rejects"] {
        let text = fs::read_to_string(env.path(&format!("staging/{part}/{old}.ndjson"))).unwrap();
        fs::write(env.path(&format!("staging/{part}/{name}.ndjson")), text).unwrap();
    }
    env.database.execute(&format!(
        "insert into pgsluice.segment (pipeline, id, segment_no, received, loaded, duplicates, rejected, rows, host)
         select pipeline, '{name}', 1000, received, loaded, duplicates, rejected, rows, host from pgsluice.segment;
         insert into pgsluice.reject select pipeline, 1000, message_id, sent_at, stage, field, reason
         from pgsluice.reject"
    ));
    let outcome = env.pgsluice(&["rejects", "show", &id]).succeeds();
    assert_eq!(outcome.stdout, "not json\nnot json");
    let segments: Vec<Value> = outcome.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut segments: Vec<&str> = segments.iter().map(|record| record["segment"].as_str().unwrap()).collect();
    segments.sort_unstable();
    assert_eq!(segments, [name, old]);
}

#[test]
fn what_cannot_be_shown_is_an_error() {
    let env = with_rejects("message");
    env.pgsluice(&["rejects", "show", "no such id"]).fails(1, "is a reject of pipeline user_logins", "rejects list");
    let id = ids(&env).remove(0);
    env.pgsluice(&["rejects", "show", &id, "--staging-dir", "elsewhere"]).fails(1, "is not in the", "the host that");
    assert!(!env.path("elsewhere").exists());
}
