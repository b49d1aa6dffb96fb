//! What SQS has for messages that cannot be processed: another queue to send them to, and the redrive policy that
//! moves them there by itself.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_sqs::types::{MessageAttributeValue, QueueAttributeName, SendMessageBatchRequestEntry};
use aws_smithy_types::{Blob, base64};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Sqs, failed_entries, incomplete_entry};
use crate::config::QueueAddress;
use crate::queue::{FailedEntry, QueueError};
use crate::reason::Reason;

/// SQS's limit for the attributes of a message.
const MAX_ATTRIBUTES: usize = 10;

/// The queue that rejects are sent to.
#[derive(Debug, Clone)]
pub struct DeadLetterQueue(Sqs);

/// A rejected message, as it is sent.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Its id in the queue that it came from.
    pub message_id: String,
    /// Its body.
    pub body: String,
    /// The attributes that it had, `{name: {type, value}}`.
    pub attributes: Option<Box<RawValue>>,
    /// Its FIFO group, where it had one.
    pub group_id: Option<String>,
    /// Which stage refused it, and why.
    pub reason: Reason,
}

impl DeadLetterQueue {
    /// Checks that the queue is there, and that it is not `source`, the queue that the rejects come from. Region,
    /// credentials and endpoint are those of every queue.
    pub async fn connect(queue_url: &str, source: &Sqs) -> Result<Self, QueueError> {
        let queue = Sqs::connect(&QueueAddress::Url(queue_url.to_owned()), source.times).await?;
        if queue.is_same_queue_as(source).await? {
            return Err(QueueError::DeadLettersToTheirSource { queue_url: queue_url.to_owned() });
        }
        Ok(Self(queue))
    }

    /// Sends up to [`crate::queue::BATCH_MESSAGES`]; says which were not taken.
    ///
    /// The attributes `pgsluice_stage`, `pgsluice_reason`, `pgsluice_field` and `pgsluice_message_id` come with each,
    /// and the message's own as far as the limit of ten allows.
    pub async fn send(&self, letters: &[&DeadLetter]) -> Result<Vec<FailedEntry>, QueueError> {
        let Self(sqs) = self;
        let is_fifo = sqs.is_fifo();
        let entries = letters.iter().enumerate().map(|(index, letter)| letter.entry(index, is_fifo));
        let entries = entries.collect::<Result<_, _>>()?;
        let request = sqs.client.send_message_batch().queue_url(&sqs.queue_url).set_entries(Some(entries));
        let answer = request.send().await.map_err(|error| sqs.error("SendMessageBatch", error))?;
        Ok(failed_entries(&answer.failed))
    }
}

impl Sqs {
    /// By their ARNs, because one queue has several URLs; by account and name where a server tells no ARN.
    async fn is_same_queue_as(&self, other: &Self) -> Result<bool, QueueError> {
        if let (Some(own), Some(others)) = (self.arn().await?, other.arn().await?) {
            return Ok(own == others);
        }
        Ok(account_and_name(&self.queue_url) == account_and_name(&other.queue_url))
    }

    async fn arn(&self) -> Result<Option<String>, QueueError> {
        let mut attributes = self.attributes(&[QueueAttributeName::QueueArn]).await?;
        Ok(attributes.remove(&QueueAttributeName::QueueArn).filter(|arn| !arn.is_empty()))
    }

    /// How often the queue delivers a message before its redrive policy moves it away.
    pub async fn max_receives(&self) -> Result<u32, QueueError> {
        let name = QueueAttributeName::RedrivePolicy;
        let ask = self.client.get_queue_attributes().queue_url(&self.queue_url).attribute_names(name.clone());
        let answer = ask.send().await.map_err(|error| self.error("GetQueueAttributes", error))?;
        let policy = answer.attributes.and_then(|mut attributes| attributes.remove(&name));
        let receives = policy.and_then(|policy| max_receives(&policy));
        receives.ok_or_else(|| QueueError::NoRedrivePolicy { queue_url: self.queue_url.clone() })
    }
}

/// The `maxReceiveCount` of a redrive policy.
pub(super) fn max_receives(policy: &str) -> Option<u32> {
    let policy: RedrivePolicy = serde_json::from_str(policy).ok()?;
    policy.max_receive_count.to_string().trim_matches('"').parse().ok()
}

#[derive(Deserialize)]
struct RedrivePolicy {
    /// A number, or a string that holds one: SQS takes and gives back both.
    #[serde(rename = "maxReceiveCount")]
    max_receive_count: serde_json::Value,
}

