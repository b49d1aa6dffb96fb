//! Why a message could not become a row: never a value of the message.

mod tally;

use serde::{Deserialize, Serialize};

pub use tally::{DISTINCT_REASONS, OTHER_REASONS, ReasonTally};

/// The stage that refused a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The message does not fit the mapping.
    Transform,
    /// Postgres refused the row.
    Load,
}

impl Stage {
    /// The stage's name in files and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transform => "transform",
            Self::Load => "load",
        }
    }

    /// The stage of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Transform, Self::Load].into_iter().find(|stage| stage.name() == name)
    }
}

/// Who refused a message, and why.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reason {
    /// The stage that refused it.
    pub stage: Stage,
    /// The field, column or constraint that is at fault, if it is one.
    pub field: Option<String>,
    /// Why, in names and limits.
    #[serde(rename = "reason")]
    pub text: String,
}
