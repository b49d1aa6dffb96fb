//! Compares a mapping with the real table before the first message is received, and names all that does not fit.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::target::quoted_table;
use super::{LoadError, ledger};
use crate::config::{Column, ColumnType, ConfigError, Pipeline, TableName};
use crate::postgres::PostgresError;

// A domain is judged by the type that it is based on.
const COLUMNS: &str = "SELECT attribute.attname, base.typname, base.typcategory::pg_catalog.text, \
     CASE WHEN base.typname OPERATOR(pg_catalog.=) ANY ('{varchar,bpchar}'::pg_catalog.name[]) \
         AND modifier OPERATOR(pg_catalog.>) 4 THEN modifier OPERATOR(pg_catalog.-) 4 END, \
     attnotnull AND NOT atthasdef AND attidentity OPERATOR(pg_catalog.=) '', attgenerated OPERATOR(pg_catalog.<>) '', \
     pg_catalog.has_column_privilege(attrelid, attnum, 'INSERT') \
     FROM pg_catalog.pg_attribute AS attribute \
     JOIN pg_catalog.pg_type AS declared ON declared.oid OPERATOR(pg_catalog.=) atttypid \
     CROSS JOIN LATERAL (SELECT declared.typbasetype OPERATOR(pg_catalog.<>) 0) AS domain (is_one) \
     JOIN pg_catalog.pg_type AS base \
         ON base.oid OPERATOR(pg_catalog.=) CASE WHEN is_one THEN declared.typbasetype ELSE declared.oid END \
     CROSS JOIN LATERAL (SELECT CASE WHEN is_one THEN declared.typtypmod ELSE atttypmod END) AS length (modifier) \
     WHERE attrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1) \
     AND attnum OPERATOR(pg_catalog.>) 0 AND NOT attisdropped ORDER BY attnum";

/// A column of the real table.
#[derive(Debug, Clone)]
struct TableColumn {
    name: String,
    kind: String,
    category: String,
    max_length: Option<i32>,
    /// NOT NULL, and nothing but the mapping can fill it.
    needed: bool,
    generated: bool,
    may_insert: bool,
}

/// Checks the ledger, the table, and each column of the mapping.
pub(super) async fn check(client: &Client, pipeline: &Pipeline) -> Result<(), LoadError> {
    ledger::check(client).await?;
    let columns = read_columns(client, pipeline).await?;
    if columns.is_empty() {
        return Err(LoadError::NoTable { table: pipeline.table.to_string() });
    }
    let problems = problems(pipeline, &columns);
    if !problems.is_empty() {
        let (table, problem) = (pipeline.table.to_string(), problems.join("; "));
        return Err(ConfigError::MappingMismatch { table, problem }.into());
    }
    let mapped = |column: &&TableColumn| pipeline.columns.iter().any(|mapped| mapped.name == column.name);
    if let Some(column) = columns.iter().filter(mapped).find(|column| !column.may_insert) {
        let place = format!(", column {}", column.name);
        return Err(PostgresError::forbidden(&format!("INSERT into {}", pipeline.table), place).into());
    }
    Ok(())
}

/// The table's name as `schema.table`, whatever the role's `search_path` is.
pub(super) async fn qualified_name(client: &Client, table: &TableName) -> Result<String, LoadError> {
    const QUALIFIED: &str = "SELECT nspname, relname FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace \
         ON pg_namespace.oid OPERATOR(pg_catalog.=) relnamespace \
         WHERE pg_class.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1)";
    let found = client.query_typed_opt(QUALIFIED, &[(&quoted_table(table), Type::TEXT)]).await;
    let name = found.and_then(|row| {
        row.map(|row| Ok(format!("{}.{}", row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?))).transpose()
    });
    let name = name.map_err(|error| PostgresError::of_statement(&format!("looking at table {table}"), error))?;
    name.ok_or_else(|| LoadError::NoTable { table: table.to_string() })
}

async fn read_columns(client: &Client, pipeline: &Pipeline) -> Result<Vec<TableColumn>, LoadError> {
    let read = |row: &Row| {
        Ok(TableColumn {
            name: row.try_get(0)?,
            kind: row.try_get(1)?,
            category: row.try_get(2)?,
            max_length: row.try_get(3)?,
            needed: row.try_get(4)?,
            generated: row.try_get(5)?,
            may_insert: row.try_get(6)?,
        })
    };
    let rows = client.query_typed(COLUMNS, &[(&quoted_table(&pipeline.table), Type::TEXT)]).await;
    let columns = rows.and_then(|rows| rows.iter().map(read).collect());
    let action = format!("looking at table {}", pipeline.table);
    columns.map_err(|error| PostgresError::of_statement(&action, error).into())
}

fn problems(pipeline: &Pipeline, table: &[TableColumn]) -> Vec<String> {
    let find = |name: &str| table.iter().find(|candidate| candidate.name == name);
    let mut problems: Vec<String> =
        pipeline.columns.iter().filter_map(|column| mismatch(column, find(&column.name)?)).collect();
    let missing: Vec<&str> =
        pipeline.columns.iter().map(|column| column.name.as_str()).filter(|name| find(name).is_none()).collect();
    if !missing.is_empty() {
        let names: Vec<&str> = table.iter().map(|column| column.name.as_str()).collect();
        problems.push(format!("there is no column {} (there are {})", missing.join(", "), names.join(", ")));
    }
    let mapped = |column: &&TableColumn| pipeline.columns.iter().any(|mapped| mapped.name == column.name);
    for column in table.iter().filter(|column| column.needed && !mapped(column)) {
        problems.push(format!("column {} is NOT NULL without a default and not mapped", column.name));
    }
    problems
}

fn mismatch(column: &Column, found: &TableColumn) -> Option<String> {
    let name = &column.name;
    if found.generated {
        return Some(format!("column {name} is generated by the table"));
    }
    if !takes(found, column.kind) {
        return Some(format!("column {name} is of type {}, which does not take {}", found.kind, column.kind.name()));
    }
    let limit = found.max_length.and_then(|length| usize::try_from(length).ok());
    match (column.max_length, limit) {
        (Some(declared), Some(limit)) if declared > limit => {
            Some(format!("column {name} holds {limit} characters, and max_length is {declared}"))
        }
        _ => None,
    }
}

/// Whether the text that is written for a type is one that the column reads as the same value.
fn takes(column: &TableColumn, kind: ColumnType) -> bool {
    let any_text = column.category == "S";
    let accepted: &[&str] = match kind {
        // What has no type of its own in a mapping (an enum, inet, …) is mapped as text and checked by Postgres.
        ColumnType::Text => {
            let has_own_type = matches!(column.kind.as_str(), "uuid" | "json" | "jsonb" | "bytea");
            return !has_own_type && !matches!(column.category.as_str(), "N" | "B" | "D" | "A");
        }
        ColumnType::Integer | ColumnType::Version | ColumnType::PackedVersion => {
            &["int2", "int4", "int8", "numeric", "float8"]
        }
        ColumnType::Bigint => &["int8", "numeric"],
        ColumnType::Numeric => &["numeric", "float8", "float4"],
        ColumnType::Boolean => &["bool"],
        // Not `timestamp`, which drops the offset in silence.
        ColumnType::Timestamptz => &["timestamptz"],
        ColumnType::Date => &["date", "timestamp"],
        ColumnType::Uuid => &["uuid"],
        ColumnType::Jsonb => &["jsonb", "json"],
    };
    any_text || accepted.contains(&column.kind.as_str())
}
