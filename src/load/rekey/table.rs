//! What a rekey must know of its table: whether it can be rekeyed, its size, and its unique indexes.

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Transaction};

use super::super::LoadError;
use super::super::target::quoted_table;
use super::STEP_BLOCKS;
use crate::config::{ConfigError, Pipeline};
use crate::postgres::PostgresError;

/// The table `$1` and its partitions.
const TABLES: &str = "WITH RECURSIVE tables (id) AS ( \
         SELECT pg_catalog.to_regclass($1)::pg_catalog.oid \
         UNION SELECT inhrelid FROM pg_catalog.pg_inherits JOIN tables ON inhparent OPERATOR(pg_catalog.=) id)";
/// How many there are, the blocks of the largest, and the bytes of all.
const SIZE: &str = "SELECT pg_catalog.count(*), \
     coalesce(pg_catalog.max(pg_catalog.pg_relation_size(id::pg_catalog.regclass) OPERATOR(pg_catalog./) \
         pg_catalog.current_setting('block_size')::pg_catalog.int8), 0), \
     coalesce(pg_catalog.sum(pg_catalog.pg_total_relation_size(id::pg_catalog.regclass)), 0)::pg_catalog.int8 \
     FROM tables JOIN pg_catalog.pg_class ON pg_class.oid OPERATOR(pg_catalog.=) id \
     WHERE relkind OPERATOR(pg_catalog.=) 'r'";
/// What is no ordinary table, and whether policies hide rows from this role.
const PROBLEMS: &str = "SELECT coalesce(pg_catalog.bool_or(relkind OPERATOR(pg_catalog.<>) 'r' \
         AND relkind OPERATOR(pg_catalog.<>) 'p'), false), \
     pg_catalog.row_security_active(pg_catalog.to_regclass($1)::pg_catalog.oid) \
     FROM tables JOIN pg_catalog.pg_class ON pg_class.oid OPERATOR(pg_catalog.=) id";
/// Those that hold one of the columns `$2`, also within an expression or a condition.
const UNIQUE_INDEXES: &str = "SELECT relname::pg_catalog.text FROM pg_catalog.pg_index \
     JOIN pg_catalog.pg_class ON pg_class.oid OPERATOR(pg_catalog.=) indexrelid \
     WHERE indrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1)::pg_catalog.oid \
     AND (indisunique OR indisexclusion) AND EXISTS ( \
         SELECT FROM pg_catalog.pg_attribute AS attribute \
         WHERE attribute.attrelid OPERATOR(pg_catalog.=) indrelid \
         AND attribute.attname::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($2) \
         AND (attribute.attnum OPERATOR(pg_catalog.=) ANY (indkey::pg_catalog.int2[]) OR EXISTS ( \
             SELECT FROM pg_catalog.pg_depend \
             WHERE classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass \
             AND objid OPERATOR(pg_catalog.=) indexrelid AND refobjid OPERATOR(pg_catalog.=) indrelid \
             AND refobjsubid OPERATOR(pg_catalog.=) attribute.attnum))) \
     ORDER BY relname";

/// How large a table is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    tables: u64,
    /// Of its largest partition.
    pub(super) blocks: u64,
    pub(super) bytes: u64,
}

impl Size {
    /// The blocks of each partition that are looked at in one statement.
    pub(super) fn step(self) -> u64 {
        (STEP_BLOCKS / self.tables.max(1)).max(1)
    }
}

/// Refuses what has no blocks, and a table whose rows may be hidden.
pub(super) async fn check(client: &Client, pipeline: &Pipeline) -> Result<(), LoadError> {
    let found = client.query_typed_one(&format!("{TABLES} {PROBLEMS}"), &[(&name(pipeline), Type::TEXT)]).await;
    let (is_other, is_hidden): (bool, bool) =
        found.and_then(|row| Ok((row.try_get(0)?, row.try_get(1)?))).map_err(failed)?;
    let problem = match (is_other, is_hidden) {
        (true, _) => "it, or a partition of it, is no ordinary table",
        (_, true) => "row security hides rows from this role, which would keep their keys",
        _ => return Ok(()),
    };
    Err(ConfigError::MappingMismatch { table: pipeline.table.to_string(), problem: problem.to_owned() }.into())
}

pub(super) async fn size(transaction: &Transaction<'_>, pipeline: &Pipeline) -> Result<Size, LoadError> {
    let found = transaction.query_typed_one(&format!("{TABLES} {SIZE}"), &[(&name(pipeline), Type::TEXT)]).await;
    let size = found.and_then(|row| {
        let number = |column| row.try_get::<_, i64>(column).map(i64::cast_unsigned);
        Ok(Size { tables: number(0)?, blocks: number(1)?, bytes: number(2)? })
    });
    Ok(size.map_err(failed)?)
}

pub(super) async fn unique_indexes(
    client: &Client,
    pipeline: &Pipeline,
    columns: &[&str],
) -> Result<Vec<String>, LoadError> {
    let name = name(pipeline);
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&name, Type::TEXT), (&columns, Type::TEXT_ARRAY)];
    let found = client.query_typed(UNIQUE_INDEXES, &parameters).await;
    Ok(found.and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect()).map_err(failed)?)
}

fn name(pipeline: &Pipeline) -> String {
    quoted_table(&pipeline.table)
}

fn failed(error: tokio_postgres::Error) -> PostgresError {
    PostgresError::of_statement("looking at the table", error)
}
