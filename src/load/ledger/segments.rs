//! What the ledger knows of segments: which are loaded, and with which counts.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient, Row, Transaction};
use uuid::Uuid;

use super::super::LoadError;
use super::super::committed::SegmentRecord;
use super::super::message_keys::SegmentKeys;
use super::{Ledger, count, ledger_error};
use crate::reason::ReasonTally;
use crate::segment::SegmentId;

const FIND: &str = "SELECT id, received, loaded, duplicates, rejected, loaded_at, left_in_queue, dropped FROM pgsluice.segment \
     WHERE pipeline OPERATOR(pg_catalog.=) $1 AND id OPERATOR(pg_catalog.=) ANY ($2)";
const TOTALS: &str = "SELECT pg_catalog.count(*), coalesce(pg_catalog.sum(loaded), 0)::bigint, \
     coalesce(pg_catalog.sum(duplicates), 0)::bigint, coalesce(pg_catalog.sum(rejected), 0)::bigint, \
     pg_catalog.max(loaded_at) FROM pgsluice.segment WHERE pipeline OPERATOR(pg_catalog.=) $1";
const INSERT: &str = "INSERT INTO pgsluice.segment (pipeline, id, segment_no, received, loaded, duplicates, rejected, \
     rows, first_sent_at, last_sent_at, host, mapping, left_in_queue, loaded_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $5, $8, $9, $10, $11, $12, pg_catalog.clock_timestamp()) \
     ON CONFLICT DO NOTHING RETURNING loaded_at";

/// What the ledger holds of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LedgerTotals {
    /// Segments that are loaded.
    pub segments: u64,
    /// Rows that they added.
    pub loaded: u64,
    /// Messages that had been loaded before.
    pub duplicates: u64,
    /// Messages that could not become rows.
    pub rejected: u64,
    /// When the last one was loaded, if any was.
    pub last_loaded_at: Option<jiff::Timestamp>,
}

impl Ledger {
    /// Those of the segments that are loaded, with the time of their transaction.
    pub(in crate::load) async fn find(
        &self,
        client: &impl GenericClient,
        segments: &[SegmentId],
    ) -> Result<Vec<(SegmentRecord, SystemTime)>, LoadError> {
        let ids: Vec<Uuid> = segments.iter().map(|segment| segment.as_uuid()).collect();
        let found = client.query_typed(FIND, &[(&self.pipeline, Type::INT4), (&ids, Type::UUID_ARRAY)]).await;
        let found = found.and_then(|rows| rows.iter().map(read_segment).collect::<Result<Vec<_>, _>>());
        let mut found = found.map_err(ledger_error("reading"))?;
        if self.with_rejects {
            for (record, _) in found.iter_mut().filter(|(record, _)| record.rejected > 0) {
                record.rejects = self.rejects_of(client, record.segment).await?.into();
            }
        }
        Ok(found)
    }

    /// What was loaded in all.
    pub(in crate::load) async fn totals(&self, client: &Client) -> Result<LedgerTotals, LoadError> {
        let read = |row: Row| {
            Ok(LedgerTotals {
                segments: count(&row, 0)?,
                loaded: count(&row, 1)?,
                duplicates: count(&row, 2)?,
                rejected: count(&row, 3)?,
                last_loaded_at: row.try_get::<_, Option<SystemTime>>(4)?.and_then(|time| time.try_into().ok()),
            })
        };
        let totals = client.query_typed_one(TOTALS, &[(&self.pipeline, Type::INT4)]).await;
        totals.and_then(read).map_err(ledger_error("reading"))
    }

    /// Records the segment under its number, and returns the time. Not that of the transaction's beginning: a replay that
    /// began meanwhile takes what was loaded before it for forgotten.
    pub(in crate::load) async fn insert_segment(
        &self,
        transaction: &Transaction<'_>,
        record: &SegmentRecord,
        segment_no: i32,
        keys: &SegmentKeys,
    ) -> Result<SystemTime, LoadError> {
        let failed = || ledger_error("recording a segment in");
        let [received, loaded, duplicates, rejected] =
            [record.received, record.loaded, record.duplicates, record.rejected].map(u64::cast_signed);
        let (first, last) = keys.sent_between();
        let id = record.segment.as_uuid();
        let inserted = transaction
            .query_typed_opt(
                INSERT,
                &[
                    (&self.pipeline, Type::INT4),
                    (&id, Type::UUID),
                    (&segment_no, Type::INT4),
                    (&received, Type::INT8),
                    (&loaded, Type::INT8),
                    (&duplicates, Type::INT8),
                    (&rejected, Type::INT8),
                    (&first, Type::TIMESTAMPTZ),
                    (&last, Type::TIMESTAMPTZ),
                    (&self.host, Type::TEXT),
                    (&self.mapping, Type::TEXT),
                    (&&*record.left_in_queue, Type::UUID_ARRAY),
                ],
            )
            .await
            .map_err(failed())?;
        let row = inserted.ok_or(LoadError::SegmentBusy { segment: record.segment })?;
        row.try_get(0).map_err(failed())
    }
}

fn read_segment(row: &Row) -> Result<(SegmentRecord, SystemTime), tokio_postgres::Error> {
    let record = SegmentRecord {
        segment: row.try_get::<_, Uuid>(0)?.into(),
        received: count(row, 1)?,
        loaded: count(row, 2)?,
        duplicates: count(row, 3)?,
        rejected: count(row, 4)?,
        reasons: ReasonTally::default(),
        left_in_queue: row.try_get::<_, Vec<Uuid>>(6)?.into(),
        dropped: count(row, 7)?,
        rejects: Arc::default(),
    };
    Ok((record, row.try_get(5)?))
}
