//! One savepoint that is set anew before each of several statements, so that the transaction outlives those that fail.
//!
//! Always true: the statement that keeps or undoes what was done before goes out together with the next one, and the
//! server answers both in one round trip.

use futures::future::join;
use tokio_postgres::{Error, Transaction};

/// What is to be done about the savepoint before the next statement.
#[derive(Debug, Clone, Copy)]
pub(super) enum Savepoint {
    /// There is none.
    Missing,
    /// The statement after it succeeded.
    Keep,
    /// The statement after it failed, or is to be undone.
    Undo,
}

impl Savepoint {
    /// Sets the savepoint anew and does `next`, which sends its statement when it is first polled.
    pub(super) async fn before<T>(
        self,
        transaction: &Transaction<'_>,
        next: impl Future<Output = T>,
    ) -> Result<T, Error> {
        let set = match self {
            Self::Missing => "SAVEPOINT rows",
            Self::Keep => "RELEASE rows; SAVEPOINT rows",
            Self::Undo => "ROLLBACK TO rows",
        };
        // Polled in this order, so the server gets them in this order.
        let (done, outcome) = join(transaction.batch_execute(set), next).await;
        done.map(|()| outcome)
    }

    /// Keeps or undoes what was done last, and removes the savepoint.
    pub(super) async fn end(self, transaction: &Transaction<'_>) -> Result<(), Error> {
        let remove = match self {
            Self::Missing => return Ok(()),
            Self::Keep => "RELEASE rows",
            Self::Undo => "ROLLBACK TO rows; RELEASE rows",
        };
        transaction.batch_execute(remove).await
    }
}
