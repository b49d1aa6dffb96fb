//! Amazon SQS, and whatever speaks its JSON protocol.
//!
//! The SDK retries single calls by itself (three attempts, throttling included), which is right for every call here:
//! a receive that is sent twice at worst hides ten messages of a standard queue for one visibility timeout, and on a
//! FIFO queue gives the same ones; deletes and visibility changes are idempotent. What remains after that is for the
//! caller to judge: the drain, the acknowledgement and the keeper each have a policy of their own.
//!
//! How long what is received stays invisible is asked for with each receive, so the queue's own default, which may be 0,
//! never counts.

mod dead_letters;
mod facts;
mod peek;

use std::collections::HashMap;
use std::sync::Once;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::ProvideCredentials;
use aws_sdk_sqs::error::{BuildError, DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
    Message as SqsMessage, MessageAttributeValue, MessageSystemAttributeName as SystemAttribute, QueueAttributeName,
};
use md5::{Digest, Md5};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

pub use dead_letters::{DeadLetter, DeadLetterQueue};
pub use facts::{QueueFacts, Right};

use super::{Depth, FailedEntry, Message, Queue, QueueError, ReceiveAttempt, ReceiveTimes, is_throttling};
use crate::aws;
use crate::config::QueueAddress;
use crate::host::is_local;

/// A body that arrives damaged this often is damaged in the queue. It then stays invisible for its timeout after each
/// receive: given back at once, it would be received again at once, without end.
const DAMAGED_RECEIVES: u32 = 3;

const UNENCRYPTED: &str = "the queue's URL or endpoint is http://, so messages cross a network unencrypted, for \
     anybody on the way to read";
/// A run may connect to its queue and to one of dead letters.
static SAY_ONCE: Once = Once::new();

/// One queue in SQS.
#[derive(Debug, Clone)]
pub struct Sqs {
    client: Client,
    queue_url: String,
    endpoint: String,
    times: ReceiveTimes,
}

/// Whether what is sent to this URL crosses a network unencrypted.
fn is_readable_on_the_way(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let place = authority.rsplit('@').next().unwrap_or_default();
    let end = if place.starts_with('[') { place.find(']').map(|end| end + 1) } else { place.find(':') };
    scheme.eq_ignore_ascii_case("http") && !is_local(place.get(..end.unwrap_or(place.len())).unwrap_or_default())
}

impl Sqs {
    /// Finds region, credentials and endpoint the way AWS tools do, and checks that the queue is there.
    ///
    /// An endpoint that the user gave (AWS_ENDPOINT_URL_SQS, AWS_ENDPOINT_URL, the profile) wins over the host in
    /// the queue's URL; and a region that he gave over the one in its URL or ARN.
    pub async fn connect(address: &QueueAddress, times: ReceiveTimes) -> Result<Self, QueueError> {
        let sqs = Self::find(address, times).await?;
        sqs.look().await?;
        Ok(sqs)
    }

    /// Checks that the queue is there.
    pub async fn look(&self) -> Result<(), QueueError> {
        self.attributes(&[QueueAttributeName::VisibilityTimeout]).await.map(|_| ())
    }

    /// The same, without a look at the queue. Only a queue that is not named by its URL is asked for.
    pub async fn find(address: &QueueAddress, times: ReceiveTimes) -> Result<Self, QueueError> {
        let config = aws::load_config(Duration::from_secs(times.wait_seconds.into()), address.region()).await;
        let region = config.region().map(AsRef::as_ref).filter(|region: &&str| !region.is_empty());
        let region = region.ok_or(QueueError::NoRegion)?;
        if let Some(provider) = config.credentials_provider() {
            let found = provider.provide_credentials().await;
            found.map_err(|source| QueueError::NoCredentials { source: source.into() })?;
        }
        let client = Client::new(&config);
        let given = std::env::var("AWS_ENDPOINT_URL_SQS").ok().or_else(|| config.endpoint_url().map(str::to_owned));
        let url = match address {
            QueueAddress::Url(url) => url,
            QueueAddress::Arn { .. } | QueueAddress::Name(_) => "",
        };
        if is_readable_on_the_way(given.as_deref().unwrap_or(url)) {
            SAY_ONCE.call_once(|| tracing::warn!("{UNENCRYPTED}"));
        }
        let endpoint = given.unwrap_or_else(|| format!("https://sqs.{region}.amazonaws.com"));
        let (account, named) = match address {
            QueueAddress::Url(url) => {
                return Ok(Self { client, queue_url: url.clone(), endpoint, times });
            }
            QueueAddress::Arn { account, name, .. } => (Some(account.clone()), name),
            QueueAddress::Name(name) => (None, name),
        };
        let sqs = Self { client, queue_url: named.clone(), endpoint, times };
        let request = sqs.client.get_queue_url().queue_name(named).set_queue_owner_aws_account_id(account);
        let answer = request.send().await.map_err(|error| sqs.error("GetQueueUrl", error))?;
        let missing = || QueueError::NoSuchQueue { queue_url: named.clone() };
        Ok(Self { queue_url: answer.queue_url.ok_or_else(missing)?, ..sqs })
    }

