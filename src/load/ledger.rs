//! The statements on the ledger (`sql/001_ledger.sql`). Each runs in the caller's transaction, unless it says otherwise.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, GenericClient, Row, SimpleQueryMessage, Transaction};
use uuid::Uuid;

use super::copy::{CopyError, Feed, copy_in};
use super::keys::{Key, SegmentKeys};
use super::rejects::{NewReject, RejectRow};
use super::watch::TransactionId;
use super::{Committed, LedgerTotals, refused};
use crate::error::LoadError;
use crate::staging::SegmentId;

/// Keys in one statement: large enough to hide the round trip, small enough to plan and send at ease.
pub(super) const BATCH_KEYS: usize = 10_000;
/// Microseconds from 1970-01-01 to 2000-01-01, where Postgres counts from.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

const SEGMENT_COLUMNS: &str = "id, received, loaded, duplicates, rejected, loaded_at, left_in_queue";
const FIND: &str = "FROM pgsluice.segment WHERE id = ANY($1)";
const TOTALS: &str = "SELECT count(*), coalesce(sum(loaded), 0)::bigint, coalesce(sum(duplicates), 0)::bigint, \
     coalesce(sum(rejected), 0)::bigint, max(loaded_at) FROM pgsluice.segment WHERE pipeline = $1";
const ENSURE_PARTITIONS: &str =
    "SELECT pgsluice.ensure_message_partitions(date '1970-01-01' + $1::integer, date '1970-01-01' + $2::integer)";
// A loaded row survives a crash of the server, whatever the role's defaults are, because its message is deleted
// next. A deferred constraint would fail at COMMIT, where nothing tells which row it was.
const BEGIN: &str = "SELECT pg_backend_pid(), (extract(epoch FROM now()) * 1000000)::bigint; \
     SET CONSTRAINTS ALL IMMEDIATE; \
     SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'";
const COPY_MESSAGES: &str = "COPY pgsluice.message (pipeline, sent_at, message_id) FROM STDIN (FORMAT binary)";
const CLAIM: &str = "INSERT INTO pgsluice.message (pipeline, sent_at, message_id) \
     SELECT $1, key.sent_at, key.message_id FROM unnest($2::timestamptz[], $3::uuid[]) AS key (sent_at, message_id) \
     ON CONFLICT DO NOTHING RETURNING sent_at, message_id";
// What the segment's own transaction inserted carries its transaction id. After a dump and restore it does not;
// then a segment without duplicates still owns all its messages.
const FORGET_MESSAGES: &str = "DELETE FROM pgsluice.message USING pgsluice.segment, \
     unnest($2::timestamptz[], $3::uuid[]) AS key (sent_at, message_id) \
     WHERE segment.id = $4 AND (segment.duplicates = 0 OR message.xmin = segment.loaded_in::xid) \
     AND message.pipeline = $1 AND message.sent_at = key.sent_at AND message.message_id = key.message_id";
// Planned for the keys that it gets, that statement reads whole partitions, once for each batch; planned for any keys,
// it looks each up. Measured over two million messages: 11 s instead of 45 s and more.
const PLAN_FOR_ANY_KEYS: &str = "SET LOCAL plan_cache_mode = force_generic_plan";
const PLAN_AS_BEFORE: &str = "SET LOCAL plan_cache_mode TO DEFAULT";
const FORGET_REJECTS: &str = "DELETE FROM pgsluice.reject WHERE pipeline = $1 AND segment = $2";
const FORGET_SEGMENT: &str = "DELETE FROM pgsluice.segment WHERE id = $1";
const REJECTS_OF: &str = "SELECT message_id, stage, field, reason FROM pgsluice.reject \
     WHERE pipeline = $1 AND segment = $2";
const INSERT_REJECTS: &str = "INSERT INTO pgsluice.reject (pipeline, message_id, segment, stage, field, reason) \
     SELECT $1, entry.message_id, $2, entry.stage, entry.field, entry.reason \
     FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[]) AS entry (message_id, stage, field, reason) \
     ON CONFLICT DO NOTHING RETURNING message_id";
