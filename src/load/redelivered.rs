//! Rejects that the queue delivers again: a message whose reject an earlier transaction recorded, and whose body may be
//! gone with that process's disk.
//!
//! A process that dies between COMMIT and the acknowledgement leaves a reject in the ledger. Where its disk is lost with
//! it, the redelivery brings the only body that there is. So before it is deleted as a duplicate
//! - its body is kept again where it is not here, in the reject file of the segment that recorded the reject: there
//!   `rejects retry` looks for it, and removes it once it is a row;
//! - it counts among the rejects to be sent to a dead-letter queue, because nobody knows whether it was sent.
//!
//! The counts stay as they are: the message is a duplicate.
//!
//! So it is with the rejects of a segment that the ledger knows, whose file came here without the reject file beside it:
//! before it is acknowledged, their bodies are kept here, too.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::message_keys::MessageKey;
use super::rejects::{append_spool_lines, one_writer};
use super::{Committed, LoadError, Loader, RejectRow};
use crate::blocking::blocking;
use crate::durable::AtomicFile;
use crate::postgres::Retries;
use crate::postgres::watch::answered;
use crate::reason::Reason;
use crate::segment::SegmentId;
use crate::spool::{SegmentReader, message_uuid, read_rejects};
use crate::staging::Staging;

/// A reject that the ledger has of a message, whichever segment holds that message now.
pub(super) struct RecordedReject {
    /// The segment whose transaction recorded it.
    pub(super) segment: SegmentId,
    pub(super) reject: RejectRow,
}

impl Loader {
    /// Looks for rejects among the messages of a committed segment that an earlier transaction had decided, and keeps
    /// their bodies. For a segment that is to be acknowledged; before that.
    pub async fn keep_redelivered_rejects(
        &mut self,
        staging: &Staging,
        committed: Committed,
    ) -> Result<Committed, LoadError> {
        let own = committed.was_known() && committed.recorded_rejects() > 0;
        if committed.duplicates() == 0 && !own {
            return Ok(committed);
        }
        let (segment, mut retries) = (committed.segment(), Retries::new());
        let mut recorded = loop {
            match self.recorded_rejects(staging, &committed, own).await {
                Ok(recorded) => break recorded,
                Err(error) => self.prepare_retry(&mut retries, error).await?,
            }
        };
        let (files, pipeline) = (staging.clone(), self.pipeline.name.clone());
        let kept = move || keep_again(&files, segment, &pipeline, &recorded).map(|()| recorded);
        recorded = blocking(kept).await?;
        // Its own are there already.
        let more = recorded.into_iter().filter(|recorded| recorded.segment != segment).map(|recorded| recorded.reject);
        Ok(if self.destination.ledger.with_rejects { committed.with_more_rejects(more) } else { committed })
    }

    async fn recorded_rejects(
        &mut self,
        staging: &Staging,
        committed: &Committed,
        own: bool,
    ) -> Result<Vec<RecordedReject>, LoadError> {
        self.reconnect().await?;
        let (ledger, client) = (&self.destination.ledger, &self.connection.client);
        let segment = committed.segment();
        let mut recorded = Vec::new();
        let Some(file) = staging.find_unacknowledged(segment) else { return Ok(recorded) };
        if own {
            let rejects = answered(ledger.rejects_of(client, segment)).await??;
            recorded.extend(rejects.into_iter().map(|reject| RecordedReject { segment, reject }));
        }
        if committed.duplicates() == 0 || !answered(ledger.has_rejects(client)).await?? {
            return Ok(recorded);
        }
        let mut reader = blocking(move || SegmentReader::open(&file)).await?;
        loop {
            let (rest, keys) = blocking(move || next_keys(&mut reader).map(|keys| (reader, keys))).await?;
            reader = rest;
            let Some(keys) = keys else { return Ok(recorded) };
            let known = answered(ledger.recorded_rejects(client, &keys)).await??;
            recorded.extend(known.into_iter().filter(|recorded| recorded.segment != segment));
        }
    }
}

/// The identities in the next block of a segment.
fn next_keys(reader: &mut SegmentReader) -> Result<Option<Vec<MessageKey>>, LoadError> {
    let Some(block) = reader.next_block()? else { return Ok(None) };
    let mut keys = Vec::new();
    for line in block.lines() {
        let record = line?.record;
        keys.push(MessageKey::new(record.identity_time_ms(), &record.message_id, 0));
    }
    Ok(Some(keys))
}

/// Keeps the bodies that are not here. Blocks until they are durable.
fn keep_again(
    staging: &Staging,
    segment: SegmentId,
    pipeline: &str,
    recorded: &[RecordedReject],
) -> Result<(), LoadError> {
    let mut owners: HashMap<SegmentId, HashMap<Uuid, &Reason>> = HashMap::new();
    for RecordedReject { segment, reject } in recorded {
        owners.entry(*segment).or_default().insert(reject.message_id, &reject.reason);
    }
    for (owner, mut missing) in owners {
        let _alone = one_writer();
        let path = staging.rejects(owner);
        let mut kept = HashSet::new();
        for entry in read_rejects(&path)? {
            let entry = entry?;
            if entry.is_of(pipeline) {
                kept.insert(message_uuid(&entry.message_id));
            }
        }
        missing.retain(|id, _| !kept.contains(id));
        if missing.is_empty() {
            continue;
        }
        tracing::info!(segment = %owner, messages = missing.len(), "rejects that were delivered again are kept again");
        let mut file = AtomicFile::create(&path)?;
        let mut earlier = read_rejects(&path)?;
        while earlier.next().transpose()?.is_some() {
            file.write(earlier.line())?;
        }
        append_spool_lines(staging, segment, pipeline, missing, &mut file)?;
        file.finish()?;
    }
    Ok(())
}
