//! Whether rows may be written that were masked with a key.
//!
//! Always true: no row is loaded that was masked with a key that its column does not know. A column knows the keys that
//! the ledger has of it, and comes to know another one in these cases:
//!
//! | the column has been written with    | the key                                   | it is           |
//! |-------------------------------------|-------------------------------------------|-----------------|
//! | nothing, and holds no `siv` text    | any                                       | the first one   |
//! | other keys, one of which the keyring holds too | the first of the keyring       | a rotation      |
//! | other keys                          | any, with `--new-key`                     | meant           |
//!
//! Otherwise the run is refused. What a column without a key in the ledger has been written with is asked of the table,
//! where this role may read it, since `siv` texts begin with their key's id: a ledger may be younger than its table.
//! `fixed` texts name no key.

use std::collections::BTreeSet;

use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use super::LoadError;
use super::ledger::Ledger;
use super::target::quoted_table;
use crate::chunk::ColumnKey;
use crate::config::{Mask, Pipeline};
use crate::postgres::{PostgresError, quote_identifier};

/// Rows of a table that are looked at.
const SAMPLE_ROWS: u32 = 1000;
const MAY_READ: &str =
    "SELECT pg_catalog.has_column_privilege(pg_catalog.to_regclass($1)::pg_catalog.oid, $2, 'SELECT')";

/// The keys of rows that are to be loaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offered<'a> {
    /// Which key each column was masked with.
    pub(super) columns: &'a [ColumnKey],
    /// The ids of all masking keys that were at hand.
    pub(super) ring: &'a [String],
    /// A key that is not known is meant.
    pub(super) new_key: bool,
}

/// Checks the keys of rows that are to be loaded, and records those that are new. The transaction is to be committed.
pub(super) async fn accept(
    transaction: &Transaction<'_>,
    ledger: &Ledger,
    pipeline: &Pipeline,
    offered: Offered<'_>,
) -> Result<(), LoadError> {
    let known = ledger.known_keys(transaction).await?;
    if offered.columns.iter().all(|key| known.contains(key)) {
        return Ok(());
    }
    ledger.lock_keys(transaction).await?;
    let known = ledger.known_keys(transaction).await?;
    let mut added = Vec::new();
    for key in offered.columns.iter().filter(|key| !known.contains(key)) {
        let mut written: Vec<ColumnKey> = known.iter().filter(|known| known.column == key.column).cloned().collect();
        if written.is_empty() {
            written = found_in_table(transaction, pipeline, &key.column).await?;
        }
        let is_held = |written: &ColumnKey| written == key || offered.ring.contains(&written.key);
        if !(written.is_empty() || offered.new_key || written.iter().any(is_held)) {
            return Err(refusal(pipeline, key, &written));
        }
        if !written.is_empty() && !written.contains(key) {
            tracing::info!(column = key.column, key = key.key, "values are masked with another key from now on");
        }
        added.extend(written);
        added.push(key.clone());
    }
    ledger.record_keys(transaction, &added).await
}

fn refusal(pipeline: &Pipeline, key: &ColumnKey, written: &[ColumnKey]) -> LoadError {
    let names = |key: &ColumnKey| format!("{} ({})", key.key, key.method);
    LoadError::UnknownKey {
        column: key.column.clone(),
        table: pipeline.table.to_string(),
        key: names(key),
        known: written.iter().map(names).collect::<Vec<_>>().join(", "),
    }
}

/// The keys that `siv` texts in the table name, among its first rows.
async fn found_in_table(
    transaction: &Transaction<'_>,
    pipeline: &Pipeline,
    masked_as: &str,
) -> Result<Vec<ColumnKey>, LoadError> {
    let failed = |error| PostgresError::of_statement(&format!("looking for keys in {}", pipeline.table), error);
    let table = quoted_table(&pipeline.table);
    let mut found = BTreeSet::new();
    for column in pipeline.columns.iter().filter(|column| column.mask.is_some() && column.masked_as() == masked_as) {
        let parameters =
            [(&table as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT), (&column.name, Type::TEXT)];
        let may_read = transaction.query_typed_one(MAY_READ, &parameters).await.and_then(|row| row.try_get(0));
        if !may_read.map_err(failed)? {
            continue;
        }
        let name = quote_identifier(&column.name);
        let statement = format!(
            "SELECT DISTINCT pg_catalog.substr(value, 1, 8) \
             FROM (SELECT {name}::pg_catalog.text AS value FROM {table} LIMIT {SAMPLE_ROWS}) AS sample \
             WHERE value OPERATOR(pg_catalog.~) '^[0-9a-f]{{8}}:[0-9a-f]{{64}}'"
        );
        for row in transaction.query_typed(&statement, &[]).await.map_err(failed)? {
            found.insert(row.try_get::<_, String>(0).map_err(failed)?);
        }
    }
    let of_siv = |key| ColumnKey { column: masked_as.to_owned(), method: Mask::Siv.name().to_owned(), key };
    Ok(found.into_iter().map(of_siv).collect())
}
