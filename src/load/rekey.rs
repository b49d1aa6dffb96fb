//! Masks the values of columns with the first key instead of older ones, or by `siv` instead of `fixed`.
//!
//! Always true:
//! - the ledger knows the new key before the first value is written with it;
//! - a value is written only over the text that it was read from, so what others change meanwhile stays theirs;
//! - whatever cannot be revealed, or is refused by the table, stays as it is, and is told at the end.
//!
//! So a rekey that is killed anywhere is resumed by starting it again: a text says by which key it was masked, and
//! those of the first key are skipped. `fixed` texts name no key, which is why values only come from there.
//!
//! The table is read block by block, because it may have no key: a range of blocks of all its partitions at once, which
//! is split until what it holds fits a short transaction. Passes follow one another until one changes nothing; what a
//! row's other writers moved into blocks that were done before is found by the next.

mod batch;
mod counts;
mod plan;
mod recode;
mod table;
mod transactions;

use std::collections::BTreeMap;
use std::iter;
use std::ops::Range;
use std::sync::Arc;

use self::batch::{Batch, StaleRow};
use self::recode::Recoder;
use self::table::Size;
use self::transactions::Transactions;
use super::known_keys::{self, Offered};
use super::ledger::{self, Ledger, PipelineRow};
use super::target::Target;
use super::{LoadError, preflight};
use crate::chunk::ColumnKey;
use crate::config::{DatabaseUrl, Mask, Pipeline};
use crate::host::host_name;
use crate::keyring::{Algorithm, Keyring};
use crate::postgres::sqlstate::{Meaning, judge};
use crate::postgres::{Database, PostgresError};

pub use counts::RekeyCounts;
pub use plan::RekeyPlan;

/// Blocks, of all partitions together, that are looked at in one statement: 8 MB.
const STEP_BLOCKS: u64 = 1024;
/// Rows of one transaction, about, unless a single block holds more.
const BATCH_ROWS: u64 = 5_000;
/// Bytes of text of one transaction, about, unless a single block holds more.
const BATCH_BYTES: u64 = 8_000_000;

/// Rekeys the table of one pipeline over one connection, which it opens again when it is lost.
pub struct Rekeyer {
    transactions: Transactions,
    ledger: Ledger,
    pipeline: Pipeline,
    batch: Arc<Batch>,
    keys: Keyring,
    counts: Arc<RekeyCounts>,
}

/// Values that stay as they are, for one reason.
#[derive(Debug)]
struct Left {
    values: u64,
    /// One of them: `(0,1) of public.user_logins`.
    place: String,
    reason: String,
}

/// What a pass did.
#[derive(Debug, Default)]
struct Pass {
    changed: u64,
    /// By column; the empty name stands for whole rows.
    left: BTreeMap<String, Left>,
}

impl Rekeyer {
    /// Connects, and checks ledger, table and keys. `column`: the only one; otherwise all that are masked by `siv`.
    pub async fn connect(
        database: &DatabaseUrl,
        pipeline: &Pipeline,
        keys: &Keyring,
        column: Option<&str>,
    ) -> Result<Self, LoadError> {
        let recoders = recode::of_columns(pipeline, keys, column)?;
        let database = Database::new(database).map_err(PostgresError::from)?;
        let connection = database.connect().await?;
        let client = &connection.client;
        ledger::check_version(client).await?;
        let name = preflight::qualified_name(client, &pipeline.table).await?;
        let row = PipelineRow::find(client, &pipeline.name).await?;
        let row = row.ok_or_else(|| LoadError::NoPipeline { pipeline: pipeline.name.clone() })?;
        if let Some(known) = row.target.filter(|known| *known != name) {
            return Err(LoadError::OtherTable { pipeline: pipeline.name.clone(), table: name, known });
        }
        table::check(client, pipeline).await?;
        let ledger =
            Ledger { pipeline: row.id, host: host_name(), mapping: pipeline.fingerprint(), with_rejects: false };
        Ok(Self {
            transactions: Transactions::over(database, connection, Target::new(pipeline)),
            ledger,
            pipeline: pipeline.clone(),
            batch: Arc::new(Batch::new(name, &pipeline.table, recoders)),
            keys: keys.clone(),
            counts: Arc::default(),
        })
    }

    /// What was done so far.
    #[must_use]
    pub fn counts(&self) -> Arc<RekeyCounts> {
        Arc::clone(&self.counts)
    }

    /// Rekeys, in passes until one changes nothing. Dropping the future rolls back the batch that is being written.
    pub async fn rekey(&mut self) -> Result<(), LoadError> {
        self.record_key().await?;
        loop {
            let pass = self.pass().await?;
            if pass.changed > 0 {
                continue;
            }
            if pass.left.is_empty() {
                return Ok(());
            }
            let told: Vec<String> = pass.left.iter().map(|(column, left)| told(column, left)).collect();
            return Err(LoadError::NotRekeyed { table: self.batch.table.clone(), told: told.join("; ") });
        }
    }