impl DeadLetter {
    /// What SQS counts against its limits, and a little more.
    pub(crate) fn bytes(&self) -> usize {
        let own = self.attributes.as_ref().map_or(0, |attributes| attributes.get().len());
        self.body.len()
            + own
            + self.reason.text.len()
            + self.message_id.len()
            + self.reason.field.as_ref().map_or(0, String::len)
            + 256
    }

    fn entry(&self, index: usize, is_fifo: bool) -> Result<SendMessageBatchRequestEntry, QueueError> {
        let entry = SendMessageBatchRequestEntry::builder()
            .id(index.to_string())
            .message_body(&self.body)
            .set_message_attributes(Some(self.all_attributes()));
        let entry = if is_fifo {
            // The id as its deduplication id: sent twice within five minutes, it is there once.
            let group = self.group_id.as_ref().unwrap_or(&self.message_id);
            entry.message_group_id(group).message_deduplication_id(&self.message_id)
        } else {
            entry
        };
        entry.build().map_err(|error| incomplete_entry("SendMessageBatch", &error))
    }

    fn all_attributes(&self) -> HashMap<String, MessageAttributeValue> {
        let reason = [
            ("pgsluice_stage", Some(self.reason.stage.name())),
            ("pgsluice_reason", Some(self.reason.text.as_str())),
            ("pgsluice_field", self.reason.field.as_deref()),
            ("pgsluice_message_id", Some(self.message_id.as_str())),
        ];
        let mut all: HashMap<_, _> =
            reason.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text_attribute(text?)?))).collect();
        for (name, value) in self.own_attributes() {
            if all.len() < MAX_ATTRIBUTES {
                all.entry(name).or_insert(value);
            }
        }
        all
    }

    fn own_attributes(&self) -> impl Iterator<Item = (String, MessageAttributeValue)> {
        #[derive(Deserialize)]
        struct SpooledAttribute {
            r#type: String,
            /// Null where the queue gave neither a text nor bytes.
            value: Option<String>,
        }
        let json = self.attributes.as_deref().map_or("{}", RawValue::get);
        let spooled: BTreeMap<String, SpooledAttribute> = serde_json::from_str(json).unwrap_or_default();
        spooled.into_iter().filter_map(|(name, SpooledAttribute { r#type, value })| {
            let (value, attribute) = (value?, MessageAttributeValue::builder().data_type(&r#type));
            let attribute = if r#type.starts_with("Binary") {
                attribute.binary_value(Blob::new(base64::decode(value).ok()?))
            } else {
                attribute.string_value(value)
            };
            Some((name, attribute.build().ok()?))
        })
    }
}

/// The last two parts of a queue's URL, whatever host and scheme it is asked by.
fn account_and_name(queue_url: &str) -> Vec<&str> {
    queue_url.trim_end_matches('/').rsplit('/').take(2).collect()
}

fn text_attribute(text: &str) -> Option<MessageAttributeValue> {
    // SQS refuses an empty value.
    let is_text = !text.is_empty();
    is_text.then(|| MessageAttributeValue::builder().data_type("String").string_value(text).build().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Stage;

    #[test]
    fn account_and_name_are_those_of_the_url_whatever_its_host() {
        let known = account_and_name("https://sqs.eu-west-1.amazonaws.com/123456789012/logins");
        assert_eq!(account_and_name("http://localhost:4566/123456789012/logins/"), known);
        assert_ne!(account_and_name("https://sqs.eu-west-1.amazonaws.com/123456789012/logins-rejects"), known);
        assert_ne!(account_and_name("https://sqs.eu-west-1.amazonaws.com/210987654321/logins"), known);
    }

    #[test]
    fn a_dead_letter_has_its_reason_and_as_many_of_its_own_attributes_as_fit() {
        let own: BTreeMap<String, serde_json::Value> = (0..9)
            .map(|index| (format!("own_{index}"), serde_json::json!({"type": "Binary.x", "value": "AAE="})))
            .collect();
        let letter = DeadLetter {
            message_id: "m".to_owned(),
            body: "{}".to_owned(),
            attributes: serde_json::value::to_raw_value(&own).ok(),
            group_id: None,
            reason: Reason { stage: Stage::Transform, field: Some("ip".to_owned()), text: "ip is missing".to_owned() },
        };
        let all = letter.all_attributes();
        assert_eq!(all.len(), MAX_ATTRIBUTES);
        assert_eq!(all["pgsluice_reason"].string_value(), Some("ip is missing"));
        assert_eq!(all["pgsluice_message_id"].string_value(), Some("m"));
        assert_eq!(all["own_0"].binary_value().map(AsRef::as_ref), Some(&[0_u8, 1][..]));
        assert!(!all.contains_key("own_6"));
    }
}
