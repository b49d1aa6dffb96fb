//! Rejects after the fact: what `pgsluice rejects list` and `rejects retry` do.
//!
//! Always true: bodies stay in the staging directory; what is listed comes from the ledger, which has none. A retry
//! loads a message only in the transaction that deletes its reject from the ledger ([`Loader::readmit`]), so it
//! counts once however often it is retried. The reject file follows after COMMIT, replaced as a whole; a crash before
//! that leaves lines whose reject is gone from the ledger, which the next retry drops.
//!
//! A retry works in `retry/` in the staging directory, a staging directory of its own that is removed at the end, and
//! by the next retry should this one be killed.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use futures::{Stream, TryStreamExt};
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use crate::blocking::blocking;
use crate::error::{Error, LoadError, SpoolError, StagingError};
use crate::load::{Loader, ledger_error, message_uuid};
use crate::spool::{SegmentReader, SegmentWriter};
use crate::staging::{AtomicFile, SegmentId, Staging, remove_if_present};
use crate::transform::{Plan, StagedSegment, transform};

const GROUPS: &str = "SELECT stage, field, reason, count(*), min(rejected_at), max(rejected_at) FROM pgsluice.reject \
     WHERE pipeline = $1 AND (cardinality($2::uuid[]) = 0 OR segment = ANY($2)) \
     GROUP BY stage, field, reason ORDER BY count(*) DESC, stage, field, reason LIMIT $3";
const ENTRIES: &str = "SELECT message_id, segment, stage, field, reason, rejected_at FROM pgsluice.reject \
     WHERE pipeline = $1 AND (cardinality($2::uuid[]) = 0 OR segment = ANY($2)) \
     ORDER BY rejected_at DESC, segment, message_id LIMIT $3";

/// Which rejects of the ledger are listed.
#[derive(Debug, Clone)]
pub struct Selection<'a> {
    /// The pipeline's name.
    pub pipeline: &'a str,
    /// Only rejects of these segments; none means all.
    pub segments: &'a [SegmentId],
    /// This many lines at most.
    pub limit: Option<u32>,
}

/// Rejects with the same reason.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RejectGroup {
    /// How many there are.
    pub rejects: i64,
    /// Who refused them: `transform` or `load`.
    pub stage: String,
    /// The field, column or constraint that is at fault, if it is one.
    pub field: Option<String>,
    /// Why, without any value of a message.
    pub reason: String,
    /// When the first was recorded.
    pub first_rejected_at: jiff::Timestamp,
    /// When the last was recorded.
    pub last_rejected_at: jiff::Timestamp,
}

/// One reject of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ListedReject {
    /// The message's id.
    pub message_id: Uuid,
    /// The segment whose reject file holds it.
    pub segment: SegmentId,
    /// Who refused it: `transform` or `load`.
    pub stage: String,
    /// The field, column or constraint that is at fault, if it is one.
    pub field: Option<String>,
    /// Why, without any value of the message.
    pub reason: String,
    /// When it was recorded.
    pub rejected_at: jiff::Timestamp,
}

/// What a retry of one segment's rejects came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retried {
    /// Rejects that it found.
    pub tried: u64,
    /// Those that are rows now.
    pub loaded: u64,
}

