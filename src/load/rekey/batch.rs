//! The statements on a range of blocks, each of which reads or writes the same blocks of all partitions.
//!
//! They go through the table itself, so the role needs rights on it alone. Both bounds on `ctid` let Postgres read these
//! blocks and no others.

use std::ops::Range;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, Transaction};

use super::super::LoadError;
use super::super::target::quoted_table;
use super::recode::Recoder;
use crate::config::{Mask, TableName};
use crate::mask::masked_length;
use crate::postgres::{PostgresError, quote_identifier};

/// Digits of a `fixed` text for each block of its cipher.
const BLOCK_DIGITS: usize = 32;

/// What is rekeyed together.
#[derive(Debug)]
pub(super) struct Batch {
    /// As `schema.table`, to be shown.
    pub(super) table: String,
    pub(super) recoders: Vec<Recoder>,
    quoted_table: String,
    /// The columns, quoted.
    columns: Vec<String>,
}

/// What a range holds that the first key did not mask.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) rows: u64,
    /// Of text, in the columns.
    pub(super) bytes: u64,
    /// The longest text that a value will have which is masked by `fixed` now; by column.
    pub(super) characters: Vec<Option<usize>>,
}

/// A row that holds a value that the first key did not mask.
#[derive(Debug)]
pub(super) struct StaleRow {
    partition: u32,
    ctid: String,
    /// To be shown.
    pub(super) place: String,
    pub(super) values: Vec<Value>,
}

/// Its text in one column, and the one that it shall have, if it is to change.
#[derive(Debug)]
pub(super) struct Value {
    pub(super) old: Option<String>,
    pub(super) new: Option<String>,
}

impl Batch {
    pub(super) fn new(table: String, name: &TableName, recoders: Vec<Recoder>) -> Self {
        let columns = recoders.iter().map(|recoder| format!("t.{}", quote_identifier(&recoder.column.name)));
        Self { table, quoted_table: quoted_table(name), columns: columns.collect(), recoders }
    }

    /// How much there is to do in a range.
    pub(super) async fn measure(&self, transaction: &Transaction<'_>, range: &Range<u64>) -> Result<Found, LoadError> {
        let sizes = self.texts().map(|text| format!("coalesce(pg_catalog.octet_length({text}), 0)::pg_catalog.int8"));
        let sizes = sizes.collect::<Vec<_>>().join(" OPERATOR(pg_catalog.+) ");
        let longest = self.texts().map(|text| {
            format!(
                ", pg_catalog.max(pg_catalog.length({text})) \
                 FILTER (WHERE {text} OPERATOR(pg_catalog.~) '^([0-9a-fA-F]{{{BLOCK_DIGITS}}})+$')"
            )
        });
        let statement = format!(
            "SELECT pg_catalog.count(*), coalesce(pg_catalog.sum({sizes}), 0)::pg_catalog.int8{} \
             FROM {} AS t WHERE {} AND ({})",
            longest.collect::<String>(),
            self.quoted_table,
            within(range),
            self.stale()
        );
        let row = transaction.query_typed_one(&statement, &[]).await.map_err(|error| self.failed(error))?;
        self.read_found(&row).map_err(|error| self.failed(error).into())
    }

    fn read_found(&self, row: &Row) -> Result<Found, tokio_postgres::Error> {
        let characters = |column: usize| {
            let longest: Option<i32> = row.try_get(column + 2)?;
            // A value of whole blocks has one more for its padding.
            let bytes = longest.and_then(|digits| usize::try_from(digits).ok()).map(|digits| digits / 2 - 1);
            Ok(bytes.map(|bytes| masked_length(Mask::Siv, bytes)))
        };
        Ok(Found {
            rows: row.try_get::<_, i64>(0)?.cast_unsigned(),
            bytes: row.try_get::<_, i64>(1)?.cast_unsigned(),
            characters: (0..self.recoders.len()).map(characters).collect::<Result<_, _>>()?,
        })
    }

    /// The rows of a range in which there is something to do.
    pub(super) async fn read(
        &self,
        transaction: &Transaction<'_>,
        range: &Range<u64>,
    ) -> Result<Vec<StaleRow>, LoadError> {
        let statement = format!(
            "SELECT t.tableoid, t.ctid::pg_catalog.text, t.tableoid::pg_catalog.regclass::pg_catalog.text, {} \
             FROM {} AS t WHERE {} AND ({})",
            self.texts().collect::<Vec<_>>().join(", "),
            self.quoted_table,
            within(range),
            self.stale()
        );
        let rows = transaction.query_typed(&statement, &[]).await;
        let rows = rows.and_then(|rows| rows.iter().map(|row| self.read_row(row)).collect());
        rows.map_err(|error| self.failed(error).into())
    }

