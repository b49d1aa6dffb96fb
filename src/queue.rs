//! What a drain and an acknowledgement need of a queue.
//!
//! Always true: a message handed out by [`Queue::receive`] had the body that its MD5 promised; nothing here deletes
//! unless it was given a receipt handle. [`Sqs`] is the queue of a run; tests bring simulated ones.

mod in_flight;
mod sqs;

use std::future::Future;

use serde_json::value::RawValue;

use crate::error::QueueError;

pub use in_flight::{InFlight, Reservation};
pub use sqs::{DeadLetter, DeadLetterQueue, Sqs};

/// SQS's limit for receives, deletes and visibility changes alike.
pub const BATCH_MESSAGES: usize = 10;

/// One delivery of a message.
#[derive(Debug, Clone)]
pub struct Message {
    /// SQS's id of the message: the same in every delivery.
    pub message_id: String,
    /// When it was sent, in milliseconds since the epoch.
    pub sent_at: i64,
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
    /// The handle is not valid any more: the message was delivered again, or deleted before. Whoever holds the newer
    /// handle deletes it. SQS says `InvalidParameterValue` where a handle has expired.
    #[must_use]
    pub fn is_stale_handle(&self) -> bool {
        self.code.ends_with("ReceiptHandleIsInvalid") || self.code.ends_with("InvalidParameterValue")
    }
}

/// A queue with at-least-once delivery. Batches hold up to [`BATCH_MESSAGES`].
pub trait Queue: Send + Sync + 'static {
    /// Waits for messages up to the configured time. None is no proof that the queue is empty.
    fn receive(&self, max_messages: usize) -> impl Future<Output = Result<Vec<Message>, QueueError>> + Send;

    /// Deletes deliveries; says which were not.
    fn delete(&self, receipt_handles: &[String]) -> impl Future<Output = Result<Vec<FailedEntry>, QueueError>> + Send;

    /// Makes deliveries visible again at once; says which were not.
    fn release(&self, receipt_handles: &[String]) -> impl Future<Output = Result<Vec<FailedEntry>, QueueError>> + Send;

    /// Asks how many messages there are.
    fn depth(&self) -> impl Future<Output = Result<Depth, QueueError>> + Send;
}
