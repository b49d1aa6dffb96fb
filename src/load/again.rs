//! Loads that are to be made again: the ledger forgets segments, whose table was emptied.

use tokio_postgres::Transaction;

use super::ledger::TableState;
use super::target::quoted_table;
use super::turn::Turn;
use super::{Forgotten, LoadError, Loader, NotHere};
use crate::config::TableName;
use crate::postgres::PostgresError;
use crate::segment::SegmentId;

impl Loader {
    /// Forgets segments, so that they can be loaded again into a table that was emptied. `keep_rows`: whatever the table
    /// holds.
    pub async fn forget(&mut self, segments: &[SegmentId], keep_rows: bool) -> Result<Forgotten, LoadError> {
        self.reconnect().await?;
        let failed = |error| PostgresError::of_statement("forgetting segments", error);
        let transaction = self.connection.begin().await.map_err(failed)?;
        // With no load beside it: what one commits meanwhile would be forgotten, and loaded twice.
        Turn::Alone.wait(&transaction, &self.destination.target).await?;
        let table = table_state(&transaction, &self.pipeline.table).await?;
        let forgotten = self.destination.ledger.forget(&transaction, segments, table, keep_rows).await?;
        let Some(forgotten) = forgotten else {
            return Err(LoadError::TableNotEmpty { table: self.pipeline.table.to_string() });
        };
        transaction.commit().await.map_err(failed)?;
        Ok(forgotten)
    }

    /// Records that all that was forgotten is loaded again.
    pub async fn end_again(&mut self) -> Result<(), LoadError> {
        let ledger = self.destination.ledger.clone();
        self.ask(async |client| ledger.end_again(client).await).await
    }

    /// Segments with rows that the ledger has and that are not among these.
    pub async fn not_among(&mut self, segments: &[SegmentId]) -> Result<Vec<NotHere>, LoadError> {
        let ledger = self.destination.ledger.clone();
        self.ask(async |client| ledger.not_among(client, segments).await).await
    }
}

async fn table_state(transaction: &Transaction<'_>, table: &TableName) -> Result<TableState, LoadError> {
    let statement = format!("SELECT EXISTS (SELECT FROM {})", quoted_table(table));
    let exists = transaction.query_typed_one(&statement, &[]).await.and_then(|row| row.try_get(0));
    let action = format!("looking whether {table} is empty");
    let exists: bool = exists.map_err(|error| PostgresError::of_statement(&action, error))?;
    Ok(if exists { TableState::HoldsRows } else { TableState::Empty })
}
