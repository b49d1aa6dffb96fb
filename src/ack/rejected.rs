//! What becomes of rejected messages when their segment is acknowledged: some are sent to a dead-letter queue before
//! they are deleted, some are not deleted but made visible again.
//!
//! Always true: whether a message is deleted follows from the segment's transaction, not from today's configuration. A
//! message that the ledger left in the queue is never deleted; one that it decided always is.
//! After a crash between sending and deleting, the letter is sent again: a dead letter may arrive twice, with the same
//! `pgsluice_message_id`.

use std::collections::{HashMap, HashSet};

use backon::Retryable;
use uuid::Uuid;

use super::{backoff, retry_policy};
use crate::advice::Advised;
use crate::config::{OnReject, RejectPolicy};
use crate::crash_point::CrashPoint;
use crate::durable::Place;
use crate::error::Error;
use crate::load::Committed;
use crate::queue::{BATCH_MESSAGES, DeadLetter, DeadLetterQueue, Queue, QueueError, Sqs};
use crate::reason::Reason;
use crate::spool::{Line, Opener, Record, SegmentReader, SpoolKeys, message_uuid};

/// A batch of more than one message stays below this, the smallest limit that any server of SQS's protocol has.
const BATCH_BYTES: usize = 256 * 1024;

/// Where rejected messages go, beside the staging directory.
#[derive(Debug, Clone, Default)]
pub struct RejectRoute {
    /// Rejects that the ledger records are sent here before they are deleted.
    pub dead_letters: Option<DeadLetterQueue>,
    /// The `maxReceiveCount` of the queue, for messages that are left there.
    pub max_receives: Option<u32>,
    /// They open what is sent to the dead-letter queue.
    pub spool_keys: SpoolKeys,
}

impl RejectRoute {
    /// Finds what rejected messages need: a dead-letter queue that is there, or a redrive policy of `queue`.
    pub async fn find(policy: &RejectPolicy, queue: &Sqs) -> Result<Self, QueueError> {
        Ok(match &policy.on_reject {
            OnReject::Keep => Self::default(),
            OnReject::Leave => Self { max_receives: Some(queue.max_receives().await?), ..Self::default() },
            OnReject::Send { dlq_url } => {
                Self { dead_letters: Some(DeadLetterQueue::connect(dlq_url, queue).await?), ..Self::default() }
            }
        })
    }

    /// With the keys that open messages.
    #[must_use]
    pub fn opening_with(self, spool_keys: &SpoolKeys) -> Self {
        Self { spool_keys: spool_keys.clone(), ..self }
    }

    /// Sends a segment's rejects to the dead-letter queue, if there is one.
    ///
    /// A message that this queue refuses (most likely as too long) is kept in the staging directory alone.
    pub(super) async fn send(&self, segment: &Place, committed: &Committed) -> Result<(), Error> {
        let Some(queue) = &self.dead_letters else { return Ok(()) };
        let mut rejects: HashMap<Uuid, &Reason> =
            committed.rejects().iter().map(|reject| (reject.message_id, &reject.reason)).collect();
        let mut batch: Vec<DeadLetter> = Vec::new();
        let mut reader = SegmentReader::open(segment)?;
        let (mut memory, mut opener) = (String::new(), Opener::default());
        while !rejects.is_empty() {
            let Some(block) = reader.next_block()? else { break };
            for line in block.lines() {
                let Line { record, offset, .. } = line?;
                let Some(reason) = rejects.remove(&message_uuid(&record.message_id)) else { continue };
                if record.receipt_handle.is_empty() {
                    continue; // imported: it came from no queue
                }
                let record = opener.open(&record, &self.spool_keys);
                let record = record.map_err(|problem| block.unopened(offset, problem))?;
                let body = record.body.text(&mut memory).map_err(|problem| block.damaged(offset, problem))?;
                let letter = dead_letter(&record, body, reason);
                let bytes: usize = batch.iter().map(DeadLetter::bytes).sum();
                if batch.len() == BATCH_MESSAGES || (!batch.is_empty() && bytes + letter.bytes() > BATCH_BYTES) {
                    send_batch(queue, &batch).await?;
                    batch.clear();
                }
                batch.push(letter);
            }
        }
        if !batch.is_empty() {
            send_batch(queue, &batch).await?;
        }
        Ok(())
    }

