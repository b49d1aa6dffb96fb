//! Each stage alone, over the same files, and the other ways into the spool.

use std::fs;

use pgsluice::local::{Faults, QueueCounts};
use serde_json::Value;

use crate::logins::{generated, login, logins_of};
use crate::testenv::{Counts, Server, TestEnv, wait_until};

const MESSAGES: usize = 30;

#[test]
fn each_stage_does_its_part_and_no_more() {
    let env = TestEnv::new(Server::Embedded);
    let bodies = generated(MESSAGES);
    let logins = logins_of(&bodies).len() as u64;
    env.queue.send(&bodies);

    env.job(&["drain"]).succeeds();
    assert_eq!(in_flight(&env), MESSAGES);
    assert_eq!(env.staged_objects("spool").len(), MESSAGES);
    assert!(env.staged_files("chunks").is_empty());

    env.job(&["transform"]).succeeds();
    assert_eq!(env.database.count("user_logins"), 0);
    assert_eq!(env.staged_files("chunks").len(), 4, "rows, ids, rejects, and the manifest");

    env.job(&["load"]).succeeds();
    assert_eq!(env.database.count("user_logins"), logins);
    assert_eq!(in_flight(&env), MESSAGES);
    assert!(env.staged_files("spool").is_empty() && env.staged_files("chunks").is_empty());
    assert_eq!(env.staged_objects("committed").len(), MESSAGES);

    let outcome = env.job(&["ack"]).succeeds();
    assert_eq!(outcome.counts().acknowledged, MESSAGES as u64);
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
    assert!(env.staged_files("spool").is_empty());
    assert_eq!(env.staged_objects("archive").len(), MESSAGES);
}

/// It called what the first one had spooled messages in flight with other consumers, and ended with 3. What others hold
/// beside it still is.
#[test]
fn a_second_drain_knows_what_the_first_one_spooled() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&generated(MESSAGES));
    env.job(&["drain"]).succeeds();
    let outcome = env.job(&["drain", "--idle", "1s"]).succeeds();
    assert_eq!(outcome.counts().received, 0);
    assert_eq!(outcome.report().queue_empty, Some(true));
    env.job(&["transform"]).succeeds();
    env.job(&["load"]).succeeds();
    env.job(&["drain", "--idle", "1s"]).succeeds();

    env.queue.send(&[login("held elsewhere").to_string()]);
    env.queue.receive_next();
    let outcome = env.job(&["drain", "--idle", "1s"]).ends_with(3);
    assert!(outcome.stderr.contains("the queue is not empty"), "{outcome}");
}

#[test]
fn the_report_shows_which_stage_sets_the_pace() {
    let env = TestEnv::new(Server::Embedded);
    env.configure("[spool]\nsegment_max_messages = 5\n");
    env.queue.send(&generated(2 * MESSAGES));
    env.database.execute(
        "create function linger() returns trigger language plpgsql as 'begin perform pg_sleep(0.05); return new; end';
         create trigger linger before insert on user_logins for each row execute function linger()",
    );
    let outcome = env.job(&["run"]).succeeds();
    let stages = outcome.report().stages;
    assert!(stages.load.seconds_busy > 2.5, "{stages:?}");
    assert!(stages.load.seconds_waiting < stages.load.seconds_busy, "{stages:?}");
    assert!(stages.transform.seconds_waiting > stages.transform.seconds_busy, "{stages:?}");
    assert_eq!(stages.ack.items, 2 * MESSAGES as u64);
}

#[test]
fn a_stage_that_runs_again_finds_nothing_to_do() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&generated(MESSAGES));
    env.job(&["drain"]).succeeds();
    for stage in ["transform", "load", "ack"] {
        env.job(&[stage]).succeeds();
        env.job(&[stage]).succeeds();
    }
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
    assert_eq!(env.database.number("select sum(received) from pgsluice.segment"), MESSAGES as u64);
}

#[test]
fn a_drain_does_not_take_a_queue_for_empty_while_messages_are_in_flight() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&generated(MESSAGES));
    env.job(&["drain"]).succeeds();
    // To another directory they are those of another consumer.
    let second = env.job(&["drain", "--idle", "1s", "--staging-dir", "elsewhere"]).ends_with(3);
    assert_eq!(second.report().queue_empty, Some(false));
    assert!(second.stderr.contains("30 in flight"), "{second}");
}

