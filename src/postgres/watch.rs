//! Notices a connection over which nothing comes any more although TCP calls it healthy: a proxy, a pooler or a
//! firewall between us and the server holds it, or forgot it.
//!
//! A slow server must not be taken for a lost one, nor a full pooler: a load may wait for a lock, or for one of the
//! pooler's connections, as long as it likes. So while a transaction is open, a second connection asks the server what it
//! is doing for the first. Always true: an attempt is given up
//! - after two answers in a row that say the same: the server waits for us, or has no such transaction any more, and
//!   not a byte came in between;
//! - or after [`LOOKS_WITHOUT_ANSWER`] looks in a row that nothing answers, or that have no transaction to ask about
//!   because the first statement of the attempt is not answered either. By default these last ten minutes. PgBouncer
//!   itself lets a client wait for two (`query_wait_timeout`).
//!
//! A server or pooler that answers, but not the question (it has no connection free), proves that nothing is lost.
//! It also says which lock the transaction waits for, and who holds it.
//! The second connection is closed after each look, whatever comes of it, and does not wait in a pooler's line.
//!
//! What was given up may still be open on the server, and hold the locks that the next attempt waits for. So the
//! next connection ends it first, as it does after any lost connection.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, Transaction};

use super::PostgresError;
use super::connection::{Connection, Database};

/// How long a short question may take to be answered.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A look every `keepalives_idle`.
const LOOKS_WITHOUT_ANSWER: u32 = 20;

/// Tells which transaction it is, for [`TransactionId`]: the backend, and when the transaction started.
pub(crate) const IDENTIFY: &str = "SELECT pg_catalog.pg_backend_pid(), \
     (extract(epoch FROM pg_catalog.now()) OPERATOR(pg_catalog.*) 1000000)::bigint";
const OBSERVE: &str = "SELECT coalesce(wait_event_type OPERATOR(pg_catalog.=) 'Client', false), \
     pg_catalog.concat_ws(' ', query_start, state_change, bytes_processed) \
     FROM pg_catalog.pg_stat_activity AS activity \
     LEFT JOIN pg_catalog.pg_stat_progress_copy AS progress ON progress.pid OPERATOR(pg_catalog.=) activity.pid \
     WHERE activity.pid OPERATOR(pg_catalog.=) $1 \
     AND (extract(epoch FROM xact_start) OPERATOR(pg_catalog.*) 1000000)::bigint OPERATOR(pg_catalog.=) $2";
/// What it waits for, and who holds that. A lock of no table is of a row, by the transaction that wrote it, or advisory.
const HELD: &str = "SELECT coalesce(held.relation::pg_catalog.regclass::text, held.locktype), blocking.pid, \
     coalesce(blocker.application_name, ''), \
     extract(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) held.waitstart)::bigint \
     FROM pg_catalog.pg_locks AS held \
     CROSS JOIN LATERAL pg_catalog.unnest(pg_catalog.pg_blocking_pids(held.pid)) AS blocking (pid) \
     LEFT JOIN pg_catalog.pg_stat_activity AS blocker ON blocker.pid OPERATOR(pg_catalog.=) blocking.pid \
     WHERE held.pid OPERATOR(pg_catalog.=) $1 AND NOT held.granted AND held.waitstart IS NOT NULL LIMIT 1";
const END: &str = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
     WHERE pid OPERATOR(pg_catalog.=) $1 \
     AND (extract(epoch FROM xact_start) OPERATOR(pg_catalog.*) 1000000)::bigint OPERATOR(pg_catalog.=) $2";

/// One transaction among all of a server: a pooler may give the same backend to others later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TransactionId {
    pub(crate) backend: i32,
    /// Microseconds since 1970-01-01 UTC.
    pub(crate) started_us: i64,
}

impl TransactionId {
    fn parameters(&self) -> [(&(dyn ToSql + Sync), Type); 2] {
        [(&self.backend, Type::INT4), (&self.started_us, Type::INT8)]
    }
}

/// What the server does for an attempt.
#[derive(Debug, PartialEq, Eq)]
enum Observation {
    /// It works, or waits for something else than us; or it answers, though not this question.
    Busy,
    /// It waits for us; the text changes with every statement and every byte of a COPY.
    WaitsForUs(String),
    /// The transaction has ended, and we did not hear of it.
    Over,
    /// Nothing answers, or there is nothing to ask about yet.
    Unknown,
}

/// Watches the attempts of one loader.
pub(crate) struct Watch {
    database: Database,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// The last transaction that began.
    last: Option<TransactionId>,
    /// Whether it is the one of the attempt that lasts.
    is_current: bool,
}

/// A connection for one look. Dropped before its end, it is closed at once, so that an unanswered question does not wait
/// for a pooler's connection after nobody waits for the answer.
struct Look(Option<Connection>);

