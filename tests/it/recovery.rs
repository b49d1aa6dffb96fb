//! A run finishes the unfinished segments of an earlier one, whatever their state.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::books::assert_balanced;
use crate::logins::{generated, login, logins_of};
use crate::testenv::{Counts, Server, TestEnv, wait_until};

const MESSAGES: usize = 40;
const ALL: u64 = MESSAGES as u64;
/// Longer than any test.
const LONG_INVISIBLE: &str = "[queue]\nvisibility_seconds = 600\n";
const SMALL_SEGMENTS: &str = "[spool]\nsegment_max_messages = 10\n";

/// Received messages stay invisible until a test lets them be redelivered.
fn env_with(bodies: &[String]) -> TestEnv {
    let env = TestEnv::new(Server::Embedded);
    env.configure(LONG_INVISIBLE);
    env.queue.send(bodies);
    env
}

/// The messages are in four sealed segments, and in flight.
fn drained(bodies: &[String]) -> TestEnv {
    let env = env_with(bodies);
    env.configure(&[LONG_INVISIBLE, SMALL_SEGMENTS].concat());
    env.job(&["drain"]).succeeds();
    env
}

/// The messages in the spool can be received once more, and their handles there are stale.
fn let_messages_come_again(env: &TestEnv) {
    for line in env.staged_objects("spool") {
        env.queue.release(line["receipt_handle"].as_str().unwrap());
    }
}

#[test]
fn a_torn_line_of_an_open_segment_is_cut_and_its_message_comes_again() {
    let bodies = generated(MESSAGES);
    let env = drained(&bodies);
    let_messages_come_again(&env);
    for (index, sealed) in env.staged_files("spool").into_iter().enumerate() {
        let content = fs::read(&sealed).unwrap();
        let torn = &content[..content.len() - 1 - index * 200];
        fs::write(sealed.with_added_extension("open"), torn).unwrap();
        fs::remove_file(sealed).unwrap();
    }
    env.run().succeeds();
    assert_balanced(&env, &bodies);
}

#[cfg(feature = "crash-points")]
mod committed_and_not_acknowledged {
    use super::*;

    fn killed_after_commit() -> (TestEnv, Vec<String>) {
        let bodies = generated(MESSAGES);
        let mut env = env_with(&bodies);
        env.set("PGSLUICE_CRASH_POINT", "commit");
        env.job(&["run"]).dies();
        env.unset("PGSLUICE_CRASH_POINT");
        assert_eq!(env.database.count("pgsluice.message"), ALL);
        (env, bodies)
    }

    #[test]
    fn a_segment_is_deleted_with_the_handles_that_it_holds() {
        let (env, bodies) = killed_after_commit();
        let expected = Counts { received: ALL, duplicates: ALL, acknowledged: ALL, ..Counts::default() };
        assert_eq!(env.run().succeeds().counts(), expected);
        assert_balanced(&env, &bodies);
    }

    /// Its acknowledgement once ended this run and every later one, so that nothing was received any more.
    #[test]
    fn a_segment_that_is_damaged_by_then_stops_alone() {
        let (env, bodies) = killed_after_commit();
        let path = [env.staged_files("spool"), env.staged_files("committed")].concat().remove(0);
        fs::write(&path, "{}\n").unwrap();
        let more = login("more").to_string();
        env.queue.send(&[&more]);
        let outcome = env.job(&["run", "--idle", "1s"]).ends_with(3);
        assert!(outcome.stderr.contains("its file holds 1; this segment is moved to damaged/"), "{outcome}");
        assert_eq!(outcome.counts().loaded, 1);
        let outcome = env.job(&["run", "--idle", "1s"]);
        assert!(outcome.stderr.contains("damaged segments lie in damaged/"), "{outcome}");
        assert_eq!(env.queue.counts().in_flight, MESSAGES);
        assert_eq!(env.database.count("user_logins"), (logins_of(&bodies).len() + 1) as u64);
    }

    #[test]
    fn where_the_handles_are_stale_the_redelivered_copies_are_recognised_and_deleted() {
        let (env, bodies) = killed_after_commit();
        let_messages_come_again(&env);
        let counts = env.run().succeeds().counts();
        assert_eq!((counts.received, counts.loaded, counts.duplicates), (2 * ALL, 0, 2 * ALL));
        assert_balanced(&env, &bodies);
    }
}

