//! What was loaded on each day.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::super::LoadError;
use super::{Ledger, count, ledger_error};

/// The newest days, from the oldest to the newest.
const DAYS: &str = "SELECT day, segments, received, loaded, duplicates, rejected FROM ( \
     SELECT pg_catalog.to_char(loaded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day, pg_catalog.count(*) AS segments, \
     pg_catalog.sum(received)::bigint AS received, pg_catalog.sum(loaded)::bigint AS loaded, \
     pg_catalog.sum(duplicates)::bigint AS duplicates, pg_catalog.sum(rejected)::bigint AS rejected \
     FROM pgsluice.segment WHERE pipeline OPERATOR(pg_catalog.=) $1 GROUP BY 1 ORDER BY 1 DESC LIMIT 60 \
     ) AS newest ORDER BY day";

/// What the ledger recorded on a day of UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerDay {
    /// `2026-07-01`.
    pub day: String,
    /// Segments that were loaded.
    pub segments: u64,
    /// Their messages.
    pub received: u64,
    /// Those that are rows.
    pub loaded: u64,
    /// Those that were known.
    pub duplicates: u64,
    /// Those that could not become rows.
    pub rejected: u64,
}

impl Ledger {
    /// The last 60 days on which something was loaded.
    pub(in crate::load) async fn days(&self, client: &Client) -> Result<Vec<LedgerDay>, LoadError> {
        let read = |row: &Row| {
            Ok(LedgerDay {
                day: row.try_get(0)?,
                segments: count(row, 1)?,
                received: count(row, 2)?,
                loaded: count(row, 3)?,
                duplicates: count(row, 4)?,
                rejected: count(row, 5)?,
            })
        };
        let days = client.query_typed(DAYS, &[(&self.pipeline, Type::INT4)]).await;
        days.and_then(|rows| rows.iter().map(read).collect()).map_err(ledger_error("reading"))
    }
}
