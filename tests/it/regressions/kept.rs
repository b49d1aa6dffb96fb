//! What is kept, and for how long: the archive, rejects, and what a command says of rejects that lie elsewhere.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{OTHER_HOST, STAGING, kept_bodies, redeliver, users};
use crate::reject_policy::{logins, mend, misfit};
use crate::testenv::{Counts, Queue, QueueKind, Server, TestEnv, wait_until};

/// As if the file had been written this number of days ago.
fn age(file: &Path, days: u64) {
    let written = SystemTime::now() - Duration::from_hours(24 * days);
    File::options().append(true).open(file).unwrap().set_modified(written).unwrap();
}

/// The archive's days were counted from the sealing of a segment: what had waited for a week for its load was removed in
/// the moment in which it was archived. Neither `replay` nor a long-running job ever removed anything.
#[test]
fn the_archive_is_kept_from_the_acknowledgement_on() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&logins(2));
    env.job(&["drain"]).succeeds();
    age(&env.staged_files("spool")[0], 30);
    env.run().succeeds();
    env.run().succeeds();
    assert_eq!(env.staged_files("archive").len(), 1);
    age(&env.staged_files("archive")[0], 6);
    env.job(&["replay"]).succeeds();
    assert_eq!(env.staged_files("archive").len(), 1);
    age(&env.staged_files("archive")[0], 8);
    env.job(&["replay"]).succeeds();
    assert_eq!(env.staged_files("archive").len(), 0);
}

/// An archive that was brought back from a backup has the age of its files. The first command over it removed all
/// segments that were past their days, also those that the ledger did not have: those that were to be replayed next.
#[test]
fn the_archive_keeps_what_the_ledger_does_not_have() {
    for command in [&["run"][..], &["replay", "SEGMENT"], &["ack"], &["prune"]] {
        let env = TestEnv::new(Server::Embedded);
        env.configure("[spool]\nsegment_max_messages = 2\n");
        env.queue.send(&logins(6));
        env.run().succeeds();
        env.staged_files("archive").iter().for_each(|file| age(file, 30));
        env.database.execute("truncate user_logins, pgsluice.segment, pgsluice.message");
        let first = env.staged_files("archive")[0].file_stem().unwrap().to_str().unwrap().to_owned();
        let arguments: Vec<&str> = command.iter().map(|&word| if word == "SEGMENT" { &first } else { word }).collect();
        let outcome = env.pgsluice(&arguments).succeeds();
        let missing = if arguments.len() > 1 { 2 } else { 3 };
        assert_eq!(env.staged_files("archive").len(), missing, "{outcome}");
        assert!(outcome.stderr.contains("which the ledger does not have"), "{outcome}");
        env.job(&["replay"]).succeeds();
        assert_eq!((users(&env).len(), env.staged_files("archive").len()), (6, 0), "{outcome}");
    }
}

/// A `replay --again` that could not finish removed the segments that it had just made the ledger forget.
#[test]
fn a_replay_that_fails_removes_nothing_of_the_archive() {
    let env = TestEnv::new(Server::Embedded);
    env.configure("[spool]\nsegment_max_messages = 2\n");
    env.queue.send(&logins(6));
    env.run().succeeds();
    env.staged_files("archive").iter().for_each(|file| age(file, 30));
    env.database.execute(
        "truncate user_logins;
         create function skip() returns trigger language plpgsql as 'begin return null; end';
         create trigger skip before insert on user_logins for each row execute function skip()",
    );
    env.job(&["replay", "--again"]).ends_with(1);
    assert_eq!(env.staged_files("archive").len(), 3);
    env.database.execute("drop trigger skip on user_logins");
    env.job(&["replay", "--again"]).succeeds();
    assert_eq!(users(&env).len(), 6);
}

