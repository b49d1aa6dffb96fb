//! The messages whose fate is decided: recorded, claimed, forgotten.

use std::sync::Arc;
use std::time::SystemTime;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

use super::super::LoadError;
use super::super::message_keys::{MessageKey, SegmentKeys};
use super::{BATCH_KEYS, Ledger, NewReject, ledger_error};
use crate::postgres::{CopyError, Feed, copy_in};
use crate::segment::SegmentId;

/// Microseconds from 1970-01-01 to 2000-01-01, where Postgres counts from.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

const ENSURE_PARTITIONS: &str =
    "SELECT pgsluice.ensure_message_partitions(date '1970-01-01' + $1::integer, date '1970-01-01' + $2::integer)";
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
const TAKE_BACK_MESSAGES: &str = "DELETE FROM pgsluice.message \
     USING unnest($2::timestamptz[], $3::uuid[]) AS key (sent_at, message_id) \
     WHERE message.pipeline = $1 AND message.sent_at = key.sent_at AND message.message_id = key.message_id";

impl Ledger {
    /// Creates the partitions of these days that are missing. A transaction of its own.
    pub(in crate::load) async fn ensure_partitions(
        &self,
        client: &Client,
        first: i32,
        last: i32,
    ) -> Result<(), LoadError> {
        let ensured = client.execute(ENSURE_PARTITIONS, &[&first, &last]).await;
        ensured.map(|_| ()).map_err(ledger_error("creating partitions of"))
    }

    /// Records all messages of a segment, or says `false` because one is recorded already, or is there twice;
    /// then the transaction must be rolled back.
    pub(in crate::load) async fn record(
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
    pub(in crate::load) async fn claim(
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
    pub(in crate::load) async fn forget(
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
        self.forget_rejects(transaction, segment).await?;
        self.forget_segment(transaction, segment).await
    }

    /// Undoes what this transaction recorded of a segment's rejects, so that their next delivery is none of a
    /// message that is known.
    pub(in crate::load) async fn take_back(
        &self,
        transaction: &Transaction<'_>,
        segment: SegmentId,
        rejects: &[NewReject],
    ) -> Result<(), LoadError> {
        let failed = || ledger_error("taking rejects back from");
        self.forget_rejects(transaction, segment).await?;
        for batch in rejects.chunks(BATCH_KEYS) {
            let keys: Vec<MessageKey> = batch.iter().map(|reject| reject.key).collect();
            let (times, ids) = parameters(&keys);
            let taken = transaction.execute(TAKE_BACK_MESSAGES, &[&&*self.pipeline, &times, &ids]).await;
            taken.map_err(failed())?;
        }
        Ok(())
    }
}

fn parameters(keys: &[MessageKey]) -> (Vec<SystemTime>, Vec<Uuid>) {
    keys.iter().map(|key| (key.sent_at(), key.message_id)).unzip()
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
