//! Why messages could not become rows, with counts: in the report, and in its summary.

use std::fmt::Write as _;

use serde::Serialize;

use super::grouped;
use crate::reason::{Reason, ReasonTally, Stage};

/// Reasons that the summary shows.
const SHOWN: usize = 5;

/// A number of rejects with the same reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RejectCount {
    /// Who refused them, and why.
    #[serde(flatten)]
    pub reason: Reason,
    /// Their number.
    pub count: u64,
}

impl RejectCount {
    /// The most frequent reason first.
    #[must_use]
    pub fn all(tally: &ReasonTally) -> Vec<Self> {
        tally.by_count().into_iter().map(|(reason, count)| Self { reason, count }).collect()
    }

    /// A reason of the transform names its field itself.
    fn line(&self) -> String {
        match &self.reason {
            Reason { stage: Stage::Load, field: Some(field), text } => format!("{field}: {text}"),
            Reason { text, .. } => text.clone(),
        }
    }
}

/// The lines of the summary below the number of rejects.
pub(super) fn lines(counts: &[RejectCount]) -> String {
    let (shown, others) = counts.split_at(SHOWN.min(counts.len()));
    let mut text = String::new();
    let mut line = |count: u64, reason: &str| _ = writeln!(text, "{:>29}   {reason}", grouped(count));
    for count in shown {
        line(count.count, &count.line());
    }
    if !others.is_empty() {
        let rest = others.iter().map(|count| count.count).sum();
        line(rest, &format!("for {} other reasons", others.len()));
    }
    text
}
