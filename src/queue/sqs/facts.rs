//! What a queue says of itself, and which rights the role has on it, asked without moving a message.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_sqs::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_sqs::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_sqs::error::BoxError;
use aws_sdk_sqs::types::QueueAttributeName as Name;
use jiff::Timestamp;

use super::dead_letters::max_receives;
use super::{Sqs, depth};
use crate::queue::{Depth, Queue, QueueError};

/// SQS refuses it after it has looked at the rights. It is no handle that any queue gave.
const NO_HANDLE: &str = "pgsluice-check";

/// What a queue says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueFacts {
    /// How many messages it holds.
    pub depth: Depth,
    /// Whether it keeps the order of groups.
    pub is_fifo: bool,
    /// How long a message is kept after it was sent.
    pub retention_seconds: Option<u64>,
    /// How long a message stays invisible where a receive does not say.
    pub visibility_seconds: Option<u64>,
    /// How often it delivers a message before it moves it to its dead-letter queue; `None`: it has none.
    pub max_receives: Option<u32>,
    /// The time that the answer told, to the second.
    pub clock: Option<Timestamp>,
    /// How long the answer took, in milliseconds.
    pub answer_ms: u64,
}

/// A right on a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// `sqs:DeleteMessage`.
    Delete,
    /// `sqs:ChangeMessageVisibility`.
    ChangeVisibility,
}

impl Sqs {
    /// Asks for the queue's attributes.
    pub async fn facts(&self) -> Result<QueueFacts, QueueError> {
        let date = Date::default();
        let asked = std::time::Instant::now();
        let request = self.client.get_queue_attributes().queue_url(&self.queue_url).attribute_names(Name::All);
        let answer = request.customize().interceptor(date.clone()).send().await;
        let answer_ms = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
        let attributes =
            answer.map_err(|error| self.error("GetQueueAttributes", error))?.attributes.unwrap_or_default();
        let number = |name: &Name| attributes.get(name).and_then(|value| value.parse().ok());
        let clock = date.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(QueueFacts {
            depth: depth(&attributes)?,
            is_fifo: self.is_fifo(),
            retention_seconds: number(&Name::MessageRetentionPeriod),
            visibility_seconds: number(&Name::VisibilityTimeout),
            max_receives: attributes.get(&Name::RedrivePolicy).and_then(|policy| max_receives(policy)),
            clock: clock.and_then(|text| jiff::fmt::rfc2822::parse(&text).ok()).map(|date| date.timestamp()),
            answer_ms,
        })
    }

    /// Tries a right with a receipt handle that no message has. The error says that it is denied, or that SQS could not be
    /// asked.
    pub async fn try_right(&self, right: Right) -> Result<(), QueueError> {
        let handles = [NO_HANDLE.to_owned()];
        let tried = match right {
            Right::Delete => self.delete(&handles).await,
            Right::ChangeVisibility => self.release(&handles).await,
        };
        match tried {
            // That the handle is none, SQS says once the rights are there: of the entry, or of the whole request.
            Ok(_) | Err(QueueError::Service { server_fault: false, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Right {
    /// The action as IAM names it.
    #[must_use]
    pub const fn action(self) -> &'static str {
        match self {
            Self::Delete => "sqs:DeleteMessage",
            Self::ChangeVisibility => "sqs:ChangeMessageVisibility",
        }
    }
}

/// The `Date` header of the last answer.
#[derive(Debug, Clone, Default)]
struct Date(Arc<Mutex<Option<String>>>);

impl Intercept for Date {
    fn name(&self) -> &'static str {
        "the date of an answer"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date").map(str::to_owned);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = date;
        Ok(())
    }
}
