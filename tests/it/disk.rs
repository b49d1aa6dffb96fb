//! The staging directory's disk: full, too small, read-only, or gone. Receiving stops, what is sealed is loaded, and
//! nothing is lost.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::Command;

use crate::books::{Standing, assert_balanced, standing};
use crate::logins::{generated, login};
use crate::testenv::{Counts, Outcome, Server, TestEnv, wait_until};

const FAILED: i32 = 1;
const WORK_LEFT: i32 = 3;
/// Long enough to load what the disk holds before it comes again, also on a machine that is busy.
const SOON_VISIBLE: &str = "[queue]\nvisibility_seconds = 6\n";
const LONG_INVISIBLE: &str = "[queue]\nvisibility_seconds = 600\n";
const MIB: u64 = 1 << 20;

/// Small segments, which are gone once they are acknowledged.
const CONFIGURATION: &str = "
[spool]
segment_max_bytes = 131072
archive_days = 0
";

/// A staging directory on a file system of a few MiB, and a queue that holds more than that; `None` where this user
/// may not mount one.
fn env_on_a_small_disk(size: u64, bodies: &[String]) -> Option<(TestEnv, SmallDisk)> {
    let mut env = TestEnv::new(Server::Embedded);
    let Some(disk) = SmallDisk::mount(env.path("small"), size) else {
        eprintln!("skipped: this user may not mount a file system");
        return None;
    };
    env.set("PGSLUICE_STAGING_DIR", disk.path.join("staging").display().to_string());
    env.configure(&[SOON_VISIBLE, CONFIGURATION].concat());
    env.queue.send(bodies);
    Some((env, disk))
}

fn large_bodies(count: usize) -> Vec<String> {
    let body = |index| {
        let mut body = login(&format!("user {index:04}"));
        body["ballast"] = "x".repeat(8000).into();
        body.to_string()
    };
    (0..count).map(body).collect()
}

/// Runs a command whose files cannot grow beyond 8 blocks of `ulimit`, 4 or 8 KiB: a full disk that any user can have. The
/// signal that comes with it ended the process.
fn run_with_small_files(env: &TestEnv, arguments: &[&str]) -> Outcome {
    let mut command = env.command("sh");
    let script = "ulimit -f 8; exec \"$@\"";
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_pgsluice")]).args(arguments);
    env.run_to_end(command)
}

/// Runs again while work is left; each run must get on.
fn run_until_done(env: &TestEnv) {
    let mut committed = env.database.count("pgsluice.message");
    while env.run().code == Some(WORK_LEFT) {
        let now = env.database.count("pgsluice.message");
        assert!(now > committed, "a run that was stopped by the disk got nowhere");
        committed = now;
    }
}

#[test]
fn a_disk_that_fills_up_stops_the_receiving_and_what_is_sealed_is_loaded() {
    let bodies = large_bodies(300);
    let Some((env, disk)) = env_on_a_small_disk(MIB, &bodies) else { return };
    // Nothing can be loaded, so the spool grows until the disk is full.
    env.database.execute("begin; lock table user_logins");
    let running = env.start(&["run"]);
    running.until_stderr_contains("receiving stops");
    env.database.execute("commit");
    running.wait().ends_with(WORK_LEFT);

    let standing = standing(&env, bodies.len());
    assert!(standing.deleted > 0, "what was sealed is loaded and acknowledged: {standing:?}");
    assert!(standing.committed < bodies.len() as u64, "the disk was no limit: {standing:?}");
    assert!(disk.files("staging/spool").is_empty() && disk.files("staging/archive").is_empty());
    run_until_done(&env);
    assert_balanced(&env, &bodies);
}

/// Another program fills the disk after the segments were sealed: there is no room for a chunk.
#[test]
fn without_room_for_a_chunk_its_segment_waits_in_the_spool() {
    let bodies = large_bodies(100);
    let Some((env, disk)) = env_on_a_small_disk(4 * MIB, &bodies) else { return };
    env.configure(&[LONG_INVISIBLE, CONFIGURATION].concat());
    env.job(&["drain"]).succeeds();
    let segments = disk.files("staging/spool");
    disk.fill();

    let outcome = env.job(&["run", "--idle", "1s"]).ends_with(WORK_LEFT);
    assert!(outcome.stderr.contains("stays in the spool"), "{outcome}");
    assert_eq!(outcome.counts().pending, 100);
    assert_eq!(disk.files("staging/spool"), segments);
    assert_eq!(standing(&env, bodies.len()).deleted, 0);

    disk.make_room();
    env.run().succeeds();
    assert_balanced(&env, &bodies);
}

