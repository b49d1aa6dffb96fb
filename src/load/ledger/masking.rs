//! Which keys each masked column has been written with.

use tokio_postgres::types::Type;
use tokio_postgres::{Row, Transaction};

use super::super::LoadError;
use super::{Ledger, ledger_error};
use crate::chunk::ColumnKey;

const KNOWN: &str = "SELECT column_name, method, key_id FROM pgsluice.masking \
     WHERE pipeline OPERATOR(pg_catalog.=) $1 ORDER BY first_used_at, key_id";
/// Two hosts that both bring a first key take turns, so that the second one finds the key of the first.
const LOCK: &str =
    "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('pgsluice.masking', $1::pg_catalog.int8))";
const INSERT: &str = "INSERT INTO pgsluice.masking (pipeline, column_name, method, key_id) \
     SELECT $1, column_name, method, key_id \
     FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4)) \
     AS added (column_name, method, key_id) ON CONFLICT DO NOTHING";

impl Ledger {
    /// The keys that the pipeline's columns have been written with, the oldest first.
    pub(in crate::load) async fn known_keys(&self, transaction: &Transaction<'_>) -> Result<Vec<ColumnKey>, LoadError> {
        let read = |row: &Row| Ok(ColumnKey { column: row.try_get(0)?, method: row.try_get(1)?, key: row.try_get(2)? });
        let rows = transaction.query_typed(KNOWN, &[(&self.pipeline, Type::INT4)]).await;
        let known = rows.and_then(|rows| rows.iter().map(read).collect());
        known.map_err(ledger_error("reading keys in"))
    }

    /// Until the transaction ends, no other one records keys of this pipeline.
    pub(in crate::load) async fn lock_keys(&self, transaction: &Transaction<'_>) -> Result<(), LoadError> {
        let locked = transaction.query_typed(LOCK, &[(&i64::from(self.pipeline), Type::INT8)]).await;
        locked.map(|_| ()).map_err(ledger_error("locking keys in"))
    }

    /// Records keys that the columns are written with from now on.
    pub(in crate::load) async fn record_keys(
        &self,
        transaction: &Transaction<'_>,
        keys: &[ColumnKey],
    ) -> Result<(), LoadError> {
        let texts = |part: fn(&ColumnKey) -> &str| keys.iter().map(part).collect::<Vec<_>>();
        let (columns, methods, ids) = (texts(|key| &key.column), texts(|key| &key.method), texts(|key| &key.key));
        let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 4] = [
            (&self.pipeline, Type::INT4),
            (&columns, Type::TEXT_ARRAY),
            (&methods, Type::TEXT_ARRAY),
            (&ids, Type::TEXT_ARRAY),
        ];
        let inserted = transaction.execute_typed(INSERT, &parameters).await;
        inserted.map(|_| ()).map_err(ledger_error("recording keys in"))
    }
}
