//! A queue of a test's own, on the server inside this process or on LocalStack, used through the AWS SDK like any.

use std::collections::HashMap;
use std::sync::LazyLock;

use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sqs::primitives::Blob;
use aws_sdk_sqs::types::{Message, MessageAttributeValue, QueueAttributeName, SendMessageBatchRequestEntry};
use aws_sdk_sqs::{Client, Config};
use pgsluice::local::{Faults, LocalQueue, QueueCounts, Rule};
use serde_json::json;

use super::RUNTIME;
use super::localstack::LOCALSTACK;

pub(super) const REGION: &str = "us-east-1";
const BATCH_MESSAGES: usize = 10;

static EMBEDDED: LazyLock<LocalQueue> = LazyLock::new(|| LocalQueue::start(Faults::default()).expect("a queue server"));

/// The server that the queue is on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Server {
    /// The one inside this process, shared by all tests.
    Embedded,
    /// A third party's, shared by all tests.
    LocalStack,
    /// One inside this process for this test alone, with faults.
    Faulty(Faults),
}

/// The order that the queue keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueueKind {
    Standard,
    /// First in, first out within each group.
    Fifo,
}

pub(crate) struct Queue {
    client: Client,
    endpoint: String,
    url: String,
    kind: QueueKind,
    own_server: Option<LocalQueue>,
}

impl Queue {
    /// An empty queue.
    pub(crate) fn create(server: Server, kind: QueueKind) -> Self {
        let own_server = match server {
            Server::Faulty(faults) => Some(LocalQueue::start(faults).expect("a queue server")),
            Server::Embedded | Server::LocalStack => None,
        };
        let endpoint = match (server, &own_server) {
            (Server::LocalStack, _) => LOCALSTACK.endpoint().to_owned(),
            (_, Some(own)) => own.endpoint(),
            (_, None) => EMBEDDED.endpoint(),
        };
        Self::create_at(endpoint, kind, own_server)
    }

    /// Another empty queue of the same server.
    pub(crate) fn beside(&self, kind: QueueKind) -> Self {
        Self::create_at(self.endpoint.clone(), kind, None)
    }

