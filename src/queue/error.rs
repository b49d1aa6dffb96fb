//! What SQS refuses or fails to do, and what follows from it.

use thiserror::Error;

use crate::advice::{Advice, Advised, BoxedError, fatal, retried, usage};

/// SQS refused, or did not answer.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is the documentation")]
pub enum QueueError {
    #[error("no AWS region is configured")]
    NoRegion,
    #[error("no AWS credentials were found")]
    NoCredentials { source: BoxedError },
    #[error("queue {queue_url} does not exist")]
    NoSuchQueue { queue_url: String },
    #[error("access to queue {queue_url} is denied ({code})")]
    AccessDenied { queue_url: String, code: String },
    #[error("SQS refused the credentials ({code})")]
    Unauthenticated { code: String },
    #[error("cannot reach SQS at {endpoint}")]
    Unreachable { endpoint: String, source: BoxedError },
    #[error("SQS limits the request rate ({code})")]
    Throttled { code: String },
    #[error("too many messages of queue {queue_url} are in flight (OverLimit)")]
    OverLimit { queue_url: String },
    #[error(
        "dlq_url {queue_url} is the queue that the messages come from, so a reject would be received again and again"
    )]
    DeadLettersToTheirSource { queue_url: String },
    #[error(
        "queue {queue_url} has no redrive policy, so rejected messages that stay there would be received again and again"
    )]
    NoRedrivePolicy { queue_url: String },
    #[error(
        "a rejected message was delivered {receives} times, although its queue's maxReceiveCount is {max_receives}"
    )]
    NotRedriven { receives: u32, max_receives: u32 },
    #[error("SQS answered {operation} with {code}")]
    Service { operation: &'static str, code: String, server_fault: bool },
}

impl Advised for QueueError {
    fn advice(&self) -> Advice {
        match self {
            Self::NoRegion => usage("set AWS_REGION, or name the queue by its URL or ARN, which tell the region"),
            Self::NoCredentials { .. } => {
                usage("set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or attach a role")
            }
            Self::NoSuchQueue { .. } => fatal("check --queue-url, AWS_REGION and AWS_ENDPOINT_URL"),
            Self::AccessDenied { .. } => fatal(
                "the role needs sqs:ReceiveMessage, DeleteMessage, ChangeMessageVisibility, GetQueueAttributes, and for a dlq_url SendMessage",
            ),
            Self::Unauthenticated { .. } => {
                fatal("renew the credentials, check this machine's clock, and run again: what was received is safe")
            }
            Self::Unreachable { .. } => retried("check AWS_ENDPOINT_URL, AWS_REGION and the network"),
            Self::Throttled { .. } => retried("lower queue.pollers, or raise the quota"),
            Self::OverLimit { .. } => retried("lower queue.max_in_flight, or wait for other consumers"),
            Self::NoRedrivePolicy { .. } => {
                usage("give the queue a RedrivePolicy, or choose on_reject = \"keep\" or \"dlq\"")
            }
            Self::DeadLettersToTheirSource { .. } => {
                usage("give pipeline.dlq_url the URL of another queue, or choose on_reject = \"keep\"")
            }
            Self::NotRedriven { .. } => fatal("check the queue's RedrivePolicy, and run again"),
            Self::Service { server_fault: true, .. } => retried("SQS has a problem; run again later"),
            Self::Service { .. } => fatal("check the queue's settings"),
        }
    }
}

impl QueueError {
    /// SQS asks for patience.
    #[must_use]
    pub const fn is_throttling(&self) -> bool {
        matches!(self, Self::Throttled { .. } | Self::OverLimit { .. })
    }
}
