//! The messages that could not become rows, each with its reason. Never a body.

use std::collections::HashSet;

use tokio_postgres::{GenericClient, Row, Transaction};
use uuid::Uuid;

use super::super::LoadError;
use super::super::message_keys::MessageKey;
use super::{BATCH_KEYS, Ledger, ledger_error};
use crate::reason::{Reason, Stage};
use crate::segment::SegmentId;

const FORGET_REJECTS: &str = "DELETE FROM pgsluice.reject WHERE pipeline = $1 AND segment = $2";
const REJECTS_OF: &str = "SELECT message_id, stage, field, reason FROM pgsluice.reject \
     WHERE pipeline = $1 AND segment = $2";
const INSERT_REJECTS: &str = "INSERT INTO pgsluice.reject (pipeline, message_id, segment, stage, field, reason) \
     SELECT $1, entry.message_id, $2, entry.stage, entry.field, entry.reason \
     FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[]) AS entry (message_id, stage, field, reason) \
     ON CONFLICT DO NOTHING RETURNING message_id";
const WITHDRAW: &str = "DELETE FROM pgsluice.reject WHERE pipeline = $1 AND segment = $2 AND message_id = ANY($3) \
     RETURNING message_id";
const CHANGE_REASONS: &str = "UPDATE pgsluice.reject \
     SET stage = entry.stage, field = entry.field, reason = entry.reason \
     FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[]) AS entry (message_id, stage, field, reason) \
     WHERE reject.pipeline = $1 AND reject.segment = $2 AND reject.message_id = entry.message_id \
     AND (reject.stage, reject.field, reject.reason) IS DISTINCT FROM (entry.stage, entry.field, entry.reason)";
const MOVE_TO_LOADED: &str =
    "UPDATE pgsluice.segment SET loaded = loaded + $2::bigint, rejected = rejected - $2 WHERE id = $1";

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
    /// Records rejects; returns the ids of those that were not recorded before.
    pub(in crate::load) async fn insert_rejects(
        &self,
        transaction: &Transaction<'_>,
        segment: SegmentId,
        rejects: &[NewReject],
    ) -> Result<HashSet<Uuid>, LoadError> {
        let mut inserted = HashSet::new();
        for batch in rejects.chunks(BATCH_KEYS) {
            let RejectColumns { ids, stages, fields, reasons } = reject_columns(batch);
            let new = transaction
                .query(INSERT_REJECTS, &[&&*self.pipeline, &segment.as_uuid(), &ids, &stages, &fields, &reasons])
                .await
                .map_err(ledger_error("recording rejects in"))?;
            for row in new {
                inserted.insert(row.try_get(0).map_err(ledger_error("recording rejects in"))?);
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
        let found = client.query(REJECTS_OF, &[&&*self.pipeline, &segment.as_uuid()]).await;
        let read = |row: &Row| {
            let reason = Reason { stage: stage_of(row.try_get(1)?), field: row.try_get(2)?, text: row.try_get(3)? };
            Ok(RejectRow { message_id: row.try_get(0)?, reason })
        };
        found.and_then(|rows| rows.iter().map(read).collect()).map_err(ledger_error("reading rejects of"))
    }

    /// Removes a segment's rejects.
    pub(in crate::load) async fn forget_rejects(
        &self,
        transaction: &Transaction<'_>,
        segment: SegmentId,
    ) -> Result<(), LoadError> {
        let forgotten = transaction.execute(FORGET_REJECTS, &[&&*self.pipeline, &segment.as_uuid()]).await;
        forgotten.map(|_| ()).map_err(ledger_error("removing rejects from"))
    }

    /// Removes the rejects of these messages; returns the ids of those that had one.
    pub(in crate::load) async fn withdraw_rejects(
        &self,
        transaction: &Transaction<'_>,
        segment: SegmentId,
        messages: &[MessageKey],
    ) -> Result<HashSet<Uuid>, LoadError> {
        let failed = || ledger_error("withdrawing rejects from");
        let mut withdrawn = HashSet::new();
        for batch in messages.chunks(BATCH_KEYS) {
            let ids: Vec<Uuid> = batch.iter().map(|key| key.message_id).collect();
            let deleted = transaction.query(WITHDRAW, &[&&*self.pipeline, &segment.as_uuid(), &ids]).await;
            for row in deleted.map_err(failed())? {
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
        for batch in rejects.chunks(BATCH_KEYS) {
            let RejectColumns { ids, stages, fields, reasons } = reject_columns(batch);
            let changed = transaction
                .execute(CHANGE_REASONS, &[&&*self.pipeline, &segment.as_uuid(), &ids, &stages, &fields, &reasons])
                .await;
            changed.map_err(ledger_error("changing reasons in"))?;
        }
        Ok(())
    }

    /// This number of a segment's rejects are rows now.
    pub(in crate::load) async fn count_as_loaded(
        &self,
        transaction: &Transaction<'_>,
        segment: SegmentId,
        loaded: u64,
    ) -> Result<(), LoadError> {
        let moved = transaction.execute(MOVE_TO_LOADED, &[&segment.as_uuid(), &loaded.cast_signed()]).await;
        moved.map(|_| ()).map_err(ledger_error("changing counts in"))
    }
}

/// A stage that this version does not know stands behind the transform, as all but that one do.
pub(super) fn stage_of(name: &str) -> Stage {
    Stage::named(name).unwrap_or(Stage::Load)
}

/// Rejects as parameters of a statement that unnests them.
struct RejectColumns<'a> {
    ids: Vec<Uuid>,
    stages: Vec<&'a str>,
    fields: Vec<Option<&'a str>>,
    reasons: Vec<&'a str>,
}

fn reject_columns(rejects: &[NewReject]) -> RejectColumns<'_> {
    RejectColumns {
        ids: rejects.iter().map(|reject| reject.key.message_id).collect(),
        stages: rejects.iter().map(|reject| reject.reason.stage.name()).collect(),
        fields: rejects.iter().map(|reject| reject.reason.field.as_deref()).collect(),
        reasons: rejects.iter().map(|reject| reject.reason.text.as_str()).collect(),
    }
}
