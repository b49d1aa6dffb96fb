//! Faults that the local queue server makes on purpose.
//!
//! Requests pass through [`FaultyQueue`] on their way to the queue. Without a fault it changes nothing.

mod answers;
mod redelivery;
mod rules;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hyper::http::Response;
use rustack_sqs_core::handler::RustackSqsHandler;
use rustack_sqs_core::provider::RustackSqs;
use rustack_sqs_http::body::SqsResponseBody;
use rustack_sqs_http::dispatch::SqsHandler;
use rustack_sqs_model::error::SqsError;
use rustack_sqs_model::input::DeleteQueueInput;
use rustack_sqs_model::operations::SqsOperation;
use serde_json::Value;

pub(super) use answers::deliver;
use answers::{
    Broken, altered, broken, damage_bodies, drop_sent_timestamps, internal, json_answer, json_of, malformed,
    raise_counts, refusal, shift_sent_timestamps, take_failing,
};
use redelivery::{Redelivery, without_marks};
use rules::Rules;
pub use rules::{Fault, Operation, Rule, When};

/// The faults that the queue server makes on purpose; by default none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Every n-th message is redelivered by the queue's next receive although it is in flight, as SQS' at-least-once
    /// delivery may do.
    pub redeliver_every: Option<u32>,
}

/// The queue behind its faults.
#[derive(Debug)]
pub(super) struct FaultyQueue {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    queue: RustackSqsHandler,
    provider: Arc<RustackSqs>,
    redelivery: Option<Redelivery>,
    rules: Rules,
    /// Lost answers to receives, by their attempt.
    lost: Mutex<HashMap<String, Value>>,
    witness: Mutex<Option<DeleteWitness>>,
}

type TellDeleted = dyn Fn(&[String]) + Send + Sync;

/// Is told the messages that a client deletes, before they are deleted.
#[derive(Clone)]
struct DeleteWitness(Arc<TellDeleted>);

impl fmt::Debug for DeleteWitness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DeleteWitness")
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<SqsResponseBody>, SqsError>> + Send>>;

impl SqsHandler for FaultyQueue {
    fn handle_operation(&self, operation: SqsOperation, body: Bytes) -> Answer {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move { inner.handle(operation, body).await })
    }
}

impl FaultyQueue {
    pub(super) fn new(provider: Arc<RustackSqs>, faults: Faults) -> Self {
        let redelivery = faults.redeliver_every.map(|every| Redelivery::of_every(every, Arc::clone(&provider)));
        let queue = RustackSqsHandler::new(Arc::clone(&provider));
        let (rules, lost, witness) = (Rules::default(), Mutex::default(), Mutex::default());
        Self { inner: Arc::new(Inner { queue, provider, redelivery, rules, lost, witness }) }
    }

    /// Puts these rules in the place of all others.
    pub(super) fn inject(&self, rules: &[Rule]) {
        self.inner.rules.replace(rules);
    }

    /// Tells `witness` the ids of the messages of each `DeleteMessageBatch` before it is carried out. It may block.
    pub(super) fn witness_deletes(&self, witness: impl Fn(&[String]) + Send + Sync + 'static) {
        let witness = DeleteWitness(Arc::new(witness));
        *self.inner.witness.lock().unwrap_or_else(PoisonError::into_inner) = Some(witness);
    }
}

impl Inner {
    async fn handle(&self, operation: SqsOperation, body: Bytes) -> Result<Response<SqsResponseBody>, SqsError> {
        match self.rules.fault_of(operation) {
            None => self.carry_out(operation, body).await,
            Some(Fault::Refused(status, code)) => Ok(refusal(status, code)),
            Some(Fault::LostAnswer) => self.lose(operation, body).await,
            Some(Fault::CutAnswer) => Ok(broken(self.carry_out(operation, body).await?, Broken::Cut)),
            Some(Fault::MalformedAnswer) => malformed(self.carry_out(operation, body).await?).await,
            Some(Fault::Slow(time)) => {
                tokio::time::sleep(time).await;
                self.carry_out(operation, body).await
            }
            Some(Fault::DamagedBodies) => altered(self.carry_out(operation, body).await?, damage_bodies).await,
            Some(Fault::ClockAhead { ms }) => {
                altered(self.carry_out(operation, body).await?, |answer| shift_sent_timestamps(answer, ms)).await
            }
            Some(Fault::CountsAhead { visible, in_flight }) => {
                altered(self.carry_out(operation, body).await?, |answer| raise_counts(answer, visible, in_flight)).await
            }
            Some(Fault::NoSentTimestamp) => altered(self.carry_out(operation, body).await?, drop_sent_timestamps).await,
            Some(Fault::FailedEntries { code, sender_fault }) => {
                self.fail_entries(operation, &body, code, sender_fault).await
            }
            Some(Fault::QueueDeleted) => {
                let queue_url = text_of(&parsed(&body)?, "QueueUrl");
                self.provider.delete_queue(DeleteQueueInput { queue_url }).await?;
                self.carry_out(operation, body).await
            }
        }
    }

