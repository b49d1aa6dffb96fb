//! Loads rejects of a segment that fit by now: the row, and the end of its reject, in one transaction.
//!
//! Always true: a row is loaded only by the transaction that deletes its reject, so however often this is done, and
//! wherever it dies, each is loaded once. The message's id stays in the ledger, where a redelivery is recognised by
//! it. The segment's counts move from `rejected` to `loaded`. What still does not fit stays a reject, with the reason
//! that it has now.

use std::sync::Arc;

use tokio_postgres::Transaction;

use super::isolate::{Isolated, RowCopy, Tried};
use super::ledger::{Ledger, RejectRow};
use super::message_keys::SegmentKeys;
use super::turn::Turn;
use super::{LoadError, Loader, rejects};
use crate::blocking::blocking;
use crate::chunk::StagedSegment;
use crate::crash_point::CrashPoint;
use crate::postgres::{PostgresError, Retries};
use crate::segment::SegmentId;
use crate::staging::Staging;

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
        let mut work = Readmission { segment, staging, staged: id, keys, turn: Turn::default() };
        let mut retries = Retries::new();
        loop {
            let watch = Arc::clone(&self.watch);
            match watch.during(self.readmit_once(&work)).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    work.turn.after(&error);
                    self.prepare_retry(&mut retries, error).await?;
                }
            }
        }
    }

    async fn readmit_once(&mut self, work: &Readmission<'_>) -> Result<(), LoadError> {
        self.reconnect().await?;
        let lost = |action: &str| {
            let action = format!("{action} of rejects of segment {}", work.segment);
            move |error| PostgresError::of_statement(&action, error)
        };
        let transaction = self.connection.client.transaction().await.map_err(lost("BEGIN"))?;
        let ledger = &self.destination.ledger;
        self.watch.began(ledger.begin(&transaction).await?);
        work.turn.wait(&transaction, &self.destination.target).await?;

        let rows = work.withdraw(&transaction, ledger).await?;
        let path = work.staging.chunk(work.staged).into();
        let target = &self.destination.target;
        let copy = RowCopy { transaction: &transaction, target, segment: work.segment, path, tried: Tried::Again };
        let tried = rows.len();
        let Isolated { refused, .. } = copy.run(work.keys.rows, Some(rows)).await?;
        let loaded = (tried - refused.len()) as u64;

        let (staging, staged, keys) = (work.staging.clone(), work.staged, Arc::clone(&work.keys));
        let (unfit, again) = blocking(move || {
            let unfit = rejects::of_transform(&staging, staged, |_| true)?;
            Ok::<_, LoadError>((unfit, rejects::add_refusals(&staging, staged, &keys, refused)?))
        })
        .await?;
        ledger.insert_rejects(&transaction, work.segment, &again).await?;
        ledger.change_reasons(&transaction, work.segment, &unfit).await?;
        if loaded > 0 {
            ledger.count_as_loaded(&transaction, work.segment, loaded).await?;
        }
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
    turn: Turn,
}

impl Readmission<'_> {
    /// Deletes the rejects of the rows that fit; returns the rows that had one.
    async fn withdraw(&self, transaction: &Transaction<'_>, ledger: &Ledger) -> Result<Vec<usize>, LoadError> {
        let keys = Arc::clone(&self.keys);
        let fit = blocking(move || keys.at(0..keys.rows)).await?;
        let mut withdrawn = ledger.withdraw_rejects(transaction, self.segment, &fit).await?;
        let had_one = fit.iter().filter(|key| withdrawn.remove(&key.message_id));
        Ok(had_one.map(|key| key.position).collect())
    }
}