    /// The queue's URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.queue_url
    }

    /// The same queue with other times of a receive.
    #[must_use]
    pub fn peeking(&self, times: ReceiveTimes) -> Self {
        Self { times, ..self.clone() }
    }

    /// The suffix is part of every FIFO queue's name, and of no other's.
    fn is_fifo(&self) -> bool {
        self.queue_url.strip_suffix(".fifo").is_some()
    }

    async fn attributes(
        &self,
        names: &[QueueAttributeName],
    ) -> Result<HashMap<QueueAttributeName, String>, QueueError> {
        let request = self.client.get_queue_attributes().queue_url(&self.queue_url);
        let answer = request.set_attribute_names(Some(names.to_vec())).send().await;
        let answer = answer.map_err(|error| self.error("GetQueueAttributes", error))?;
        Ok(answer.attributes.unwrap_or_default())
    }

    async fn change_visibility(
        &self,
        receipt_handles: &[String],
        timeout: Duration,
    ) -> Result<Vec<FailedEntry>, QueueError> {
        let operation = "ChangeMessageVisibilityBatch";
        let seconds = i32::try_from(timeout.as_secs()).unwrap_or(i32::MAX);
        let entries = receipt_handles.iter().enumerate().map(|(index, handle)| {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(index.to_string());
            entry.receipt_handle(handle).visibility_timeout(seconds).build()
        });
        let entries = entries.collect::<Result<Vec<_>, _>>().map_err(|error| incomplete_entry(operation, &error))?;
        let request = self.client.change_message_visibility_batch().queue_url(&self.queue_url);
        let answer = request.set_entries(Some(entries)).send().await.map_err(|error| self.error(operation, error))?;
        Ok(failed_entries(&answer.failed))
    }

    /// Gives back what arrived damaged, so that it is received again whole; without a promise, because it becomes
    /// visible anyway.
    async fn return_damaged(&self, damaged: Vec<SqsMessage>) {
        tracing::warn!(messages = damaged.len(), "bodies do not match their MD5 and will be received again");
        let early = damaged.into_iter().filter(|message| receive_count(message) <= DAMAGED_RECEIVES);
        let handles: Vec<String> = early.filter_map(|message| message.receipt_handle).collect();
        if !handles.is_empty()
            && let Err(error) = self.release(&handles).await
        {
            tracing::debug!(%error, "damaged messages become visible by themselves");
        }
    }

    fn error<E>(&self, operation: &'static str, error: SdkError<E>) -> QueueError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let Some(service) = error.as_service_error() else {
            tracing::debug!(operation, error = %DisplayErrorContext(&error), "no answer from SQS");
            return QueueError::Unreachable { endpoint: self.endpoint.clone(), source: error.into() };
        };
        let server_fault = error.raw_response().is_some_and(|response| response.status().is_server_error());
        // Codes come with or without a namespace and an "Exception": `AWS.SimpleQueueService.NonExistentQueue`.
        let code = service.code().unwrap_or("an unknown error").rsplit(['.', '#']).next().unwrap_or_default();
        let (queue_url, code) = (self.queue_url.clone(), code.to_owned());
        match code.as_str() {
            "QueueDoesNotExist" | "NonExistentQueue" | "QueueDeletedRecently" => QueueError::NoSuchQueue { queue_url },
            "OverLimit" => QueueError::OverLimit { queue_url },
            code if is_throttling(code) => QueueError::Throttled { code: code.to_owned() },
            "AccessDenied" | "AccessDeniedException" | "KmsAccessDenied" => {
                QueueError::AccessDenied { queue_url, code }
            }
            "ExpiredToken"
            | "ExpiredTokenException"
            | "InvalidClientTokenId"
            | "InvalidSecurity"
            | "InvalidSignatureException"
            | "RequestExpired"
            | "RequestTimeTooSkewed"
            | "SignatureDoesNotMatch"
            | "UnrecognizedClientException" => QueueError::Unauthenticated { code },
            _ => QueueError::Service { operation, code, server_fault },
        }
    }
}

