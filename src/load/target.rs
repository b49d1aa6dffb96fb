//! The table that rows are copied into, and what an error about a row of it says: the line, the column or constraint,
//! the reason. Never a value.
//!
//! The server's texts quote values and come in its language, so only numbers, SQLSTATEs and names are taken from them.
//! A name counts only if the catalog has it: a trigger can put any text into any field of an error (`RAISE … USING
//! COLUMN = NEW.email`).

use std::collections::HashSet;

use tokio_postgres::Transaction;
use tokio_postgres::error::DbError;
use tokio_postgres::types::{ToSql, Type};

use crate::config::{Pipeline, TableName};
use crate::postgres::{quote_identifier, quote_qualified};
use crate::reason::{Reason, Stage};

/// Of a table `$1` and its partitions: the columns, the constraints, those of its columns' domains, and the unique and
/// exclusion indexes; of these last, whether they are keys of the columns `$2` alone. An index over an expression depends
/// on the columns in it, and so does one with a condition.
const NAMES: &str = "WITH RECURSIVE tables (id) AS ( \
         SELECT pg_catalog.to_regclass($1)::pg_catalog.oid \
         UNION SELECT inhrelid FROM pg_catalog.pg_inherits JOIN tables ON inhparent OPERATOR(pg_catalog.=) id \
     ), types (id) AS ( \
         SELECT atttypid FROM pg_catalog.pg_attribute JOIN tables ON attrelid OPERATOR(pg_catalog.=) id \
         UNION SELECT typbasetype FROM pg_catalog.pg_type AS type JOIN types ON type.oid OPERATOR(pg_catalog.=) id \
     ) \
     SELECT attname::pg_catalog.text, true, false \
     FROM pg_catalog.pg_attribute JOIN tables ON attrelid OPERATOR(pg_catalog.=) id \
     UNION SELECT conname::pg_catalog.text, false, false \
     FROM pg_catalog.pg_constraint JOIN tables ON conrelid OPERATOR(pg_catalog.=) id \
     UNION SELECT conname::pg_catalog.text, false, false \
     FROM pg_catalog.pg_constraint JOIN types ON contypid OPERATOR(pg_catalog.=) id \
     UNION SELECT own.relname::pg_catalog.text, false, NOT EXISTS ( \
         SELECT FROM pg_catalog.pg_attribute AS attribute \
         WHERE attribute.attrelid OPERATOR(pg_catalog.=) indrelid \
         AND (attribute.attnum OPERATOR(pg_catalog.=) \
                  ANY ((indkey::pg_catalog.int2[])[0:indnkeyatts OPERATOR(pg_catalog.-) 1]) \
              OR EXISTS ( \
                  SELECT FROM pg_catalog.pg_depend \
                  WHERE classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass \
                  AND objid OPERATOR(pg_catalog.=) indexrelid AND refobjid OPERATOR(pg_catalog.=) indrelid \
                  AND refobjsubid OPERATOR(pg_catalog.=) attribute.attnum)) \
         AND attribute.attname::pg_catalog.text OPERATOR(pg_catalog.<>) ALL ($2)) \
     FROM pg_catalog.pg_index JOIN tables ON indrelid OPERATOR(pg_catalog.=) id \
     JOIN pg_catalog.pg_class AS own ON own.oid OPERATOR(pg_catalog.=) indexrelid \
     WHERE indisunique OR indisexclusion";

/// The table that rows are copied into.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) table: TableName,
    pub(super) columns: Vec<String>,
    pub(super) copy_statement: String,
}

/// The names that an error about a row may have.
#[derive(Debug)]
pub(super) struct Names {
    columns: HashSet<String>,
    constraints: HashSet<String>,
    /// Unique and exclusion indexes over mapped columns alone.
    keys_of_mapping: HashSet<String>,
}

impl Target {
    pub(super) fn new(pipeline: &Pipeline) -> Self {
        let columns: Vec<String> = pipeline.columns.iter().map(|column| column.name.clone()).collect();
        let quoted: Vec<String> = columns.iter().map(|column| quote_identifier(column)).collect();
        let copy_statement =
            format!("COPY {} ({}) FROM STDIN (FORMAT csv)", quoted_table(&pipeline.table), quoted.join(", "));
        Self { table: pipeline.table.clone(), columns, copy_statement }
    }

