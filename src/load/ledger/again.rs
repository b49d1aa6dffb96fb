//! Forgets segments, so that they are loaded again into a table that was emptied.
//!
//! Always true: what a segment owns is forgotten with it, in one transaction, and nothing else. The pipeline's row then
//! says that a replay is under way, until all is loaded. Another `replay --again` meanwhile goes on with that replay, and
//! forgets nothing that it loaded. Only where the table is empty again does it begin anew.

use std::time::SystemTime;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, GenericClient, Row, Transaction};
use uuid::Uuid;

use super::super::LoadError;
use super::{Ledger, count, ledger_error};
use crate::segment::SegmentId;

const LOCK: &str =
    "SELECT again_since, again_keeps_rows FROM pgsluice.pipeline WHERE id OPERATOR(pg_catalog.=) $1 FOR UPDATE";
const BEGUN: &str = "UPDATE pgsluice.pipeline SET again_since = pg_catalog.clock_timestamp(), again_keeps_rows = $2 \
     WHERE id OPERATOR(pg_catalog.=) $1";
const ENDED: &str = "UPDATE pgsluice.pipeline SET again_since = NULL, again_keeps_rows = false \
     WHERE id OPERATOR(pg_catalog.=) $1";
const MESSAGES: &str = "DELETE FROM pgsluice.message USING pgsluice.segment \
     WHERE segment.pipeline OPERATOR(pg_catalog.=) $1 AND segment.id OPERATOR(pg_catalog.=) ANY ($2) \
     AND segment.loaded_at OPERATOR(pg_catalog.<) coalesce($3, 'infinity') \
     AND message.pipeline OPERATOR(pg_catalog.=) $1 AND message.segment_no OPERATOR(pg_catalog.=) segment.segment_no";
const REJECTS: &str = "DELETE FROM pgsluice.reject USING pgsluice.segment \
     WHERE segment.pipeline OPERATOR(pg_catalog.=) $1 AND segment.id OPERATOR(pg_catalog.=) ANY ($2) \
     AND segment.loaded_at OPERATOR(pg_catalog.<) coalesce($3, 'infinity') \
     AND reject.pipeline OPERATOR(pg_catalog.=) $1 AND reject.segment_no OPERATOR(pg_catalog.=) segment.segment_no";
const SEGMENTS: &str = "DELETE FROM pgsluice.segment WHERE pipeline OPERATOR(pg_catalog.=) $1 \
     AND id OPERATOR(pg_catalog.=) ANY ($2) AND loaded_at OPERATOR(pg_catalog.<) coalesce($3, 'infinity')";
// Version 1 did not know the owner of a message that was restored from a dump, and a segment may have been deleted by
// hand. Nothing of these messages is in a table that is empty.
const OWNERLESS: &str = "DELETE FROM pgsluice.message WHERE pipeline OPERATOR(pg_catalog.=) $1 \
     AND NOT EXISTS (SELECT FROM pgsluice.segment \
     WHERE segment.segment_no OPERATOR(pg_catalog.=) message.segment_no)";
const NOT_HERE: &str = "SELECT host, pg_catalog.count(*), pg_catalog.sum(loaded)::bigint FROM pgsluice.segment \
     WHERE pipeline OPERATOR(pg_catalog.=) $1 AND loaded OPERATOR(pg_catalog.>) 0 \
     AND NOT (id OPERATOR(pg_catalog.=) ANY ($2)) GROUP BY host ORDER BY host";

/// What a `replay --again` forgot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten {
    /// Segments that the ledger had and does not have any more.
    pub segments: u64,
    /// An earlier `replay --again` had not ended; this one goes on with it.
    pub goes_on: bool,
}

/// Segments that the ledger has and that a replay does not hold, by host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotHere {
    /// The host that loaded them.
    pub host: String,
    /// Their number.
    pub segments: u64,
    /// Rows that they added to the table.
    pub loaded: u64,
}

/// What a replay may find in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::load) enum TableState {
    Empty,
    HoldsRows,
}

impl Ledger {
    /// Forgets the segments, except those that an unfinished replay loaded. `keep_rows`: also where the table holds rows
    /// that no unfinished replay explains; without it nothing is forgotten then, and `None` is returned.
    pub(in crate::load) async fn forget(
        &self,
        transaction: &Transaction<'_>,
        segments: &[SegmentId],
        table: TableState,
        keep_rows: bool,
    ) -> Result<Option<Forgotten>, LoadError> {
        let failed = || ledger_error("removing segments from");
        let pipeline: [(&(dyn ToSql + Sync), Type); 1] = [(&self.pipeline, Type::INT4)];
        let row = transaction.query_typed_one(LOCK, &pipeline).await.map_err(failed())?;
        let since: Option<SystemTime> = row.try_get(0).map_err(failed())?;
        let kept_rows: bool = row.try_get(1).map_err(failed())?;
        let holds_rows = table == TableState::HoldsRows;
        let goes_on = since.is_some() && holds_rows && (keep_rows || !kept_rows);
        if holds_rows && !goes_on && !keep_rows {
            return Ok(None);
        }
        let segments = self.forget_loaded_before(transaction, segments, since.filter(|_| goes_on)).await?;
        if !holds_rows {
            transaction.execute_typed(OWNERLESS, &pipeline).await.map_err(failed())?;
        }
        if !goes_on {
            let parameters = [(&self.pipeline as _, Type::INT4), (&holds_rows as _, Type::BOOL)];
            transaction.execute_typed(BEGUN, &parameters).await.map_err(failed())?;
        }
        Ok(Some(Forgotten { segments, goes_on }))
    }

    /// `before`: only those that were loaded before this time.
    async fn forget_loaded_before(
        &self,
        transaction: &Transaction<'_>,
        segments: &[SegmentId],
        before: Option<SystemTime>,
    ) -> Result<u64, LoadError> {
        let ids: Vec<Uuid> = segments.iter().map(|segment| segment.as_uuid()).collect();
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&self.pipeline, Type::INT4), (&ids, Type::UUID_ARRAY), (&before, Type::TIMESTAMPTZ)];
        let mut forgotten = 0;
        for statement in [MESSAGES, REJECTS, SEGMENTS] {
            let deleted = transaction.execute_typed(statement, &parameters).await;
            forgotten = deleted.map_err(ledger_error("removing segments from"))?;
        }
        Ok(forgotten)
    }

    /// Records that all that was forgotten is loaded.
    pub(in crate::load) async fn end_again(&self, client: &Client) -> Result<(), LoadError> {
        let ended = client.execute_typed(ENDED, &[(&self.pipeline, Type::INT4)]).await;
        ended.map(|_| ()).map_err(ledger_error("ending a replay in"))
    }

    /// Segments with rows that the ledger has and that are not among these.
    pub(in crate::load) async fn not_among(
        &self,
        client: &impl GenericClient,
        segments: &[SegmentId],
    ) -> Result<Vec<NotHere>, LoadError> {
        let ids: Vec<Uuid> = segments.iter().map(|segment| segment.as_uuid()).collect();
        let read = |row: &Row| Ok(NotHere { host: row.try_get(0)?, segments: count(row, 1)?, loaded: count(row, 2)? });
        let found = client.query_typed(NOT_HERE, &[(&self.pipeline, Type::INT4), (&ids, Type::UUID_ARRAY)]).await;
        found.and_then(|rows| rows.iter().map(read).collect()).map_err(ledger_error("reading"))
    }
}
