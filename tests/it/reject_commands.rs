//! `rejects list`, and `rejects retry`: a second try after the mapping or the table was corrected.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::reject_policy::{logins, mend, misfit};
use crate::testenv::{Counts, Server, TestEnv};

#[test]
fn rejects_are_listed_by_reason_or_one_by_one_and_without_their_bodies() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&[misfit("SECRET 1"), misfit("SECRET 2"), "not json".to_owned()]);
    env.run().succeeds();

    let groups = objects(&env.pgsluice(&["rejects", "list"]).succeeds().stdout);
    let summary: Vec<_> = groups.iter().map(|group| (group["rejects"].as_u64(), group["field"].as_str())).collect();
    assert_eq!(summary, [(Some(2), Some("device_type")), (Some(1), None)]);
    let entries = env.pgsluice(&["rejects", "list", "--entries"]).succeeds().stdout;
    assert!(!entries.contains("SECRET"), "{entries}");
    let listed: BTreeSet<_> =
        objects(&entries).iter().map(|entry| entry["message_id"].as_str().unwrap().to_owned()).collect();
    let kept: BTreeSet<_> =
        env.staged_objects("rejects").iter().map(|line| line["message_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(listed, kept);

    let limited = env.pgsluice(&["rejects", "list", "--entries", "--limit", "1"]).succeeds().stdout;
    assert_eq!(limited.lines().count(), 1);
    let other = ["rejects", "list", "--segment", "018f0000-0000-7000-8000-000000000000"];
    assert_eq!(env.pgsluice(&other).succeeds().stdout, "");
}

fn objects(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs with two misfits that fit the mended mapping, and one message that never does.
fn with_three_rejects(dedupe: &str) -> TestEnv {
    let env = TestEnv::new(Server::Embedded);
    env.configure(&format!("[pipeline]\ndedupe = \"{dedupe}\"\n"));
    env.queue.send(&[logins(4), vec![misfit("late 1"), "not json".to_owned(), misfit("late 2")]].concat());
    assert_eq!(env.run().succeeds().counts().rejected, 3);
    mend(&env, &format!("dedupe = \"{dedupe}\""));
    env
}

fn assert_two_of_three_rejects_are_rows(env: &TestEnv) {
    assert_eq!(env.database.count("user_logins"), 6);
    assert_eq!(env.database.count("user_logins where user_id like 'late %'"), 2);
    assert_eq!(env.database.count("pgsluice.reject"), 1);
    let books = "select sum(loaded) || ' ' || sum(rejected) from pgsluice.segment";
    assert_eq!(env.database.texts(books), ["6 1"]);
    let lines = env.staged_objects("rejects");
    assert_eq!(lines.iter().map(|line| line["body"].as_str().unwrap()).collect::<Vec<_>>(), ["not json"]);
}

#[test]
fn a_retry_loads_the_rejects_that_fit_by_now_and_does_so_once() {
    for dedupe in ["message", "segment"] {
        let env = with_three_rejects(dedupe);
        let messages = env.database.count("pgsluice.message");
        let first = env.job(&["rejects", "retry"]).succeeds().counts();
        assert_eq!(first, Counts { received: 3, loaded: 2, rejected: 1, ..Counts::default() });
        assert_two_of_three_rejects_are_rows(&env);

        let second = env.job(&["rejects", "retry"]).succeeds().counts();
        assert_eq!(second, Counts { received: 1, rejected: 1, ..Counts::default() });
        assert_two_of_three_rejects_are_rows(&env);
        assert_eq!(env.database.count("pgsluice.message"), messages, "their ids stay");
        assert!(!env.path("staging/retry").exists());
    }
}

#[cfg(feature = "crash-points")]
#[test]
fn a_retry_that_is_killed_before_or_after_its_commit_is_made_good_by_the_next() {
    // The second rename: what still does not fit is written, what fits is not.
    for point in ["rename:2", "before-commit", "commit"] {
        let mut env = with_three_rejects("message");
        env.set("PGSLUICE_CRASH_POINT", point);
        env.job(&["rejects", "retry"]).dies();
        let loaded = if point == "commit" { 2 } else { 0 };
        assert_eq!(env.database.count("user_logins"), 4 + loaded, "{point}");

        env.unset("PGSLUICE_CRASH_POINT");
        assert_eq!(env.job(&["rejects", "retry"]).succeeds().counts().loaded, 2 - loaded);
        assert_two_of_three_rejects_are_rows(&env);
        assert!(!env.path("staging/retry").exists());
    }
}

#[test]
fn a_retry_that_died_between_its_commit_and_the_reject_file_is_made_good_by_the_next() {
    let env = with_three_rejects("message");
    let [file] = &env.staged_files("rejects")[..] else { panic!("one reject file") };
    let before = fs::read(file).unwrap();
    env.job(&["rejects", "retry"]).succeeds();
    // A process that is killed there leaves this: the old reject file, and its workshop.
    fs::write(file, before).unwrap();
    fs::create_dir_all(env.path("staging/retry/spool")).unwrap();
    fs::write(env.path("staging/retry/spool/old.ndjson"), "torn").unwrap();

    let again = env.job(&["rejects", "retry"]).succeeds().counts();
    assert_eq!(again, Counts { received: 1, rejected: 1, ..Counts::default() });
    assert_two_of_three_rejects_are_rows(&env);
    assert!(!env.path("staging/retry").exists());
}

#[test]
fn a_retry_says_the_new_reason_also_where_postgres_refuses_now() {
    let env = with_three_rejects("message");
    env.database.execute("alter table user_logins add constraint known check (user_id <> 'late 1')");
    let counts = env.job(&["rejects", "retry"]).succeeds().counts();
    assert_eq!((counts.loaded, counts.rejected), (1, 2));
    let reject = "select reason from pgsluice.reject where stage = 'load' and field = 'known'";
    assert!(env.database.texts(reject)[0].contains("23514"));
    let lines = env.staged_objects("rejects");
    assert_eq!(lines.iter().filter(|line| line["stage"] == "load" && line["field"] == "known").count(), 1);

    env.database.execute("alter table user_logins drop constraint known");
    env.job(&["rejects", "retry"]).succeeds();
    assert_two_of_three_rejects_are_rows(&env);
}

#[test]
fn a_retry_leaves_a_segment_alone_that_was_not_loaded_yet() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&[misfit("bad")]);
    env.job(&["drain"]).succeeds();
    env.job(&["transform"]).succeeds();
    assert!(env.staged_files("rejects").is_empty(), "a load writes them");
    let segment = env.staged_files("spool").remove(0).file_stem().unwrap().to_str().unwrap().to_owned();
    let outcome = env.job(&["rejects", "retry", &segment]).succeeds();
    assert_eq!(outcome.counts(), Counts::default());
    assert!(outcome.stderr.contains("not in the ledger yet"), "{outcome}");
}

#[test]
fn a_replay_of_an_emptied_table_loads_what_a_retry_loaded() {
    let env = with_three_rejects("message");
    env.job(&["rejects", "retry"]).succeeds();
    env.database.execute("truncate user_logins");
    env.job(&["replay", "--again"]).succeeds();
    assert_two_of_three_rejects_are_rows(&env);
}
