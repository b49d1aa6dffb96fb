//! All SQL on the ledger (`sql/002_ledger.sql`). Each statement runs in the caller's transaction, unless it says
//! otherwise.
//!
//! Always true:
//! - every table, function, type and operator is named with its schema, so a role's `search_path` decides nothing here;
//! - no statement is prepared under a name and no setting outlives its transaction, so a pooler may give each
//!   transaction another session.

mod again;
mod days;
mod dropped;
mod fate;
mod masking;
mod messages;
mod pipeline;
mod reject_list;
mod rejects;
mod schema;
mod segments;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Row, SimpleQueryMessage, Transaction};

pub(super) use again::TableState;
pub use again::{Forgotten, NotHere};
pub use days::LedgerDay;
pub use dropped::RejectedSegment;
pub use fate::{Fate, LoadedSegment};
pub(super) use pipeline::{PipelineRow, check_version};
pub use reject_list::{FoundReject, ListedReject, RejectGroup, Selection};
pub(super) use rejects::NewReject;
pub use rejects::RejectRow;
pub(super) use schema::check;
pub use schema::{init, init_sql};
pub use segments::LedgerTotals;

use super::LoadError;
use crate::postgres::watch::{IDENTIFY, TransactionId};
use crate::postgres::{NOTICE_A_LOST_CLIENT_LOCALLY, PostgresError};

/// The version of the ledger that this program reads and writes.
const VERSION: i32 = 2;
/// Keys in one statement: enough to hide the round trip, few enough to be planned and sent quickly.
const BATCH_KEYS: usize = 10_000;

// A loaded row survives a crash of the server, whatever the role's defaults are, because its message is deleted
// next. A deferred constraint would fail at COMMIT, where nothing tells which row it was.
const BEGIN: &str = "SET CONSTRAINTS ALL IMMEDIATE; \
     SELECT pg_catalog.set_config('synchronous_commit', 'on', true) \
     WHERE pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off'";

/// The part of the ledger that belongs to one pipeline.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    /// The pipeline's number; 0 where the ledger does not know it and this process only reads.
    pub(super) pipeline: i32,
    pub(super) host: String,
    /// Of the mapping that rows are made with now.
    pub(super) mapping: String,
    /// Whether segments that are found come with their rejects, because these are to be sent.
    pub(super) with_rejects: bool,
}

/// A transaction of a load that has begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    pub(super) id: TransactionId,
    /// For the segment that it may record.
    pub(super) segment_no: i32,
}

impl Ledger {
    /// Prepares a transaction for a load.
    pub(super) async fn begin(&self, transaction: &Transaction<'_>) -> Result<Begun, LoadError> {
        let statements =
            format!("{IDENTIFY}, pg_catalog.nextval('pgsluice.segment_no'); {NOTICE_A_LOST_CLIENT_LOCALLY}; {BEGIN}");
        let begun = transaction.simple_query(&statements).await.map_err(ledger_error("beginning a transaction on"))?;
        let read = begun.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                let id = TransactionId { backend: row.get(0)?.parse().ok()?, started_us: row.get(1)?.parse().ok()? };
                Some(Begun { id, segment_no: row.get(2)?.parse().ok()? })
            }
            _ => None,
        });
        let unheard = || PostgresError::ConnectionLost {
            action: "beginning a transaction".to_owned(),
            source: "the answer is not what Postgres answers".into(),
        };
        Ok(read.ok_or_else(unheard)?)
    }
}

fn count(row: &Row, column: usize) -> Result<u64, tokio_postgres::Error> {
    row.try_get::<_, i64>(column).map(i64::cast_unsigned)
}

/// For `map_err`: an error of a statement on the ledger.
fn ledger_error(action: &'static str) -> impl FnOnce(tokio_postgres::Error) -> LoadError {
    move |error| match error.code() {
        Some(
            &SqlState::UNDEFINED_TABLE
            | &SqlState::UNDEFINED_COLUMN
            | &SqlState::INVALID_SCHEMA_NAME
            | &SqlState::UNDEFINED_FUNCTION,
        ) => LoadError::NoLedger,
        _ => PostgresError::of_statement(&format!("{action} the ledger"), error).into(),
    }
}
