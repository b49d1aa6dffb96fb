//! Loads rejects of a segment that fit by now: the row, and the end of its reject, in one transaction.
//!
//! Always true: a row is loaded only by the transaction that deletes its reject, so however often this is done, and
//! wherever it dies, each is loaded once. The message's id stays in the ledger, where a redelivery is recognised by
//! it. The segment's counts move from `rejected` to `loaded`. What still does not fit stays a reject, with the reason
//! that it has now.

use std::collections::HashSet;
use std::sync::Arc;

use tokio_postgres::Transaction;
use uuid::Uuid;

use super::isolate::RowCopy;
use super::keys::SegmentKeys;
use super::ledger::{BATCH_KEYS, RejectColumns, ledger_error, reject_columns};
use super::rejects::{self, NewReject, RejectRow};
use super::retry::Retries;
use super::{Loader, refused};
use crate::blocking::blocking;
use crate::crash_point::CrashPoint;
use crate::error::LoadError;
use crate::staging::{SegmentId, Staging};
use crate::transform::StagedSegment;

const WITHDRAW: &str = "DELETE FROM pgsluice.reject WHERE pipeline = $1 AND segment = $2 AND message_id = ANY($3) \
     RETURNING message_id";
const CHANGE_REASONS: &str = "UPDATE pgsluice.reject \
     SET stage = entry.stage, field = entry.field, reason = entry.reason \
     FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[]) AS entry (message_id, stage, field, reason) \
     WHERE reject.pipeline = $1 AND reject.segment = $2 AND reject.message_id = entry.message_id \
     AND (reject.stage, reject.field, reject.reason) IS DISTINCT FROM (entry.stage, entry.field, entry.reason)";
const MOVE_TO_LOADED: &str =
    "UPDATE pgsluice.segment SET loaded = loaded + $2::bigint, rejected = rejected - $2 WHERE id = $1";

impl Loader {
    /// What the ledger has as rejects of a segment.
    pub async fn rejects_of(&mut self, segment: SegmentId) -> Result<Vec<RejectRow>, LoadError> {
        let ledger = self.destination.ledger.clone();
        self.ask(async |client| ledger.rejects_of(client, segment).await).await
    }

    /// Loads those messages of `staged` that the ledger has as rejects of `segment` and that fit by now.
    ///
    /// `staged` lies in a staging directory of its own; its reject file then says what still does not fit.
    pub async fn readmit(
        &mut self,
        segment: SegmentId,
        staging: &Staging,
        staged: &StagedSegment,
    ) -> Result<(), LoadError> {
        let (files, id) = (staging.clone(), staged.id);
        let keys = Arc::new(blocking(move || SegmentKeys::read(&files, id)).await?);
        let work = Readmission { segment, staging, staged: id, keys };
        let mut retries = Retries::new();
        loop {
            let watch = Arc::clone(&self.watch);
            match watch.during(self.readmit_once(&work)).await {
                Ok(()) => return Ok(()),
                Err(error) => self.recover(&mut retries, error).await?,
            }
        }
    }

    async fn readmit_once(&mut self, work: &Readmission<'_>) -> Result<(), LoadError> {
        self.reconnect().await?;
        let lost = |action: &str| {
            let action = format!("{action} of rejects of segment {}", work.segment);
            move |error| refused(&action, error)
        };
        let transaction = self.connection.client.transaction().await.map_err(lost("BEGIN"))?;
        let ledger = &self.destination.ledger;
        self.watch.began(ledger.begin(&transaction).await?);
        let pipeline: &str = &ledger.pipeline;

        let rows = work.withdraw(&transaction, pipeline).await?;
        let path = work.staging.chunk(work.staged).into();
        let copy = RowCopy { transaction: &transaction, target: &self.destination.target, segment: work.segment, path };
        let tried = rows.len();
        let refusals = copy.run(work.keys.rows, Some(rows)).await?;
        let loaded = (tried - refusals.len()) as u64;

        let (staging, staged, keys) = (work.staging.clone(), work.staged, Arc::clone(&work.keys));
        let (unfit, again) = blocking(move || {
            let unfit = rejects::of_transform(&staging, staged, |_| true)?;
            Ok::<_, LoadError>((unfit, rejects::add_refusals(&staging, staged, &keys, refusals)?))
        })
        .await?;
        ledger.insert_rejects(&transaction, work.segment, &again).await?;
        work.settle(&transaction, pipeline, &unfit, loaded).await?;
        CrashPoint::BeforeCommit.pass();
        transaction.commit().await.map_err(lost("COMMIT"))?;
        CrashPoint::Commit.pass();
        Ok(())
    }
}

/// What the attempts at one segment have in common.
struct Readmission<'a> {
    segment: SegmentId,
    staging: &'a Staging,
    staged: SegmentId,
    keys: Arc<SegmentKeys>,
}

impl Readmission<'_> {
    /// Deletes the rejects of the rows that fit; returns the rows that had one.
    async fn withdraw(&self, transaction: &Transaction<'_>, pipeline: &str) -> Result<Vec<usize>, LoadError> {
        let keys = Arc::clone(&self.keys);
        let fit = blocking(move || keys.at(0..keys.rows)).await?;
        let mut withdrawn = HashSet::new();
        for batch in fit.chunks(BATCH_KEYS) {
            let ids: Vec<Uuid> = batch.iter().map(|key| key.message_id).collect();
            let deleted = transaction.query(WITHDRAW, &[&pipeline, &self.segment.as_uuid(), &ids]).await;
            for row in deleted.map_err(ledger_error("withdrawing rejects from"))? {
                withdrawn.insert(row.try_get::<_, Uuid>(0).map_err(ledger_error("withdrawing rejects from"))?);
            }
        }
        let had_one = fit.iter().filter(|key| withdrawn.remove(&key.message_id));
        Ok(had_one.map(|key| key.position).collect())
    }

    /// Gives those that do not fit the reason that they have now, and moves the others from `rejected` to `loaded`.
    async fn settle(
        &self,
        transaction: &Transaction<'_>,
        pipeline: &str,
        unfit: &[NewReject],
        loaded: u64,
    ) -> Result<(), LoadError> {
        let segment = self.segment.as_uuid();
        for batch in unfit.chunks(BATCH_KEYS) {
            let RejectColumns { ids, stages, fields, reasons } = reject_columns(batch);
            let changed =
                transaction.execute(CHANGE_REASONS, &[&pipeline, &segment, &ids, &stages, &fields, &reasons]).await;
            changed.map_err(ledger_error("changing reasons in"))?;
        }
        if loaded == 0 {
            return Ok(());
        }
        let moved = transaction.execute(MOVE_TO_LOADED, &[&segment, &loaded.cast_signed()]).await;
        moved.map(|_| ()).map_err(ledger_error("changing counts in"))
    }
}
