//! Loads rejects of a segment that fit by now: the row, and the end of its reject, in one transaction.
//!
//! Always true: a row is loaded only by the transaction that deletes its reject, so however often this is done, and
//! wherever it dies, each is loaded once. The message's id stays in the ledger, where a redelivery is recognised by
//! it. The segment's counts move from `rejected` to `loaded`. What still does not fit stays a reject, with the reason
//! that it has now.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio_postgres::Transaction;
use uuid::Uuid;

use super::isolate::{Isolated, RefusedRow, RowCopy, Tried};
use super::ledger::{Ledger, NewReject};
use super::message_keys::{MessageKey, SegmentKeys};
use super::turn::Turn;
use super::{LoadError, Loader, rejects};
use crate::blocking::blocking;
use crate::chunk::Manifest;
use crate::crash_point::CrashPoint;
use crate::postgres::{PostgresError, Retries};
use crate::reason::Reason;
use crate::segment::SegmentId;
use crate::staging::Staging;

/// What became of rejects that were tried again.
#[derive(Debug, Default)]
pub struct Readmitted {
    /// Rows now.
    pub loaded: HashSet<Uuid>,
    /// Still rejects, with the reason that they have now.
    pub reasons: HashMap<Uuid, Reason>,
}

impl Loader {
    /// Loads those messages of a chunk that the ledger has as rejects of `segment` and that fit by now.
    ///
    /// The chunk lies in a staging directory of its own.
    pub async fn readmit(
        &mut self,
        segment: SegmentId,
        staging: &Staging,
        manifest: &Manifest,
    ) -> Result<Readmitted, LoadError> {
        self.accept_keys(&manifest.keys, &manifest.ring).await?;
        let (files, staged) = (staging.clone(), manifest.clone());
        let keys = Arc::new(blocking(move || SegmentKeys::read(&files, &staged)).await?);
        let mut work = Readmission { segment, staging, staged: manifest.segment, keys, turn: Turn::default() };
        let mut retries = Retries::new();
        loop {
            let watch = Arc::clone(&self.watch);
            match watch.during(self.readmit_once(&work)).await {
                Ok(readmitted) => return Ok(readmitted),
                Err(error) => {
                    work.turn.after(&error);
                    self.prepare_retry(&mut retries, error).await?;
                }
            }
        }
    }

    async fn readmit_once(&mut self, work: &Readmission<'_>) -> Result<Readmitted, LoadError> {
        self.reconnect().await?;
        let lost = |action: &str| {
            let action = format!("{action} of rejects of segment {}", work.segment);
            move |error| PostgresError::of_statement(&action, error)
        };
        let transaction = self.connection.begin().await.map_err(lost("BEGIN"))?;
        let ledger = &self.destination.ledger;
        self.watch.began(ledger.begin(&transaction).await?.id);
        work.turn.wait(&transaction, &self.destination.target).await?;
        let Some(segment_no) = ledger.segment_no(&transaction, work.segment).await? else {
            return Ok(Readmitted::default());
        };

        let tried = work.withdraw(&transaction, ledger).await?;
        let chunk = work.staging.chunk(work.staged);
        let target = &self.destination.target;
        let copy = RowCopy { transaction: &transaction, target, segment: work.segment, chunk, tried: Tried::Again };
        let selected = tried.iter().map(|key| key.position).collect();
        let Isolated { refused, .. } = copy.run(work.keys.rows, Some(selected)).await?;

        let (staging, staged, keys) = (work.staging.clone(), work.staged, Arc::clone(&work.keys));
        let (unfit, refused) = blocking(move || {
            let unfit = rejects::of_transform(&staging, staged, |_| true)?;
            let keys = keys.at(refused.iter().map(|refusal| refusal.row))?;
            let refused =
                keys.into_iter().zip(refused).map(|(key, RefusedRow { reason, .. })| NewReject { key, reason });
            Ok::<_, LoadError>((unfit, refused.collect::<Vec<_>>()))
        })
        .await?;
        ledger.insert_rejects(&transaction, segment_no, &refused).await?;
        ledger.change_reasons(&transaction, work.segment, &unfit).await?;
        let mut loaded: HashSet<Uuid> = tried.iter().map(|key| key.message_id).collect();
        for reject in &refused {
            loaded.remove(&reject.key.message_id);
        }
        if !loaded.is_empty() {
            ledger.count_as_loaded(&transaction, work.segment, loaded.len() as u64).await?;
        }
        CrashPoint::BeforeCommit.pass();
        transaction.commit().await.map_err(lost("COMMIT"))?;
        CrashPoint::Commit.pass();
        let reasons = unfit.into_iter().chain(refused).map(|reject| (reject.key.message_id, reject.reason)).collect();
        Ok(Readmitted { loaded, reasons })
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
    /// Deletes the rejects of the rows that fit; returns the rows that had one, by their position.
    async fn withdraw(&self, transaction: &Transaction<'_>, ledger: &Ledger) -> Result<Vec<MessageKey>, LoadError> {
        let keys = Arc::clone(&self.keys);
        let fit = blocking(move || keys.at(0..keys.rows)).await?;
        let mut withdrawn = ledger.withdraw_rejects(transaction, self.segment, &fit).await?;
        Ok(fit.into_iter().filter(|key| withdrawn.remove(&key.message_id)).collect())
    }
}
