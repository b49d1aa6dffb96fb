//! What a rekey would do, found out by reading the whole table.

use std::sync::Arc;

use super::super::{LoadError, preflight};
use super::{Rekeyer, table};
use crate::config::ConfigError;

/// What a rekey would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RekeyPlan {
    /// The table, as `schema.table`.
    pub table: String,
    /// The columns that are rekeyed.
    pub columns: Vec<String>,
    /// The id of the key that their values will be masked with.
    pub key: String,
    /// Rows that hold a value that the key did not mask.
    pub rows: u64,
    /// The size of the table with its partitions, indexes and TOAST, in bytes.
    pub bytes: u64,
    /// Its unique and exclusion indexes over these columns.
    pub unique_indexes: Vec<String>,
}

impl Rekeyer {
    /// Reads the whole table, and finds a column that is too narrow. Writes nothing.
    pub async fn plan(&mut self) -> Result<RekeyPlan, LoadError> {
        let columns: Vec<_> = self.batch.recoders.iter().map(|recoder| recoder.column.clone()).collect();
        let limits = preflight::check_masked(self.transactions.client(), &self.pipeline, &columns).await?;
        let size = self.size().await?;
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let unique_indexes = table::unique_indexes(self.transactions.client(), &self.pipeline, &names).await?;
        self.counts.begin_pass(size.blocks);
        let mut rows = 0;
        let mut start = 0;
        while start < size.blocks {
            let range = start..size.blocks.min(start + size.step());
            let batch = Arc::clone(&self.batch);
            let found = self.transactions.run(async |transaction| batch.measure(transaction, &range).await).await?;
            for ((column, limit), needed) in names.iter().zip(&limits).zip(&found.characters) {
                if let (Some(limit), Some(needed)) = (limit, needed)
                    && needed > limit
                {
                    let table = self.batch.table.clone();
                    let problem =
                        format!("column {column} holds {limit} characters, and a value of it will have {needed}");
                    return Err(ConfigError::MappingMismatch { table, problem }.into());
                }
            }
            rows += found.rows;
            start = range.end;
            self.counts.pass_blocks(start);
        }
        Ok(RekeyPlan {
            table: self.batch.table.clone(),
            columns: names.into_iter().map(str::to_owned).collect(),
            key: self.batch.recoders.first().map_or_else(String::new, |recoder| recoder.key_id().to_owned()),
            rows,
            bytes: size.bytes,
            unique_indexes,
        })
    }
}