    fn read_row(&self, row: &Row) -> Result<StaleRow, tokio_postgres::Error> {
        let (ctid, partition): (String, String) = (row.try_get(1)?, row.try_get(2)?);
        let values = (0..self.recoders.len()).map(|column| Ok(Value { old: row.try_get(column + 3)?, new: None }));
        Ok(StaleRow {
            partition: row.try_get(0)?,
            place: format!("{ctid} of {partition}"),
            ctid,
            values: values.collect::<Result<_, _>>()?,
        })
    }

    /// Writes the new texts where the old ones still are. Returns the number of rows.
    pub(super) async fn write(
        &self,
        transaction: &Transaction<'_>,
        range: &Range<u64>,
        rows: &[StaleRow],
    ) -> Result<u64, LoadError> {
        let partitions: Vec<u32> = rows.iter().map(|row| row.partition).collect();
        let ctids: Vec<&str> = rows.iter().map(|row| row.ctid.as_str()).collect();
        let texts = |column: usize, text: fn(&Value) -> Option<&str>| -> Vec<Option<&str>> {
            rows.iter().map(|row| text(&row.values[column])).collect()
        };
        let values = (0..self.columns.len()).flat_map(|column| {
            [texts(column, |value| value.old.as_deref()), texts(column, |value| value.new.as_deref())]
        });
        let values: Vec<Vec<Option<&str>>> = values.collect();
        let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> =
            vec![(&partitions, Type::OID_ARRAY), (&ctids, Type::TEXT_ARRAY)];
        parameters.extend(values.iter().map(|texts| (texts as &(dyn ToSql + Sync), Type::TEXT_ARRAY)));
        let written = transaction.execute_typed(&self.update(range), &parameters).await;
        written.map_err(|error| self.failed(error).into())
    }

    fn update(&self, range: &Range<u64>) -> String {
        let (mut sets, mut checks) = (Vec::new(), Vec::new());
        let mut names = vec!["part".to_owned(), "place".to_owned()];
        for (index, (column, text)) in self.columns.iter().zip(self.texts()).enumerate() {
            let bare = column.trim_start_matches("t.");
            sets.push(format!("{bare} = coalesce(new_{index}, {text})"));
            checks.push(format!("(new_{index} IS NULL OR {text} OPERATOR(pg_catalog.=) old_{index})"));
            names.extend([format!("old_{index}"), format!("new_{index}")]);
        }
        let arrays: Vec<String> = (1..=names.len()).map(|number| format!("pg_catalog.unnest(${number})")).collect();
        format!(
            "UPDATE {} AS t SET {} FROM ROWS FROM ({}) AS changed ({}) \
             WHERE t.ctid OPERATOR(pg_catalog.=) place::pg_catalog.tid \
             AND t.tableoid OPERATOR(pg_catalog.=) part AND {} AND {}",
            self.quoted_table,
            sets.join(", "),
            arrays.join(", "),
            names.join(", "),
            within(range),
            checks.join(" AND ")
        )
    }

    /// The columns as text, whatever they are.
    fn texts(&self) -> impl Iterator<Item = String> {
        self.columns.iter().map(|column| format!("{column}::pg_catalog.text"))
    }

    /// Whether a row holds a text that does not begin with the first key's id; nulls do not.
    fn stale(&self) -> String {
        let stale = self.texts().zip(&self.recoders).map(|(text, recoder)| {
            let prefix = recoder.prefix();
            let length = prefix.len();
            format!("pg_catalog.\"left\"({text}, {length}) OPERATOR(pg_catalog.<>) '{prefix}'")
        });
        stale.collect::<Vec<_>>().join(" OR ")
    }

    fn failed(&self, error: tokio_postgres::Error) -> PostgresError {
        PostgresError::of_statement(&format!("rekeying {}", self.table), error)
    }
}

/// The rows in these blocks.
fn within(Range { start, end }: &Range<u64>) -> String {
    format!(
        "t.ctid OPERATOR(pg_catalog.>=) '({start},0)'::pg_catalog.tid \
         AND t.ctid OPERATOR(pg_catalog.<) '({end},0)'::pg_catalog.tid"
    )
}
