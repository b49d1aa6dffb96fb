//! At-least-once delivery, made to happen: messages that are redelivered although they are in flight.
//!
//! A redelivery has the message's id and a receipt handle of its own, and counts as one more receive, as with SQS.
//! Either handle deletes the message or changes its visibility.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hyper::http::Response;
use rustack_sqs_core::provider::RustackSqs;
use rustack_sqs_http::body::SqsResponseBody;
use rustack_sqs_http::response::json_response;
use rustack_sqs_model::error::SqsError;
use rustack_sqs_model::input::ReceiveMessageInput;
use rustack_sqs_model::output::ReceiveMessageOutput;
use rustack_sqs_model::types::Message;

/// Ends the receipt handle of a redelivery. Handles are base64, so no other one holds it.
const REDELIVERY_MARK: &str = "#redelivered";
const RECEIVE_COUNT: &str = "ApproximateReceiveCount";

/// The queue knows a message by the handle of its first delivery.
pub(super) fn without_marks(body: &Bytes) -> Bytes {
    String::from_utf8_lossy(body).replace(REDELIVERY_MARK, "").into()
}

/// Delivers every n-th message twice.
#[derive(Debug)]
pub(super) struct Redelivery {
    provider: Arc<RustackSqs>,
    every: u32,
    queues: Mutex<HashMap<String, QueueState>>,
}

/// Of one queue: the number of messages that it delivered, and those that the next receives redeliver.
#[derive(Debug, Default)]
struct QueueState {
    delivered: u32,
    due: VecDeque<Message>,
}

impl Redelivery {
    pub(super) fn of_every(every: u32, provider: Arc<RustackSqs>) -> Self {
        Self { provider, every: every.max(1), queues: Mutex::default() }
    }

    pub(super) async fn receive(&self, body: &[u8]) -> Result<Response<SqsResponseBody>, SqsError> {
        let mut input: ReceiveMessageInput =
            serde_json::from_slice(body).map_err(|error| SqsError::invalid_parameter_value(error.to_string()))?;
        let wanted = usize::try_from(input.max_number_of_messages.unwrap_or(1)).unwrap_or(1);
        let queue_url = input.queue_url.clone();
        let mut messages = self.take_due(&queue_url, wanted);
        if messages.len() < wanted {
            if !messages.is_empty() {
                input.wait_time_seconds = Some(0);
            }
            input.max_number_of_messages = i32::try_from(wanted - messages.len()).ok();
            // Who receives the redelivery may ask for more than who receives the first delivery.
            input.message_system_attribute_names = vec!["All".to_owned()];
            let first_deliveries = self.provider.receive_message(input).await?.messages;
            self.note(&queue_url, &first_deliveries);
            messages.extend(first_deliveries);
        }
        let json = serde_json::to_vec(&ReceiveMessageOutput { messages })
            .map_err(|error| SqsError::internal_error(error.to_string()))?;
        Ok(json_response(json, "redelivery"))
    }

    fn take_due(&self, queue_url: &str, wanted: usize) -> Vec<Message> {
        let mut queues = self.lock();
        let due = &mut queues.entry(queue_url.to_owned()).or_default().due;
        let count = wanted.min(due.len());
        due.drain(..count).collect()
    }

    fn note(&self, queue_url: &str, first_deliveries: &[Message]) {
        let mut queues = self.lock();
        let queue = queues.entry(queue_url.to_owned()).or_default();
        for message in first_deliveries {
            queue.delivered += 1;
            if queue.delivered.is_multiple_of(self.every) {
                queue.due.push_back(redelivery_of(message));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, QueueState>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn redelivery_of(message: &Message) -> Message {
    let mut again = message.clone();
    if let Some(handle) = &mut again.receipt_handle {
        handle.push_str(REDELIVERY_MARK);
    }
    if let Some(count) = again.attributes.get_mut(RECEIVE_COUNT) {
        *count = count.parse::<u32>().map_or_else(|_| count.clone(), |receives| (receives + 1).to_string());
    }
    again
}
