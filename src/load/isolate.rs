//! Copies rows into the target table, and finds those that Postgres alone refuses: a check constraint, a trigger, a
//! foreign key.
//!
//! Always true: a row counts as refused only after a COPY of it alone was refused; every other row is in the table.
//! Each COPY runs after a savepoint, so what it refused leaves the transaction usable. The line number that
//! Postgres gives only says where to look first; where it gives none, or a wrong one, halving finds the row.
//!
//! Whether a refused row is a reject, or the table cannot take any row, is decided in [`evidence`].

use std::ops::Range;
use std::sync::Arc;

use tokio_postgres::error::DbError;
use tokio_postgres::{Statement, ToStatement, Transaction};

use super::allowance::RejectAllowance;
use super::evidence::{Evidence, Verdict};
use super::savepoint::Savepoint;
use super::search::Search;
use super::target::{self, Names, Target};
use super::{LoadError, evidence};
use crate::blocking::blocking;
use crate::chunk::{Rows, send_whole};
use crate::durable::Place;
use crate::postgres::sqlstate::{Meaning, is_missing_partition, judge};
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

/// What a chunk's rows came to.
#[derive(Debug, Default)]
pub(super) struct Isolated {
    /// The rows that are not in the table, in their order.
    pub(super) refused: Vec<RefusedRow>,
    /// These are more than the run may reject; the rows after the last of them were not tried.
    pub(super) too_many: Option<LoadError>,
}

/// Copies rows of one chunk within a transaction.
pub(super) struct RowCopy<'a> {
    pub(super) transaction: &'a Transaction<'a>,
    pub(super) target: &'a Target,
    pub(super) segment: SegmentId,
    pub(super) chunk: Place,
    pub(super) tried: Tried<'a>,
}

/// Whether the rows were tried before.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tried<'a> {
    /// Never: each that is refused is one more reject of the run.
    First(RejectLimit<'a>),
    /// They are rejects.
    Again,
}

/// How many rows of a segment may be refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct RejectLimit<'a> {
    pub(super) allowance: &'a RejectAllowance,
    /// Messages of the segment.
    pub(super) messages: u64,
    /// Those of them that are rejects already.
    pub(super) rejects: u64,
    /// Messages that may be there a second time, at most: of these one is a reject, and the other a duplicate.
    pub(super) repeats: u64,
}

enum Copied {
    Rows(u64),
    Refused(Box<DbError>),
}

