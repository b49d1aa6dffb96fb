//! The messages that could not become rows, each with its reason. Never a body.

use std::collections::HashSet;
use std::time::SystemTime;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, GenericClient, Row, Transaction};
use uuid::Uuid;

use super::super::LoadError;
use super::super::message_keys::MessageKey;
use super::super::redelivered::RecordedReject;
use super::{BATCH_KEYS, Ledger, count, ledger_error};
use crate::reason::{Reason, Stage};
use crate::segment::SegmentId;

const SEGMENT_NO: &str = "(SELECT segment_no FROM pgsluice.segment \
     WHERE pipeline OPERATOR(pg_catalog.=) $1 AND id OPERATOR(pg_catalog.=) $2)";
const INSERT: &str = "INSERT INTO pgsluice.reject (pipeline, segment_no, message_id, sent_at, stage, field, reason) \
     SELECT $1, $2, entry.message_id, entry.sent_at, entry.stage, entry.field, entry.reason \
     FROM unnest($3, $4, $5, $6, $7) AS entry (message_id, sent_at, stage, field, reason) \
     ON CONFLICT DO NOTHING RETURNING message_id";
const HAS_ANY: &str = "SELECT EXISTS (SELECT FROM pgsluice.reject WHERE pipeline OPERATOR(pg_catalog.=) $1)";
const RECORDED: &str = "SELECT reject.message_id, reject.stage, reject.field, reject.reason, segment.id \
     FROM unnest($2, $3) AS key (sent_at, message_id) \
     JOIN pgsluice.message ON message.pipeline OPERATOR(pg_catalog.=) $1 \
     AND message.sent_at OPERATOR(pg_catalog.=) key.sent_at AND message.message_id OPERATOR(pg_catalog.=) key.message_id \
     JOIN pgsluice.reject ON reject.pipeline OPERATOR(pg_catalog.=) message.pipeline \
     AND reject.segment_no OPERATOR(pg_catalog.=) message.segment_no \
     AND reject.message_id OPERATOR(pg_catalog.=) message.message_id \
     JOIN pgsluice.segment ON segment.pipeline OPERATOR(pg_catalog.=) reject.pipeline \
     AND segment.segment_no OPERATOR(pg_catalog.=) reject.segment_no";
const NOT_HERE: &str = "SELECT segment.host, pg_catalog.count(*) FROM pgsluice.reject JOIN pgsluice.segment \
     ON segment.pipeline OPERATOR(pg_catalog.=) reject.pipeline \
     AND segment.segment_no OPERATOR(pg_catalog.=) reject.segment_no \
     WHERE reject.pipeline OPERATOR(pg_catalog.=) $1 AND NOT (segment.id OPERATOR(pg_catalog.=) ANY ($2)) \
     GROUP BY segment.host ORDER BY segment.host";

/// A reject as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectRow {
    /// The message's id.
    pub message_id: Uuid,
    /// Who refused it, and why.
    pub reason: Reason,
}

/// A reject that an attempt found.
#[derive(Debug, Clone)]
pub(in crate::load) struct NewReject {
    pub(in crate::load) key: MessageKey,
    pub(in crate::load) reason: Reason,
}

impl From<NewReject> for RejectRow {
    fn from(new: NewReject) -> Self {
        Self { message_id: new.key.message_id, reason: new.reason }
    }
}

impl Ledger {
    /// Records rejects of the segment with this number; returns the ids of those that were not recorded before.
    pub(in crate::load) async fn insert_rejects(
        &self,
        transaction: &Transaction<'_>,
        segment_no: i32,
        rejects: &[NewReject],
    ) -> Result<HashSet<Uuid>, LoadError> {
        let failed = || ledger_error("recording rejects in");
        let mut inserted = HashSet::new();
        for batch in rejects.chunks(BATCH_KEYS) {
            let columns = RejectColumns::of(batch);
            let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> =
                vec![(&self.pipeline, Type::INT4), (&segment_no, Type::INT4)];
            parameters.extend(columns.parameters());
            for row in transaction.query_typed(INSERT, &parameters).await.map_err(failed())? {
                inserted.insert(row.try_get(0).map_err(failed())?);
            }
        }
        Ok(inserted)
    }