#[test]
fn a_run_finishes_what_single_stages_left() {
    let env = TestEnv::new(Server::Embedded);
    let bodies = generated(MESSAGES);
    env.queue.send(&bodies);
    env.job(&["drain"]).succeeds();
    env.job(&["transform"]).succeeds();

    let counts = env.run().succeeds().counts();
    assert_eq!((counts.received, counts.acknowledged), (MESSAGES as u64, MESSAGES as u64));
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
    assert_eq!(env.database.count("user_logins"), logins_of(&bodies).len() as u64);
}

#[test]
fn a_chunk_can_be_loaded_by_hand() {
    let env = TestEnv::new(Server::Embedded);
    let bodies = generated(MESSAGES);
    env.queue.send(&bodies);
    env.job(&["drain"]).succeeds();
    env.job(&["transform"]).succeeds();
    let chunks: Vec<_> = env.staged_files("chunks");
    let chunk = chunks.iter().find(|path| !path.to_string_lossy().ends_with(".ids.csv")).unwrap();
    assert_eq!(env.database.copy_csv("user_logins", fs::read(chunk).unwrap()), logins_of(&bodies).len() as u64);
}

#[test]
fn status_tells_what_is_where() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&generated(MESSAGES));
    env.job(&["drain"]).succeeds();
    let spooled = env.pgsluice(&["status"]).succeeds().stdout;
    assert_eq!(status_value(&spooled, "sealed"), 1);
    assert_eq!(status_value(&spooled, "loaded"), 0);
    assert_eq!(status_value(&spooled, "in flight"), MESSAGES as u64);

    let loaded = env.run().succeeds().counts().loaded;
    let done = env.pgsluice(&["status"]).succeeds().stdout;
    assert_eq!(status_value(&done, "sealed"), 0);
    assert_eq!(status_value(&done, "acknowledged"), 1);
    assert_eq!(status_value(&done, "loaded"), loaded);
    assert_eq!(status_value(&done, "in flight"), 0);
}

/// The first number in the line of this name.
fn status_value(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.trim().strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("no {name:?} in {status}"))
}

#[test]
fn importing_a_file_twice_loads_it_once() {
    let env = TestEnv::new(Server::Embedded);
    let bodies = generated(MESSAGES);
    let logins = logins_of(&bodies).len() as u64;
    fs::write(env.path("logins.ndjson"), bodies.join("\n") + "\n").unwrap();

    env.job(&["import", "logins.ndjson"]).succeeds();
    let first = env.job(&["replay"]).succeeds().counts();
    assert_eq!((first.received, first.loaded), (MESSAGES as u64, logins));

    env.job(&["import", "logins.ndjson"]).succeeds();
    env.job(&["replay"]).succeeds();
    assert_eq!(env.database.count("user_logins"), logins);
    assert_eq!(env.database.count("pgsluice.reject"), MESSAGES as u64 - logins);
}

/// The ledger forgets messages, and never segments. So the file is known as long as it has the same lines.
#[test]
fn a_file_that_is_imported_again_after_its_messages_are_forgotten_is_not_loaded_again() {
    let env = TestEnv::new(Server::Embedded);
    fs::write(env.path("logins.ndjson"), generated(MESSAGES).join("\n")).unwrap();
    env.job(&["import", "logins.ndjson"]).succeeds();
    let loaded = env.job(&["replay"]).succeeds().counts().loaded;
    env.database.execute("update pgsluice.segment set loaded_at = now() - interval '16 days'");
    env.pgsluice(&["prune"]).succeeds();
    assert_eq!(env.database.count("pgsluice.message"), 0);
    fs::remove_dir_all(env.path("staging")).unwrap();

    env.job(&["import", "logins.ndjson"]).succeeds();
    let counts = env.run().succeeds().counts();
    assert_eq!((counts.loaded, counts.duplicates), (0, MESSAGES as u64));
    assert_eq!(env.database.count("user_logins"), loaded);
}

#[test]
fn the_date_of_a_message_is_that_of_its_sending_also_in_a_replay() {
    let mut env = TestEnv::new(Server::Embedded);
    fs::write(env.path("logins.ndjson"), crate::logins::login("old").to_string() + "\n").unwrap();
    env.job(&["import", "--sent-at", "2020-02-29T23:59:59Z", "logins.ndjson"]).succeeds();
    for _ in 0..2 {
        env.job(&["replay"]).succeeds();
        assert_eq!(env.database.texts("select create_date from user_logins"), ["2020-02-29"]);
        env.change_database();
    }
}