    /// An error where the queue's redrive policy does not work, because then messages would be redelivered without end.
    pub(super) fn check(&self, receives: u32) -> Result<(), QueueError> {
        match self.max_receives {
            Some(max_receives) if receives > max_receives => Err(QueueError::NotRedriven { receives, max_receives }),
            _ => Ok(()),
        }
    }
}

/// Makes the messages that were left visible again; returns the highest count of receives among them.
///
/// One that cannot be released becomes visible by itself, when its timeout is over.
pub(super) async fn release<Q: Queue>(queue: &Q, segment: &Place, left_in_queue: &HashSet<Uuid>) -> Result<u32, Error> {
    let mut handles = Vec::new();
    let mut receives = 0;
    let mut reader = SegmentReader::open(segment)?;
    while let Some(block) = reader.next_block()? {
        for line in block.lines() {
            let record = line?.record;
            if left_in_queue.contains(&message_uuid(&record.message_id)) {
                receives = receives.max(record.receive_count);
                handles.push(record.receipt_handle.into_owned());
            }
        }
    }
    for batch in handles.chunks(BATCH_MESSAGES) {
        let failed = (|| queue.release(batch)).retry(retry_policy()).when(QueueError::is_transient).await?;
        for entry in failed.iter().filter(|entry| !entry.is_stale_handle()) {
            tracing::warn!(code = entry.code, "SQS did not make a message visible again; its timeout will");
        }
    }
    tracing::info!(messages = handles.len(), "left rejected messages in the queue");
    Ok(receives)
}

fn dead_letter(record: &Record<'_>, body: &str, reason: &Reason) -> DeadLetter {
    DeadLetter {
        message_id: record.message_id.clone().into_owned(),
        body: body.to_owned(),
        attributes: record.attributes.map(ToOwned::to_owned),
        group_id: record.group_id.as_deref().map(str::to_owned),
        reason: reason.clone(),
    }
}

/// Sends a batch, and sends again the entries that failed by SQS's fault. A request whose answer is lost is sent again
/// too: a letter that arrives twice is better than one that is lost.
async fn send_batch(queue: &DeadLetterQueue, batch: &[DeadLetter]) -> Result<(), QueueError> {
    let mut remaining: Vec<&DeadLetter> = batch.iter().collect();
    let mut delays = backoff();
    loop {
        let sent = (|| queue.send(&remaining)).retry(retry_policy()).when(QueueError::is_transient).await;
        let failed = match sent {
            // A single message that is too long makes SQS refuse the whole request.
            Err(QueueError::Service { code, .. }) if remaining.len() == 1 && is_about_the_message(&code) => {
                refused(remaining[0], &code);
                return Ok(());
            }
            sent => sent?,
        };
        CrashPoint::SendDeadLetters.pass();
        let mut again = Vec::new();
        let mut last_code = String::new();
        for entry in failed {
            let Some(&letter) = remaining.get(entry.index) else { continue };
            if !entry.sender_fault {
                last_code = entry.code;
                again.push(letter);
            } else if is_about_the_message(&entry.code) {
                refused(letter, &entry.code);
            } else {
                return Err(not_sent(entry.code, false));
            }
        }
        if again.is_empty() {
            return Ok(());
        }
        let Some(delay) = delays.next() else { return Err(not_sent(last_code, true)) };
        tokio::time::sleep(delay).await;
        remaining = again;
    }
}

/// The codes with which SQS refuses a message for its content, not for its sender or its queue.
fn is_about_the_message(code: &str) -> bool {
    ["InvalidMessageContents", "InvalidParameterValue", "BatchRequestTooLong", "MessageTooLong"]
        .iter()
        .any(|known| code.ends_with(known))
}

fn refused(letter: &DeadLetter, code: &str) {
    tracing::warn!(
        message_id = letter.message_id,
        code,
        "the dead-letter queue refused a rejected message; it is kept in the staging directory alone"
    );
}

fn not_sent(code: String, server_fault: bool) -> QueueError {
    QueueError::Service { operation: "SendMessageBatch to the dead-letter queue", code, server_fault }
}