impl RowCopy<'_> {
    /// Copies the chunk's rows, or those selected.
    pub(super) async fn run(&self, rows: usize, selected: Option<Vec<usize>>) -> Result<Isolated, LoadError> {
        let (mut savepoint, mut refusal) = (Savepoint::Missing, None);
        if selected.is_none() {
            let chunk = self.chunk.clone();
            let produce = move |feed: &mut Feed| Ok(send_whole(&chunk, |bytes| feed.write(bytes))?);
            match self.copy(&mut savepoint, &*self.target.copy_statement, produce).await? {
                Copied::Rows(copied) if copied == rows as u64 => {
                    self.end(savepoint).await?;
                    return Ok(Isolated::default());
                }
                Copied::Rows(copied) => {
                    let (chunk, segment) = (self.chunk.clone(), self.segment);
                    blocking(move || Rows::index(&chunk, segment, rows)).await?;
                    return Err(self.skipped(rows, copied));
                }
                Copied::Refused(error) => refusal = Some(error),
            }
        }
        let selected: Arc<[usize]> = selected.unwrap_or_else(|| (0..rows).collect()).into();
        if selected.is_empty() {
            return Ok(Isolated::default());
        }
        let (chunk, segment) = (self.chunk.clone(), self.segment);
        let chunk = Arc::new(blocking(move || Rows::index(&chunk, segment, rows)).await?);
        let mut isolation = Isolation::new(self, chunk, selected, savepoint);
        if let Some(error) = refusal {
            isolation.narrow(&(0..isolation.selected.len()), &error).await?;
        }
        let isolated = isolation.run().await?;
        self.end(isolation.savepoint).await?;
        Ok(isolated)
    }

    async fn copy(
        &self,
        savepoint: &mut Savepoint,
        statement: &(impl ToStatement + ?Sized),
        produce: impl FnOnce(&mut Feed) -> Result<(), LoadError> + Send + 'static,
    ) -> Result<Copied, LoadError> {
        let copied = savepoint.before(self.transaction, copy_in(self.transaction, statement, produce)).await;
        match copied.map_err(|error| self.failed(error))? {
            Ok(rows) => {
                *savepoint = Savepoint::Keep;
                Ok(Copied::Rows(rows))
            }
            Err(CopyError::Postgres(error)) => {
                *savepoint = Savepoint::Undo;
                self.refused(error).map(Copied::Refused)
            }
            Err(CopyError::Source(error)) => Err(error),
        }
    }

    async fn end(&self, savepoint: Savepoint) -> Result<(), LoadError> {
        savepoint.end(self.transaction).await.map_err(|error| self.failed(error))
    }

    /// A refusal that may be about a row; any other error ends the attempt.
    fn refused(&self, error: tokio_postgres::Error) -> Result<Box<DbError>, LoadError> {
        let Some(refusal) = error.as_db_error() else { return Err(self.failed(error)) };
        match judge(refusal.code().code()).0 {
            Meaning::Moment | Meaning::CertainSetup => Err(self.stop(refusal)),
            _ if is_missing_partition(refusal) => Err(self.stop(refusal)),
            Meaning::Row | Meaning::Setup => Ok(Box::new(refusal.clone())),
        }
    }

    /// Ends the attempt with a refusal that is no fault of a row.
    fn stop(&self, refusal: &DbError) -> LoadError {
        if is_missing_partition(refusal) {
            let table = self.target.table.to_string();
            return LoadError::NoPartition { segment: self.segment, table };
        }
        PostgresError::of_refusal(&self.action(), refusal).into()
    }

    fn failed(&self, error: tokio_postgres::Error) -> LoadError {
        PostgresError::of_statement(&self.action(), error).into()
    }

    fn action(&self) -> String {
        format!("the COPY of segment {} into {}", self.segment, self.target.table)
    }

    /// The chunk has all its rows, so something in the table skipped some: a message that is neither a row nor a
    /// reject must not count as done.
    fn skipped(&self, sent: usize, taken: u64) -> LoadError {
        let table = self.target.table.to_string();
        LoadError::RowsSkipped { segment: self.segment, table, sent: sent as u64, taken }
    }
}

/// The search for the refused rows of one chunk.
struct Isolation<'a> {
    copy: &'a RowCopy<'a>,
    chunk: Arc<Rows>,
    /// The rows to copy, by their numbers in the chunk.
    selected: Arc<[usize]>,
    search: Search,
    evidence: Evidence,
    savepoint: Savepoint,
    names: Option<Arc<Names>>,
    refused: Vec<RefusedRow>,
    /// A refusal that stops the run if no row is taken.
    open: Option<Box<DbError>>,
}

impl<'a> Isolation<'a> {
    fn new(copy: &'a RowCopy<'a>, chunk: Arc<Rows>, selected: Arc<[usize]>, savepoint: Savepoint) -> Self {
        Self {
            search: Search::new(selected.len()),
            evidence: match copy.tried {
                Tried::First(_) => Evidence::of_new_rows(),
                Tried::Again => Evidence::of_rejects(),
            },
            copy,
            chunk,
            selected,
            savepoint,
            names: None,
            refused: Vec::new(),
            open: None,
        }
    }

    async fn run(&mut self) -> Result<Isolated, LoadError> {
        let copy = self.copy;
        let prepared = self.savepoint.before(copy.transaction, copy.transaction.prepare(&copy.target.copy_statement));
        let statement = prepared.await.flatten().map_err(|error| copy.failed(error))?;
        self.savepoint = Savepoint::Undo;
        while let Some(range) = self.search.next() {
            match self.copy_range(&statement, range.clone()).await? {
                Copied::Rows(_) => {
                    self.search.take(&range);
                    self.evidence.take();
                    self.open = None;
                }
                Copied::Refused(error) if range.len() == 1 => {
                    self.refuse(&statement, range.start, error).await?;
                    self.search.refuse_row();
                }
                Copied::Refused(error) => self.narrow(&range, &error).await?,
            }
            if let Err(too_many) = self.ask_for_rejects() {
                return Ok(Isolated { refused: std::mem::take(&mut self.refused), too_many: Some(too_many) });
            }
        }
        match self.open.take() {
            Some(error) => Err(copy.stop(&error)),
            None => Ok(Isolated { refused: std::mem::take(&mut self.refused), too_many: None }),
        }
    }