impl Selection<'_> {
    /// The rejects counted by stage, field and reason, the most frequent first.
    pub async fn groups(
        &self,
        client: &Client,
    ) -> Result<impl Stream<Item = Result<RejectGroup, LoadError>>, LoadError> {
        self.rows(client, GROUPS, |row| {
            Ok(RejectGroup {
                stage: row.try_get(0)?,
                field: row.try_get(1)?,
                reason: row.try_get(2)?,
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
        self.rows(client, ENTRIES, |row| {
            Ok(ListedReject {
                message_id: row.try_get(0)?,
                segment: row.try_get::<_, Uuid>(1)?.into(),
                stage: row.try_get(2)?,
                field: row.try_get(3)?,
                reason: row.try_get(4)?,
                rejected_at: instant(row, 5)?,
            })
        })
        .await
    }

    async fn rows<T>(
        &self,
        client: &Client,
        statement: &str,
        read: impl Fn(&Row) -> Result<T, tokio_postgres::Error>,
    ) -> Result<impl Stream<Item = Result<T, LoadError>>, LoadError> {
        let failed = || ledger_error("reading rejects of");
        let segments: Vec<Uuid> = self.segments.iter().map(|segment| segment.as_uuid()).collect();
        let limit = self.limit.map(i64::from);
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&self.pipeline, &segments, &limit];
        let rows = client.query_raw(statement, parameters).await.map_err(failed())?;
        Ok(rows.map_err(move |error| failed()(error)).and_then(move |row| {
            let item = read(&row).map_err(ledger_error("reading rejects of"));
            std::future::ready(item)
        }))
    }
}

/// Loads those rejects of a segment that fit by now. `None`: the ledger does not have the segment, so nothing of it
/// is decided yet. Needs the staging lock.
pub async fn retry(
    staging: &Staging,
    segment: SegmentId,
    plan: &Arc<Plan>,
    loader: &mut Loader,
) -> Result<Option<Retried>, Error> {
    let Some(committed) = loader.committed(&[segment]).await?.remove(&segment) else { return Ok(None) };
    let before = message_ids(loader, segment).await?;
    let left: HashSet<Uuid> = committed.left().iter().copied().collect();
    let workshop = Workshop::open(staging)?;

    let (files, scratch, plan, wanted) = (staging.clone(), workshop.staging.clone(), Arc::clone(plan), before.clone());
    let staged = blocking(move || stage(&files, segment, &scratch, &plan, wanted)).await?;
    if let Some(staged) = &staged {
        loader.readmit(segment, &workshop.staging, staged).await?;
    }
    let after = message_ids(loader, segment).await?;

    let (files, scratch) = (staging.clone(), workshop.staging.clone());
    let unfit = staged.map(|staged| scratch.rejects(staged.id));
    blocking(move || replace_reject_file(&files, segment, &left, unfit).map_err(Error::from)).await?;
    let tried = staged.map_or(0, |staged| staged.received);
    let missing = (before.len() as u64).saturating_sub(tried);
    if missing > 0 {
        tracing::warn!(%segment, rejects = missing, "not in the segment's reject file, so they could not be tried");
    }
    Ok(Some(Retried { tried, loaded: (before.len() - after.len()) as u64 }))
}

async fn message_ids(loader: &mut Loader, segment: SegmentId) -> Result<HashSet<Uuid>, LoadError> {
    Ok(loader.rejects_of(segment).await?.into_iter().map(|reject| reject.message_id).collect())
}

/// Writes the wanted lines of the reject file as a segment of its own, and transforms it. `None`: there are none.
fn stage(
    staging: &Staging,
    segment: SegmentId,
    scratch: &Staging,
    plan: &Plan,
    mut wanted: HashSet<Uuid>,
) -> Result<Option<StagedSegment>, Error> {
    let mut writer = SegmentWriter::create(scratch)?;
    let path = staging.rejects(segment);
    if !path.exists() {
        return Ok(None);
    }
    let mut reader = SegmentReader::open(&path)?;
    while let Some(block) = reader.next_block()? {
        for line in block.lines() {
            let record = line?.record;
            if wanted.remove(&message_uuid(&record.message_id)) {
                writer.append(&record)?;
            }
        }
    }
    if writer.messages() == 0 {
        return Ok(None);
    }
    let sealed = writer.seal()?;
    Ok(Some(transform(scratch, sealed.id, plan)?))
}

/// The new file holds the messages that were left in the queue, which the ledger has no reject for, and those that
/// still do not fit.
fn replace_reject_file(
    staging: &Staging,
    segment: SegmentId,
    left: &HashSet<Uuid>,
    unfit: Option<PathBuf>,
) -> Result<(), SpoolError> {
    let path = staging.rejects(segment);
    let mut file = AtomicFile::create(&path)?;
    let mut lines = 0_u64;
    for (source, only) in [(Some(path.clone()), Some(left)), (unfit, None)] {
        let Some(source) = source.filter(|source| source.exists()) else { continue };
        let mut reader = SegmentReader::open(&source)?;
        while let Some(block) = reader.next_block()? {
            for line in block.lines() {
                let line = line?;
                if only.is_none_or(|ids| ids.contains(&message_uuid(&line.record.message_id))) {
                    file.write(line.bytes)?;
                    file.write(b"\n")?;
                    lines += 1;
                }
            }
        }
    }
    if lines > 0 { Ok(file.finish()?) } else { Ok(remove_if_present(&path)?) }
}

/// A staging directory for one retry.
struct Workshop {
    staging: Staging,
}

impl Workshop {
    fn open(staging: &Staging) -> Result<Self, StagingError> {
        let root = staging.root().join("retry");
        // What a retry left that was killed.
        match fs::remove_dir_all(&root) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StagingError::io("remove", &root)(error));
            }
            _ => {}
        }
        Ok(Self { staging: Staging::open(&root)? })
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(self.staging.root());
    }
}

fn instant(row: &Row, column: usize) -> Result<jiff::Timestamp, tokio_postgres::Error> {
    let time: SystemTime = row.try_get(column)?;
    Ok(jiff::Timestamp::try_from(time).unwrap_or_default())
}
