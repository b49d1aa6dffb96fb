//! The SQL that gives a mapping the table, or the column, that it needs.

use super::target::quoted_table;
use crate::config::{Column, ColumnType, Pipeline};
use crate::postgres::quote_identifier;

/// `CREATE TABLE` with the columns of the mapping, each of a type that takes every value as it is.
#[must_use]
pub fn create_table(pipeline: &Pipeline) -> String {
    let columns = pipeline.columns.iter().map(|column| format!("    {}", definition(column)));
    let columns: Vec<String> = columns.collect();
    format!("create table {} (\n{}\n);", quoted_table(&pipeline.table), columns.join(",\n"))
}

/// The SQL that adds a column which is missing.
pub(super) fn add_column(pipeline: &Pipeline, column: &Column) -> String {
    format!("alter table {} add column {};", quoted_table(&pipeline.table), definition(column))
}

/// The SQL that gives a column which changes or refuses values the type that takes them.
pub(super) fn change_type(pipeline: &Pipeline, column: &Column) -> String {
    let (name, kind) = (quote_identifier(&column.name), sql_type(column));
    format!("alter table {} alter column {name} type {kind} using {name}::{kind};", quoted_table(&pipeline.table))
}

fn definition(column: &Column) -> String {
    let not_null = if column.required { " not null" } else { "" };
    format!("{} {}{not_null}", quote_identifier(&column.name), sql_type(column))
}

const fn sql_type(column: &Column) -> &'static str {
    match column.kind {
        ColumnType::Text => "text",
        ColumnType::Integer | ColumnType::Version | ColumnType::PackedVersion => "integer",
        ColumnType::Bigint => "bigint",
        ColumnType::Double => "double precision",
        ColumnType::Numeric => "numeric",
        ColumnType::Boolean => "boolean",
        ColumnType::Timestamptz => "timestamptz",
        ColumnType::Date => "date",
        ColumnType::Uuid => "uuid",
        ColumnType::Jsonb => "jsonb",
    }
}
