//! Loads of one table side by side, or one alone.
//!
//! Two loads that insert the same business keys in another order wait for each other in the table's unique index;
//! Postgres ends one of them. Its next attempt would meet others, and might end the same way until none is left. So each
//! load holds an advisory lock of its table until its transaction ends: shared at first, so that loads do not wait
//! for each other; exclusive after a deadlock, so that none is beside it, of this process or of another.
//!
//! Always true: the lock is the first that a transaction takes, so a load that waits for it holds nothing that others
//! wait for.

use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use super::LoadError;
use super::target::{Target, quoted_table};
use crate::postgres::PostgresError;

const DEADLOCK_DETECTED: &str = "40P01";
/// The first half of the lock's key, which is only ours: "slui". The second is the table.
const LOCK_CLASS: i32 = i32::from_be_bytes(*b"slui");

/// How a load goes about its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Turn {
    /// Beside others.
    #[default]
    Shared,
    /// With no other load of the table.
    Alone,
}

impl Turn {
    /// For the attempt after one that failed.
    pub(super) fn after(&mut self, error: &LoadError) {
        if matches!(error, LoadError::Postgres(PostgresError::Refused { sqlstate, .. }) if sqlstate == DEADLOCK_DETECTED)
        {
            *self = Self::Alone;
        }
    }

    /// Waits for the turn, which ends with the transaction.
    pub(super) async fn wait(self, transaction: &Transaction<'_>, target: &Target) -> Result<(), LoadError> {
        let lock = match self {
            Self::Shared => "pg_advisory_xact_lock_shared",
            Self::Alone => "pg_advisory_xact_lock",
        };
        // Without the table there is no lock either: the COPY says so.
        let wait = format!(
            "SELECT pg_catalog.{lock}({LOCK_CLASS}, pg_catalog.to_regclass($1)::pg_catalog.oid::pg_catalog.int4)"
        );
        let waited = transaction.query_typed(&wait, &[(&quoted_table(&target.table), Type::TEXT)]).await;
        let action = format!("waiting to load {}", target.table);
        waited.map(|_| ()).map_err(|error| PostgresError::of_statement(&action, error).into())
    }
}
