//! Compares a mapping with the real table before the first message is received, and names all that does not fit.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::create_table::{add_column, change_type};
use super::fitting::{TableType, misfit};
use super::target::quoted_table;
use super::{LoadError, ledger};
use crate::config::{Column, ConfigError, Pipeline, TableName};
use crate::postgres::PostgresError;
use crate::suggestion::closest;

/// The columns of a table `$1`. A domain, which may be based on another one, is followed to its base type.
const COLUMNS: &str = "WITH RECURSIVE types (column_number, id, modifier) AS ( \
         SELECT attnum, atttypid, atttypmod FROM pg_catalog.pg_attribute \
         WHERE attrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1)::pg_catalog.oid \
         AND attnum OPERATOR(pg_catalog.>) 0 AND NOT attisdropped \
         UNION ALL SELECT column_number, typbasetype, typtypmod \
         FROM types JOIN pg_catalog.pg_type ON pg_type.oid OPERATOR(pg_catalog.=) id \
         WHERE typtype OPERATOR(pg_catalog.=) 'd' \
     ) \
     SELECT attname::pg_catalog.text, pg_catalog.format_type(id, modifier), \
     CASE WHEN typnamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace \
         THEN typname::pg_catalog.text ELSE '' END, \
     typcategory::pg_catalog.text, modifier, \
     attnotnull AND NOT atthasdef AND attidentity OPERATOR(pg_catalog.=) '', \
     attgenerated OPERATOR(pg_catalog.<>) '', \
     pg_catalog.has_column_privilege(attrelid, attnum, 'INSERT') \
     FROM types JOIN pg_catalog.pg_type AS base ON base.oid OPERATOR(pg_catalog.=) id \
     JOIN pg_catalog.pg_attribute ON attnum OPERATOR(pg_catalog.=) column_number \
     WHERE attrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1)::pg_catalog.oid \
     AND typtype OPERATOR(pg_catalog.<>) 'd' ORDER BY attnum";

/// A column of the real table.
#[derive(Debug, Clone)]
struct TableColumn {
    name: String,
    kind: TableType,
    /// NOT NULL, and nothing but the mapping can fill it.
    needed: bool,
    generated: bool,
    may_insert: bool,
}

/// Something of the table that does not fit the mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// What it is.
    pub problem: String,
    /// SQL that mends it, where the table is what should change.
    pub sql: Option<String>,
    /// The role may not write the column; otherwise column and mapping do not fit each other.
    is_denied: bool,
}

/// Checks the ledger, the table, and each column of the mapping.
pub(super) async fn check(client: &Client, pipeline: &Pipeline) -> Result<(), LoadError> {
    ledger::check(client).await?;
    let (denied, misfits): (Vec<_>, Vec<_>) =
        misfits(client, pipeline).await?.into_iter().partition(|misfit| misfit.is_denied);
    if !misfits.is_empty() {
        let problems: Vec<String> = misfits.into_iter().map(|misfit| misfit.problem).collect();
        let (table, problem) = (pipeline.table.to_string(), problems.join("; "));
        return Err(ConfigError::MappingMismatch { table, problem }.into());
    }
    if let Some(denied) = denied.into_iter().next() {
        let place = format!(", {}", denied.problem);
        return Err(PostgresError::forbidden(&format!("INSERT into {}", pipeline.table), place).into());
    }
    Ok(())
}

/// All of the table that does not fit the mapping.
pub(super) async fn misfits(client: &Client, pipeline: &Pipeline) -> Result<Vec<Misfit>, LoadError> {
    let columns = read_columns(client, pipeline).await?;
    if columns.is_empty() {
        return Err(LoadError::NoTable { table: pipeline.table.to_string() });
    }
    Ok(problems(pipeline, &columns))
}

/// How many characters each of these masked columns holds, where its type says. One that does not take masked texts is
/// refused.
pub(super) async fn check_masked(
    client: &Client,
    pipeline: &Pipeline,
    columns: &[Column],
) -> Result<Vec<Option<usize>>, LoadError> {
    let table = read_columns(client, pipeline).await?;
    let (mut limits, mut found_problems) = (Vec::new(), Vec::new());
    for column in columns {
        match table.iter().find(|found| found.name == column.name) {
            None => found_problems.push(format!("there is no column {}", column.name)),
            Some(found) => {
                found_problems.extend(mismatch(pipeline, column, found).map(|misfit| misfit.problem));
                limits.push(found.kind.character_limit());
            }
        }
    }
    if found_problems.is_empty() {
        return Ok(limits);
    }
    let (table, problem) = (pipeline.table.to_string(), found_problems.join("; "));
    Err(ConfigError::MappingMismatch { table, problem }.into())
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
            kind: TableType {
                shown: row.try_get(1)?,
                name: row.try_get(2)?,
                category: row.try_get(3)?,
                modifier: row.try_get(4)?,
            },
            needed: row.try_get(5)?,
            generated: row.try_get(6)?,
            may_insert: row.try_get(7)?,
        })
    };
    let rows = client.query_typed(COLUMNS, &[(&quoted_table(&pipeline.table), Type::TEXT)]).await;
    let columns = rows.and_then(|rows| rows.iter().map(read).collect());
    let action = format!("looking at table {}", pipeline.table);
    columns.map_err(|error| PostgresError::of_statement(&action, error).into())
}

fn problems(pipeline: &Pipeline, table: &[TableColumn]) -> Vec<Misfit> {
    let is_mapped = |name: &str| pipeline.columns.iter().any(|mapped| mapped.name == name);
    let mapped = |column: &&TableColumn| is_mapped(&column.name);
    let find = |name: &str| table.iter().find(|candidate| candidate.name == name);
    let mut problems: Vec<Misfit> =
        pipeline.columns.iter().filter_map(|column| mismatch(pipeline, column, find(&column.name)?)).collect();
    let missing: Vec<&Column> = pipeline.columns.iter().filter(|column| find(&column.name).is_none()).collect();
    if !missing.is_empty() {
        let free = || table.iter().map(|column| column.name.as_str()).filter(|name| !is_mapped(name));
        let missing_names = missing.iter().map(|column| match closest(&column.name, free()) {
            Some(meant) => format!("{} (did you mean {meant}?)", column.name),
            None => column.name.clone(),
        });
        let missing_names: Vec<String> = missing_names.collect();
        let names: Vec<&str> = table.iter().map(|column| column.name.as_str()).collect();
        let sql: Vec<String> = missing.iter().map(|column| add_column(pipeline, column)).collect();
        problems.push(Misfit {
            problem: format!("there is no column {} (there are {})", missing_names.join(", "), names.join(", ")),
            sql: Some(sql.join(" ")),
            is_denied: false,
        });
    }
    for column in table.iter().filter(|column| column.needed && !mapped(column)) {
        let problem = format!("column {} is NOT NULL without a default and not mapped", column.name);
        problems.push(Misfit { problem, sql: None, is_denied: false });
    }
    for column in table.iter().filter(mapped).filter(|column| !column.may_insert) {
        problems.push(Misfit { problem: format!("column {}", column.name), sql: None, is_denied: true });
    }
    problems
}

fn mismatch(pipeline: &Pipeline, column: &Column, found: &TableColumn) -> Option<Misfit> {
    let (problem, sql) = if found.generated {
        ("is generated by the table".to_owned(), None)
    } else {
        (misfit(column, &found.kind)?, Some(change_type(pipeline, column)))
    };
    Some(Misfit { problem: format!("column {} {problem}", column.name), sql, is_denied: false })
}