#[test]
fn a_message_that_is_delivered_twice_becomes_one_row() {
    let env = TestEnv::new(Server::Faulty(Faults { redeliver_every: Some(3) }));
    // Small segments, so that both deliveries of a message are often in two transactions.
    env.configure("[spool]\nsegment_max_messages = 10\n");
    let bodies = generated(100);
    let logins = logins_of(&bodies).len() as u64;
    env.queue.send(&bodies);

    let counts = env.run().succeeds().counts();
    assert_eq!(counts.received, 133);
    assert_eq!((counts.loaded, counts.rejected, counts.duplicates), (logins, 100 - logins, 33));
    assert_eq!(env.database.count("user_logins"), logins);
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
}

#[test]
fn a_replay_that_is_told_to_loads_a_segment_again() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&generated(MESSAGES));
    let loaded = env.run().succeeds().counts().loaded;
    env.database.execute("truncate user_logins");

    let again = env.job(&["replay", "--again"]).succeeds().counts();
    assert_eq!((again.received, again.loaded), (MESSAGES as u64, loaded));
    assert_eq!(env.database.count("user_logins"), loaded);
}

#[test]
fn a_replay_that_is_told_to_stop_finishes_what_it_began_and_the_next_one_does_the_rest() {
    const SEGMENTS: u64 = 30;
    let env = TestEnv::new(Server::Embedded);
    for index in 0..SEGMENTS {
        let name = format!("{index}.ndjson");
        fs::write(env.path(&name), login(&index.to_string()).to_string()).unwrap();
        env.pgsluice(&["import", &name]).succeeds();
    }

    env.database.execute("begin; lock table user_logins");
    let replay = env.start(&["replay"]);
    wait_until(|| env.database.sessions_waiting_for_a_lock() > 0);
    replay.terminate();
    replay.until_stderr_contains("stopping");
    env.database.execute("commit");
    let outcome = replay.wait().ends_with(3);
    assert!(outcome.stderr.ends_with("  stopped before the end; what remains is safe\n"), "{outcome}");
    let loaded = env.database.count("user_logins");
    assert!((1..SEGMENTS).contains(&loaded), "{loaded}");

    assert_eq!(env.job(&["replay"]).succeeds().counts().loaded, SEGMENTS - loaded);
    assert_eq!(env.database.count("user_logins"), SEGMENTS);
}

#[test]
fn a_spool_line_holds_what_the_queue_said() {
    let env = TestEnv::new(Server::Embedded);
    let body = crate::logins::login("ü \u{1f980} \" \\ \n").to_string();
    env.queue.send(&[&body]);
    env.job(&["drain"]).succeeds();
    let lines = env.staged_objects("spool");
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(line["body"], body);
    assert_eq!(line["receive_count"], 1);
    let sent_at = line["sent_at"].as_i64().unwrap();
    assert!(line["received_at"].as_i64().unwrap() >= sent_at);
    for field in ["message_id", "receipt_handle"] {
        assert!(line[field].as_str().is_some_and(|text| !text.is_empty()), "{field} in {line}");
    }
}

fn in_flight(env: &TestEnv) -> usize {
    let QueueCounts { visible, in_flight, delayed } = env.queue.counts();
    assert_eq!((visible, delayed), (0, 0));
    in_flight
}

/// `--report` of an import was ignored.
#[test]
fn an_import_reports_what_it_spooled_also_where_a_line_is_wrong() {
    let env = TestEnv::new(Server::Embedded);
    fs::write(env.path("good.ndjson"), generated(5).join("\n")).unwrap();
    let report = env.job(&["import", "good.ndjson"]).succeeds().report();
    assert_eq!(report.counts, Counts { received: 5, pending: 5, ..Counts::default() });
    let again = env.job(&["import", "good.ndjson"]).succeeds().report();
    assert_eq!(again.counts, Counts::default());

    fs::write(env.path("bad.ndjson"), [b"\xff\n", generated(3).join("\n").as_bytes()].concat()).unwrap();
    let outcome = env.job(&["import", "bad.ndjson"]).fails(1, "at byte 0", "correct it");
    assert_eq!(outcome.counts(), Counts { received: 3, pending: 3, ..Counts::default() });
}

/// What it was writing is removed by the next command, and importing the file again completes it.
#[test]
fn an_import_that_is_told_to_stop_says_that_it_has_not_ended() {
    // Lines that take seconds.
    const LONG: usize = 500_000;
    let env = TestEnv::new(Server::Embedded);
    fs::write(env.path("long.ndjson"), (generated(1)[0].clone() + "\n").repeat(LONG)).unwrap();
    let import = env.start(&["import", "long.ndjson"]);
    wait_until(|| !env.staged_files("spool").is_empty());
    import.terminate();
    import.wait().ends_with(3).report();
    let report: Value = serde_json::from_slice(&fs::read(env.path("report.json")).unwrap()).unwrap();
    assert_eq!(report["ended_by"], "signal");
}
