//! The summary that a run ends with, as people see it: in the files `snapshots/it__summary__*.snap`.

use std::path::Path;

use insta::assert_snapshot;
use pgsluice::counters::Counters;
use pgsluice::reason::{Reason, Stage};
use pgsluice::report::{
    EndedBy, InFlightReport, RejectCount, Report, RunInfo, StageReport, StageReports, Surroundings,
};

/// A report of a run that did nothing.
fn nothing() -> Report {
    Report { seconds: 1.04, ..Report::of(RunInfo::default(), &Counters::default()) }
}

fn stage(seconds_busy: f64, seconds_waiting: f64, items: u64) -> StageReport {
    StageReport { seconds_busy, seconds_waiting, items, bytes: 1000 * items }
}

/// A report of a run that loaded all of two million messages.
fn everything() -> Report {
    Report {
        received: 2_000_000,
        loaded: 2_000_000,
        acknowledged: 2_000_000,
        segments: 100,
        seconds: 61.3,
        queue_empty: Some(true),
        stages: StageReports {
            drain: stage(3804.2, 21.7, 2_000_000),
            transform: stage(24.9, 97.1, 2_000_000),
            load: stage(117.6, 4.4, 2_000_000),
            ack: stage(1230.0, 2434.0, 2_000_000),
        },
        ..nothing()
    }
}

fn rejects(stage: Stage, field: &str, text: &str, count: u64) -> RejectCount {
    RejectCount { reason: Reason { stage, field: Some(field.to_owned()), text: text.to_owned() }, count }
}

fn summary(report: &Report) -> String {
    assert!(report.sum_holds(), "{report:?}");
    let around = Surroundings { staging: Path::new("staging"), report: None, records_rejects: true };
    report.summary("login-queue → public.user_logins", around)
}

#[test]
fn of_a_run_that_found_an_empty_queue() {
    assert_snapshot!(summary(&nothing()));
}

#[test]
fn of_a_run_that_loaded_everything() {
    assert_snapshot!(summary(&everything()));
}

/// Each count that is not zero says what it means.
#[test]
fn of_a_run_that_has_something_of_everything() {
    let report = Report {
        loaded: 1_990_000,
        duplicates: 1234,
        rejected: 66,
        rejects_by_reason: vec![
            rejects(Stage::Transform, "user_id", "user_id is missing", 50),
            rejects(Stage::Load, "user_logins_app_version_check", "violates a check constraint (SQLSTATE 23514)", 16),
        ],
        ended_by: Some(EndedBy::Signal),
        pending: 8700,
        acknowledged: 1_991_290,
        ack_failed: 10,
        queue_empty: Some(false),
        ..everything()
    };
    assert_snapshot!(summary(&report));
}

/// A table that changed makes many reasons, and a receipt is short.
#[test]
fn of_a_run_with_many_reasons() {
    let counts =
        (0..12).map(|number| rejects(Stage::Transform, "f", &format!("field {number} is missing"), 120 - number));
    let rejects_by_reason: Vec<RejectCount> = counts.collect();
    let rejected = rejects_by_reason.iter().map(|rejects| rejects.count).sum();
    let report = Report { loaded: 2_000_000 - rejected, rejected, rejects_by_reason, ..everything() };
    assert_snapshot!(summary(&report));
}

/// By `on_reject = "leave"` the ledger knows no rejects, so there are none to list.
#[test]
fn of_a_run_that_left_its_rejects_to_the_queue_and_found_damage() {
    let rejects_by_reason = vec![rejects(Stage::Transform, "ip", "ip is missing", 3)];
    let ended_by = Some(EndedBy::Damage);
    let report = Report { received: 3, loaded: 0, rejected: 3, rejects_by_reason, ended_by, ..nothing() };
    let around = Surroundings {
        staging: Path::new("/var/lib/pgsluice"),
        report: Some(Path::new("report.json")),
        records_rejects: false,
    };
    assert_snapshot!(report.summary("login-queue → public.user_logins", around));
}

#[test]
fn of_a_run_that_met_its_cap_in_flight() {
    let in_flight = InFlightReport { cap: 100_000, seconds_at_cap: 41.7, seconds_to_delete: Some(2.9), extensions: 0 };
    assert_snapshot!(summary(&Report { in_flight: Some(in_flight), ..everything() }));
}

/// Neither a drain nor an acknowledgement has a share.
#[test]
fn of_a_replay() {
    let Report { stages: StageReports { transform, load, .. }, .. } = everything();
    let stages = StageReports { transform, load, ..nothing().stages };
    assert_snapshot!(summary(&Report { stages, acknowledged: 0, ..everything() }));
}
