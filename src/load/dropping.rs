//! Gives rejects up: their records go, and their messages stay decided.

use std::collections::HashSet;

use uuid::Uuid;

use super::ledger::RejectedSegment;
use super::{LoadError, Loader};
use crate::crash_point::CrashPoint;
use crate::postgres::PostgresError;
use crate::segment::SegmentId;

impl Loader {
    /// The segments that have rejects of this reason. `segments`: only these; none means all.
    pub async fn rejected_for(
        &mut self,
        reason: &str,
        segments: &[SegmentId],
    ) -> Result<Vec<RejectedSegment>, LoadError> {
        let ledger = self.destination.ledger.clone();
        self.ask(async |client| ledger.rejected_for(client, reason, segments).await).await
    }

    /// Removes the rejects of this reason from the segment of this number, in one transaction; returns their messages'
    /// ids.
    pub async fn drop_rejects(&mut self, segment_no: i32, reason: &str) -> Result<HashSet<Uuid>, LoadError> {
        self.reconnect().await?;
        let failed = |error| PostgresError::of_statement("dropping rejects", error);
        let transaction = self.connection.begin().await.map_err(failed)?;
        let dropped = self.destination.ledger.drop_rejects(&transaction, segment_no, reason).await?;
        CrashPoint::BeforeCommit.pass();
        transaction.commit().await.map_err(failed)?;
        CrashPoint::Commit.pass();
        Ok(dropped)
    }
}
