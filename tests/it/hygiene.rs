//! What others may see, and what a run leaves behind: file modes, connections, unfinished files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::leaks::hostile_bodies;
use crate::logins::generated;
use crate::testenv::{Server, TestEnv, wait_until};

const MESSAGES: usize = 60;

#[test]
fn nobody_else_can_read_the_staging_directory_whatever_the_umask() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&hostile_bodies());
    for stage in ["drain", "transform", "load", "ack", "run"] {
        let mut command = env.command("sh");
        command.args(["-c", "umask 0; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_pgsluice"), stage]);
        env.run_to_end(command).succeeds();
        assert_private(&env.path("staging"));
    }
    assert!(!env.staged_files("archive").is_empty() && !env.staged_files("rejects").is_empty());
}

#[test]
fn a_run_that_is_done_leaves_no_connection_and_no_unfinished_file() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&generated(MESSAGES));
    assert!(env.run().succeeds().counts().loaded > 0);
    let others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    // The server notices a moment later that a client is gone.
    wait_until(|| env.database.number(others) == 0);
    for part in ["spool", "chunks"] {
        assert!(env.staged_files(part).is_empty(), "{part}: {:?}", env.staged_files(part));
    }
}

fn assert_private(path: &Path) {
    let metadata = fs::metadata(path).unwrap();
    let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
    let mode = metadata.permissions().mode() & 0o777;
    assert_eq!(mode, expected, "{} has mode {mode:o}", path.display());
    if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            assert_private(&entry.unwrap().path());
        }
    }
}