    /// Asks the catalog for the names. Few loads need them, so each such load asks anew.
    pub(super) async fn names(&self, transaction: &Transaction<'_>) -> Result<Names, tokio_postgres::Error> {
        let mut names = Names { columns: HashSet::new(), constraints: HashSet::new(), keys_of_mapping: HashSet::new() };
        let table = quoted_table(&self.table);
        let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&table, Type::TEXT), (&self.columns, Type::TEXT_ARRAY)];
        for row in transaction.query_typed(NAMES, &parameters).await? {
            let (name, is_column, is_key) = (row.try_get::<_, String>(0)?, row.try_get(1)?, row.try_get(2)?);
            if is_key {
                names.keys_of_mapping.insert(name.clone());
            }
            if is_column { &mut names.columns } else { &mut names.constraints }.insert(name);
        }
        Ok(names)
    }
}

impl Names {
    /// The constraint that a row violates.
    pub(super) fn constraint<'a>(&self, error: &'a DbError) -> Option<&'a str> {
        error.constraint().filter(|&name| self.constraints.contains(name))
    }

    /// Whether the table has a row of the same key, where nothing but the message says what the key is. Any other key, such
    /// as one from a sequence that lies behind, may be no fault of the message.
    pub(super) fn is_known_key(&self, error: &DbError) -> bool {
        matches!(error.code().code(), "23505" | "23P01")
            && error.constraint().is_some_and(|name| self.keys_of_mapping.contains(name))
    }

    fn column<'a>(&self, error: &'a DbError) -> Option<&'a str> {
        error.column().filter(|&name| self.columns.contains(name))
    }
}

/// A table's name as SQL text.
pub(super) fn quoted_table(table: &TableName) -> String {
    quote_qualified(table.schema.as_deref(), &table.table)
}

/// Why a row was refused.
pub(super) fn reason(error: &DbError, target: &Target, names: &Names) -> Reason {
    let sqlstate = error.code().code();
    let condition = match sqlstate {
        "22001" => "too long for the column",
        "22003" => "out of the column's range",
        "22007" | "22008" => "not a date or time that Postgres knows",
        "22P02" => "not a value of the column's type",
        "23502" => "null in a NOT NULL column",
        "23503" => "violates a foreign key",
        "23505" => "violates a unique constraint",
        "23514" => "violates a check constraint",
        "23P01" => "violates an exclusion constraint",
        "44000" => "violates the check option of a view",
        "54000" => "too large for an index",
        code if code.starts_with("P0") => "refused by a trigger",
        _ => "refused by Postgres",
    };
    let known = names.constraint(error).or_else(|| names.column(error));
    let field = known.map(str::to_owned).or_else(|| column(error, target));
    Reason { stage: Stage::Load, field, text: format!("{condition} (SQLSTATE {sqlstate})") }
}

/// The number of the line at which a COPY failed.
pub(super) fn line(error: &DbError, target: &Target) -> Option<u64> {
    let after = after_table(error, target)?;
    let digits = after.trim_start_matches(|character: char| !character.is_ascii_digit());
    let end = digits.find(|character: char| !character.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// The column, where the context names one: `COPY t, line 3, column c: "…"`.
fn column(error: &DbError, target: &Target) -> Option<String> {
    let (place, _) = after_table(error, target)?.split_once(':')?;
    let named = |column: &&String| place.strip_suffix(column.as_str()).is_some_and(|before| before.ends_with(' '));
    target.columns.iter().find(named).cloned()
}

/// What follows the table's name in COPY's own line of the error's context. A value, which may hold anything, comes
/// only after it.
fn after_table<'a>(error: &'a DbError, target: &Target) -> Option<&'a str> {
    error.where_()?.lines().find_map(|line| line.strip_prefix("COPY ")?.strip_prefix(target.table.table.as_str()))
}
