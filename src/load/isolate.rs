//! Copies rows into the target table, and finds those that Postgres alone refuses: a check constraint, a trigger, a
//! foreign key.
//!
//! Always true: a row counts as refused only after a COPY of it alone was refused; every other row is in the table.
//! Each COPY runs after a savepoint, so what it refused leaves the transaction usable. The line number that
//! Postgres gives only says where to look first; where it gives none, or a wrong one, halving finds the row.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use tokio_postgres::Transaction;
use tokio_postgres::error::DbError;

use super::LoadError;
use super::target::{self, Target};
use crate::blocking::blocking;
use crate::chunk::{Rows, send_whole};
use crate::postgres::sqlstate::{Meaning, judge};
use crate::postgres::{CopyError, Feed, PostgresError, copy_in};
use crate::reason::Reason;
use crate::segment::SegmentId;

/// A row that Postgres refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RefusedRow {
    /// Its number in the chunk.
    pub(super) row: usize,
    /// Why, without any value of the row.
    pub(super) reason: Reason,
}

/// Copies rows of one chunk within a transaction.
pub(super) struct RowCopy<'a> {
    pub(super) transaction: &'a Transaction<'a>,
    pub(super) target: &'a Target,
    pub(super) segment: SegmentId,
    pub(super) path: Arc<Path>,
}

enum Copied {
    Rows(u64),
    Refused(Box<DbError>),
}

impl RowCopy<'_> {
    /// Copies the chunk's rows, or those selected; returns the refused ones.
    pub(super) async fn run(&self, rows: usize, selected: Option<Vec<usize>>) -> Result<Vec<RefusedRow>, LoadError> {
        let mut refusal = None;
        if selected.is_none() {
            let path = Arc::clone(&self.path);
            match self.copy(move |feed| Ok(send_whole(&path, |bytes| feed.write(bytes))?)).await? {
                Copied::Rows(copied) if copied == rows as u64 => return Ok(Vec::new()),
                Copied::Rows(copied) => {
                    let (path, segment) = (Arc::clone(&self.path), self.segment);
                    blocking(move || Rows::index(&path, segment, rows)).await?;
                    return Err(self.skipped(rows, copied));
                }
                Copied::Refused(error) => refusal = Some(error),
            }
        }
        let selected: Arc<[usize]> = selected.unwrap_or_else(|| (0..rows).collect()).into();
        if selected.is_empty() {
            return Ok(Vec::new());
        }
        let (path, segment) = (Arc::clone(&self.path), self.segment);
        let chunk = Arc::new(blocking(move || Rows::index(&path, segment, rows)).await?);
        let suspect = match refusal {
            Some(error) => self.suspect(&chunk, &selected, 0..selected.len(), &error).await?,
            None => None,
        };
        self.isolate(&chunk, &selected, suspect).await
    }

    /// `suspect` is the row that is said to be refused, counted within `selected`.
    async fn isolate(
        &self,
        chunk: &Arc<Rows>,
        selected: &Arc<[usize]>,
        mut suspect: Option<usize>,
    ) -> Result<Vec<RefusedRow>, LoadError> {
        let mut refusals = Vec::new();
        let mut start = 0;
        let mut window = selected.len();
        while start < selected.len() {
            let end = match suspect {
                Some(row) if row > start => row,
                Some(_) => start + 1,
                None => selected.len().min(start.saturating_add(window)),
            };
            match self.copy_range(chunk, selected, start..end).await? {
                Copied::Rows(copied) if copied == (end - start) as u64 => {
                    if suspect.is_some_and(|row| row < end) {
                        suspect = None;
                    }
                    start = end;
                    window = window.saturating_mul(2);
                }
                Copied::Rows(copied) => return Err(self.skipped(end - start, copied)),
                Copied::Refused(error) if end - start == 1 => {
                    let reason = target::reason(&error, self.target);
                    refusals.push(RefusedRow { row: selected[start], reason });
                    suspect = None;
                    start = end;
                }
                Copied::Refused(error) => {
                    suspect = self.suspect(chunk, selected, start..end, &error).await?;
                    window = (end - start) / 2;
                }
            }
        }
        Ok(refusals)
    }

    /// Which row the error names, counted within `selected`.
    async fn suspect(
        &self,
        chunk: &Arc<Rows>,
        selected: &Arc<[usize]>,
        range: Range<usize>,
        error: &DbError,
    ) -> Result<Option<usize>, LoadError> {
        let Some(line) = target::line(error, self.target) else { return Ok(None) };
        let (chunk, selected) = (Arc::clone(chunk), Arc::clone(selected));
        let start = range.start;
        let found = blocking(move || chunk.row_at_line(&selected[range], line)).await?;
        Ok(found.map(|index| start + index))
    }

    async fn copy_range(
        &self,
        chunk: &Arc<Rows>,
        selected: &Arc<[usize]>,
        range: Range<usize>,
    ) -> Result<Copied, LoadError> {
        let (chunk, selected) = (Arc::clone(chunk), Arc::clone(selected));
        self.copy(move |feed| Ok(chunk.send(&selected[range], |row| feed.write(row))?)).await
    }

    async fn copy(
        &self,
        produce: impl FnOnce(&mut Feed) -> Result<(), LoadError> + Send + 'static,
    ) -> Result<Copied, LoadError> {
        let lost = |error| {
            let action = format!("the COPY of segment {} into {}", self.segment, self.target.table);
            LoadError::from(PostgresError::of_statement(&action, error))
        };
        self.transaction.batch_execute("SAVEPOINT rows").await.map_err(lost)?;
        let (ended, outcome) = match copy_in(self.transaction, &self.target.copy_statement, produce).await {
            Ok(rows) => ("RELEASE rows", Copied::Rows(rows)),
            Err(CopyError::Postgres(error)) => match error.as_db_error() {
                Some(refusal) if judge(refusal.code().code()).0 == Meaning::Row => {
                    ("ROLLBACK TO rows; RELEASE rows", Copied::Refused(Box::new(refusal.clone())))
                }
                _ => return Err(lost(error)),
            },
            Err(CopyError::Source(error)) => return Err(error),
        };
        self.transaction.batch_execute(ended).await.map_err(lost)?;
        Ok(outcome)
    }

    /// The chunk has all its rows, so something in the table skipped some: a message that is neither a row nor a
    /// reject must not count as done.
    fn skipped(&self, sent: usize, taken: u64) -> LoadError {
        let table = self.target.table.to_string();
        LoadError::RowsSkipped { segment: self.segment, table, sent: sent as u64, taken }
    }
}
