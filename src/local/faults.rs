//! What the local queue server does on purpose although clients wish it would not.
//!
//! Requests pass through [`FaultyQueue`] on their way to the queue. Without a fault it changes nothing.
//!
//! A redelivery has the message's id and a receipt handle of its own, and counts as one more receive, as with SQS.
//! Either handle deletes the message or changes its visibility.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hyper::http::Response;
use rustack_sqs_core::handler::RustackSqsHandler;
use rustack_sqs_core::provider::RustackSqs;
use rustack_sqs_http::body::SqsResponseBody;
use rustack_sqs_http::dispatch::SqsHandler;
use rustack_sqs_http::response::json_response;
use rustack_sqs_model::error::SqsError;
use rustack_sqs_model::input::ReceiveMessageInput;
use rustack_sqs_model::operations::SqsOperation;
use rustack_sqs_model::output::ReceiveMessageOutput;
use rustack_sqs_model::types::Message;

/// Ends the receipt handle of a redelivery. Handles are base64, so no other one holds it.
const REDELIVERY_MARK: &str = "#redelivered";
const RECEIVE_COUNT: &str = "ApproximateReceiveCount";

/// What the queue server does on purpose although clients wish it would not; the default is nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Every n-th message is delivered again by the queue's next receive, though it is in flight: what SQS calls
    /// at-least-once delivery.
    pub redeliver_every: Option<u32>,
}

/// The queue behind its faults.
#[derive(Debug)]
pub(super) struct FaultyQueue {
    queue: RustackSqsHandler,
    redelivery: Option<Arc<Redelivery>>,
}

impl FaultyQueue {
    pub(super) fn new(provider: Arc<RustackSqs>, faults: Faults) -> Self {
        let redelivery = faults.redeliver_every.map(|every| {
            Arc::new(Redelivery { provider: Arc::clone(&provider), every: every.max(1), queues: Mutex::default() })
        });
        Self { queue: RustackSqsHandler::new(provider), redelivery }
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<SqsResponseBody>, SqsError>> + Send>>;

impl SqsHandler for FaultyQueue {
    fn handle_operation(&self, operation: SqsOperation, body: Bytes) -> Answer {
        use SqsOperation as Op;
        let Some(redelivery) = &self.redelivery else { return self.queue.handle_operation(operation, body) };
        match operation {
            Op::ReceiveMessage => {
                let redelivery = Arc::clone(redelivery);
                Box::pin(async move { redelivery.receive(&body).await })
            }
            Op::DeleteMessage
            | Op::DeleteMessageBatch
            | Op::ChangeMessageVisibility
            | Op::ChangeMessageVisibilityBatch => self.queue.handle_operation(operation, without_marks(&body)),
            _ => self.queue.handle_operation(operation, body),
        }
    }
}

/// The queue knows a message by the handle of its first delivery.
fn without_marks(body: &Bytes) -> Bytes {
    String::from_utf8_lossy(body).replace(REDELIVERY_MARK, "").into()
}

#[derive(Debug)]
struct Redelivery {
    provider: Arc<RustackSqs>,
    every: u32,
    queues: Mutex<HashMap<String, QueueState>>,
}

/// Of one queue: how many messages it delivered, and which of them come again with the next receives.
#[derive(Debug, Default)]
struct QueueState {
    delivered: u32,
    due: VecDeque<Message>,
}

impl Redelivery {
    async fn receive(&self, body: &[u8]) -> Result<Response<SqsResponseBody>, SqsError> {
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

#[cfg(test)]
mod tests {
    use rustack_sqs_core::config::SqsConfig;
    use rustack_sqs_model::input::{CreateQueueInput, SendMessageInput};
    use serde_json::{Value, json};

    use super::*;

    const QUEUE_URL: &str = "http://localhost/000000000000/logins";

    async fn faulty_queue_holding(messages: u32, faults: Faults) -> FaultyQueue {
        let provider = Arc::new(RustackSqs::new(SqsConfig::default()));
        let queue = CreateQueueInput { queue_name: "logins".to_owned(), ..CreateQueueInput::default() };
        provider.create_queue(queue).await.unwrap();
        for _ in 0..messages {
            let (queue_url, message_body) = (QUEUE_URL.to_owned(), "{}".to_owned());
            provider
                .send_message(SendMessageInput { queue_url, message_body, ..SendMessageInput::default() })
                .await
                .unwrap();
        }
        FaultyQueue::new(provider, faults)
    }

    async fn ask(queue: &FaultyQueue, operation: SqsOperation, mut request: Value) -> Value {
        use http_body_util::BodyExt;

        request["QueueUrl"] = QUEUE_URL.into();
        let answer = queue.handle_operation(operation, request.to_string().into()).await.unwrap();
        serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    async fn receive(queue: &FaultyQueue, most: usize) -> Vec<Value> {
        let request = json!({"MaxNumberOfMessages": most, "MessageSystemAttributeNames": ["All"]});
        let mut answer = ask(queue, SqsOperation::ReceiveMessage, request).await;
        answer["Messages"].as_array_mut().map(std::mem::take).unwrap_or_default()
    }

    async fn in_flight(queue: &FaultyQueue) -> Value {
        let answer = ask(queue, SqsOperation::GetQueueAttributes, json!({"AttributeNames": ["All"]})).await;
        answer["Attributes"]["ApproximateNumberOfMessagesNotVisible"].clone()
    }

    #[tokio::test]
    async fn every_nth_message_comes_again_with_the_next_receive_and_once_only() {
        let queue = faulty_queue_holding(10, Faults { redeliver_every: Some(5) }).await;
        let first = receive(&queue, 10).await;
        let second = receive(&queue, 10).await;
        let ids = |messages: &[Value]| messages.iter().map(|message| message["MessageId"].clone()).collect::<Vec<_>>();
        assert_eq!(first.len(), 10);
        assert_eq!(ids(&second), [first[4]["MessageId"].clone(), first[9]["MessageId"].clone()]);
        assert_eq!(second[0]["Attributes"]["ApproximateReceiveCount"], "2");
        assert_ne!(second[0]["ReceiptHandle"], first[4]["ReceiptHandle"]);
        assert!(receive(&queue, 10).await.is_empty());
    }

    #[tokio::test]
    async fn the_handle_of_a_redelivery_deletes_the_message() {
        let queue = faulty_queue_holding(1, Faults { redeliver_every: Some(1) }).await;
        receive(&queue, 1).await;
        let again = receive(&queue, 1).await;
        assert_eq!(in_flight(&queue).await, "1");
        let entries = json!({"Entries": [{"Id": "0", "ReceiptHandle": again[0]["ReceiptHandle"]}]});
        ask(&queue, SqsOperation::DeleteMessageBatch, entries).await;
        assert_eq!(in_flight(&queue).await, "0");
    }

    #[tokio::test]
    async fn without_faults_nothing_comes_twice() {
        let queue = faulty_queue_holding(3, Faults::default()).await;
        assert_eq!(receive(&queue, 10).await.len(), 3);
        assert!(receive(&queue, 10).await.is_empty());
    }
}