    /// Either all rows of the range are in the table then, or none.
    async fn copy_range(&mut self, statement: &Statement, range: Range<usize>) -> Result<Copied, LoadError> {
        let (chunk, selected, rows) = (Arc::clone(&self.chunk), Arc::clone(&self.selected), range.len());
        let produce = move |feed: &mut Feed| Ok(chunk.send(&selected[range], |row| feed.write(row))?);
        match self.copy.copy(&mut self.savepoint, statement, produce).await? {
            Copied::Rows(copied) if copied != rows as u64 => Err(self.copy.skipped(rows, copied)),
            copied => Ok(copied),
        }
    }

    /// Within a range that was refused, looks first at the row that the error names.
    async fn narrow(&mut self, range: &Range<usize>, error: &DbError) -> Result<(), LoadError> {
        let suspect = match target::line(error, self.copy.target) {
            Some(line) => {
                let (chunk, selected, rows) = (Arc::clone(&self.chunk), Arc::clone(&self.selected), range.clone());
                blocking(move || chunk.row_at_line(&selected[rows], line)).await?
            }
            None => None,
        };
        self.search.refuse_range(range, suspect.map(|index| range.start + index));
        Ok(())
    }

    /// The row, by its index in the selection, was refused alone.
    async fn refuse(&mut self, statement: &Statement, index: usize, error: Box<DbError>) -> Result<(), LoadError> {
        let names = self.names().await?;
        if names.is_known_key(&error) {
            self.evidence.take();
            self.open = None;
        }
        let (sqlstate, constraint) = (error.code().code(), names.constraint(&error));
        let meaning = judge(sqlstate).0;
        let reason = target::reason(&error, self.copy.target, &names);
        match self.evidence.refuse(meaning, sqlstate, constraint) {
            Verdict::Reject => {}
            Verdict::Open => _ = self.open.get_or_insert(error),
            Verdict::Probe if self.takes_a_probe(statement, index + 1, &names).await? => {
                self.evidence.take();
                self.open = None;
            }
            Verdict::Probe if meaning == Meaning::Row => {
                let (segment, table) = (self.copy.segment, self.copy.target.table.to_string());
                return Err(LoadError::RowsRefused { segment, table, rows: evidence::ALIKE, reason: Box::new(reason) });
            }
            Verdict::Probe | Verdict::Stop => return Err(self.copy.stop(&error)),
        }
        self.refused.push(RefusedRow { row: self.selected[index], reason });
        Ok(())
    }

    /// Whether the table takes one of the rows from this one on. What it took is undone.
    async fn takes_a_probe(&mut self, statement: &Statement, start: usize, names: &Names) -> Result<bool, LoadError> {
        for row in evidence::probes(start, self.selected.len()) {
            let is_taken = match self.copy_range(statement, row..row + 1).await? {
                Copied::Rows(_) => true,
                Copied::Refused(error) => names.is_known_key(&error),
            };
            self.savepoint = Savepoint::Undo;
            if is_taken {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What the catalog names; asked after the first refusal, which is undone before.
    async fn names(&mut self) -> Result<Arc<Names>, LoadError> {
        if let Some(names) = &self.names {
            return Ok(Arc::clone(names));
        }
        let copy = self.copy;
        let asked = self.savepoint.before(copy.transaction, copy.target.names(copy.transaction)).await;
        let names = Arc::new(asked.flatten().map_err(|error| copy.failed(error))?);
        self.savepoint = Savepoint::Undo;
        self.names = Some(Arc::clone(&names));
        Ok(names)
    }

    /// Whether the run may reject what is refused by now. While no row is taken, the set-up may be at fault, which is the
    /// better answer.
    fn ask_for_rejects(&self) -> Result<(), LoadError> {
        match self.copy.tried {
            Tried::First(RejectLimit { allowance, messages, rejects, repeats }) if self.evidence.is_taken() => {
                let rejects = (rejects + self.refused.len() as u64).saturating_sub(repeats);
                allowance.ask(self.copy.segment, messages, rejects)
            }
            _ => Ok(()),
        }
    }
}