/// A bit is flipped in the fifth message of the second of four segments; returns that file and the line's offset.
fn damage_one_segment(env: &TestEnv) -> (PathBuf, usize) {
    let segments = env.staged_files("spool");
    assert_eq!(segments.len(), 4, "{segments:?}");
    let path = segments[1].clone();
    let mut content = fs::read(&path).unwrap();
    let lines = content.split_inclusive(|&byte| byte == b'\n');
    let line = lines.take(1 + 4).map(<[u8]>::len).sum::<usize>();
    content[line + 30] ^= 1;
    fs::write(&path, content).unwrap();
    (path, line)
}

fn names(stderr: &str, path: &std::path::Path, offset: usize) -> bool {
    let name = path.file_name().unwrap().to_str().unwrap();
    stderr.contains(&format!("{name} is damaged at byte {offset}"))
}

#[test]
fn a_byte_that_flipped_in_a_sealed_segment_stops_that_segment_alone() {
    let bodies: Vec<String> = (0..MESSAGES).map(|index| login(&format!("user {index:02}")).to_string()).collect();
    let env = drained(&bodies);
    let (path, offset) = damage_one_segment(&env);
    let outcome = env.job(&["replay"]).ends_with(3);
    assert!(names(&outcome.stderr, &path, offset), "{outcome}");
    assert_eq!(outcome.counts().pending, 10);
    assert_eq!(env.database.count("user_logins"), 30);
    // It is named once; every later run exited 3 for it.
    let outcome = env.job(&["replay"]).succeeds();
    assert!(!names(&outcome.stderr, &path, offset), "{outcome}");
    let outcome = env.job(&["ack"]).succeeds();
    assert!(outcome.stderr.contains("damaged segments lie in damaged/"), "{outcome}");
    assert_eq!((outcome.counts().acknowledged, outcome.counts().pending), (30, 0));
    assert_eq!(env.queue.counts().in_flight, 10, "what could not be read is not deleted");
    // A process that deleted nothing has no reason to doubt the queue's counts.
    env.job(&["run", "--idle", "1s"]).ends_with(3);
    assert_eq!(env.staged_files("damaged").len(), 1);
}

#[test]
fn the_messages_of_a_damaged_segment_come_again_from_the_queue() {
    let bodies: Vec<String> = (0..MESSAGES).map(|index| login(&format!("user {index:02}")).to_string()).collect();
    let env = drained(&bodies);
    let_messages_come_again(&env);
    let (path, offset) = damage_one_segment(&env);
    let outcome = env.run().ends_with(3);
    assert!(names(&outcome.stderr, &path, offset), "{outcome}");
    assert_eq!(outcome.report().queue_empty, Some(true));

    env.run().succeeds();
    assert_balanced(&env, &bodies);
}

#[test]
fn a_sealed_segment_that_lost_its_end_stops_alone() {
    let bodies: Vec<String> = (0..MESSAGES).map(|index| login(&format!("user {index:02}")).to_string()).collect();
    let env = drained(&bodies);
    let_messages_come_again(&env);
    let segments = env.staged_files("spool");
    let content = fs::read(&segments[0]).unwrap();
    fs::write(&segments[0], &content[..content.len() - 100]).unwrap();
    let outcome = env.run().ends_with(3);
    assert!(outcome.stderr.contains("is damaged at byte"), "{outcome}");
    assert_eq!(env.staged_files("damaged").len(), 1);
    env.run().succeeds();
    assert_balanced(&env, &bodies);
}

/// A bound that says only this: before the first segment goes on, nothing is read twice, parsed or transformed.
#[test]
fn a_thousand_waiting_segments_do_not_hold_up_the_first() {
    let env = TestEnv::new(Server::Embedded);
    env.pgsluice(&["transform"]).succeeds(); // makes the directories
    for index in 0..1000_u32 {
        let line = |number: u32| {
            let id = uuid::Uuid::from_u128(u128::from(index * 100 + number));
            let body = login(&format!("{index}-{number}")).to_string();
            json!({"message_id": id, "sent_at": 1_782_907_200_000_i64, "received_at": 1_782_907_200_000_i64,
                "receive_count": 1, "receipt_handle": "", "body": body})
            .to_string()
                + "\n"
        };
        let name = format!("staging/spool/{}.ndjson", uuid::Uuid::now_v7());
        fs::write(env.path(&name), (0..100).map(line).collect::<String>()).unwrap();
    }
    let started = Instant::now();
    let running = env.start(&["run"]);
    wait_until(|| env.database.count("pgsluice.segment") > 0);
    let elapsed = started.elapsed();
    running.kill();
    eprintln!("the first of 1,000 waiting segments was loaded after {} ms", elapsed.as_millis());
    assert!(elapsed < Duration::from_secs(20), "{elapsed:?}");
}