    fn create_at(endpoint: String, kind: QueueKind, own_server: Option<LocalQueue>) -> Self {
        let client = client(&endpoint);
        let name = format!("test-{}", uuid::Uuid::now_v7());
        let create = match kind {
            QueueKind::Standard => client.create_queue().queue_name(name),
            QueueKind::Fifo => client
                .create_queue()
                .queue_name(name + ".fifo")
                .attributes(QueueAttributeName::FifoQueue, "true")
                .attributes(QueueAttributeName::ContentBasedDeduplication, "true"),
        };
        let created = RUNTIME.block_on(create.send()).expect("a queue");
        let url = created.queue_url().expect("a queue's URL").to_owned();
        Self { client, endpoint, url, kind, own_server }
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// From now on, a message that is received and not deleted is visible again after this number of seconds.
    pub(crate) fn set_visibility_timeout(&self, seconds: u32) {
        let request = self.client.set_queue_attributes().queue_url(&self.url);
        let request = request.attributes(QueueAttributeName::VisibilityTimeout, seconds.to_string());
        RUNTIME.block_on(request.send()).expect("a visibility timeout");
    }

    /// Makes a received message visible again, as if its visibility timeout had passed.
    pub(crate) fn release(&self, receipt_handle: &str) {
        let request = self.client.change_message_visibility().queue_url(&self.url).receipt_handle(receipt_handle);
        RUNTIME.block_on(request.visibility_timeout(0).send()).expect("a visible message");
    }

    /// Sends each body as a message, in this order.
    pub(crate) fn send<T: AsRef<str>>(&self, bodies: &[T]) {
        for batch in bodies.chunks(BATCH_MESSAGES) {
            let entries = batch.iter().enumerate().map(|(index, body)| {
                let entry = SendMessageBatchRequestEntry::builder().id(index.to_string()).message_body(body.as_ref());
                entry.build().expect("an entry")
            });
            let request = self.client.send_message_batch().queue_url(&self.url).set_entries(Some(entries.collect()));
            let sent = RUNTIME.block_on(request.send()).expect("a sent batch");
            assert!(sent.failed().is_empty(), "the queue refused {:?}", sent.failed());
        }
    }

    /// Sends a body as a message; returns the id that the queue gives it. On a FIFO queue each is a group of its own,
    /// and none is taken for a repetition of another.
    pub(crate) fn send_one(&self, body: &str) -> String {
        let mut request = self.client.send_message().queue_url(&self.url).message_body(body);
        if self.kind == QueueKind::Fifo {
            let unique = uuid::Uuid::now_v7().to_string();
            request = request.message_group_id(&unique).message_deduplication_id(&unique);
        }
        let sent = RUNTIME.block_on(request.send()).expect("a sent message");
        sent.message_id.expect("a message's id")
    }

    /// Receives up to ten messages that are there now, and hides them for this many seconds.
    pub(crate) fn take(&self, visibility_timeout_seconds: i32) -> Vec<Message> {
        let request = self.client.receive_message().queue_url(&self.url).max_number_of_messages(10);
        let received = RUNTIME.block_on(request.visibility_timeout(visibility_timeout_seconds).send());
        received.expect("received messages").messages.unwrap_or_default()
    }

    /// Deletes a received message, by itself and not in a batch.
    pub(crate) fn delete(&self, receipt_handle: &str) {
        let request = self.client.delete_message().queue_url(&self.url).receipt_handle(receipt_handle);
        RUNTIME.block_on(request.send()).expect("a deleted message");
    }

    /// Sends a message of a group to a FIFO queue.
    pub(crate) fn send_to_group(&self, group: &str, body: &str) {
        let request = self.client.send_message().queue_url(&self.url).message_group_id(group).message_body(body);
        RUNTIME.block_on(request.send()).expect("a sent message");
    }

    /// Sends a message with attributes: one text, one of bytes.
    pub(crate) fn send_with_attributes(&self, body: &str, text: (&str, &str), bytes: (&str, &[u8])) {
        let attribute = |kind: &str| MessageAttributeValue::builder().data_type(kind);
        let request = self
            .client
            .send_message()
            .queue_url(&self.url)
            .message_body(body)
            .message_attributes(text.0, attribute("String").string_value(text.1).build().expect("an attribute"))
            .message_attributes(bytes.0, attribute("Binary").binary_value(Blob::new(bytes.1)).build().expect("one"));
        RUNTIME.block_on(request.send()).expect("a sent message");
    }

    /// Sends messages that are not to be received before this many seconds are over.
    pub(crate) fn send_delayed(&self, bodies: &[String], delay_seconds: i32) {
        for body in bodies {
            let request = self.client.send_message().queue_url(&self.url).message_body(body);
            RUNTIME.block_on(request.delay_seconds(delay_seconds).send()).expect("a sent message");
        }
    }

    /// Acts as another consumer: receives up to ten messages and does not delete them. Returns their number.
    pub(crate) fn receive(&self, visibility_timeout_seconds: i32) -> usize {
        self.take(visibility_timeout_seconds).len()
    }

    /// Waits for a message, receives it and does not delete it.
    pub(crate) fn receive_next(&self) {
        let receive = || self.client.receive_message().queue_url(&self.url).wait_time_seconds(20).send();
        let received = RUNTIME.block_on(receive()).expect("an answer");
        assert_eq!(received.messages().len(), 1, "nothing came within a long poll");
    }

    /// Replaces the rules by which requests fail on this test's own server.
    pub(crate) fn inject(&self, rules: &[Rule]) {
        self.own_server().inject(rules);
    }

    /// Calls `witness` with the ids of messages before they are deleted from this test's own server.
    pub(crate) fn witness_deletes(&self, witness: impl Fn(&[String]) + Send + Sync + 'static) {
        self.own_server().witness_deletes(witness);
    }

    fn own_server(&self) -> &LocalQueue {
        self.own_server.as_ref().expect("a server of the test's own: Server::Faulty")
    }

    /// Moves what was received `max_receives` times to another queue of the same server, as SQS does.
    pub(crate) fn redrive_to(&self, dead_letters: &Self, max_receives: u32) {
        let arn = QueueAttributeName::QueueArn;
        let attributes = dead_letters.attributes();
        let policy = json!({ "deadLetterTargetArn": attributes[&arn], "maxReceiveCount": max_receives });
        let name = QueueAttributeName::RedrivePolicy;
        let set = self.client.set_queue_attributes().queue_url(&self.url).attributes(name, policy.to_string());
        RUNTIME.block_on(set.send()).expect("a redrive policy");
    }

    /// Receives until the queue gives nothing more.
    pub(crate) fn receive_all(&self) -> Vec<Message> {
        let mut all = Vec::new();
        loop {
            let receive = self.client.receive_message().queue_url(&self.url).max_number_of_messages(10);
            let receive = receive.wait_time_seconds(1).message_attribute_names("All");
            let received = RUNTIME.block_on(receive.send()).expect("an answer").messages.unwrap_or_default();
            if received.is_empty() {
                return all;
            }
            all.extend(received);
        }
    }

    fn attributes(&self) -> HashMap<QueueAttributeName, String> {
        let ask = self.client.get_queue_attributes().queue_url(&self.url).attribute_names(QueueAttributeName::All);
        RUNTIME.block_on(ask.send()).expect("the queue's attributes").attributes.unwrap_or_default()
    }

    pub(crate) fn counts(&self) -> QueueCounts {
        let attributes = self.attributes();
        QueueCounts {
            visible: count(&attributes, &QueueAttributeName::ApproximateNumberOfMessages),
            in_flight: count(&attributes, &QueueAttributeName::ApproximateNumberOfMessagesNotVisible),
            delayed: count(&attributes, &QueueAttributeName::ApproximateNumberOfMessagesDelayed),
        }
    }

    /// All of this number of messages are there, and none was received.
    pub(crate) fn assert_untouched(&self, messages: usize) {
        assert_eq!(self.counts(), QueueCounts { visible: messages, ..QueueCounts::default() });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.counts() == QueueCounts::default()
    }
}

fn count(attributes: &HashMap<QueueAttributeName, String>, name: &QueueAttributeName) -> usize {
    attributes[name].parse().expect("a count")
}

fn client(endpoint: &str) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new("test", "test", None, None, "tests"))
        .http_client(aws_smithy_http_client::Builder::new().build_http());
    Client::from_conf(config.build())
}
