//! The messages whose fate is decided: recorded, claimed, taken back. Each carries the number of the segment that owns
//! it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

use super::super::LoadError;
use super::super::message_keys::{MessageKey, SegmentKeys};
use super::{BATCH_KEYS, Ledger, ledger_error};
use crate::postgres::{Connection, CopyError, Feed, copy_in};

/// Microseconds from 1970-01-01 to 2000-01-01, where Postgres counts from.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

const ENSURE_PARTITIONS: &str = "SELECT pgsluice.ensure_message_partitions($1)";
const PRUNE: &str = "SELECT pgsluice.prune()";
const COPY: &str = "COPY pgsluice.message (sent_at, message_id, pipeline, segment_no) FROM STDIN (FORMAT binary)";
const CLAIM: &str = "INSERT INTO pgsluice.message (pipeline, sent_at, message_id, segment_no) \
     SELECT $1, key.sent_at, key.message_id, $4 FROM unnest($2, $3) AS key (sent_at, message_id) \
     ON CONFLICT DO NOTHING RETURNING sent_at, message_id";
const TAKE_BACK: &str = "DELETE FROM pgsluice.message USING unnest($2, $3) AS key (sent_at, message_id) \
     WHERE message.pipeline OPERATOR(pg_catalog.=) $1 AND message.sent_at OPERATOR(pg_catalog.=) key.sent_at \
     AND message.message_id OPERATOR(pg_catalog.=) key.message_id";
const DECIDED: &str = "SELECT key.message_id FROM unnest($2, $3) AS key (sent_at, message_id) \
     JOIN pgsluice.message ON message.pipeline OPERATOR(pg_catalog.=) $1 \
     AND message.sent_at OPERATOR(pg_catalog.=) key.sent_at AND message.message_id OPERATOR(pg_catalog.=) key.message_id";
// Planned for the keys that they get, the joins above read whole partitions, once for each batch; planned for any keys,
// they look each up. Measured over two million messages: 11 s instead of 45 s and more.
const PLAN_FOR_ANY_KEYS: &str = "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";
const PLAN_AS_BEFORE: &str = "SET LOCAL enable_hashjoin TO DEFAULT; SET LOCAL enable_mergejoin TO DEFAULT";

impl Ledger {
    /// Creates the partitions of these days that are missing. A transaction of its own.
    pub(in crate::load) async fn ensure_partitions(
        &self,
        connection: &mut Connection,
        days: &[i32],
    ) -> Result<(), LoadError> {
        let failed = || ledger_error("creating partitions of");
        let transaction = connection.begin().await.map_err(failed())?;
        let ensured = transaction.execute_typed(ENSURE_PARTITIONS, &[(&days, Type::INT4_ARRAY)]).await;
        ensured.map_err(failed())?;
        transaction.commit().await.map_err(failed())
    }

    /// Forgets messages that cannot be delivered any more. A transaction of its own.
    pub(in crate::load) async fn prune(&self, client: &Client) -> Result<(), LoadError> {
        client.execute_typed(PRUNE, &[]).await.map(|_| ()).map_err(ledger_error("pruning"))
    }

    /// Records all messages of a segment. `false`: one is recorded already, or is there twice, and the transaction must be
    /// rolled back.
    pub(in crate::load) async fn record(
        &self,
        transaction: &Transaction<'_>,
        segment_no: i32,
        keys: &Arc<SegmentKeys>,
    ) -> Result<bool, LoadError> {
        let (keys, pipeline) = (Arc::clone(keys), self.pipeline);
        let copied = copy_in(transaction, COPY, move |feed| write_keys(feed, pipeline, segment_no, &keys)).await;
        match copied {
            Ok(_) => Ok(true),
            Err(CopyError::Source(error)) => Err(error),
            Err(CopyError::Postgres(error)) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => Ok(false),
            Err(CopyError::Postgres(error)) => Err(recording_error("recording messages in")(error)),
        }
    }