const TAKE_BACK_MESSAGES: &str = "DELETE FROM pgsluice.message \
     USING unnest($2::timestamptz[], $3::uuid[]) AS key (sent_at, message_id) \
     WHERE message.pipeline = $1 AND message.sent_at = key.sent_at AND message.message_id = key.message_id";
const INSERT_SEGMENT: &str = "INSERT INTO pgsluice.segment \
     (id, pipeline, received, loaded, duplicates, rejected, first_sent_at, last_sent_at, host, left_in_queue) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING RETURNING loaded_at";

/// The part of the ledger that belongs to one pipeline.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    pub(super) pipeline: Arc<str>,
    pub(super) host: String,
    /// Whether what is found comes with its rejects, because they are to be sent.
    pub(super) with_rejects: bool,
}

impl Ledger {
    /// Creates the partitions of these days that are missing. A transaction of its own.
    pub(super) async fn ensure_partitions(&self, client: &Client, first: i32, last: i32) -> Result<(), LoadError> {
        let ensured = client.execute(ENSURE_PARTITIONS, &[&first, &last]).await;
        ensured.map(|_| ()).map_err(ledger_error("creating partitions of"))
    }

    /// Prepares a transaction for a load, and tells which one it is.
    pub(super) async fn begin(&self, transaction: &Transaction<'_>) -> Result<TransactionId, LoadError> {
        let begun = transaction.simple_query(BEGIN).await.map_err(ledger_error("beginning a transaction on"))?;
        let identity = begun.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some(TransactionId { backend: row.get(0)?.parse().ok()?, started_us: row.get(1)?.parse().ok()? })
            }
            _ => None,
        });
        let unheard = || LoadError::ConnectionLost {
            action: "beginning a transaction".to_owned(),
            source: "the answer is not the one of Postgres".into(),
        };
        identity.ok_or_else(unheard)
    }

    /// Those of the segments that are loaded, with the time of their transaction.
    pub(super) async fn find(
        &self,
        client: &impl GenericClient,
        segments: &[SegmentId],
    ) -> Result<Vec<(Committed, SystemTime)>, LoadError> {
        let ids: Vec<Uuid> = segments.iter().map(|segment| segment.as_uuid()).collect();
        let found = client.query(&format!("SELECT {SEGMENT_COLUMNS} {FIND}"), &[&ids]).await;
        let found = found.and_then(|rows| rows.iter().map(read_segment).collect::<Result<Vec<_>, _>>());
        let mut found = found.map_err(ledger_error("reading"))?;
        if self.with_rejects {
            for (committed, _) in found.iter_mut().filter(|(committed, _)| committed.rejected > 0) {
                committed.rejects = self.rejects_of(client, committed.segment).await?.into();
            }
        }
        Ok(found)
    }

    /// What was loaded in all.
    pub(super) async fn totals(&self, client: &Client) -> Result<LedgerTotals, LoadError> {
        let read = |row: Row| {
            Ok(LedgerTotals {
                segments: count(&row, 0)?,
                loaded: count(&row, 1)?,
                duplicates: count(&row, 2)?,
                rejected: count(&row, 3)?,
                last_loaded_at: row.try_get(4)?,
            })
        };
        client.query_one(TOTALS, &[&&*self.pipeline]).await.and_then(read).map_err(ledger_error("reading"))
    }

    /// Records all messages of a segment, or says `false` because one is recorded already, or is there twice;
    /// then the transaction must be rolled back.
    pub(super) async fn record(
        &self,
        transaction: &Transaction<'_>,
        keys: &Arc<SegmentKeys>,
    ) -> Result<bool, LoadError> {
        let keys = Arc::clone(keys);
        let pipeline = Arc::clone(&self.pipeline);
        let copied = copy_in(transaction, COPY_MESSAGES, move |feed| write_keys(feed, &pipeline, &keys)).await;
        match copied {
            Ok(_) => Ok(true),
            Err(CopyError::Postgres(error)) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => Ok(false),
            Err(CopyError::Postgres(error)) => Err(ledger_error("recording messages in")(error)),
            Err(CopyError::Source(error)) => Err(error),
        }
    }

    /// Records those messages that are not recorded yet; for each position, whether it was.
    pub(super) async fn claim(
        &self,
        transaction: &Transaction<'_>,
        keys: &Arc<SegmentKeys>,
    ) -> Result<Vec<bool>, LoadError> {
        let mut claimed = vec![false; keys.total()];
        let mut runs = keys.runs();
        while let Some((run, rest)) = runs.advance().await? {
            runs = rest;
            for batch in run.chunks(BATCH_KEYS) {
                let (times, ids) = parameters(batch);
                let inserted = transaction.query(CLAIM, &[&&*self.pipeline, &times, &ids]).await;
                for row in inserted.map_err(ledger_error("claiming messages in"))? {
                    let key = row.try_get(0).and_then(|sent_at| Ok((sent_at, row.try_get(1)?)));
                    let (sent_at, id): (SystemTime, Uuid) = key.map_err(ledger_error("claiming messages in"))?;
                    // Of a message that is there twice, the first position is the row.
                    let first = batch.partition_point(|key| (key.sent_at(), key.message_id) < (sent_at, id));
                    claimed[batch[first].position] = true;
                }
            }
        }
        Ok(claimed)
    }

    /// Forgets a segment: its row, its rejects, and the messages that it recorded itself. A message of it that
    /// another segment recorded stays a duplicate.
    pub(super) async fn forget(
        &self,
        transaction: &Transaction<'_>,
        segment: SegmentId,
        keys: &Arc<SegmentKeys>,
    ) -> Result<(), LoadError> {
        let id = segment.as_uuid();
        let failed = || ledger_error("removing a segment from");
        transaction.batch_execute(PLAN_FOR_ANY_KEYS).await.map_err(failed())?;
        let mut runs = keys.runs();
        while let Some((run, rest)) = runs.advance().await? {
            runs = rest;
            for batch in run.chunks(BATCH_KEYS) {
                let (times, ids) = parameters(batch);
                let forgotten = transaction.execute(FORGET_MESSAGES, &[&&*self.pipeline, &times, &ids, &id]).await;
                forgotten.map_err(failed())?;
            }
        }
        transaction.batch_execute(PLAN_AS_BEFORE).await.map_err(failed())?;
        transaction.execute(FORGET_REJECTS, &[&&*self.pipeline, &id]).await.map_err(failed())?;
        transaction.execute(FORGET_SEGMENT, &[&id]).await.map_err(failed())?;
        Ok(())
    }

    /// Records rejects; returns the ids of those that were not recorded before.
    pub(super) async fn insert_rejects(
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
    pub(super) async fn rejects_of(
        &self,
        client: &impl GenericClient,
        segment: SegmentId,
    ) -> Result<Vec<RejectRow>, LoadError> {
        let found = client.query(REJECTS_OF, &[&&*self.pipeline, &segment.as_uuid()]).await;
        let read = |row: &Row| {
            let stage: String = row.try_get(1)?;
            let (message_id, field, reason) = (row.try_get(0)?, row.try_get(2)?, row.try_get(3)?);
            Ok(RejectRow { message_id, stage: stage.into(), field, reason })
        };
        found.and_then(|rows| rows.iter().map(read).collect()).map_err(ledger_error("reading rejects of"))
    }

    /// Undoes what this transaction recorded of a segment's rejects, so that their next delivery is none of a
    /// message that is known.
    pub(super) async fn take_back(
        &self,
        transaction: &Transaction<'_>,
        segment: SegmentId,
        rejects: &[NewReject],
    ) -> Result<(), LoadError> {
        let failed = || ledger_error("taking rejects back from");
        transaction.execute(FORGET_REJECTS, &[&&*self.pipeline, &segment.as_uuid()]).await.map_err(failed())?;
        for batch in rejects.chunks(BATCH_KEYS) {
            let keys: Vec<Key> = batch.iter().map(|reject| reject.key).collect();
            let (times, ids) = parameters(&keys);
            let taken = transaction.execute(TAKE_BACK_MESSAGES, &[&&*self.pipeline, &times, &ids]).await;
            taken.map_err(failed())?;
        }
        Ok(())
    }

    /// Records the segment, and returns the time of the transaction.
    pub(super) async fn insert_segment(
        &self,
        transaction: &Transaction<'_>,
        committed: &Committed,
        keys: &SegmentKeys,
    ) -> Result<SystemTime, LoadError> {
        let failed = || ledger_error("recording a segment in");
        let [received, loaded, duplicates, rejected] =
            [committed.received, committed.loaded, committed.duplicates, committed.rejected].map(u64::cast_signed);
        let (first, last) = keys.sent_between();
        let id = committed.segment.as_uuid();
        let pipeline = &*self.pipeline;
        let inserted = transaction
            .query_opt(
                INSERT_SEGMENT,
                &[
                    &id,
                    &pipeline,
                    &received,
                    &loaded,
                    &duplicates,
                    &rejected,
                    &first,
                    &last,
                    &self.host,
                    &&*committed.left,
                ],
            )
            .await
            .map_err(failed())?;
        let row = inserted.ok_or(LoadError::SegmentBusy { segment: committed.segment })?;
        row.try_get(0).map_err(failed())
    }
}

