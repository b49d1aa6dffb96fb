//! How each command ends: its exit code, what its report says of that, and the last line on stderr.
//!
//! These ends are proved elsewhere, and not here once more:
//!
//! | end | exit code | proved by |
//! |---|---|---|
//! | the database, the queue, keys or the staging directory cannot be used | 1, 2 | `errors::*` |
//! | a value to reveal was masked with another key | 1 | `errors::a_value_to_reveal_was_masked_with_another_key` |
//! | the queue vanishes during a run | 1 | `sqs_faults::the_queue_is_deleted_during_the_run` |
//! | Postgres refuses for good during a run | 1 | `postgres_faults::server::rows_that_a_trigger_skips_*` |
//! | others hold messages, or they are delayed | 3 | `queues::messages_that_do_not_arrive_in_time_are_named` |
//! | a drain on its own has no room in flight | 3 | `queues::a_drain_on_its_own_ends_at_the_in_flight_cap` |
//! | the disk is full | 3 | `disk::*` |
//! | a segment is damaged, and the queue is not empty | 3 | `recovery::a_byte_that_flipped_*` |
//! | a replay is told to stop | 3 | `stages::a_replay_that_is_told_to_stop_*` |
//! | a second signal | 3 | `visibility::a_second_signal_stops_at_once` |
//! | too many rejects | 4 | `reject_policy::beyond_max_rejects_*`, `reject_policy::a_replay_stops_at_max_rejects_*` |
//! | a part of what status shows is not reachable | 0 | `commands::status_says_what_it_cannot_reach` |

use std::fs;

use crate::logins::generated;
use crate::reject_policy::{logins, misfit};
use crate::testenv::{Outcome, Server, TestEnv, wait_until};

const MESSAGES: usize = 6;

/// What the report says of the queue, where there is a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reported {
    Nothing,
    NoQueue,
    Empty,
    NotEmpty,
}

use Reported::{Empty, NoQueue, NotEmpty, Nothing};

