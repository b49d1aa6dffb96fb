//! Commands that said the wrong word at their end: exit code, report, summary.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use pgsluice::local::Fault::Refused;
use pgsluice::local::Operation::Delete;
use pgsluice::local::When::Always;
use pgsluice::local::{Faults, Rule};

use super::{STAGING, redeliver, users};
use crate::reject_policy::logins;
use crate::testenv::{Server, TestEnv, wait_until};

const MESSAGES: usize = 40;
const SMALL_SEGMENTS: &str = "[spool]\nsegment_max_messages = 2\n";

/// The messages are in twenty sealed segments of an earlier run.
fn drained(server: Server) -> TestEnv {
    let env = TestEnv::new(server);
    env.configure(SMALL_SEGMENTS);
    env.queue.send(&logins(MESSAGES));
    env.job(&["drain"]).succeeds();
    env
}

/// Segments of an earlier run entered the books one by one. A run that was told to stop before it had come to them ended
/// with 0 and `pending 0`, and left them.
#[test]
fn a_run_that_is_stopped_counts_the_segments_that_it_did_not_begin() {
    let env = drained(Server::Embedded);
    let blocker = env.database.again();
    blocker.execute("begin; lock table user_logins");
    let run = env.start(&["run"]);
    wait_until(|| env.database.number("select count(*) from pg_locks where not granted") > 0);
    run.terminate();
    run.until_stderr_contains("stopping");
    blocker.execute("commit");
    let outcome = run.wait().ends_with(3);
    let counts = outcome.counts();
    let loaded = users(&env).len() as u64;
    assert!((1..MESSAGES as u64).contains(&loaded), "{loaded}");
    assert_eq!((counts.received, counts.loaded, counts.pending), (MESSAGES as u64, loaded, MESSAGES as u64 - loaded));
    assert_eq!(env.staged_objects("spool").len() as u64, counts.pending);
    env.run().succeeds();
    assert_eq!(users(&env).len(), MESSAGES);
}

/// `ack` ended with 0 where every delete had failed.
#[test]
fn an_acknowledgement_that_deletes_nothing_leaves_work() {
    let env = drained(Server::Faulty(Faults::default()));
    env.job(&["transform"]).succeeds();
    env.job(&["load"]).succeeds();
    let refused = Refused(403, "AccessDenied");
    env.queue.inject(&[Rule { operation: Delete, when: Always, fault: refused }]);
    let outcome = env.pgsluice(&["ack"]);
    assert!(matches!(outcome.code, Some(1 | 3)), "{outcome}");
    assert_eq!(env.staged_files("committed").len(), MESSAGES / 2);
    env.queue.inject(&[]);
    assert_eq!(env.job(&["ack"]).succeeds().counts().acknowledged, MESSAGES as u64);
}

/// After one damaged segment every later run ended with 3, so that nobody looked any more when something else happened.
#[test]
fn damage_is_told_by_the_exit_code_once() {
    let env = drained(Server::Embedded);
    redeliver(&env, STAGING);
    let damaged = &env.staged_files("spool")[3];
    let content = fs::read(damaged).unwrap();
    fs::write(damaged, &content[..content.len() / 2]).unwrap();
    let outcome = env.run().ends_with(3);
    assert!(outcome.stderr.contains("is damaged at byte"), "{outcome}");
    for _ in 0..2 {
        let outcome = env.run().succeeds();
        assert!(outcome.stderr.contains("lie in damaged/"), "{outcome}");
    }
    assert!(env.queue.is_empty());
    assert_eq!((users(&env).len(), env.staged_files("damaged").len()), (MESSAGES, 1));
}

type MakeUnreadable = fn(&Path);

/// Puts in the place of a file what cannot be read, whoever asks. Returns where the file lies meanwhile.
const UNREADABLE: [(&str, MakeUnreadable); 2] = [
    ("is a directory", |path| fs::create_dir(path).unwrap()),
    ("is a link to itself", |path| symlink(path, path).unwrap()),
];

fn make_unreadable(env: &TestEnv, path: &Path, make: MakeUnreadable) -> PathBuf {
    let aside = env.path("aside");
    fs::rename(path, &aside).unwrap();
    make(path);
    aside
}

fn make_readable(path: &Path, aside: &Path) {
    fs::remove_dir(path).or_else(|_| fs::remove_file(path)).unwrap();
    fs::rename(aside, path).unwrap();
}

/// One segment that could not be read, for an error of the disk or for want of a right, stopped all commands, and so all
/// other segments.
#[test]
fn a_segment_that_cannot_be_read_stops_alone() {
    for (what, make) in UNREADABLE {
        for commands in [&[&["run", "--idle", "1s"][..]][..], &[&["replay"]], &[&["transform"], &["load"]]] {
            let env = drained(Server::Embedded);
            let path = env.staged_files("spool").remove(3);
            let aside = make_unreadable(&env, &path, make);
            for command in commands {
                let outcome = env.job(command);
                let code = if command[0] == "load" { 0 } else { 3 };
                assert_eq!(outcome.code, Some(code), "{what}: {outcome}");
                assert!(
                    outcome.stderr.contains(path.to_str().unwrap().rsplit_once('/').unwrap().1),
                    "{what}: {outcome}"
                );
            }
            assert_eq!(users(&env).len(), MESSAGES - 2, "{what}: {commands:?}");
            assert!(path.symlink_metadata().is_ok(), "{what}: it stays where it is");
            make_readable(&path, &aside);
            env.run().succeeds();
            assert_eq!(users(&env).len(), MESSAGES, "{what}: {commands:?}");
            assert!(env.queue.is_empty());
        }
    }
}

/// The same with a segment that is committed, and with one part of a chunk.
#[test]
fn a_committed_segment_or_a_chunk_that_cannot_be_read_stops_alone() {
    for (what, make) in UNREADABLE {
        let env = drained(Server::Embedded);
        env.job(&["transform"]).succeeds();
        let chunk =
            env.staged_files("chunks").into_iter().find(|path| path.extension().is_some_and(|end| end == "csv"));
        let chunk = chunk.unwrap();
        let aside = make_unreadable(&env, &chunk, make);
        env.job(&["load"]).ends_with(3);
        assert_eq!(users(&env).len(), MESSAGES - 2, "{what}");
        make_readable(&chunk, &aside);
        env.job(&["load"]).succeeds();
        assert_eq!(users(&env).len(), MESSAGES, "{what}");

        let committed = env.staged_files("committed").remove(0);
        let aside = make_unreadable(&env, &committed, make);
        assert_eq!(env.job(&["ack"]).ends_with(3).counts().acknowledged, MESSAGES as u64 - 2, "{what}");
        make_readable(&committed, &aside);
        assert_eq!(env.job(&["ack"]).succeeds().counts().acknowledged, 2, "{what}");
        assert!(env.queue.is_empty());
    }
}

/// An archived segment that cannot be read was no reason to stop either.
#[test]
fn a_replay_goes_on_beside_an_archived_segment_that_cannot_be_read() {
    for (what, make) in UNREADABLE {
        let env = drained(Server::Embedded);
        env.run().succeeds();
        env.database.execute("truncate user_logins");
        let archived = env.staged_files("archive").remove(7);
        let aside = make_unreadable(&env, &archived, make);
        env.job(&["replay", "--again"]).ends_with(3);
        assert_eq!(users(&env).len(), MESSAGES - 2, "{what}");
        make_readable(&archived, &aside);
        env.job(&["replay"]).succeeds();
        assert_eq!(users(&env).len(), MESSAGES, "{what}");
    }
}