/// Rejects were kept until somebody removed the files.
#[test]
fn rejects_are_kept_for_their_days_and_counted_when_they_go() {
    let env = TestEnv::new(Server::Embedded);
    env.configure("[spool]\nrejects_days = 10\n");
    env.queue.send(&[misfit("one"), misfit("two")]);
    env.run().succeeds();
    age(&env.staged_files("rejects")[0], 9);
    env.run().succeeds();
    assert_eq!(kept_bodies(&env, STAGING).len(), 2);
    age(&env.staged_files("rejects")[0], 11);
    let outcome = env.run().succeeds();
    assert!(outcome.stderr.contains("messages=2"), "{outcome}");
    assert!(env.staged_files("rejects").is_empty());
}

/// The disk of a pod goes with it, and the bodies of the rejects that it kept. `rejects retry` on another host ended
/// with 0 and said nothing of them.
#[test]
fn a_retry_says_which_host_has_the_other_rejects() {
    let mut env = TestEnv::new(Server::Embedded);
    env.set("HOSTNAME", "pod-7f9");
    env.queue.send(&[misfit("one"), misfit("two")]);
    env.run().succeeds();
    env.set("HOSTNAME", "laptop");
    let outcome = env.start_as(OTHER_HOST, &["rejects", "retry"]).wait().succeeds();
    assert!(outcome.stderr.contains("rejects=2") && outcome.stderr.contains("pod-7f9"), "{outcome}");
    let outcome = env.job(&["rejects", "retry"]).succeeds();
    assert!(!outcome.stderr.contains("pod-7f9"), "{outcome}");
}

/// An imported file is in the archive, and all that there is of it is past its days, here and in the ledger. A reject is
/// past its days as well.
fn with_everything_past_its_days() -> TestEnv {
    let env = TestEnv::new(Server::Embedded);
    fs::write(env.path("old.ndjson"), [logins(3), vec![misfit("one")]].concat().join("\n")).unwrap();
    env.job(&["import", "old.ndjson"]).succeeds();
    env.job(&["replay"]).succeeds();
    env.staged_files("archive").iter().for_each(|file| age(file, 8));
    env.staged_files("rejects").iter().for_each(|file| age(file, 91));
    env.database.execute("update pgsluice.segment set loaded_at = now() - interval '16 days'");
    assert_eq!(env.database.count("pgsluice.message"), 4);
    env
}

/// What is still kept: archived segments, reject files, and messages in the ledger.
fn still_kept(env: &TestEnv) -> (usize, usize, u64) {
    let files = ["archive", "rejects"].map(|part| env.staged_files(part).len());
    (files[0], files[1], env.database.count("pgsluice.message"))
}

/// No run forgot anything in the ledger: only `prune` did, which some never ran.
#[test]
fn each_run_removes_at_its_end_what_was_kept_for_long_enough() {
    for command in [["run"], ["replay"], ["ack"], ["prune"]] {
        let env = with_everything_past_its_days();
        let outcome = env.pgsluice(&command).succeeds();
        assert_eq!(still_kept(&env), (0, 0, 0), "{outcome}");
    }
    // It needs no database where nothing of the archive is past its days.
    let env = with_everything_past_its_days();
    fs::write(env.path("new.ndjson"), logins(1).join("\n")).unwrap();
    let outcome = env.job(&["import", "new.ndjson"]).succeeds();
    assert_eq!(still_kept(&env), (0, 0, 4), "{outcome}");
}

/// It held the staging directory for good, so `prune` could not run beside it either.
#[test]
fn a_run_that_follows_removes_it_meanwhile_and_prune_says_so() {
    let env = with_everything_past_its_days();
    let run = env.start(&["run", "--follow"]);
    wait_until(|| still_kept(&env) == (0, 0, 0));
    env.pgsluice(&["prune"]).fails(1, "is in use by another process", "`run --follow` every hour");
    run.terminate();
    run.wait().succeeds();
}

#[test]
fn a_run_whose_retention_fails_has_done_its_work() {
    let env = with_everything_past_its_days();
    env.database.execute("drop function pgsluice.prune()");
    env.queue.send(&logins(2));
    let outcome = env.run().succeeds();
    assert_eq!(outcome.counts().loaded, 2);
    assert!(outcome.stderr.contains("what was kept for long enough could not be removed"), "{outcome}");
}