    async fn carry_out(&self, operation: SqsOperation, body: Bytes) -> Result<Response<SqsResponseBody>, SqsError> {
        use SqsOperation as Op;
        if operation == Op::ReceiveMessage
            && let Some(answer) = self.lost_before(&body)?
        {
            return Ok(answer);
        }
        if operation == Op::DeleteMessageBatch {
            self.tell_witness(&parsed(&body)?).await?;
        }
        match (&self.redelivery, operation) {
            (Some(redelivery), Op::ReceiveMessage) => redelivery.receive(&body).await,
            (
                Some(_),
                Op::DeleteMessage
                | Op::DeleteMessageBatch
                | Op::ChangeMessageVisibility
                | Op::ChangeMessageVisibilityBatch,
            ) => self.queue.handle_operation(operation, without_marks(&body)).await,
            _ => self.queue.handle_operation(operation, body).await,
        }
    }

    async fn lose(&self, operation: SqsOperation, body: Bytes) -> Result<Response<SqsResponseBody>, SqsError> {
        let answer = self.carry_out(operation, body.clone()).await?;
        let attempt = text_of(&parsed(&body)?, "ReceiveRequestAttemptId");
        let json = json_of(answer).await?;
        let lost = broken(json_answer(&json), Broken::Lost);
        if !attempt.is_empty() {
            self.lost.lock().unwrap_or_else(PoisonError::into_inner).insert(attempt, json);
        }
        Ok(lost)
    }

    fn lost_before(&self, body: &Bytes) -> Result<Option<Response<SqsResponseBody>>, SqsError> {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if lost.is_empty() {
            return Ok(None);
        }
        Ok(lost.remove(&text_of(&parsed(body)?, "ReceiveRequestAttemptId")).map(|json| json_answer(&json)))
    }

    async fn fail_entries(
        &self,
        operation: SqsOperation,
        body: &Bytes,
        code: &'static str,
        sender_fault: bool,
    ) -> Result<Response<SqsResponseBody>, SqsError> {
        let mut request = parsed(body)?;
        let failed = take_failing(&mut request, code, sender_fault);
        if request["Entries"].as_array().is_none_or(Vec::is_empty) {
            return Ok(json_answer(&serde_json::json!({ "Successful": [], "Failed": failed })));
        }
        let answer = self.carry_out(operation, request.to_string().into()).await?;
        altered(answer, |answer| answer["Failed"] = failed.into()).await
    }

    async fn tell_witness(&self, request: &Value) -> Result<(), SqsError> {
        let Some(witness) = self.witness.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return Ok(()) };
        let entries = request["Entries"].as_array().into_iter().flatten();
        let messages: Vec<String> = entries.filter_map(|entry| message_of(&text_of(entry, "ReceiptHandle"))).collect();
        tokio::task::spawn_blocking(move || (witness.0)(&messages)).await.map_err(internal)
    }
}

/// The message that a receipt handle belongs to: base64 of its id, a colon, and what makes the handle unique.
fn message_of(receipt_handle: &str) -> Option<String> {
    let handle = String::from_utf8(without_marks(&Bytes::copy_from_slice(receipt_handle.as_bytes())).to_vec()).ok()?;
    let text = String::from_utf8(aws_smithy_types::base64::decode(handle).ok()?).ok()?;
    text.split(':').next().map(str::to_owned)
}

fn parsed(body: &Bytes) -> Result<Value, SqsError> {
    serde_json::from_slice(body).map_err(internal)
}

fn text_of(object: &Value, field: &str) -> String {
    object[field].as_str().unwrap_or_default().to_owned()
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
    async fn every_nth_message_is_redelivered_by_the_next_receive_and_only_once() {
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
    async fn without_faults_nothing_is_redelivered() {
        let queue = faulty_queue_holding(3, Faults::default()).await;
        assert_eq!(receive(&queue, 10).await.len(), 3);
        assert!(receive(&queue, 10).await.is_empty());
    }
}