    /// Before anything is written with it.
    async fn record_key(&mut self) -> Result<(), LoadError> {
        let of_column = |recoder: &Recoder| ColumnKey {
            column: recoder.column.masked_as().to_owned(),
            method: Mask::Siv.name().to_owned(),
            key: recoder.key_id().to_owned(),
        };
        let columns: Vec<ColumnKey> = self.batch.recoders.iter().map(of_column).collect();
        let masking = self.keys.iter().filter(|key| key.algorithm() != Algorithm::Spool);
        let ring: Vec<String> = masking.map(|key| key.id().to_owned()).collect();
        let (ledger, pipeline) = (self.ledger.clone(), self.pipeline.clone());
        let offered = Offered { columns: &columns, ring: &ring, new_key: false };
        self.transactions
            .run(async |transaction| known_keys::accept(transaction, &ledger, &pipeline, offered).await)
            .await
    }

    async fn size(&mut self) -> Result<Size, LoadError> {
        let pipeline = self.pipeline.clone();
        self.transactions.run(async |transaction| table::size(transaction, &pipeline).await).await
    }

    /// Once through the table, as large as it is at the beginning.
    async fn pass(&mut self) -> Result<Pass, LoadError> {
        let size = self.size().await?;
        self.counts.begin_pass(size.blocks);
        let mut pass = Pass::default();
        let mut start = 0;
        while start < size.blocks {
            let end = size.blocks.min(start + size.step());
            let mut ranges: Vec<_> = iter::once(start..end).collect();
            while let Some(range) = ranges.pop() {
                let batch = Arc::clone(&self.batch);
                let found = self.transactions.run(async |transaction| batch.measure(transaction, &range).await).await?;
                let pieces = found.rows.div_ceil(BATCH_ROWS).max(found.bytes.div_ceil(BATCH_BYTES));
                if pieces > 1 && range.end - range.start > 1 {
                    ranges.extend(split(&range, pieces).into_iter().rev());
                } else if found.rows > 0 {
                    self.rekey_range(&range, &mut pass).await?;
                }
            }
            start = end;
            self.counts.pass_blocks(start);
        }
        Ok(pass)
    }

    async fn rekey_range(&mut self, range: &Range<u64>, pass: &mut Pass) -> Result<(), LoadError> {
        let batch = Arc::clone(&self.batch);
        let stale = self.transactions.run(async |transaction| batch.read(transaction, range).await).await?;
        let mut rows = Vec::with_capacity(stale.len());
        for mut row in stale {
            for (recoder, value) in batch.recoders.iter().zip(&mut row.values) {
                match value.old.as_deref().map(|text| recoder.recode(&self.keys, text)).transpose() {
                    Ok(new) => value.new = new.flatten(),
                    Err(error) => pass.leave(&recoder.column.name, &row.place, &error),
                }
            }
            if row.values.iter().any(|value| value.new.is_some()) {
                rows.push(row);
            }
        }
        self.write(range, &rows, pass).await
    }

    /// Writes the rows in one transaction. Where the table refuses them, the half that it refuses is halved until the
    /// one row is found, which stays as it is.
    async fn write(&mut self, range: &Range<u64>, rows: &[StaleRow], pass: &mut Pass) -> Result<(), LoadError> {
        let batch = Arc::clone(&self.batch);
        let mut pieces = vec![rows];
        while let Some(piece) = pieces.pop().filter(|piece| !piece.is_empty()) {
            match self.transactions.run(async |transaction| batch.write(transaction, range, piece).await).await {
                Ok(written) => {
                    pass.changed += written;
                    self.counts.change_rows(written);
                    // Of one that another writer was faster with, the next pass will see more.
                    for row in piece.iter().skip(usize::try_from(written).unwrap_or(usize::MAX)) {
                        pass.leave("", &row.place, &"it was changed meanwhile, or a trigger skipped it");
                    }
                }
                Err(LoadError::Postgres(error)) if is_of_row(&error) => {
                    if let [row] = piece {
                        pass.leave("", &row.place, &error);
                    } else {
                        let (first, second) = piece.split_at(piece.len() / 2);
                        pieces.extend([second, first]);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Pass {
    fn leave(&mut self, column: &str, place: &str, reason: &dyn std::fmt::Display) {
        let left = || Left { values: 0, place: place.to_owned(), reason: reason.to_string() };
        self.left.entry(column.to_owned()).or_insert_with(left).values += 1;
    }
}

fn told(column: &str, Left { values, place, reason }: &Left) -> String {
    let what = if column.is_empty() { "rows".to_owned() } else { format!("column {column}") };
    format!("{what}: {values}, such as {place}: {reason}")
}

/// Whether a row is at fault, and others may succeed.
fn is_of_row(error: &PostgresError) -> bool {
    matches!(error, PostgresError::Refused { sqlstate, .. } if judge(sqlstate).0 == Meaning::Row)
}

/// About this number of parts, each of a block at least.
fn split(range: &Range<u64>, parts: u64) -> Vec<Range<u64>> {
    let length = (range.end - range.start).div_ceil(parts).max(1);
    let starts = (range.start..range.end).step_by(usize::try_from(length).unwrap_or(usize::MAX));
    starts.map(|start| start..range.end.min(start + length)).collect()
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_range_is_split_into_parts_that_are_the_whole() {
        assert_eq!(split(&(3..13), 4), [3..6, 6..9, 9..12, 12..13]);
        assert_eq!(split(&(0..2), 1_000), [0..1, 1..2]);
    }
}