impl Queue for Sqs {
    fn visibility_timeout(&self) -> Duration {
        Duration::from_secs(self.times.visibility_seconds.into())
    }

    async fn receive(&self, max_messages: usize, attempt: &ReceiveAttempt) -> Result<Vec<Message>, QueueError> {
        let answer = self
            .client
            .receive_message()
            .queue_url(&self.queue_url)
            .set_receive_request_attempt_id(self.is_fifo().then(|| attempt.id()))
            .max_number_of_messages(i32::try_from(max_messages).unwrap_or(i32::MAX))
            .wait_time_seconds(self.times.wait_seconds.cast_signed())
            .visibility_timeout(self.times.visibility_seconds.cast_signed())
            .message_system_attribute_names(SystemAttribute::SentTimestamp)
            .message_system_attribute_names(SystemAttribute::ApproximateReceiveCount)
            .message_system_attribute_names(SystemAttribute::MessageGroupId)
            .message_system_attribute_names(SystemAttribute::SequenceNumber)
            .message_attribute_names("All")
            .send()
            .await
            .map_err(|error| self.error("ReceiveMessage", error))?;
        let received_at = milliseconds_now();
        let (whole, damaged): (Vec<_>, Vec<_>) =
            answer.messages.unwrap_or_default().into_iter().partition(body_matches_its_md5);
        if !damaged.is_empty() {
            self.return_damaged(damaged).await;
        }
        let is_fifo = self.is_fifo();
        Ok(whole.into_iter().map(|message| delivery(message, received_at, is_fifo)).collect())
    }

    async fn delete(&self, receipt_handles: &[String]) -> Result<Vec<FailedEntry>, QueueError> {
        let entries = receipt_handles.iter().enumerate().map(|(index, handle)| {
            let entry = DeleteMessageBatchRequestEntry::builder().id(index.to_string()).receipt_handle(handle);
            entry.build()
        });
        let entries =
            entries.collect::<Result<Vec<_>, _>>().map_err(|error| incomplete_entry("DeleteMessageBatch", &error))?;
        let request = self.client.delete_message_batch().queue_url(&self.queue_url).set_entries(Some(entries));
        let answer = request.send().await.map_err(|error| self.error("DeleteMessageBatch", error))?;
        Ok(failed_entries(&answer.failed))
    }

    async fn extend(&self, receipt_handles: &[String], duration: Duration) -> Result<Vec<FailedEntry>, QueueError> {
        self.change_visibility(receipt_handles, duration).await
    }

    async fn release(&self, receipt_handles: &[String]) -> Result<Vec<FailedEntry>, QueueError> {
        self.change_visibility(receipt_handles, Duration::ZERO).await
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        let attributes = self
            .attributes(&[
                QueueAttributeName::ApproximateNumberOfMessages,
                QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
                QueueAttributeName::ApproximateNumberOfMessagesDelayed,
            ])
            .await?;
        depth(&attributes)
    }
}

/// aws-sdk-sqs leaves this check to its users. Without an MD5 there is nothing to check.
fn body_matches_its_md5(message: &SqsMessage) -> bool {
    let body = message.body.as_deref().unwrap_or_default();
    message.md5_of_body.as_deref().is_none_or(|md5| md5 == hex::encode(Md5::digest(body)))
}

fn receive_count(message: &SqsMessage) -> u32 {
    let system = message.attributes.as_ref();
    let count = system.and_then(|system| system.get(&SystemAttribute::ApproximateReceiveCount));
    count.and_then(|count| count.parse().ok()).unwrap_or(1)
}

fn delivery(message: SqsMessage, received_at: i64, is_fifo: bool) -> Message {
    let receive_count = receive_count(&message);
    let mut system = message.attributes.unwrap_or_default();
    let sent_at = system.get(&SystemAttribute::SentTimestamp).and_then(|value| value.parse::<i64>().ok());
    Message {
        message_id: message.message_id.unwrap_or_default(),
        sent_at: sent_at.unwrap_or(received_at),
        sent_at_is_stable: sent_at.is_some() && !is_fifo,
        received_at,
        receive_count,
        receipt_handle: message.receipt_handle.unwrap_or_default(),
        body: message.body.unwrap_or_default(),
        attributes: message.message_attributes.as_ref().and_then(attributes_json),
        group_id: system.remove(&SystemAttribute::MessageGroupId),
        sequence_number: system.remove(&SystemAttribute::SequenceNumber),
    }
}

