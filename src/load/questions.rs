//! What a loader asks the ledger, and changes nothing.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use uuid::Uuid;

use super::ledger::RejectRow;
use super::message_keys::MessageKey;
use super::{Committed, Fate, LedgerDay, LedgerTotals, LoadError, Loader};
use crate::config::Dedupe;
use crate::segment::SegmentId;
use crate::spool::message_uuid;

impl Loader {
    /// Which of the segments the ledger knows, and how they were loaded. One query.
    pub async fn known(&mut self, segments: &[SegmentId]) -> Result<HashMap<SegmentId, Committed>, LoadError> {
        let ledger = self.destination.ledger.clone();
        let found = self.ask(async |client| ledger.find(client, segments).await).await?;
        let known = found.into_iter().map(|(record, _)| (record.segment, Committed::found_in_ledger(record)));
        Ok(known.collect())
    }

    /// What the ledger holds of this pipeline.
    pub async fn totals(&mut self) -> Result<LedgerTotals, LoadError> {
        let ledger = self.destination.ledger.clone();
        self.ask(async |client| ledger.totals(client).await).await
    }

    /// The last days on which something was loaded, from the oldest to the newest.
    pub async fn days(&mut self) -> Result<Vec<LedgerDay>, LoadError> {
        let ledger = self.destination.ledger.clone();
        self.ask(async |client| ledger.days(client).await).await
    }

    /// What became of a message. `times`: those that its identity may have, where they are known; without them the keys of
    /// all days are read. `segments`: where a delivery of it lies.
    pub async fn fate(
        &mut self,
        message_id: Uuid,
        times: &[SystemTime],
        segments: &[SegmentId],
    ) -> Result<Fate, LoadError> {
        let ledger = self.destination.ledger.clone();
        self.ask(async |client| ledger.fate(client, message_id, times, segments).await).await
    }

    /// What the ledger has as rejects of a segment.
    pub async fn rejects_of(&mut self, segment: SegmentId) -> Result<Vec<RejectRow>, LoadError> {
        let ledger = self.destination.ledger.clone();
        self.ask(async |client| ledger.rejects_of(client, segment).await).await
    }

    /// The number of rejects of segments that are not among these, by the host that recorded them.
    pub async fn rejects_not_among(&mut self, segments: &[SegmentId]) -> Result<Vec<(String, u64)>, LoadError> {
        let ledger = self.destination.ledger.clone();
        self.ask(async |client| ledger.rejects_not_among(client, segments).await).await
    }

    /// Which of these messages of a segment that the ledger has are decided. Each is a time of identity in milliseconds,
    /// and an id. By `dedupe = "segment"` all of a segment are decided together, except those that it left in its queue.
    pub async fn decided(
        &mut self,
        segment: &Committed,
        messages: &[(i64, String)],
    ) -> Result<HashSet<Uuid>, LoadError> {
        if self.pipeline.dedupe == Dedupe::Segment {
            let mut ids: HashSet<Uuid> = messages.iter().map(|(_, id)| message_uuid(id)).collect();
            segment.left_in_queue().iter().for_each(|id| _ = ids.remove(id));
            return Ok(ids);
        }
        let keys: Vec<MessageKey> = messages.iter().map(|(time, id)| MessageKey::new(*time, id, 0)).collect();
        let ledger = self.destination.ledger.clone();
        self.ask(async |client| ledger.decided(client, &keys).await).await
    }
}