impl Look {
    fn end(mut self) {
        self.0 = None;
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        if let Some(connection) = &mut self.0 {
            connection.sever();
        }
    }
}

impl Watch {
    pub(crate) fn of(database: Database) -> Self {
        Self { database, state: Mutex::default() }
    }

    /// A short transaction has begun: asks which one it is. One that is given up must not keep its locks.
    pub(crate) async fn identify(&self, transaction: &Transaction<'_>) -> Result<(), PostgresError> {
        let read = |row: &Row| Ok(TransactionId { backend: row.try_get(0)?, started_us: row.try_get(1)? });
        let id = transaction.query_typed_one(IDENTIFY, &[]).await.and_then(|row| read(&row));
        self.began(id.map_err(|error| PostgresError::of_statement("beginning a transaction", error))?);
        Ok(())
    }

    /// The attempt's transaction has begun.
    pub(crate) fn began(&self, transaction: TransactionId) {
        *self.lock() = State { last: Some(transaction), is_current: true };
    }

    /// Waits for an attempt, or until it is clear that its answer will not come.
    pub(crate) async fn during<T, E: From<PostgresError>>(
        &self,
        attempt: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        // The transaction of an earlier attempt is over, and says nothing about this one.
        self.lock().is_current = false;
        tokio::select! {
            biased;
            done = attempt => done,
            silence = self.silence() => Err(silence.into()),
        }
    }

    /// On a new connection: ends the transaction of the one before, should it still be open.
    pub(crate) async fn end_last(&self, client: &Client) -> Result<(), PostgresError> {
        let Some(transaction) = self.lock().last.take() else { return Ok(()) };
        let ended = answered(client.execute_typed(END, &transaction.parameters())).await?;
        ended
            .map(|_| ())
            .map_err(|error| PostgresError::of_statement("ending a transaction whose connection was lost", error))
    }

    async fn silence(&self) -> PostgresError {
        let Some(patience) = self.database.patience else { return std::future::pending().await };
        let mut before = Observation::Busy;
        let mut unanswered = 0;
        loop {
            tokio::time::sleep(patience).await;
            match self.observe().await {
                Observation::Unknown if unanswered + 1 == LOOKS_WITHOUT_ANSWER => break,
                // It contradicts no answer that came before.
                Observation::Unknown => unanswered += 1,
                now if now == before && now != Observation::Busy => break,
                now => (before, unanswered) = (now, 0),
            }
        }
        silent("a transaction")
    }

    async fn observe(&self) -> Observation {
        let State { last: Some(transaction), is_current: true } = *self.lock() else { return Observation::Unknown };
        let look = match self.database.connect().await {
            Ok(connection) => Look(Some(connection)),
            Err(PostgresError::Unreachable { .. } | PostgresError::ConnectionLost { .. }) => {
                return Observation::Unknown;
            }
            Err(_) => return Observation::Busy,
        };
        let Look(Some(connection)) = &look else { return Observation::Unknown };
        let found = answered(connection.client.query_typed_opt(OBSERVE, &transaction.parameters())).await;
        let read = |row: &tokio_postgres::Row| {
            Some(if row.try_get(0).ok()? { Observation::WaitsForUs(row.try_get(1).ok()?) } else { Observation::Busy })
        };
        let observation = match found {
            Ok(Ok(Some(row))) => read(&row).unwrap_or(Observation::Busy),
            Ok(Ok(None)) => Observation::Over,
            Ok(Err(error)) if error.as_db_error().is_some() => Observation::Busy,
            // Closed amid the question, or not answered in time.
            Ok(Err(_)) | Err(_) => return Observation::Unknown,
        };
        if observation == Observation::Busy {
            tell_of_a_lock(&connection.client, transaction).await;
        }
        look.end();
        observation
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says for which lock the transaction waits, if it waits for one. No answer changes nothing.
async fn tell_of_a_lock(client: &Client, transaction: TransactionId) {
    let found = answered(client.query_typed_opt(HELD, &[(&transaction.backend, Type::INT4)])).await;
    let Ok(Ok(Some(row))) = found else { return };
    let read = || -> Result<(String, i32, String, i64), tokio_postgres::Error> {
        Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
    };
    if let Ok((lock, pid, application, seconds)) = read() {
        let application = if application.is_empty() { String::new() } else { format!(" ({application})") };
        tracing::info!("waiting {seconds} s for a lock on {lock} held by pid {pid}{application}");
    }
}

/// Waits for the answer to a question that takes no time.
pub(crate) async fn answered<T>(question: impl Future<Output = T>) -> Result<T, PostgresError> {
    tokio::time::timeout(ANSWER_TIMEOUT, question).await.map_err(|_| silent("a question"))
}

fn silent(action: &str) -> PostgresError {
    PostgresError::ConnectionLost { action: action.to_owned(), source: "no answer comes any more".into() }
}