    /// A segment's rejects.
    pub(in crate::load) async fn rejects_of(
        &self,
        client: &impl GenericClient,
        segment: SegmentId,
    ) -> Result<Vec<RejectRow>, LoadError> {
        let statement = format!(
            "SELECT message_id, stage, field, reason FROM pgsluice.reject WHERE pipeline OPERATOR(pg_catalog.=) $1 \
             AND segment_no OPERATOR(pg_catalog.=) {SEGMENT_NO}"
        );
        let found = client.query_typed(&statement, &self.of_segment(&segment.as_uuid())).await;
        found.and_then(|rows| rows.iter().map(read_reject).collect()).map_err(ledger_error("reading rejects of"))
    }

    /// Whether any message of the pipeline is a reject.
    pub(in crate::load) async fn has_rejects(&self, client: &Client) -> Result<bool, LoadError> {
        let found = client.query_typed_one(HAS_ANY, &[(&self.pipeline, Type::INT4)]).await;
        found.and_then(|row| row.try_get(0)).map_err(ledger_error("reading rejects of"))
    }

    /// The rejects that are recorded of these messages, whichever segment recorded them.
    pub(in crate::load) async fn recorded_rejects(
        &self,
        client: &Client,
        messages: &[MessageKey],
    ) -> Result<Vec<RecordedReject>, LoadError> {
        let read =
            |row: &Row| Ok(RecordedReject { segment: row.try_get::<_, Uuid>(4)?.into(), reject: read_reject(row)? });
        let mut recorded = Vec::new();
        for batch in messages.chunks(BATCH_KEYS) {
            let (times, ids): (Vec<SystemTime>, Vec<Uuid>) =
                batch.iter().map(|key| (key.sent_at(), key.message_id)).unzip();
            let parameters: [(&(dyn ToSql + Sync), Type); 3] =
                [(&self.pipeline, Type::INT4), (&times, Type::TIMESTAMPTZ_ARRAY), (&ids, Type::UUID_ARRAY)];
            let found = client.query_typed(RECORDED, &parameters).await;
            let found = found.and_then(|rows| rows.iter().map(read).collect::<Result<Vec<_>, _>>());
            recorded.extend(found.map_err(ledger_error("reading rejects of"))?);
        }
        Ok(recorded)
    }

    /// The number of rejects of segments that are not among these, by the host that recorded them.
    pub(in crate::load) async fn rejects_not_among(
        &self,
        client: &Client,
        segments: &[SegmentId],
    ) -> Result<Vec<(String, u64)>, LoadError> {
        let ids: Vec<Uuid> = segments.iter().map(|segment| segment.as_uuid()).collect();
        let read = |row: &Row| Ok((row.try_get(0)?, count(row, 1)?));
        let found = client.query_typed(NOT_HERE, &[(&self.pipeline, Type::INT4), (&ids, Type::UUID_ARRAY)]).await;
        found.and_then(|rows| rows.iter().map(read).collect()).map_err(ledger_error("reading rejects of"))
    }

    /// Removes the rejects of these messages; returns the ids of those that had one.
    pub(in crate::load) async fn withdraw_rejects(
        &self,
        transaction: &Transaction<'_>,
        segment: SegmentId,
        messages: &[MessageKey],
    ) -> Result<HashSet<Uuid>, LoadError> {
        let failed = || ledger_error("withdrawing rejects from");
        let statement = format!(
            "DELETE FROM pgsluice.reject WHERE pipeline OPERATOR(pg_catalog.=) $1 \
             AND segment_no OPERATOR(pg_catalog.=) {SEGMENT_NO} AND message_id OPERATOR(pg_catalog.=) ANY ($3) \
             RETURNING message_id"
        );
        let segment = segment.as_uuid();
        let mut withdrawn = HashSet::new();
        for batch in messages.chunks(BATCH_KEYS) {
            let ids: Vec<Uuid> = batch.iter().map(|key| key.message_id).collect();
            let parameters: [(&(dyn ToSql + Sync), Type); 3] =
                [(&self.pipeline, Type::INT4), (&segment, Type::UUID), (&ids, Type::UUID_ARRAY)];
            for row in transaction.query_typed(&statement, &parameters).await.map_err(failed())? {
                withdrawn.insert(row.try_get::<_, Uuid>(0).map_err(failed())?);
            }
        }
        Ok(withdrawn)
    }

