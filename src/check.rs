//! Looks at everything that a run needs before anything moves: deletes nothing, creates nothing.
//!
//! A [`Check`] is data: what was looked at, what was seen, and what to do. The command prints them. What others say of
//! themselves is asked by [`crate::queue`] and [`crate::load`]; here it is judged.

mod clocks;
mod database;
mod estimate;
mod partitions;
mod queue;
mod sample;
mod staging;

use serde::Serialize;

pub use clocks::check_clock;
pub use database::check_database;
pub use estimate::{Backlog, Estimate};
pub use queue::{check_queue, check_retention};
pub use sample::{ColumnTrial, Trial, check_copy, check_trial, read_sample};
pub use staging::check_staging;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing to do.
    Ok,
    /// A run works; somebody should know this.
    Warning,
    /// A run would fail, or harm.
    Failure,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it came out.
    pub outcome: Outcome,
    /// What was seen.
    pub seen: String,
    /// What to do; only where there is something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Check {
    /// All is well.
    #[must_use]
    pub fn ok(name: &'static str, seen: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Ok, seen: seen.into(), advice: None }
    }

    /// Worth knowing.
    #[must_use]
    pub fn warning(name: &'static str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { outcome: Outcome::Warning, advice: Some(advice.into()), ..Self::ok(name, seen) }
    }

    /// To be mended first.
    #[must_use]
    pub fn failure(name: &'static str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { outcome: Outcome::Failure, advice: Some(advice.into()), ..Self::ok(name, seen) }
    }
}
