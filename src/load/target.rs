//! The table that rows are copied into, and what an error about a row of it says: the line, the column or constraint,
//! the reason. Never a value.
//!
//! The server's texts quote values and come in its language, so only names that we know, numbers and SQLSTATEs
//! are taken from them.

use tokio_postgres::error::DbError;

use crate::config::{Pipeline, TableName};
use crate::postgres::{Refusal, quote_identifier, quote_qualified};
use crate::reason::{Reason, Stage};

/// The table that rows are copied into.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) table: TableName,
    pub(super) columns: Vec<String>,
    pub(super) copy_statement: String,
}

impl Target {
    pub(super) fn new(pipeline: &Pipeline) -> Self {
        let columns: Vec<String> = pipeline.columns.iter().map(|column| column.name.clone()).collect();
        let quoted: Vec<String> = columns.iter().map(|column| quote_identifier(column)).collect();
        let copy_statement =
            format!("COPY {} ({}) FROM STDIN (FORMAT csv)", quoted_table(&pipeline.table), quoted.join(", "));
        Self { table: pipeline.table.clone(), columns, copy_statement }
    }
}

/// A table's name as SQL text.
pub(super) fn quoted_table(table: &TableName) -> String {
    quote_qualified(table.schema.as_deref(), &table.table)
}

/// Why a row was refused.
pub(super) fn reason(error: &DbError, target: &Target) -> Reason {
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
    let names = Refusal::from(error).names();
    let field = names.constraint.or(names.column).map(str::to_owned).or_else(|| column(error, target));
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
