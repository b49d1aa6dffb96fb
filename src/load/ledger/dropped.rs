//! Rejects that a person gives up: found by their reason, and removed.

use std::collections::HashSet;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, Transaction};
use uuid::Uuid;

use super::super::LoadError;
use super::{Ledger, ledger_error};
use crate::segment::SegmentId;

const SEGMENTS: &str = "SELECT DISTINCT reject.segment_no, segment.id, segment.host \
     FROM pgsluice.reject LEFT JOIN pgsluice.segment \
     ON segment.pipeline OPERATOR(pg_catalog.=) reject.pipeline \
     AND segment.segment_no OPERATOR(pg_catalog.=) reject.segment_no \
     WHERE reject.pipeline OPERATOR(pg_catalog.=) $1 AND reject.reason OPERATOR(pg_catalog.=) $2 \
     AND (pg_catalog.cardinality($3) OPERATOR(pg_catalog.=) 0 OR segment.id OPERATOR(pg_catalog.=) ANY ($3)) \
     ORDER BY reject.segment_no";
const DROP: &str = "DELETE FROM pgsluice.reject WHERE pipeline OPERATOR(pg_catalog.=) $1 \
     AND segment_no OPERATOR(pg_catalog.=) $2 AND reason OPERATOR(pg_catalog.=) $3 RETURNING message_id";
const COUNT: &str = "UPDATE pgsluice.segment SET dropped = dropped OPERATOR(pg_catalog.+) $3 \
     WHERE pipeline OPERATOR(pg_catalog.=) $1 AND segment_no OPERATOR(pg_catalog.=) $2";

/// A segment that has rejects of some reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedSegment {
    /// Its number in the ledger.
    pub segment_no: i32,
    /// Its name, and the host that loaded it; `None` where the migration from version 1 of the ledger could not tell it.
    pub loaded: Option<(SegmentId, String)>,
}

impl Ledger {
    /// The segments that have rejects of this reason. `segments`: only these; none means all.
    pub(in crate::load) async fn rejected_for(
        &self,
        client: &Client,
        reason: &str,
        segments: &[SegmentId],
    ) -> Result<Vec<RejectedSegment>, LoadError> {
        let ids: Vec<Uuid> = segments.iter().map(|segment| segment.as_uuid()).collect();
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&self.pipeline, Type::INT4), (&reason, Type::TEXT), (&ids, Type::UUID_ARRAY)];
        let read = |row: &Row| {
            let (id, host): (Option<Uuid>, Option<String>) = (row.try_get(1)?, row.try_get(2)?);
            Ok(RejectedSegment { segment_no: row.try_get(0)?, loaded: id.map(SegmentId::from).zip(host) })
        };
        let found = client.query_typed(SEGMENTS, &parameters).await;
        found.and_then(|rows| rows.iter().map(read).collect()).map_err(ledger_error("reading rejects of"))
    }

    /// Removes the rejects of this reason from a segment, and counts them there; returns their messages' ids. The messages
    /// stay decided, so that a redelivery is a duplicate.
    pub(in crate::load) async fn drop_rejects(
        &self,
        transaction: &Transaction<'_>,
        segment_no: i32,
        reason: &str,
    ) -> Result<HashSet<Uuid>, LoadError> {
        let failed = || ledger_error("dropping rejects from");
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&self.pipeline, Type::INT4), (&segment_no, Type::INT4), (&reason, Type::TEXT)];
        let rows = transaction.query_typed(DROP, &parameters).await.map_err(failed())?;
        let ids = rows.iter().map(|row| row.try_get(0)).collect::<Result<HashSet<Uuid>, _>>().map_err(failed())?;
        let dropped = (ids.len() as u64).cast_signed();
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&self.pipeline, Type::INT4), (&segment_no, Type::INT4), (&dropped, Type::INT8)];
        transaction.execute_typed(COUNT, &parameters).await.map_err(failed())?;
        Ok(ids)
    }
}
