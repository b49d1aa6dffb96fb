//! What an SQLSTATE means for a load: try again, reject a row, or give up. The only place that decides it.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio_postgres::error::SqlState;

use crate::error::LoadError;

/// Retries after the first attempt. With the delays below a server has about 15 s to restart.
const RETRIES: usize = 6;

/// The waiting times between attempts, each up to twice as long as it says, so that loaders do not come in step.
pub(super) fn delays() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(250))
        .with_max_delay(Duration::from_secs(8))
        .with_max_times(RETRIES)
        .with_jitter()
        .build()
}

/// What an error of Postgres is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The moment: the same may succeed later.
    Moment,
    /// A row: the same fails again, but other rows may succeed.
    Row,
    /// The table, the rights, the setup: nothing will succeed until a person does something.
    Setup,
}

/// The meaning of an SQLSTATE (PostgreSQL documentation, appendix A).
pub(super) fn meaning(sqlstate: &SqlState) -> Meaning {
    match sqlstate.code() {
        // deadlock and serialization; locks not available; too many connections; shutdown and start-up
        "40001" | "40P01" | "55P03" | "53300" | "57P01" | "57P02" | "57P03" => Meaning::Moment,
        // a value too large for an index
        "54000" => Meaning::Row,
        code => match code.get(..2) {
            Some("08") => Meaning::Moment,
            // data exceptions; constraints; a view's check option; RAISE in a trigger
            Some("22" | "23" | "44" | "P0") => Meaning::Row,
            _ => Meaning::Setup,
        },
    }
}

/// Whether a load that failed may succeed when it is tried again.
#[must_use]
pub fn is_transient(error: &LoadError) -> bool {
    match error {
        LoadError::Unreachable { .. } | LoadError::ConnectionLost { .. } | LoadError::SegmentBusy { .. } => true,
        LoadError::ConnectionRefused { sqlstate, .. } | LoadError::Refused { sqlstate, .. } => {
            meaning(&SqlState::from_code(sqlstate)) == Meaning::Moment
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_sqlstate_decides_what_becomes_of_a_load() {
        let expected = [
            (Meaning::Moment, ["40001", "40P01", "53300", "57P03", "08006"]),
            (Meaning::Row, ["22001", "22P02", "23514", "P0001", "54000"]),
            (Meaning::Setup, ["42501", "42P01", "53100", "28P01", "25006"]),
        ];
        for (meaning_of_all, codes) in expected {
            for code in codes {
                assert_eq!(meaning(&SqlState::from_code(code)), meaning_of_all, "{code}");
            }
        }
    }
}
