//! The account of a run: its report with samples and segment times, the same as log events, on every way out.

use std::fs;

use serde_json::{Value, json};

use crate::logins::{generated, login};
use crate::reject_policy::misfit;
use crate::testenv::{Server, TestEnv};

const MESSAGES: usize = 60;

fn report_of(env: &TestEnv) -> Value {
    serde_json::from_slice(&fs::read(env.path("report.json")).unwrap()).unwrap()
}

/// The fields of the events of this name in a JSON log.
fn events(env: &TestEnv, name: &str) -> Vec<Value> {
    let log = fs::read_to_string(env.path("log.json")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|mut line| line["fields"].take()).filter(|fields| fields["message"] == name).collect()
}

#[test]
fn a_report_has_samples_up_to_the_end_and_each_segments_way_through_the_stages() {
    let env = TestEnv::new(Server::Embedded);
    env.configure("[spool]\nsegment_max_messages = 20\n");
    env.queue.send(&generated(MESSAGES));
    let counts = env.run().succeeds().counts();
    let report = report_of(&env);

    let samples = report["samples"].as_array().unwrap();
    let (first, last) = (&samples[0], &samples[samples.len() - 1]);
    assert!(samples.len() >= 2 && first["at"].as_str() >= report["started_at"].as_str(), "{samples:?}");
    for (key, count) in
        [("received", counts.received), ("loaded", counts.loaded), ("acknowledged", counts.acknowledged)]
    {
        assert_eq!(last[key], json!(count), "{key}");
        assert!(samples.windows(2).all(|pair| pair[0][key].as_u64() <= pair[1][key].as_u64()), "{samples:?}");
    }
    assert_eq!(last["in_flight"], json!(0));

    let segments = report["segment_times"].as_array().unwrap();
    assert_eq!(segments.iter().map(|segment| segment["messages"].as_u64().unwrap()).sum::<u64>(), counts.received);
    assert!(segments.len() >= MESSAGES / 20, "{segments:?}");
    for segment in segments {
        let times = ["drain", "transform", "load", "ack"].map(|stage| {
            let time = |index: usize| segment[stage][index].as_f64().unwrap_or_else(|| panic!("{stage}: {segment}"));
            [time(0), time(1)]
        });
        assert!(times.iter().all(|[from, to]| from <= to), "{segment}");
        assert!(times.windows(2).all(|pair| pair[0][1] <= pair[1][1] && pair[0][0] <= pair[1][0]), "{segment}");
        assert!(times[3][1] <= report["seconds"].as_f64().unwrap() + 0.001, "{segment}");
    }
}

/// What ends in a report also ends in the log, and a collector can add the numbers up.
#[test]
fn the_log_has_the_start_the_rejects_and_the_end_of_a_run_with_numbers_as_numbers() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&[login("good").to_string(), misfit("bad"), "not json".to_owned()]);
    let outcome = env.job(&["run", "--log-format", "json", "--log-file", "log.json"]).succeeds();
    let report = report_of(&env);

    let [started, finished] = ["run.started", "run.finished"].map(|name| {
        let [event] = &events(&env, name)[..] else { panic!("one {name}: {outcome}") };
        event.clone()
    });
    for key in ["run_id", "version", "host", "pipeline", "queue", "started_at"] {
        assert_eq!(started[key], report[key], "{key}");
    }
    let finished_keys = finished.as_object().unwrap().iter().filter(|(key, _)| *key != "message");
    assert!(finished_keys.clone().count() > 18, "{finished}");
    for (key, value) in finished_keys {
        assert_eq!(*value, report[key], "{key}: of the same type, too");
    }
    assert_eq!((&finished["received"], &finished["rejected"]), (&json!(3), &json!(2)));
    let mut rejects = events(&env, "run.rejects");
    for fields in &mut rejects {
        assert_eq!(fields["run_id"], report["run_id"]);
        fields.as_object_mut().unwrap().retain(|key, _| !["run_id", "message"].contains(&&**key));
    }
    let reported = report["rejects_by_reason"].as_array().unwrap().iter().cloned().map(|mut rejects| {
        rejects.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        rejects
    });
    assert_eq!(rejects, reported.collect::<Vec<_>>());
}

/// A wrong configuration was in the terminal's error line alone, and its report knew nothing.
#[test]
fn a_failure_is_in_the_log_and_in_the_report_whatever_it_is_of() {
    for (command, name, toml, database, code) in [
        ("run", "run.failed", "[queue]\npolers = 3\n", None, "config"),
        ("run", "run.failed", "", Some("postgres://nobody@127.0.0.1:1/nowhere"), "load"),
        ("init", "command.failed", "", Some("postgres://nobody@127.0.0.1:1/nowhere"), "load"),
    ] {
        let mut env = TestEnv::new(Server::Embedded);
        env.configure(toml);
        if let Some(url) = database {
            env.set("DATABASE_URL", url);
        }
        let mut arguments = vec![command, "--log-format", "json", "--log-file", "log.json"];
        if command == "run" {
            arguments.extend(["--report", "report.json"]);
        }
        let outcome = env.pgsluice(&arguments);
        let [failed] = &events(&env, name)[..] else { panic!("one {name}: {outcome}") };
        assert_eq!(failed["error.code"], code, "{outcome}");
        assert!(outcome.stderr.contains(failed["error.message"].as_str().unwrap()), "{failed}: {outcome}");
        if command == "run" {
            let report = report_of(&env);
            let error = &report["error"];
            assert_eq!([&error["code"], &error["message"]], [&failed["error.code"], &failed["error.message"]]);
            assert_eq!(report["exit_code"], failed["exit_code"], "{failed}");
            assert_eq!(report["pipeline"].is_string(), code != "config", "{report}");
        }
    }
}

/// The summary and the error line say the same to a person.
#[test]
fn events_are_not_among_the_lines_for_people() {
    let env = TestEnv::new(Server::Embedded);
    let outcome = env.run().succeeds();
    assert!(!outcome.stderr.contains("run.finished"), "{outcome}");
    env.job(&["run", "--log-file", "log.txt"]).succeeds();
    assert!(fs::read_to_string(env.path("log.txt")).unwrap().contains("run.finished"));
}
