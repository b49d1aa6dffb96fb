//! All SQL on the ledger (`sql/001_ledger.sql`). Each statement runs in the caller's transaction, unless it says
//! otherwise.

mod messages;
mod reject_list;
mod rejects;
mod schema;
mod segments;

use std::sync::Arc;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Row, SimpleQueryMessage, Transaction};

pub use reject_list::{ListedReject, RejectGroup, Selection};
pub(super) use rejects::NewReject;
pub use rejects::RejectRow;
pub(super) use schema::check;
pub use schema::{init, init_sql};
pub use segments::LedgerTotals;

use super::LoadError;
use crate::postgres::watch::{IDENTIFY, TransactionId};
use crate::postgres::{NOTICE_A_LOST_CLIENT_LOCALLY, PostgresError};

/// Keys in one statement: large enough to hide the round trip, small enough to plan and send at ease.
const BATCH_KEYS: usize = 10_000;

// A loaded row survives a crash of the server, whatever the role's defaults are, because its message is deleted
// next. A deferred constraint would fail at COMMIT, where nothing tells which row it was.
const BEGIN: &str = "SET CONSTRAINTS ALL IMMEDIATE; \
     SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'";

/// The part of the ledger that belongs to one pipeline.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    pub(super) pipeline: Arc<str>,
    pub(super) host: String,
    /// Whether what is found is given with its rejects, because they are to be sent.
    pub(super) with_rejects: bool,
}

impl Ledger {
    /// Prepares a transaction for a load, and tells which one it is.
    pub(super) async fn begin(&self, transaction: &Transaction<'_>) -> Result<TransactionId, LoadError> {
        let begin = format!("{IDENTIFY}; {NOTICE_A_LOST_CLIENT_LOCALLY}; {BEGIN}");
        let begun = transaction.simple_query(&begin).await.map_err(ledger_error("beginning a transaction on"))?;
        let identity = begun.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some(TransactionId { backend: row.get(0)?.parse().ok()?, started_us: row.get(1)?.parse().ok()? })
            }
            _ => None,
        });
        let unheard = || PostgresError::ConnectionLost {
            action: "beginning a transaction".to_owned(),
            source: "the answer is not the one of Postgres".into(),
        };
        Ok(identity.ok_or_else(unheard)?)
    }
}

fn count(row: &Row, column: usize) -> Result<u64, tokio_postgres::Error> {
    row.try_get::<_, i64>(column).map(i64::cast_unsigned)
}

/// For `map_err`: an error of a statement on the ledger.
fn ledger_error(action: &'static str) -> impl FnOnce(tokio_postgres::Error) -> LoadError {
    move |error| match error.code() {
        Some(&SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME | &SqlState::UNDEFINED_FUNCTION) => {
            LoadError::NoLedger
        }
        _ => PostgresError::of_statement(&format!("{action} the ledger"), error).into(),
    }
}