    /// Records those messages that are not recorded yet; for each position, whether it was.
    pub(in crate::load) async fn claim(
        &self,
        transaction: &Transaction<'_>,
        segment_no: i32,
        keys: &Arc<SegmentKeys>,
    ) -> Result<Vec<bool>, LoadError> {
        let failed = || recording_error("claiming messages in");
        let mut claimed = vec![false; keys.total()];
        let mut runs = keys.runs();
        while let Some((run, rest)) = runs.advance().await? {
            runs = rest;
            for batch in run.chunks(BATCH_KEYS) {
                let (times, ids) = parameters(batch);
                let parameters = [
                    (&self.pipeline as _, Type::INT4),
                    (&times as _, Type::TIMESTAMPTZ_ARRAY),
                    (&ids as _, Type::UUID_ARRAY),
                    (&segment_no as _, Type::INT4),
                ];
                for row in transaction.query_typed(CLAIM, &parameters).await.map_err(failed())? {
                    let key = row.try_get(0).and_then(|sent_at| Ok((sent_at, row.try_get(1)?)));
                    let (sent_at, id): (SystemTime, Uuid) = key.map_err(failed())?;
                    // Of a message that is there twice, the first position is the row.
                    let first = batch.partition_point(|key| (key.sent_at(), key.message_id) < (sent_at, id));
                    claimed[batch[first].position] = true;
                }
            }
        }
        Ok(claimed)
    }

    /// Undoes what this transaction recorded of some messages, so that their next delivery is no duplicate.
    pub(in crate::load) async fn take_back(
        &self,
        transaction: &Transaction<'_>,
        keys: &[MessageKey],
    ) -> Result<(), LoadError> {
        let failed = || ledger_error("taking messages back from");
        if keys.is_empty() {
            return Ok(());
        }
        transaction.batch_execute(PLAN_FOR_ANY_KEYS).await.map_err(failed())?;
        for batch in keys.chunks(BATCH_KEYS) {
            let (times, ids) = parameters(batch);
            let taken = transaction.execute_typed(TAKE_BACK, &self.key_parameters(&times, &ids)).await;
            taken.map_err(failed())?;
        }
        transaction.batch_execute(PLAN_AS_BEFORE).await.map_err(failed())
    }

    /// Which of these messages are decided, by their ids.
    pub(in crate::load) async fn decided(
        &self,
        client: &Client,
        keys: &[MessageKey],
    ) -> Result<HashSet<Uuid>, LoadError> {
        let failed = || ledger_error("looking messages up in");
        let mut decided = HashSet::new();
        for batch in keys.chunks(BATCH_KEYS) {
            let (times, ids) = parameters(batch);
            for row in client.query_typed(DECIDED, &self.key_parameters(&times, &ids)).await.map_err(failed())? {
                decided.insert(row.try_get(0).map_err(failed())?);
            }
        }
        Ok(decided)
    }

    fn key_parameters<'a>(
        &'a self,
        times: &'a Vec<SystemTime>,
        ids: &'a Vec<Uuid>,
    ) -> [(&'a (dyn tokio_postgres::types::ToSql + Sync), Type); 3] {
        [(&self.pipeline, Type::INT4), (times, Type::TIMESTAMPTZ_ARRAY), (ids, Type::UUID_ARRAY)]
    }
}

/// For `map_err`: a partition may have been pruned after this loader had made sure of it.
fn recording_error(action: &'static str) -> impl FnOnce(tokio_postgres::Error) -> LoadError {
    move |error| match error.code() {
        Some(&SqlState::CHECK_VIOLATION) => LoadError::NoMessagePartition,
        _ => ledger_error(action)(error),
    }
}

fn parameters(keys: &[MessageKey]) -> (Vec<SystemTime>, Vec<Uuid>) {
    keys.iter().map(|key| (key.sent_at(), key.message_id)).unzip()
}

/// Writes keys as COPY's binary format has them, which the server reads several times faster than text.
fn write_keys(feed: &mut Feed, pipeline: i32, segment_no: i32, keys: &Arc<SegmentKeys>) -> Result<(), LoadError> {
    const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
    const FIELDS: i16 = 4;
    let mut owner = Vec::new();
    for number in [pipeline, segment_no] {
        owner.extend_from_slice(&4_u32.to_be_bytes());
        owner.extend_from_slice(&number.to_be_bytes());
    }
    feed.write(SIGNATURE);
    feed.write(&[0; 8]); // no flags, no header extension
    let mut row = Vec::new();
    let mut runs = keys.runs();
    while let Some(run) = runs.next()? {
        for key in run.iter() {
            row.clear();
            row.extend_from_slice(&FIELDS.to_be_bytes());
            row.extend_from_slice(&8_u32.to_be_bytes());
            row.extend_from_slice(&(key.sent_at_us - POSTGRES_EPOCH_US).to_be_bytes());
            row.extend_from_slice(&16_u32.to_be_bytes());
            row.extend_from_slice(key.message_id.as_bytes());
            row.extend_from_slice(&owner);
            if !feed.write(&row) {
                return Ok(());
            }
        }
    }
    feed.write(&(-1_i16).to_be_bytes());
    Ok(())
}
