//! Notices a connection over which nothing comes any more although TCP calls it healthy: a proxy, a pooler or a
//! firewall between us and the server holds it, or forgot it.
//!
//! A slow server must not be taken for a lost one: a load may wait for a lock as long as it likes. So while an attempt
//! lasts, a second connection asks the server what it is doing for the first. Always true: an attempt is given up only
//! after two answers in a row that say the same: the server waits for us, or has no such transaction any more, and
//! not a byte came in between. When the server itself cannot be reached twice, it is given up, too; a server that
//! has no connection free proves nothing.
//!
//! What was given up may still be open on the server, and hold the locks that the next attempt waits for. So the
//! next connection ends it first, as it does after any lost connection.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio_postgres::Client;

use super::PostgresError;
use super::connection::Database;

/// How long a short question may take to be answered.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

const OBSERVE: &str = "SELECT coalesce(wait_event_type = 'Client', false), \
     concat_ws(' ', query_start, state_change, bytes_processed) \
     FROM pg_stat_activity LEFT JOIN pg_stat_progress_copy USING (pid) \
     WHERE pid = $1 AND (extract(epoch FROM xact_start) * 1000000)::bigint = $2";
const END: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
     WHERE pid = $1 AND (extract(epoch FROM xact_start) * 1000000)::bigint = $2";

/// One transaction among all of a server: a pooler may give the same backend to others later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TransactionId {
    pub(crate) backend: i32,
    /// Microseconds since 1970-01-01 UTC.
    pub(crate) started_us: i64,
}

/// What the server does for an attempt.
#[derive(Debug, PartialEq, Eq)]
enum Observation {
    /// It works, or waits for something else than us.
    Busy,
    /// It waits for us; the text changes with every statement and every byte of a COPY.
    WaitsForUs(String),
    /// The transaction has ended, and we did not hear of it.
    Over,
    /// Our first statement was not even answered.
    NotBegun,
    /// It cannot be reached.
    Unreachable,
}

/// Watches the attempts of one loader.
pub(crate) struct Watch {
    database: Database,
    /// The last one that began.
    transaction: Mutex<Option<TransactionId>>,
}

impl Watch {
    pub(crate) fn of(database: Database) -> Self {
        Self { database, transaction: Mutex::default() }
    }

    /// The attempt's transaction has begun.
    pub(crate) fn began(&self, transaction: TransactionId) {
        *self.lock() = Some(transaction);
    }

    /// Waits for an attempt, or until it is clear that its answer will not come.
    pub(crate) async fn during<T, E: From<PostgresError>>(
        &self,
        attempt: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::select! {
            biased;
            done = attempt => done,
            silence = self.silence() => Err(silence.into()),
        }
    }

    /// On a new connection: ends the transaction of the one before, should it still be open.
    pub(crate) async fn end_last(&self, client: &Client) -> Result<(), PostgresError> {
        let Some(TransactionId { backend, started_us }) = self.lock().take() else { return Ok(()) };
        let ended = answered(client.execute(END, &[&backend, &started_us])).await?;
        ended
            .map(|_| ())
            .map_err(|error| PostgresError::of_statement("ending a transaction whose connection was lost", error))
    }

    async fn silence(&self) -> PostgresError {
        let Some(patience) = self.database.patience else { return std::future::pending().await };
        let mut before = Observation::Busy;
        loop {
            tokio::time::sleep(patience).await;
            let now = self.observe().await.unwrap_or(Observation::Busy);
            if now == before && now != Observation::Busy {
                return silent("a transaction");
            }
            before = now;
        }
    }

    /// `None`: the server answers, but not this question.
    async fn observe(&self) -> Option<Observation> {
        let connection = match self.database.connect().await {
            Ok(connection) => connection,
            Err(PostgresError::Unreachable { .. } | PostgresError::ConnectionLost { .. }) => {
                return Some(Observation::Unreachable);
            }
            Err(_) => return None,
        };
        let Some(TransactionId { backend, started_us }) = *self.lock() else { return Some(Observation::NotBegun) };
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&backend, &started_us];
        let Ok(found) = answered(connection.client.query_opt(OBSERVE, &parameters)).await else {
            return Some(Observation::Unreachable);
        };
        Some(match found.ok()? {
            None => Observation::Over,
            Some(row) if row.try_get(0).ok()? => Observation::WaitsForUs(row.try_get(1).ok()?),
            Some(_) => Observation::Busy,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<TransactionId>> {
        self.transaction.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the answer to a question that takes no time.
pub(crate) async fn answered<T>(question: impl Future<Output = T>) -> Result<T, PostgresError> {
    tokio::time::timeout(ANSWER_TIMEOUT, question).await.map_err(|_| silent("a question"))
}

fn silent(action: &str) -> PostgresError {
    PostgresError::ConnectionLost { action: action.to_owned(), source: "no answer comes any more".into() }
}
