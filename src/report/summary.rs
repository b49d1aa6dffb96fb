//! The summary that a run ends with, for people.

use std::fmt::Write as _;

use super::{InFlightReport, Report, StageReport, grouped};

impl StageReport {
    /// Of its workers' time; near 1 where this stage sets the pace.
    fn share_busy(&self) -> f64 {
        self.seconds_busy / (self.seconds_busy + self.seconds_waiting).max(f64::MIN_POSITIVE)
    }
}

impl Report {
    /// The summary for people.
    #[must_use]
    pub fn summary(&self, title: &str) -> String {
        let mut text = format!("{title} in {:.1} s\n", self.seconds);
        for (name, messages, remark) in [
            ("received", self.received, ""),
            ("loaded", self.loaded, ""),
            ("duplicates", self.duplicates, "recognised, not loaded again"),
            ("rejected", self.rejected, "in rejects/, each with its reason"),
            ("pending", self.pending, "safe in spool/, for the next run"),
            ("acknowledged", self.acknowledged, ""),
            ("ack failed", self.ack_failed, "will be delivered again, and recognised"),
        ] {
            let remark = if messages > 0 { remark } else { "" };
            if messages > 0 || name != "ack failed" {
                _ = writeln!(text, "{}", format!("  {name:<13} {:>13}   {remark}", grouped(messages)).trim_end());
            }
        }
        let stages = [
            ("drain", &self.stages.drain),
            ("transform", &self.stages.transform),
            ("load", &self.stages.load),
            ("ack", &self.stages.ack),
        ];
        let busy: Vec<String> = stages
            .iter()
            .filter(|(_, stage)| stage.items > 0)
            .map(|(name, stage)| format!("{name} {:.1} s ({:.0} %)", stage.seconds_busy, 100.0 * stage.share_busy()))
            .collect();
        if !busy.is_empty() {
            _ = writeln!(text, "  busy          {}", busy.join(" · "));
        }
        if let Some(line) = self.in_flight.as_ref().and_then(InFlightReport::line) {
            _ = writeln!(text, "  in flight     {line}");
        }
        text
    }
}