fn read_segment(row: &Row) -> Result<(Committed, SystemTime), tokio_postgres::Error> {
    let committed = Committed {
        segment: row.try_get::<_, Uuid>(0)?.into(),
        received: count(row, 1)?,
        loaded: count(row, 2)?,
        duplicates: count(row, 3)?,
        rejected: count(row, 4)?,
        recognised: true,
        left: row.try_get::<_, Vec<Uuid>>(6)?.into(),
        rejects: Arc::default(),
    };
    Ok((committed, row.try_get(5)?))
}

fn count(row: &Row, column: usize) -> Result<u64, tokio_postgres::Error> {
    row.try_get::<_, i64>(column).map(i64::cast_unsigned)
}

fn parameters(keys: &[Key]) -> (Vec<SystemTime>, Vec<Uuid>) {
    keys.iter().map(|key| (key.sent_at(), key.message_id)).unzip()
}

/// Rejects as parameters of a statement that unnests them.
pub(super) struct RejectColumns<'a> {
    pub(super) ids: Vec<Uuid>,
    pub(super) stages: Vec<&'a str>,
    pub(super) fields: Vec<Option<&'a str>>,
    pub(super) reasons: Vec<&'a str>,
}

pub(super) fn reject_columns(rejects: &[NewReject]) -> RejectColumns<'_> {
    let rows = || rejects.iter().map(|reject| &reject.row);
    RejectColumns {
        ids: rows().map(|row| row.message_id).collect(),
        stages: rows().map(|row| row.stage.as_ref()).collect(),
        fields: rows().map(|row| row.field.as_deref()).collect(),
        reasons: rows().map(|row| row.reason.as_str()).collect(),
    }
}

