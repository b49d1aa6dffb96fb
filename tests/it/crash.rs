//! The process kills itself by SIGKILL after a step, so that each step is hit exactly; a second run makes the books
//! balance.

use crate::books::{Standing, assert_balanced, standing};
use crate::logins::generated_and_another;
use crate::testenv::{Server, TestEnv};

/// Four receives, and four batches of deletes.
const MESSAGES: usize = 40;

/// Short enough to wait for the messages of a dead process.
const SHORT_SECONDS: u32 = 3;
/// Longer than any test, so that no receipt handle goes stale.
const LONG_SECONDS: u32 = 600;

/// What must have become of the messages when a process dies at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reached {
    /// Nothing is in the ledger.
    Received,
    /// All are in the ledger, none is deleted.
    Committed,
    /// All are in the ledger, some are deleted.
    Deleting,
    /// All are in the ledger, all are deleted.
    Deleted,
}

fn env_with_messages(bodies: &[String], visibility_seconds: u32, spool: &str) -> TestEnv {
    let env = TestEnv::new(Server::Embedded);
    env.configure(&format!("[queue]\nvisibility_seconds = {visibility_seconds}\n{spool}"));
    env.queue.send(bodies);
    env
}

/// All messages are in one segment, so what is done at the point is known.
fn dies_and_a_second_run_finishes(point: &str, reached: Reached) {
    let bodies = generated_and_another(MESSAGES - 1);
    let visibility_seconds = if reached == Reached::Received { SHORT_SECONDS } else { LONG_SECONDS };
    let mut env = env_with_messages(&bodies, visibility_seconds, "");
    env.set("PGSLUICE_CRASH_POINT", point);
    env.job(&["run"]).dies();

    let Standing { committed, deleted } = standing(&env, MESSAGES);
    let all = MESSAGES as u64;
    match reached {
        Reached::Received => assert_eq!((committed, deleted), (0, 0)),
        Reached::Committed => assert_eq!((committed, deleted), (all, 0)),
        Reached::Deleting => assert!(committed == all && deleted > 0),
        Reached::Deleted => assert_eq!((committed, deleted), (all, all)),
    }
    env.unset("PGSLUICE_CRASH_POINT");
    env.run().succeeds();
    assert_balanced(&env, &bodies);
}

/// Many small segments, which are in all stages when the process dies; a third run finds the work of two.
fn dies_twice_among_many_segments(first: &str, second: &str) {
    let bodies = generated_and_another(MESSAGES - 1);
    let mut env = env_with_messages(&bodies, SHORT_SECONDS, "[spool]\nsegment_max_messages = 4\n");
    for point in [first, second] {
        env.set("PGSLUICE_CRASH_POINT", point);
        env.job(&["run"]).dies();
        standing(&env, MESSAGES);
    }
    env.unset("PGSLUICE_CRASH_POINT");
    env.run().succeeds();
    assert_balanced(&env, &bodies);
}

macro_rules! dies_after {
    ($($step:ident: $point:literal => $reached:ident),* $(,)?) => {
        mod dies_after {
            $(#[test] fn $step() { super::dies_and_a_second_run_finishes($point, super::Reached::$reached); })*
        }
    };
}

macro_rules! dies_twice {
    ($($name:ident: $first:literal, $second:literal),* $(,)?) => {
        mod dies_twice {
            $(#[test] fn $name() { super::dies_twice_among_many_segments($first, $second); })*
        }
    };
}

dies_after!(
    a_receive: "receive" => Received,
    an_append: "append" => Received,
    the_last_append: "append:40" => Received,
    the_flush_of_a_segment: "fsync" => Received,
    a_segment_is_renamed: "rename" => Received,
    the_directory_of_a_segment_is_flushed: "directory-sync" => Received,
    the_parts_of_a_chunk_are_written: "write-chunk" => Received,
    a_manifest_is_written: "rename:2" => Received,
    rejects_are_kept: "rename:3" => Received,
    a_segment_is_moved_to_the_committed_ones: "rename:4" => Committed,
    a_transform: "transform" => Received,
    the_copy_of_ids: "copy-ids" => Received,
    the_copy_of_rows: "copy-rows" => Received,
    everything_but_commit: "before-commit" => Received,
    a_commit: "commit" => Committed,
    a_chunk_is_removed: "remove-chunk" => Committed,
    a_delete: "delete" => Deleting,
    the_last_delete: "delete:4" => Deleted,
    a_segment_is_moved_to_the_archive: "rename:5" => Deleted,
    the_archive_step: "archive" => Deleted,
);

dies_twice!(
    in_a_receive_and_in_a_copy: "receive:3", "copy-rows:2",
    in_a_seal_and_in_a_commit: "rename:3", "commit:3",
    in_a_commit_and_in_the_commit_of_a_redelivery: "commit", "commit",
    in_a_delete_and_in_a_transform: "delete", "transform:2",
    in_the_archive_and_in_a_delete: "archive", "delete:2",
);