/// A load beside the retention writes that file.
#[test]
fn the_rejects_of_a_segment_that_is_not_acknowledged_are_kept() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&[misfit("one")]);
    for stage in ["drain", "transform", "load"] {
        env.job(&[stage]).succeeds();
    }
    age(&env.staged_files("rejects")[0], 91);
    env.pgsluice(&["prune"]).succeeds();
    assert_eq!(kept_bodies(&env, STAGING).len(), 1);
}

/// A process that died between COMMIT and the sending took the only body of a reject along, where its disk was lost with
/// it: the redelivered message was a duplicate, and deleted.
#[cfg(feature = "crash-points")]
#[test]
fn a_reject_whose_disk_is_lost_before_it_was_sent_or_kept_arrives_by_its_redelivery() {
    for (route, dies) in [("dlq", &["commit"][..]), ("dlq", &["commit", "remove-chunk"]), ("keep", &["commit"])] {
        let what = format!("{route}, {dies:?}");
        let server = Server::Embedded;
        let mut env = TestEnv::new(server);
        let dead_letters = Queue::create(server, QueueKind::Standard);
        let dlq_url = if route == "dlq" { format!("dlq_url = \"{}\"", dead_letters.url()) } else { String::new() };
        env.configure(&format!("[pipeline]\non_reject = \"{route}\"\n{dlq_url}\n"));
        env.queue.send(&[logins(3), vec![misfit("bad")]].concat());
        for (host, point) in dies.iter().enumerate() {
            env.set("PGSLUICE_CRASH_POINT", *point);
            env.job(&["run", "--staging-dir", &format!("host-{host}")]).dies();
            // Its disk is lost.
            redeliver(&env, &format!("host-{host}"));
            fs::remove_dir_all(env.path(&format!("host-{host}"))).unwrap();
        }
        env.unset("PGSLUICE_CRASH_POINT");
        assert_eq!(env.database.count("pgsluice.reject"), 1, "{what}");
        assert!(dead_letters.is_empty(), "{what}");

        let expected = Counts { received: 4, duplicates: 4, acknowledged: 4, ..Counts::default() };
        assert_eq!(env.run().succeeds().counts(), expected, "{what}");
        assert!(env.queue.is_empty(), "{what}: {:?}", env.queue.counts());
        let letters = dead_letters.receive_all();
        assert_eq!(letters.len(), usize::from(route == "dlq"), "{what}");
        assert!(letters.iter().all(|letter| letter.body() == Some(&misfit("bad"))), "{what}");

        assert_eq!(env.staged_objects("rejects").len(), 1, "{what}");
        mend(&env, "");
        let outcome = env.job(&["rejects", "retry"]).succeeds();
        assert_eq!(outcome.counts().loaded, 1, "{what}: {outcome}");
        assert_eq!((env.database.count("user_logins"), env.database.count("pgsluice.reject")), (4, 0), "{what}");
        assert!(env.staged_files("rejects").is_empty(), "{what}");
    }
}

/// The same where the disk is there: the run after the one that died knows the segment, and its duplicates.
#[cfg(feature = "crash-points")]
#[test]
fn a_reject_that_was_delivered_again_is_sent_also_by_the_run_after_the_one_that_recognised_it() {
    let server = Server::Embedded;
    let mut env = TestEnv::new(server);
    let dead_letters = Queue::create(server, QueueKind::Standard);
    env.configure(&format!("[pipeline]\non_reject = \"dlq\"\ndlq_url = \"{}\"\n", dead_letters.url()));
    env.queue.send(&[misfit("bad")]);
    env.set("PGSLUICE_CRASH_POINT", "commit");
    env.job(&["run", "--staging-dir", "lost"]).dies();
    redeliver(&env, "lost");
    fs::remove_dir_all(env.path("lost")).unwrap();
    env.job(&["run"]).dies();
    env.unset("PGSLUICE_CRASH_POINT");
    assert!(dead_letters.is_empty());
    env.run().succeeds();
    assert!(env.queue.is_empty());
    assert_eq!(dead_letters.counts().visible, 1);
    assert_eq!(env.staged_objects("rejects").len(), 1);
}
