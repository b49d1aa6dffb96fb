//! The pipeline's row: its number, and the table that it loads.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::super::LoadError;
use super::{VERSION, ledger_error};

const VERSION_OF: &str = "SELECT version FROM pgsluice.ledger_version";
const EXISTS: &str = "SELECT pg_catalog.to_regclass('pgsluice.segment') IS NOT NULL, \
     pg_catalog.to_regclass('pgsluice.ledger_version') IS NOT NULL";
const FIND: &str = "SELECT id, target FROM pgsluice.pipeline WHERE name OPERATOR(pg_catalog.=) $1";
const INSERT: &str = "INSERT INTO pgsluice.pipeline (name, target) VALUES ($1, $2) ON CONFLICT DO NOTHING";

const SET: &str = "INSERT INTO pgsluice.pipeline (name, target) VALUES ($1, $2) \
     ON CONFLICT (name) DO UPDATE SET target = excluded.target";

/// A pipeline as the ledger knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::load) struct PipelineRow {
    pub(in crate::load) id: i32,
    /// Its table as `schema.table`; `None` where version 1 wrote the row.
    pub(in crate::load) target: Option<String>,
}

impl PipelineRow {
    /// Looks at the ledger's version, and for the pipeline. A transaction of its own.
    pub(in crate::load) async fn find(client: &Client, name: &str) -> Result<Option<Self>, LoadError> {
        check_version(client).await?;
        let found = client.query_typed(FIND, &[(&name, Type::TEXT)]).await.map_err(ledger_error("reading"))?;
        found
            .first()
            .map(|row| Ok(Self { id: row.try_get(0)?, target: row.try_get(1)? }))
            .transpose()
            .map_err(ledger_error("reading"))
    }

    /// Records that the pipeline loads this table from now on.
    pub(in crate::load) async fn set_target(client: &Client, name: &str, target: &str) -> Result<(), LoadError> {
        let set = client.execute_typed(SET, &[(&name, Type::TEXT), (&target, Type::TEXT)]).await;
        set.map(|_| ()).map_err(ledger_error("recording a pipeline in"))
    }

    /// The pipeline's row, which is made where it is missing. `target` is the table as `schema.table`; one that the ledger
    /// knows with another table is refused.
    pub(in crate::load) async fn ensure(client: &Client, name: &str, target: &str) -> Result<Self, LoadError> {
        let mut found = Self::find(client, name).await?;
        if found.is_none() {
            let inserted = client.execute_typed(INSERT, &[(&name, Type::TEXT), (&target, Type::TEXT)]).await;
            inserted.map_err(ledger_error("recording a pipeline in"))?;
            found = Self::find(client, name).await?;
        }
        let row = found.ok_or(LoadError::NoLedger)?;
        match &row.target {
            Some(known) if known != target => {
                Err(LoadError::OtherTable { pipeline: name.to_owned(), table: target.to_owned(), known: known.clone() })
            }
            _ => Ok(row),
        }
    }
}

/// Checks that the ledger is there, and of the version that this program knows.
pub(in crate::load) async fn check_version(client: &Client) -> Result<(), LoadError> {
    let exists = client.query_typed_one(EXISTS, &[]).await.map_err(ledger_error("looking at"))?;
    let exists = exists.try_get(0).and_then(|any| Ok((any, exists.try_get(1)?)));
    let version = match exists.map_err(ledger_error("looking at"))? {
        (false, _) => return Err(LoadError::NoLedger),
        (true, false) => 1,
        (true, true) => {
            let row = client.query_typed_opt(VERSION_OF, &[]).await.map_err(ledger_error("reading"))?;
            row.map_or(Ok(0), |row| row.try_get(0)).map_err(ledger_error("reading"))?
        }
    };
    match version {
        VERSION => Ok(()),
        newer if newer > VERSION => Err(LoadError::NewerLedger { version: newer }),
        older => Err(LoadError::OlderLedger { version: older }),
    }
}
