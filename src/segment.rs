//! The name that a segment keeps in every stage.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// The name of a segment in every stage: a `UUIDv7`, so that names sort by the time they were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentId(Uuid);

/// A text that names no segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("expected a segment's name: a UUID, with which the segment's files in spool/ and archive/ begin")]
pub struct NotASegmentId;

impl SegmentId {
    /// A new name, later than every name given before by this process.
    #[must_use]
    pub fn now() -> Self {
        Self(Uuid::now_v7())
    }

    /// The time since the name was given, by this machine's clock; zero where that clock was set back. The name of an
    /// imported segment does not tell, and counts as given in 1970.
    #[must_use]
    pub fn age(self) -> Duration {
        let given = self.0.get_timestamp().map_or((0, 0), |timestamp| timestamp.to_unix());
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since_epoch.saturating_sub(Duration::new(given.0, given.1))
    }

    /// The name as the ledger stores it.
    #[must_use]
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for SegmentId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(formatter)
    }
}

impl FromStr for SegmentId {
    type Err = NotASegmentId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self).map_err(|_| NotASegmentId)
    }
}