/// Makes a test of each line: exit code, report, the beginning of the last line on stderr, and the command. An empty
/// last line is an empty stderr.
macro_rules! ends {
    ($($test:ident: $code:literal, $reported:ident, $last:literal, $command:expr;)+) => {
        $(#[test] fn $test() { ends_with($code, $reported, $last, $command); })+
    };
}

/// Each command that moves messages is told where to write a report.
fn ends_with(code: i32, reported: Reported, last_line: &str, command: fn(&mut TestEnv) -> Outcome) {
    let mut env = TestEnv::new(Server::Embedded);
    let outcome = command(&mut env).ends_with(code);
    let report = outcome.find_report();
    assert!(report.as_ref().is_none_or(|report| report.exit_code == Some(code)), "{report:?}");
    let says = match report.map(|report| report.queue_empty) {
        None => Nothing,
        Some(None) => NoQueue,
        Some(Some(true)) => Empty,
        Some(Some(false)) => NotEmpty,
    };
    assert_eq!(says, reported, "{outcome}");
    let last = outcome.stderr.lines().next_back().unwrap_or_default();
    assert!(last.starts_with(last_line) && last.is_empty() == last_line.is_empty(), "{last:?}: {outcome}");
}

ends! {
    a_run_that_empties_the_queue: 0, Empty, "  the queue is empty", |env| holding_messages(env).run();
    a_run_that_finds_the_queue_empty: 0, Empty, "  the queue is empty", |env| env.run();
    a_run_that_is_to_be_quiet: 0, Empty, "", |env| holding_messages(env).job(&["run", "--quiet"]);
    a_run_with_rejects: 0, Empty, "  the queue is empty", |env| {
        env.queue.send(&[logins(2), vec![misfit("bad")]].concat());
        env.run()
    };
    a_run_that_received_its_max_messages: 0, NotEmpty, "  received as many messages as --max-messages allows", |env| {
        holding_messages(env).job(&["run", "--max-messages", "2"])
    };
    a_run_whose_max_duration_is_over: 0, NotEmpty, "  received for as long as --max-duration allows", |env| {
        env.job(&["run", "--follow", "--max-duration", "100ms"])
    };
    a_run_that_follows_until_it_is_terminated: 0, NotEmpty, "  stopped; what was received is safe", |env| {
        let run = holding_messages(env).start(&["run", "--follow"]);
        wait_until(|| env.queue.is_empty());
        run.terminate();
        run.wait()
    };
    a_run_that_follows_until_it_is_interrupted: 0, NotEmpty, "  stopped; what was received is safe", |env| {
        let run = holding_messages(env).start(&["run", "--follow"]);
        wait_until(|| env.queue.is_empty());
        run.interrupt();
        run.wait()
    };
    a_run_that_finds_a_damaged_segment: 3, Empty, "  the queue is empty", |env| {
        drained(env);
        let segment = env.staged_files("spool").remove(0);
        let received = env.staged_objects("spool");
        fs::write(segment, "{}\n").unwrap();
        for message in received {
            env.queue.release(message["receipt_handle"].as_str().unwrap());
        }
        env.run()
    };
    a_run_without_a_database: 1, NoQueue, "hint: check DATABASE_URL", |env| {
        env.set("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nowhere");
        env.run()
    };
    a_run_with_a_wrong_configuration: 2, NoQueue, "hint: compare with the annotated pgsluice.toml", |env| {
        env.configure("[queue]\npolers = 3\n");
        env.run()
    };
    a_run_that_follows_and_is_to_idle: 2, Nothing, "For more information, try '--help'.", |env| {
        env.job(&["run", "--follow", "--idle", "1s"])
    };
    a_run_with_an_unknown_flag: 2, Nothing, "For more information, try '--help'.", |env| env.job(&["run", "--polers"]);

    a_drain: 0, Empty, "  the queue is empty", |env| holding_messages(env).job(&["drain"]);
    a_drain_that_received_its_max_messages: 0, NotEmpty, "  received as many messages as --max-messages allows", |env| {
        holding_messages(env).job(&["drain", "--max-messages", "2"])
    };
    a_transform: 0, NoQueue, "  next          `pgsluice run` loads what is pending", |env| drained(env).job(&["transform"]);
    a_transform_of_nothing: 0, NoQueue, "  report        report.json", |env| env.job(&["transform"]);
    a_load: 0, NoQueue, "  next          `pgsluice rejects list`", |env| {
        drained(env).job(&["transform"]);
        env.job(&["load"])
    };
    an_acknowledgement: 0, NoQueue, "  report        report.json", |env| {
        drained(env).job(&["transform"]);
        env.job(&["load"]);
        env.job(&["ack"])
    };

    an_import: 0, NoQueue, "logins.ndjson: 6 messages in 1 segments", |env| import(env);
    an_import_of_no_file: 1, NoQueue, "hint: ", |env| env.job(&["import", "nowhere.ndjson"]);
    a_replay: 0, NoQueue, "  next          `pgsluice rejects list`", |env| {
        import(env);
        env.job(&["replay"])
    };
    a_replay_of_what_is_loaded: 0, NoQueue, "  report        report.json", |env| {
        import(env);
        env.job(&["replay"]);
        env.job(&["replay"])
    };

    a_list_of_rejects: 0, Nothing, "", |env| env.pgsluice(&["rejects", "list"]);
    a_retry_of_rejects: 0, NoQueue, "  next          `pgsluice rejects list`", |env| {
        env.queue.send(&[misfit("bad")]);
        env.run();
        env.job(&["rejects", "retry"])
    };
    a_status: 0, Nothing, "", |env| env.pgsluice(&["status"]);
    a_value_that_is_revealed: 0, Nothing, "", |env| {
        holding_messages(env).run();
        fs::remove_file(env.path("report.json")).unwrap();
        let masked = env.database.texts("select masked_ip from user_logins limit 1").remove(0);
        env.pgsluice(&["reveal", &masked])
    };
    a_new_key: 0, Nothing, "", |env| env.pgsluice(&["keygen"]);
    an_init: 0, Nothing, "the ledger and user_logins are in place", |env| env.pgsluice(&["init"]);
    an_init_that_is_printed: 0, Nothing, "", |env| env.pgsluice(&["init", "--print"]);
    a_help: 0, Nothing, "", |env| env.job(&["--help"]);
    a_version: 0, Nothing, "", |env| env.job(&["--version"]);
}

fn holding_messages(env: &TestEnv) -> &TestEnv {
    env.queue.send(&generated(MESSAGES));
    env
}

/// The messages are in one sealed segment.
fn drained(env: &TestEnv) -> &TestEnv {
    holding_messages(env).job(&["drain"]).succeeds();
    env
}

fn import(env: &TestEnv) -> Outcome {
    fs::write(env.path("logins.ndjson"), generated(MESSAGES).join("\n")).unwrap();
    env.job(&["import", "logins.ndjson"])
}