    /// Gives rejects the reason that they have now.
    pub(in crate::load) async fn change_reasons(
        &self,
        transaction: &Transaction<'_>,
        segment: SegmentId,
        rejects: &[NewReject],
    ) -> Result<(), LoadError> {
        let statement = format!(
            "UPDATE pgsluice.reject SET stage = entry.stage, field = entry.field, reason = entry.reason \
             FROM unnest($3, $4, $5, $6, $7) AS entry (message_id, sent_at, stage, field, reason) \
             WHERE reject.pipeline OPERATOR(pg_catalog.=) $1 \
             AND reject.segment_no OPERATOR(pg_catalog.=) {SEGMENT_NO} \
             AND reject.message_id OPERATOR(pg_catalog.=) entry.message_id"
        );
        let segment = segment.as_uuid();
        for batch in rejects.chunks(BATCH_KEYS) {
            let columns = RejectColumns::of(batch);
            let mut parameters = self.of_segment(&segment).to_vec();
            parameters.extend(columns.parameters());
            let changed = transaction.execute_typed(&statement, &parameters).await;
            changed.map_err(ledger_error("changing reasons in"))?;
        }
        Ok(())
    }

    /// Counts this number of a segment's rejects as rows.
    pub(in crate::load) async fn count_as_loaded(
        &self,
        transaction: &Transaction<'_>,
        segment: SegmentId,
        loaded: u64,
    ) -> Result<(), LoadError> {
        const MOVE: &str = "UPDATE pgsluice.segment SET loaded = loaded OPERATOR(pg_catalog.+) $3, \
             rows = rows OPERATOR(pg_catalog.+) $3, rejected = rejected OPERATOR(pg_catalog.-) $3 \
             WHERE pipeline OPERATOR(pg_catalog.=) $1 AND id OPERATOR(pg_catalog.=) $2";
        let (segment, loaded) = (segment.as_uuid(), loaded.cast_signed());
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&self.pipeline, Type::INT4), (&segment, Type::UUID), (&loaded, Type::INT8)];
        let moved = transaction.execute_typed(MOVE, &parameters).await;
        moved.map(|_| ()).map_err(ledger_error("changing counts in"))
    }

    /// The number of a segment that the ledger knows.
    pub(in crate::load) async fn segment_no(
        &self,
        transaction: &Transaction<'_>,
        segment: SegmentId,
    ) -> Result<Option<i32>, LoadError> {
        let statement = format!("SELECT {SEGMENT_NO}");
        let row = transaction.query_typed_one(&statement, &self.of_segment(&segment.as_uuid())).await;
        row.and_then(|row| row.try_get(0)).map_err(ledger_error("reading"))
    }

    fn of_segment<'a>(&'a self, segment: &'a Uuid) -> [(&'a (dyn ToSql + Sync), Type); 2] {
        [(&self.pipeline, Type::INT4), (segment, Type::UUID)]
    }
}

fn read_reject(row: &Row) -> Result<RejectRow, tokio_postgres::Error> {
    let reason = Reason { stage: stage_of(row.try_get(1)?), field: row.try_get(2)?, text: row.try_get(3)? };
    Ok(RejectRow { message_id: row.try_get(0)?, reason })
}

/// A stage that this version does not know counts as the load: it stands behind the transform, as the load does.
pub(super) fn stage_of(name: &str) -> Stage {
    Stage::named(name).unwrap_or(Stage::Load)
}

/// Rejects as parameters of a statement that unnests them.
struct RejectColumns<'a> {
    ids: Vec<Uuid>,
    times: Vec<SystemTime>,
    stages: Vec<&'a str>,
    fields: Vec<Option<&'a str>>,
    reasons: Vec<&'a str>,
}

impl<'a> RejectColumns<'a> {
    fn of(rejects: &'a [NewReject]) -> Self {
        Self {
            ids: rejects.iter().map(|reject| reject.key.message_id).collect(),
            times: rejects.iter().map(|reject| reject.key.sent_at()).collect(),
            stages: rejects.iter().map(|reject| reject.reason.stage.name()).collect(),
            fields: rejects.iter().map(|reject| reject.reason.field.as_deref()).collect(),
            reasons: rejects.iter().map(|reject| reject.reason.text.as_str()).collect(),
        }
    }

    fn parameters(&self) -> [(&(dyn ToSql + Sync), Type); 5] {
        [
            (&self.ids, Type::UUID_ARRAY),
            (&self.times, Type::TIMESTAMPTZ_ARRAY),
            (&self.stages, Type::TEXT_ARRAY),
            (&self.fields, Type::TEXT_ARRAY),
            (&self.reasons, Type::TEXT_ARRAY),
        ]
    }
}
