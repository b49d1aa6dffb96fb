//! A COPY that is rolled back: whether the table takes rows, without keeping them.
//!
//! Always true: nothing is committed, and nothing is locked but what a COPY locks. What a sequence gave is gone, as after
//! every transaction that is rolled back.

use tokio_postgres::Client;

use super::LoadError;
use super::target::{self, Target};
use crate::config::{DatabaseUrl, Pipeline};
use crate::postgres::{CopyError, PostgresError, connect, copy_in};
use crate::reason::Reason;

/// Each row that Postgres refuses costs another COPY; after this number it is not asked about the rest.
const MOST_REFUSED: usize = 20;

/// What became of the rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyTrial {
    /// Rows of the COPY that went through, which is the one without refused rows; 0 where none did.
    pub sent: u64,
    /// Rows that the table took. Fewer than were sent where a trigger skips some.
    pub taken: u64,
    /// Why rows were refused, one for each.
    pub refused: Vec<Reason>,
}

/// Copies lines of a chunk into the table, and rolls back. The error says why no row can be copied at all.
pub async fn try_copy(
    database: &DatabaseUrl,
    pipeline: &Pipeline,
    mut lines: Vec<Vec<u8>>,
) -> Result<CopyTrial, LoadError> {
    let mut client = connect(database).await?;
    let target = Target::new(pipeline);
    let mut trial = CopyTrial::default();
    loop {
        match copy_once(&mut client, &target, &lines).await? {
            Ok(taken) => return Ok(CopyTrial { sent: lines.len() as u64, taken, ..trial }),
            Err((row, reason)) => {
                trial.refused.push(reason);
                lines.remove(row);
                if trial.refused.len() == MOST_REFUSED {
                    return Ok(trial);
                }
            }
        }
    }
}

/// The number of rows taken, or the row that was refused.
async fn copy_once(
    client: &mut Client,
    target: &Target,
    lines: &[Vec<u8>],
) -> Result<Result<u64, (usize, Reason)>, LoadError> {
    let action = format!("a trial COPY into {}", target.table);
    let failed = |error| LoadError::from(PostgresError::of_statement(&action, error));
    let transaction = client.transaction().await.map_err(failed)?;
    // As a load does, so that what is deferred is found here, too.
    transaction.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await.map_err(failed)?;
    let bytes = lines.concat();
    let copied = copy_in(&transaction, &target.copy_statement, move |feed| {
        feed.write(&bytes);
        Ok::<_, LoadError>(())
    });
    let error = match copied.await {
        Ok(taken) => {
            transaction.rollback().await.map_err(failed)?;
            return Ok(Ok(taken));
        }
        Err(CopyError::Source(error)) => return Err(error),
        Err(CopyError::Postgres(error)) => error,
    };
    transaction.rollback().await.map_err(failed)?;
    let row = error.as_db_error().and_then(|refusal| row_at(lines, target::line(refusal, target)?));
    let (Some(row), Some(refusal)) = (row, error.as_db_error()) else { return Err(failed(error)) };
    let transaction = client.transaction().await.map_err(failed)?;
    let names = target.names(&transaction).await.map_err(failed)?;
    transaction.rollback().await.map_err(failed)?;
    Ok(Err((row, target::reason(refusal, target, &names))))
}

/// The row that has this line of the COPY, counted from 1: a row may have several.
fn row_at(lines: &[Vec<u8>], line: u64) -> Option<usize> {
    let mut last = 0;
    lines.iter().position(|row| {
        last += memchr::memchr_iter(b'\n', row).count() as u64;
        last >= line
    })
}
