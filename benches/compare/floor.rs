//! The floor of the queue path: receives and deletes by aws-sdk-sqs, and the messages thrown away.
//!
//! Every program that empties a queue with this SDK pays at least this. The client is built as `src/queue/sqs.rs`
//! builds it, and asks for the same attributes; 16 pollers, each with a receive and the delete of the ten messages
//! before under way at once, so 16 of either. A poller ends at its first empty long poll of a second. Prints how many
//! messages were deleted.

#![allow(clippy::print_stdout, reason = "what a program prints is its result")]

use std::time::Duration;

use anyhow::{Context, ensure};
use aws_config::BehaviorVersion;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, MessageSystemAttributeName as SystemAttribute};
use aws_smithy_http_client::{Builder as HttpClientBuilder, tls};
use tokio::task::JoinSet;

const POLLERS: usize = 16;
const BATCH_MESSAGES: i32 = 10;
const WAIT_SECONDS: i32 = 1;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(11);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let queue_url = std::env::var("PGSLUICE_QUEUE_URL").context("PGSLUICE_QUEUE_URL")?;
    let client = connect().await;
    let mut pollers = JoinSet::new();
    for _ in 0..POLLERS {
        pollers.spawn(empty(client.clone(), queue_url.clone()));
    }
    let mut deleted = 0;
    while let Some(poller) = pollers.join_next().await {
        deleted += poller??;
    }
    println!("{deleted}");
    Ok(())
}

async fn connect() -> Client {
    let http = HttpClientBuilder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(ANSWER_TIMEOUT)
        .operation_attempt_timeout(ANSWER_TIMEOUT)
        .build();
    let config = aws_config::defaults(BehaviorVersion::latest()).http_client(http).timeout_config(timeouts);
    Client::new(&config.load().await)
}

async fn empty(client: Client, queue_url: String) -> anyhow::Result<usize> {
    let mut deleted = 0;
    let mut before = Vec::new();
    loop {
        let count = before.len();
        let (received, ()) = tokio::try_join!(receive(&client, &queue_url), delete(&client, &queue_url, before))?;
        deleted += count;
        if received.is_empty() {
            return Ok(deleted);
        }
        before = received;
    }
}

/// The receipt handles of the next messages.
async fn receive(client: &Client, queue_url: &str) -> anyhow::Result<Vec<String>> {
    let answer = client
        .receive_message()
        .queue_url(queue_url)
        .max_number_of_messages(BATCH_MESSAGES)
        .wait_time_seconds(WAIT_SECONDS)
        .message_system_attribute_names(SystemAttribute::SentTimestamp)
        .message_system_attribute_names(SystemAttribute::ApproximateReceiveCount)
        .message_system_attribute_names(SystemAttribute::MessageGroupId)
        .message_system_attribute_names(SystemAttribute::SequenceNumber)
        .message_attribute_names("All")
        .send()
        .await?;
    Ok(answer.messages.unwrap_or_default().into_iter().filter_map(|message| message.receipt_handle).collect())
}

async fn delete(client: &Client, queue_url: &str, receipt_handles: Vec<String>) -> anyhow::Result<()> {
    if receipt_handles.is_empty() {
        return Ok(());
    }
    let entry = |(index, handle): (usize, String)| {
        DeleteMessageBatchRequestEntry::builder().id(index.to_string()).receipt_handle(handle).build()
    };
    let entries = receipt_handles.into_iter().enumerate().map(entry).collect::<Result<Vec<_>, _>>()?;
    let answer = client.delete_message_batch().queue_url(queue_url).set_entries(Some(entries)).send().await?;
    ensure!(answer.failed.is_empty(), "{} messages were not deleted", answer.failed.len());
    Ok(())
}
