//! Transactions of a rekey: short, tried again, and watched as those of a load are.

use std::sync::Arc;

use tokio_postgres::{Client, Transaction};

use super::super::LoadError;
use super::super::target::Target;
use super::super::turn::Turn;
use crate::postgres::watch::{IDENTIFY, TransactionId, Watch};
use crate::postgres::{Connection, Database, NOTICE_A_LOST_CLIENT_LOCALLY, PostgresError, Retries};

/// A transaction that waits, or lasts, holds locks on rows that others may want.
const LIMITS: &str = "SET LOCAL lock_timeout = '10s'; SET LOCAL statement_timeout = '60s'";

/// One connection, which is opened again when it is lost.
pub(super) struct Transactions {
    database: Database,
    connection: Connection,
    watch: Arc<Watch>,
    target: Target,
}

impl Transactions {
    pub(super) fn over(database: Database, connection: Connection, target: Target) -> Self {
        Self { watch: Arc::new(Watch::of(database.clone())), database, connection, target }
    }

    pub(super) const fn client(&self) -> &Client {
        &self.connection.client
    }

    /// One transaction, which is tried again where that can help. Dropping the future rolls it back.
    pub(super) async fn run<T>(
        &mut self,
        work: impl AsyncFn(&Transaction<'_>) -> Result<T, LoadError>,
    ) -> Result<T, LoadError> {
        let (mut retries, mut turn) = (Retries::new(), Turn::default());
        loop {
            let watch = Arc::clone(&self.watch);
            match watch.during(self.attempt(turn, &work)).await {
                Ok(done) => return Ok(done),
                Err(error) => {
                    turn.after(&error);
                    if matches!(error, LoadError::Postgres(PostgresError::ConnectionLost { .. })) {
                        self.connection.sever();
                    }
                    retries.wait_after(error).await?;
                }
            }
        }
    }

    async fn attempt<T>(
        &mut self,
        turn: Turn,
        work: &impl AsyncFn(&Transaction<'_>) -> Result<T, LoadError>,
    ) -> Result<T, LoadError> {
        if self.connection.is_closed() {
            self.connection = self.database.connect().await?;
            self.watch.end_last(&self.connection.client).await?;
        }
        let failed = |error| PostgresError::of_statement(&format!("rekeying {}", self.target.table), error);
        let transaction = self.connection.begin().await.map_err(failed)?;
        let limits = format!("{NOTICE_A_LOST_CLIENT_LOCALLY}; {LIMITS}");
        transaction.batch_execute(&limits).await.map_err(failed)?;
        let id = transaction.query_typed_one(IDENTIFY, &[]).await;
        let id = id.and_then(|row| Ok(TransactionId { backend: row.try_get(0)?, started_us: row.try_get(1)? }));
        self.watch.began(id.map_err(failed)?);
        turn.wait(&transaction, &self.target).await?;
        let done = work(&transaction).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(done)
    }
}
