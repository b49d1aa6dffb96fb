//! The summary that a run ends with, for people: what became of the messages, what set the pace, where things lie, and
//! what to do next.

use std::fmt::Write as _;
use std::path::Path;

use super::{EndedBy, InFlightReport, Report, StageReport, grouped, rejects};

/// A stage that is busy for less of its time did not set the pace: what was there to do did.
const SETS_THE_PACE: f64 = 0.8;
/// In a shorter run the start and the end take most of the time.
const PACED_FROM_SECONDS: f64 = 1.0;

/// What is around a run.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// The staging directory.
    pub staging: &'a Path,
    /// Where the report is written, if it is.
    pub report: Option<&'a Path>,
    /// Rejects are in the ledger, and not left to the queue.
    pub records_rejects: bool,
}

impl StageReport {
    /// Of its workers' time; near 1 where this stage sets the pace.
    fn share_busy(&self) -> f64 {
        self.seconds_busy / (self.seconds_busy + self.seconds_waiting).max(f64::MIN_POSITIVE)
    }
}

impl Report {
    /// The summary for people.
    #[must_use]
    pub fn summary(&self, title: &str, around: Surroundings<'_>) -> String {
        let mut text = format!("{title} in {:.1} s\n", self.seconds);
        let staging = around.staging.display();
        let rejects = if around.records_rejects {
            format!("in {staging}/rejects/, each with its reason")
        } else {
            "left in the queue, to its redrive policy".to_owned()
        };
        for (name, messages, remark) in [
            ("received", self.received, self.rate()),
            ("loaded", self.loaded, String::new()),
            ("duplicates", self.duplicates, "recognised, not loaded again".to_owned()),
            ("rejected", self.rejected, rejects),
            ("pending", self.pending, format!("safe in {staging}/spool/, for the next run")),
            ("acknowledged", self.acknowledged, String::new()),
            ("ack failed", self.ack_failed, "will be delivered again, and recognised".to_owned()),
        ] {
            let remark = if messages > 0 { remark } else { String::new() };
            if messages > 0 || name != "ack failed" {
                _ = writeln!(text, "{}", format!("  {name:<13} {:>13}   {remark}", grouped(messages)).trim_end());
            }
            if name == "rejected" {
                text += &rejects::lines(&self.rejects_by_reason);
            }
        }
        let busy: Vec<String> = self
            .busy_stages()
            .map(|(name, stage)| format!("{name} {:.1} s ({:.0} %)", stage.seconds_busy, 100.0 * stage.share_busy()))
            .collect();
        for (name, line) in [
            ("in flight", self.in_flight.as_ref().and_then(InFlightReport::line)),
            ("pace", self.pace()),
            ("busy", (!busy.is_empty()).then(|| busy.join(" · "))),
            ("report", around.report.map(|path| path.display().to_string())),
        ] {
            if let Some(line) = line {
                _ = writeln!(text, "  {name:<13} {line}");
            }
        }
        for step in self.next_steps(around) {
            _ = writeln!(text, "  {:<13} {step}", "next");
        }
        text
    }

    fn rate(&self) -> String {
        if self.seconds <= 0.0 {
            return String::new();
        }
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = self.received as f64 / self.seconds;
        format!("{}/s", grouped(super::in_flight::three_digits(rate)))
    }

    fn busy_stages(&self) -> impl Iterator<Item = (&'static str, &StageReport)> {
        let stages = [
            ("drain", &self.stages.drain),
            ("transform", &self.stages.transform),
            ("load", &self.stages.load),
            ("ack", &self.stages.ack),
        ];
        stages.into_iter().filter(|(_, stage)| stage.items > 0)
    }

    /// Which of several stages held up the others, and what makes it faster.
    fn pace(&self) -> Option<String> {
        if self.busy_stages().count() < 2 || self.seconds < PACED_FROM_SECONDS {
            return None;
        }
        let (name, stage) = self.busy_stages().max_by(|a, b| a.1.share_busy().total_cmp(&b.1.share_busy()))?;
        let share = 100.0 * stage.share_busy();
        let faster = match name {
            "drain" => "more queue.pollers or another host",
            "transform" => "more cores or another host",
            "load" => "more load.connections or a faster Postgres",
            _ => "more queue.pollers",
        };
        (stage.share_busy() >= SETS_THE_PACE).then(|| format!("set by {name}, {share:.0} % busy; {faster} may help"))
    }

    fn next_steps(&self, around: Surroundings<'_>) -> Vec<String> {
        let mut steps = Vec::new();
        if self.rejected > 0 && around.records_rejects {
            steps.push("`pgsluice rejects list`; once the cause is corrected, `pgsluice rejects retry`".to_owned());
        }
        if self.ended_by == Some(EndedBy::Damage) {
            let staging = around.staging.display();
            steps.push(format!("the log names what is damaged, and whether it is in {staging}/damaged/ or stays"));
        }
        // An error says itself what to do.
        if self.pending > 0 && self.error.is_none() {
            steps.push(match self.ended_by {
                Some(EndedBy::Done | EndedBy::Limit) => "`pgsluice run` loads what is pending".to_owned(),
                _ => "the same command again goes on with what is pending".to_owned(),
            });
        }
        steps
    }
}