#[test]
fn on_a_disk_that_is_too_small_nothing_is_received() {
    let bodies = generated(40);
    let Some((env, _disk)) = env_on_a_small_disk(MIB / 4, &bodies) else { return };
    let outcome = env.run().ends_with(WORK_LEFT);
    assert!(outcome.stderr.contains("disk is full"), "{outcome}");
    assert!(outcome.stderr.contains("segment_max_bytes"), "{outcome}");
    assert_eq!(outcome.counts().received, 0);
}

/// A chunk was begun, and cannot be written to its end.
#[test]
fn a_chunk_that_does_not_fit_is_not_there_and_its_segment_waits_in_the_spool() {
    let bodies: Vec<String> = (0..100).map(|index| login(&format!("user {index}")).to_string()).collect();
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&bodies);
    env.job(&["drain"]).succeeds();
    let segments = env.staged_files("spool");

    let outcome = run_with_small_files(&env, &["run", "--idle", "1s", "--report", "report.json"]).ends_with(WORK_LEFT);
    assert!(outcome.stderr.contains("stays in the spool"), "{outcome}");
    assert_eq!(outcome.counts(), Counts { received: 100, pending: 100, ..Counts::default() });
    assert_eq!(env.staged_files("spool"), segments);
    assert!(env.staged_files("chunks").is_empty(), "{:?}", env.staged_files("chunks"));
    assert_eq!(standing(&env, bodies.len()), Standing { committed: 0, deleted: 0 });

    env.run().succeeds();
    assert_balanced(&env, &bodies);
}

/// The end of the disk in the middle of a segment, as a limit of the size of files: any user can set one. The signal
/// that comes with it killed the process.
#[test]
fn a_segment_that_does_not_fit_is_cut_after_its_last_whole_line_and_sealed() {
    let bodies = generated(40);
    let env = TestEnv::new(Server::Embedded);
    env.configure(SOON_VISIBLE);
    env.queue.send(&bodies);
    let outcome = run_with_small_files(&env, &["run"]).ends_with(WORK_LEFT);
    assert!(outcome.stderr.contains("disk is full"), "{outcome}");

    let standing = standing(&env, bodies.len());
    assert!(0 < standing.deleted && standing.committed < 40, "a part of the messages fits: {standing:?}");
    env.run().succeeds();
    assert_balanced(&env, &bodies);
}

#[test]
fn the_file_system_is_read_only() {
    let bodies = generated(40);
    let Some((env, disk)) = env_on_a_small_disk(4 * MIB, &bodies) else { return };
    env.pgsluice(&["transform"]).succeeds(); // makes the directories
    disk.remount("ro");
    env.run().fails(FAILED, "staging", "write access");
    assert_eq!(env.queue.counts().visible, 40);
    disk.remount("rw");
    env.run().succeeds();
}

#[test]
fn the_staging_directory_vanishes_during_a_run() {
    let env = TestEnv::new(Server::Embedded);
    env.configure(SOON_VISIBLE);
    env.queue.send(&[login("before").to_string()]);
    let running = env.start(&["run", "--follow"]);
    wait_until(|| env.queue.is_empty() && !env.staged_files("archive").is_empty());
    fs::remove_dir_all(env.path("staging")).unwrap();
    let after = login("after").to_string();
    env.queue.send(&[&after]);
    let outcome = running.wait().ends_with(FAILED);
    assert!(outcome.stderr.contains("error: cannot ") && outcome.stderr.contains("staging"), "{outcome}");

    env.run().succeeds();
    assert_balanced(&env, &[login("before").to_string(), after]);
}

/// A mounted tmpfs, unmounted when dropped.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(path: PathBuf, size: u64) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path).output();
        mounted.is_ok_and(|mounted| mounted.status.success()).then_some(Self { path })
    }

    fn remount(&self, mode: &str) {
        let remounted = Command::new("mount").args(["-o", &format!("remount,{mode}")]).arg(&self.path).status();
        assert!(remounted.unwrap().success());
    }

    /// Takes all room that is left.
    fn fill(&self) {
        let ballast = File::create(self.path.join("ballast")).unwrap();
        let error = io::copy(&mut io::repeat(0), &mut &ballast).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    fn make_room(&self) {
        fs::remove_file(self.path.join("ballast")).unwrap();
    }

    fn files(&self, part: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path.join(part)).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        _ = Command::new("umount").arg(&self.path).status();
    }
}
