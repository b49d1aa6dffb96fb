//! What the pollers of a run tell about it. How many there are is tested beside the code, on a clock that is moved.

use std::fs;

use serde_json::Value;

use crate::logins::generated;
use crate::testenv::{Server, TestEnv};

const SUMMARY_LINE: &str = "  in flight     at its cap of ";

#[test]
fn a_run_that_met_its_cap_says_what_the_cap_allows() {
    let env = TestEnv::new(Server::Embedded);
    env.configure("[queue]\nmax_in_flight = 20\n[spool]\nsegment_max_messages = 10\n");
    env.queue.send(&generated(400));
    let outcome = env.run().succeeds();
    let in_flight = in_flight(&env);
    assert_eq!(in_flight["cap"], 20);
    let seconds = |name: &str| in_flight[name].as_f64().unwrap();
    assert!(seconds("seconds_at_cap") > 0.0 && seconds("seconds_to_delete") > 0.0, "{in_flight}");
    let line = format!("{SUMMARY_LINE}20 for ");
    assert!(outcome.stderr.contains(&line), "no {line:?}: {outcome}");
}

#[test]
fn a_run_that_did_not_meet_its_cap_says_nothing_about_it() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&generated(400));
    let outcome = env.run().succeeds();
    assert_eq!(in_flight(&env)["seconds_at_cap"], 0.0);
    assert!(!outcome.stderr.contains(SUMMARY_LINE), "{outcome}");

    env.job(&["replay"]).succeeds();
    assert!(in_flight(&env).is_null(), "a replay asks no queue");
}

fn in_flight(env: &TestEnv) -> Value {
    let report: Value = serde_json::from_slice(&fs::read(env.path("report.json")).unwrap()).unwrap();
    report["in_flight"].clone()
}
