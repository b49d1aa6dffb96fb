//! Lists the rejects of a pipeline: counted by reason, or one by one.

use std::time::SystemTime;

use futures::{Stream, TryStreamExt};
use serde::Serialize;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::super::LoadError;
use super::rejects::stage_of;
use super::{check_version, ledger_error};
use crate::reason::Reason;
use crate::segment::SegmentId;

const GROUPS: &str = "SELECT stage, field, reason, pg_catalog.count(*), pg_catalog.min(rejected_at), \
     pg_catalog.max(rejected_at) FROM pgsluice.reject JOIN pgsluice.pipeline \
     ON pipeline.id OPERATOR(pg_catalog.=) reject.pipeline LEFT JOIN pgsluice.segment \
     ON segment.pipeline OPERATOR(pg_catalog.=) reject.pipeline \
     AND segment.segment_no OPERATOR(pg_catalog.=) reject.segment_no \
     WHERE pipeline.name OPERATOR(pg_catalog.=) $1 \
     AND (pg_catalog.cardinality($2) OPERATOR(pg_catalog.=) 0 OR segment.id OPERATOR(pg_catalog.=) ANY ($2)) \
     GROUP BY stage, field, reason ORDER BY pg_catalog.count(*) DESC, stage, field, reason LIMIT $3";
const ENTRIES: &str = "SELECT message_id, segment.id, stage, field, reason, rejected_at \
     FROM pgsluice.reject JOIN pgsluice.pipeline \
     ON pipeline.id OPERATOR(pg_catalog.=) reject.pipeline LEFT JOIN pgsluice.segment \
     ON segment.pipeline OPERATOR(pg_catalog.=) reject.pipeline \
     AND segment.segment_no OPERATOR(pg_catalog.=) reject.segment_no \
     WHERE pipeline.name OPERATOR(pg_catalog.=) $1 \
     AND (pg_catalog.cardinality($2) OPERATOR(pg_catalog.=) 0 OR segment.id OPERATOR(pg_catalog.=) ANY ($2)) \
     ORDER BY rejected_at DESC, segment.id, message_id LIMIT $3";

const OF_MESSAGE: &str = "SELECT message_id, segment.id, stage, field, reason, rejected_at, segment.host \
     FROM pgsluice.reject JOIN pgsluice.pipeline \
     ON pipeline.id OPERATOR(pg_catalog.=) reject.pipeline LEFT JOIN pgsluice.segment \
     ON segment.pipeline OPERATOR(pg_catalog.=) reject.pipeline \
     AND segment.segment_no OPERATOR(pg_catalog.=) reject.segment_no \
     WHERE pipeline.name OPERATOR(pg_catalog.=) $1 AND message_id OPERATOR(pg_catalog.=) $2 \
     ORDER BY rejected_at, segment.id";

/// Which rejects of the ledger are listed.
#[derive(Debug, Clone)]
pub struct Selection<'a> {
    /// The pipeline's name.
    pub pipeline: &'a str,
    /// Only rejects of these segments; none means all.
    pub segments: &'a [SegmentId],
    /// At most this number of lines.
    pub limit: Option<u32>,
}

/// Rejects with the same reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RejectGroup {
    /// How many there are.
    pub rejects: i64,
    /// Who refused them, and why.
    #[serde(flatten)]
    pub reason: Reason,
    /// When the first was recorded.
    pub first_rejected_at: jiff::Timestamp,
    /// When the last was recorded.
    pub last_rejected_at: jiff::Timestamp,
}

/// One reject of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedReject {
    /// The message's id.
    pub message_id: Uuid,
    /// The segment whose reject file holds it; null where the migration from version 1 of the ledger could not tell it.
    pub segment: Option<SegmentId>,
    /// Who refused it, and why.
    #[serde(flatten)]
    pub reason: Reason,
    /// When it was recorded.
    pub rejected_at: jiff::Timestamp,
}

/// A reject of the ledger that was looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundReject {
    /// Which one.
    #[serde(flatten)]
    pub listed: ListedReject,
    /// The host that recorded it, and keeps its body; null as for the segment.
    pub host: Option<String>,
}

impl FoundReject {
    /// A message's rejects in this pipeline, one a segment, the oldest first.
    pub async fn of_message(client: &Client, pipeline: &str, message_id: Uuid) -> Result<Vec<Self>, LoadError> {
        check_version(client).await?;
        let read = |row: &Row| Ok(Self { listed: listed(row)?, host: row.try_get(6)? });
        let found = client.query_typed(OF_MESSAGE, &[(&pipeline, Type::TEXT), (&message_id, Type::UUID)]).await;
        found.and_then(|rows| rows.iter().map(read).collect()).map_err(ledger_error("reading rejects of"))
    }
}

impl Selection<'_> {
    /// The rejects counted by stage, field and reason, the most frequent first.
    pub async fn groups(
        &self,
        client: &Client,
    ) -> Result<impl Stream<Item = Result<RejectGroup, LoadError>>, LoadError> {
        self.rows(client, GROUPS, |row| {
            Ok(RejectGroup {
                reason: reason(row, 0)?,
                rejects: row.try_get(3)?,
                first_rejected_at: instant(row, 4)?,
                last_rejected_at: instant(row, 5)?,
            })
        })
        .await
    }

    /// The rejects one by one, the newest first.
    pub async fn entries(
        &self,
        client: &Client,
    ) -> Result<impl Stream<Item = Result<ListedReject, LoadError>>, LoadError> {
        self.rows(client, ENTRIES, listed).await
    }

    async fn rows<T>(
        &self,
        client: &Client,
        statement: &str,
        read: impl Fn(&Row) -> Result<T, tokio_postgres::Error>,
    ) -> Result<impl Stream<Item = Result<T, LoadError>>, LoadError> {
        check_version(client).await?;
        let failed = || ledger_error("reading rejects of");
        let segments: Vec<Uuid> = self.segments.iter().map(|segment| segment.as_uuid()).collect();
        let limit = self.limit.map(i64::from);
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&self.pipeline, Type::TEXT), (&segments, Type::UUID_ARRAY), (&limit, Type::INT8)];
        let rows = client.query_typed_raw(statement, parameters).await.map_err(failed())?;
        Ok(rows.map_err(move |error| failed()(error)).and_then(move |row| {
            let item = read(&row).map_err(ledger_error("reading rejects of"));
            std::future::ready(item)
        }))
    }
}

fn listed(row: &Row) -> Result<ListedReject, tokio_postgres::Error> {
    Ok(ListedReject {
        message_id: row.try_get(0)?,
        segment: row.try_get::<_, Option<Uuid>>(1)?.map(SegmentId::from),
        reason: reason(row, 2)?,
        rejected_at: instant(row, 5)?,
    })
}

/// From this column and the two after it.
fn reason(row: &Row, column: usize) -> Result<Reason, tokio_postgres::Error> {
    Ok(Reason {
        stage: stage_of(row.try_get(column)?),
        field: row.try_get(column + 1)?,
        text: row.try_get(column + 2)?,
    })
}

fn instant(row: &Row, column: usize) -> Result<jiff::Timestamp, tokio_postgres::Error> {
    let time: SystemTime = row.try_get(column)?;
    Ok(jiff::Timestamp::try_from(time).unwrap_or_default())
}