fn attributes_json(attributes: &HashMap<String, MessageAttributeValue>) -> Option<Box<RawValue>> {
    let value = |attribute: &MessageAttributeValue| {
        let text = attribute
            .string_value
            .clone()
            .or_else(|| attribute.binary_value.as_ref().map(aws_smithy_types::base64::encode));
        json!({ "type": attribute.data_type, "value": text })
    };
    let object: serde_json::Map<_, _> = attributes.iter().map(|(name, each)| (name.clone(), value(each))).collect();
    if object.is_empty() { None } else { to_raw_value(&object).ok() }
}

fn failed_entries(failed: &[BatchResultErrorEntry]) -> Vec<FailedEntry> {
    let entry = |entry: &BatchResultErrorEntry| FailedEntry {
        index: entry.id.parse().unwrap_or(usize::MAX),
        code: entry.code.clone(),
        sender_fault: entry.sender_fault,
    };
    failed.iter().map(entry).collect()
}

fn incomplete_entry(operation: &'static str, error: &BuildError) -> QueueError {
    QueueError::Service { operation, code: error.to_string(), server_fault: false }
}

/// An answer without all counts proves no emptiness.
fn depth(attributes: &HashMap<QueueAttributeName, String>) -> Result<Depth, QueueError> {
    let count = |name| attributes.get(&name)?.parse().ok();
    let read = || {
        Some(Depth {
            visible: count(QueueAttributeName::ApproximateNumberOfMessages)?,
            in_flight: count(QueueAttributeName::ApproximateNumberOfMessagesNotVisible)?,
            delayed: count(QueueAttributeName::ApproximateNumberOfMessagesDelayed)?,
        })
    };
    let (operation, code) = ("GetQueueAttributes", "no counts".to_owned());
    read().ok_or(QueueError::Service { operation, code, server_fault: true })
}

fn milliseconds_now() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts that were missing were taken for 0, and so for the proof that a queue is empty.
    #[test]
    fn an_answer_without_all_counts_is_an_error() {
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        let all = HashMap::from(names.clone().map(|name| (name, "1".to_owned())));
        assert_eq!(depth(&all).unwrap(), Depth { visible: 1, in_flight: 1, delayed: 1 });
        for name in names {
            for wrong in [None, Some("many")] {
                let mut attributes = all.clone();
                attributes.remove(&name);
                attributes.extend(wrong.map(|count| (name.clone(), count.to_owned())));
                assert!(depth(&attributes).is_err(), "{name}: {wrong:?}");
            }
        }
    }

    fn delivered(sent_timestamp: Option<&str>, is_fifo: bool) -> Message {
        let attributes = sent_timestamp.map(|time| HashMap::from([(SystemAttribute::SentTimestamp, time.to_owned())]));
        delivery(SqsMessage::builder().set_attributes(attributes).build(), 2000, is_fifo)
    }

    #[test]
    fn http_to_another_host_can_be_read_on_the_way() {
        for url in ["http://sqs.example.com/1/q", "HTTP://10.0.0.1:4566", "http://u:p@sqs/1/q", "http://[::2]:1/q"] {
            assert!(is_readable_on_the_way(url), "{url}");
        }
        for url in ["https://sqs.example.com/1/q", "http://localhost:4566/1/q", "http://127.0.0.1", "http://[::1]:1/q"]
        {
            assert!(!is_readable_on_the_way(url), "{url}");
        }
    }

    /// A message without a time of sending got the time of its delivery, which differs at the next one, so it became two
    /// rows. A redriven message of a FIFO queue has the time of its redrive.
    #[test]
    fn the_time_of_sending_is_stable_only_where_each_delivery_has_the_same() {
        let of_queue = |message: Message| (message.sent_at, message.sent_at_is_stable);
        assert_eq!(of_queue(delivered(Some("1000"), false)), (1000, true));
        assert_eq!(of_queue(delivered(Some("1000"), true)), (1000, false));
        assert_eq!(of_queue(delivered(None, false)), (2000, false));
        assert_eq!(of_queue(delivered(Some("soon"), false)), (2000, false));
    }
}