/// Writes keys as COPY's binary format has them, which the server reads several times faster than text.
fn write_keys(feed: &mut Feed, pipeline: &str, keys: &Arc<SegmentKeys>) -> Result<(), LoadError> {
    const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
    let mut row = Vec::new();
    row.extend_from_slice(&3_i16.to_be_bytes());
    row.extend_from_slice(&u32::try_from(pipeline.len()).unwrap_or(u32::MAX).to_be_bytes());
    row.extend_from_slice(pipeline.as_bytes());
    let constant = row.len();
    feed.write(SIGNATURE);
    feed.write(&[0; 8]); // no flags, no header extension
    let mut runs = keys.runs();
    while let Some(run) = runs.next()? {
        for key in run.iter() {
            row.truncate(constant);
            row.extend_from_slice(&8_u32.to_be_bytes());
            row.extend_from_slice(&(key.sent_at_us - POSTGRES_EPOCH_US).to_be_bytes());
            row.extend_from_slice(&16_u32.to_be_bytes());
            row.extend_from_slice(key.message_id.as_bytes());
            if !feed.write(&row) {
                return Ok(());
            }
        }
    }
    feed.write(&(-1_i16).to_be_bytes());
    Ok(())
}

/// For `map_err`: an error of a statement on the ledger.
pub(crate) fn ledger_error(action: &'static str) -> impl FnOnce(tokio_postgres::Error) -> LoadError {
    move |error| match error.code() {
        Some(&SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME | &SqlState::UNDEFINED_FUNCTION) => {
            LoadError::NoLedger
        }
        _ => refused(&format!("{action} the ledger"), error),
    }
}
