//! What a drain and an acknowledgement need of a queue.
//!
//! Always true: a message handed out by [`Queue::receive`] had the body that its MD5 promised; nothing here deletes
//! unless it was given a receipt handle. [`Sqs`] is the queue of a run; tests bring simulated ones.

mod attempt;
mod error;
#[cfg(test)]
pub(crate) mod simulated;
mod sqs;

use std::future::Future;
use std::time::Duration;

use serde_json::value::RawValue;

pub use attempt::ReceiveAttempt;
pub use error::QueueError;
pub use sqs::{DeadLetter, DeadLetterQueue, QueueFacts, Right, Sqs};

/// SQS's limit for receives, deletes and visibility changes alike.
pub const BATCH_MESSAGES: usize = 10;

/// One delivery of a message.
#[derive(Debug, Clone)]
pub struct Message {
    /// SQS's id of the message: the same in every delivery.
    pub message_id: String,
    /// When it was sent, in milliseconds since the epoch; when this delivery reached us, where the queue does not tell.
    pub sent_at: i64,
    /// `sent_at` is the same in every delivery. It is not where the queue does not tell it, and in a FIFO queue, where a
    /// redrive sets it anew.
    pub sent_at_is_stable: bool,
    /// When this delivery reached us, in milliseconds since the epoch.
    pub received_at: i64,
    /// How often it was delivered, this time included; approximate, as SQS counts.
    pub receive_count: u32,
    /// What deletes, extends or releases this delivery.
    pub receipt_handle: String,
    /// The body.
    pub body: String,
    /// The message attributes, `{name: {type, value}}`, where it has some.
    pub attributes: Option<Box<RawValue>>,
    /// The FIFO group, where it has one.
    pub group_id: Option<String>,
    /// The FIFO sequence number, where it has one.
    pub sequence_number: Option<String>,
}

/// How many messages a queue holds; approximate, as SQS counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Waiting to be received.
    pub visible: u64,
    /// Received by somebody and not deleted yet.
    pub in_flight: u64,
    /// Not to be received before their delay ends.
    pub delayed: u64,
}

/// An entry of a batch that was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedEntry {
    /// Its position in the batch.
    pub index: usize,
    /// SQS's error code.
    pub code: String,
    /// The request was wrong, so trying again is no use; otherwise the fault was SQS's.
    pub sender_fault: bool,
}

impl FailedEntry {
    /// Of a delete or a release: the handle is not valid any more, because the message was delivered again, or deleted
    /// before. The newer handle deletes it.
    ///
    /// SQS says `InvalidParameterValue` where a handle has expired; in these entries no other parameter can be wrong. An
    /// error of a whole request is never read this way.
    #[must_use]
    pub fn is_stale_handle(&self) -> bool {
        ["ReceiptHandleIsInvalid", "InvalidParameterValue"].iter().any(|code| self.code.ends_with(code))
    }

    /// Trying again can help: SQS failed by itself, or was asked too often, which it may call our fault.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        !self.sender_fault || is_throttling(&self.code)
    }
}

/// Codes by which SQS, or the KMS behind an encrypted queue, asks for patience.
fn is_throttling(code: &str) -> bool {
    ["RequestThrottled", "ThrottlingException", "Throttling", "KmsThrottled", "TooManyRequestsException"]
        .iter()
        .any(|throttling| code.ends_with(throttling))
}

/// What each receive asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiveTimes {
    /// How long it waits for a first message: 1 to 20.
    pub wait_seconds: u32,
    /// How long what it brings stays invisible to others: up to 43,200, which is 12 hours.
    pub visibility_seconds: u32,
}

/// A queue with at-least-once delivery. Batches hold up to [`BATCH_MESSAGES`].
pub trait Queue: Send + Sync + 'static {
    /// How long a message stays invisible after a receive.
    fn visibility_timeout(&self) -> Duration;

    /// Waits for messages up to the configured time. None is no proof that the queue is empty.
    ///
    /// A receive whose answer was lost is asked for again with the same attempt.
    fn receive(
        &self,
        max_messages: usize,
        attempt: &ReceiveAttempt,
    ) -> impl Future<Output = Result<Vec<Message>, QueueError>> + Send;

    /// Deletes deliveries; says which were not.
    fn delete(&self, receipt_handles: &[String]) -> impl Future<Output = Result<Vec<FailedEntry>, QueueError>> + Send;

    /// Keeps deliveries invisible for this time from now on, in whole seconds; says which were not.
    fn extend(
        &self,
        receipt_handles: &[String],
        duration: Duration,
    ) -> impl Future<Output = Result<Vec<FailedEntry>, QueueError>> + Send;

    /// Makes deliveries visible again at once; says which were not.
    fn release(&self, receipt_handles: &[String]) -> impl Future<Output = Result<Vec<FailedEntry>, QueueError>> + Send;

    /// Asks how many messages there are.
    fn depth(&self) -> impl Future<Output = Result<Depth, QueueError>> + Send;
}
