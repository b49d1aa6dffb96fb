//! What became of one message, as far as the ledger tells.

use std::time::SystemTime;

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::super::LoadError;
use super::rejects::stage_of;
use super::{Ledger, count, ledger_error};
use crate::reason::Reason;
use crate::segment::SegmentId;

/// Without times, the keys of all days are read.
const OWNER: &str = "SELECT segment_no FROM pgsluice.message WHERE pipeline OPERATOR(pg_catalog.=) $1 \
     AND message_id OPERATOR(pg_catalog.=) $2 \
     AND (pg_catalog.cardinality($3) OPERATOR(pg_catalog.=) 0 OR sent_at OPERATOR(pg_catalog.=) ANY ($3)) LIMIT 1";
const BY_NUMBER: &str = "SELECT id, host, loaded_at, duplicates, false FROM pgsluice.segment \
     WHERE pipeline OPERATOR(pg_catalog.=) $1 AND segment_no OPERATOR(pg_catalog.=) $2";
const BY_NAME: &str = "SELECT id, host, loaded_at, duplicates, $3 OPERATOR(pg_catalog.=) ANY (left_in_queue) \
     FROM pgsluice.segment WHERE pipeline OPERATOR(pg_catalog.=) $1 AND id OPERATOR(pg_catalog.=) ANY ($2)";
const REJECT: &str = "SELECT stage, field, reason, segment_no FROM pgsluice.reject \
     WHERE pipeline OPERATOR(pg_catalog.=) $1 AND message_id OPERATOR(pg_catalog.=) $2 \
     ORDER BY rejected_at DESC LIMIT 1";

/// A segment as the ledger knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedSegment {
    /// Its name.
    pub segment: SegmentId,
    /// The host that loaded it.
    pub host: String,
    /// When it was loaded.
    pub loaded_at: jiff::Timestamp,
    /// Whether some of its messages had been loaded before.
    pub has_duplicates: bool,
    /// It refused the message in question, and left it in the queue.
    pub left_it_in_queue: bool,
}

/// What the ledger knows of one message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fate {
    /// It is decided: its row is in the table, or it is a reject.
    pub is_decided: bool,
    /// The segment that decided it; `None` where the ledger does not say which.
    pub owner: Option<LoadedSegment>,
    /// Why it is a reject, if it is one.
    pub reject: Option<Reason>,
    /// Those of the segments in question that are loaded.
    pub loaded: Vec<LoadedSegment>,
}

impl Ledger {
    /// What became of a message. `times`: those that its identity may have, where they are known; `segments`: where a
    /// delivery of it lies.
    pub(in crate::load) async fn fate(
        &self,
        client: &Client,
        message_id: Uuid,
        times: &[SystemTime],
        segments: &[SegmentId],
    ) -> Result<Fate, LoadError> {
        let failed = || ledger_error("looking a message up in");
        let of_message: [(&(dyn ToSql + Sync), Type); 3] =
            [(&self.pipeline, Type::INT4), (&message_id, Type::UUID), (&times, Type::TIMESTAMPTZ_ARRAY)];
        let owner = client.query_typed_opt(OWNER, &of_message).await.map_err(failed())?;
        let owner: Option<i32> = owner.map(|row| row.try_get(0)).transpose().map_err(failed())?;
        let reject = client.query_typed_opt(REJECT, &of_message[..2]).await.map_err(failed())?;
        let reject = reject.map(|row| {
            let reason = Reason { stage: stage_of(row.try_get(0)?), field: row.try_get(1)?, text: row.try_get(2)? };
            Ok((reason, row.try_get::<_, i32>(3)?))
        });
        let reject = reject.transpose().map_err(failed())?;
        let number = reject.as_ref().map(|(_, number)| *number).or(owner);
        let decided_by = match number {
            Some(number) => {
                let parameters: [(&(dyn ToSql + Sync), Type); 2] =
                    [(&self.pipeline, Type::INT4), (&number, Type::INT4)];
                loaded_segments(client, BY_NUMBER, &parameters).await.map_err(failed())?.pop()
            }
            None => None,
        };
        let names: Vec<Uuid> = segments.iter().map(|segment| segment.as_uuid()).collect();
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&self.pipeline, Type::INT4), (&names, Type::UUID_ARRAY), (&message_id, Type::UUID)];
        let loaded = loaded_segments(client, BY_NAME, &parameters).await.map_err(failed())?;
        Ok(Fate { is_decided: number.is_some(), owner: decided_by, reject: reject.map(|(reason, _)| reason), loaded })
    }
}

async fn loaded_segments(
    client: &Client,
    statement: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Vec<LoadedSegment>, tokio_postgres::Error> {
    let rows = client.query_typed(statement, parameters).await?;
    let read = |row: &tokio_postgres::Row| {
        Ok(LoadedSegment {
            segment: row.try_get::<_, Uuid>(0)?.into(),
            host: row.try_get(1)?,
            loaded_at: row.try_get::<_, SystemTime>(2)?.try_into().unwrap_or_default(),
            has_duplicates: count(row, 3)? > 0,
            left_it_in_queue: row.try_get(4)?,
        })
    };
    rows.iter().map(read).collect()
}
