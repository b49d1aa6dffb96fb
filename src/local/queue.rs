//! A queue server that speaks SQS's protocol, on a thread of its own.
//!
//! Always true:
//! - it listens on a free port of 127.0.0.1 alone, checks no credentials, and knows one account and one region;
//! - queues live in memory: when [`LocalQueue`] is dropped, server and messages are gone;
//! - [`Faults`] concern clients only; the methods here bypass them.
//!
//! It differs from SQS where its crates do: a delete never fails, bodies end at 256 KiB, a FIFO receive gives one
//! message a group, and every receive scans all messages in flight, so far more than 50,000 in flight make it slow.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use rustack_sqs_core::config::SqsConfig;
use rustack_sqs_core::provider::RustackSqs;
use rustack_sqs_http::service::{SqsHttpConfig, SqsHttpService};
use rustack_sqs_model::error::SqsError;
use rustack_sqs_model::input::{CreateQueueInput, GetQueueAttributesInput, SendMessageInput};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use super::faults::{Faults, FaultyQueue, Rule, deliver};

const REGION: &str = "us-east-1";
const ACCOUNT: &str = "000000000000";
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// The local queue server did not start, or refused what was asked.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is the documentation")]
pub enum LocalQueueError {
    #[error("cannot start the local queue server")]
    Start(#[from] io::Error),
    #[error("the local queue server cannot {action} {queue}")]
    Refused { action: &'static str, queue: String, source: SqsError },
    #[error("the local queue server has stopped")]
    Stopped,
}

/// The number of messages in a queue, as `GetQueueAttributes` counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueCounts {
    /// Waiting to be received.
    pub visible: usize,
    /// Received, and neither deleted nor visible again.
    pub in_flight: usize,
    /// Sent with a delay that is not over.
    pub delayed: usize,
}

/// A running queue server; dropped, it vanishes. Its methods block until the server has done what they ask, which
/// takes microseconds for a message.
#[derive(Debug)]
pub struct LocalQueue {
    address: SocketAddr,
    provider: Arc<RustackSqs>,
    handler: Arc<FaultyQueue>,
    runtime: Handle,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl LocalQueue {
    /// Starts a server without queues; it accepts connections when this returns.
    pub fn start(faults: Faults) -> Result<Self, LocalQueueError> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let provider = Arc::new(RustackSqs::new(SqsConfig {
            skip_signature_validation: true,
            default_region: REGION.to_owned(),
            account_id: ACCOUNT.to_owned(),
            host: address.ip().to_string(),
            port: address.port(),
        }));
        let handler = Arc::new(FaultyQueue::new(Arc::clone(&provider), faults));
        let service = SqsHttpService::new(Arc::clone(&handler), SqsHttpConfig::default());
        // One thread is enough: the client is the bottleneck, and should have the other cores.
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let serve = move || runtime.block_on(serve(listener, service, stopped));
        let thread = thread::Builder::new().name("local-queue".to_owned()).spawn(serve)?;
        Ok(Self { address, provider, handler, runtime: handle, stop, thread: Some(thread) })
    }

    /// Replaces the rules by which requests fail.
    pub fn inject(&self, rules: &[Rule]) {
        self.handler.inject(rules);
    }

    /// Calls `witness` with the ids of the messages of each `DeleteMessageBatch` before it is carried out; where it
    /// panics, the delete is refused as the server's fault. It may block, but not call this server.
    pub fn witness_deletes(&self, witness: impl Fn(&[String]) + Send + Sync + 'static) {
        self.handler.witness_deletes(witness);
    }

    /// What a client takes for `AWS_ENDPOINT_URL`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What a client takes for `AWS_REGION`.
    #[must_use]
    pub const fn region(&self) -> &'static str {
        REGION
    }

    /// The URL that a queue of this name has, whether it exists or not.
    #[must_use]
    pub fn queue_url(&self, name: &str) -> String {
        format!("http://{}/{ACCOUNT}/{name}", self.address)
    }

    /// Creates an empty standard queue, visibility timeout 30 s, and returns its URL.
    pub fn create_queue(&self, name: &str) -> Result<String, LocalQueueError> {
        let input = CreateQueueInput { queue_name: name.to_owned(), ..CreateQueueInput::default() };
        let provider = Arc::clone(&self.provider);
        self.on_server(async move { provider.create_queue(input).await })?.map_err(refused("create queue", name))?;
        Ok(self.queue_url(name))
    }

    /// Sends each body as a message and returns how many there were; at the first that is refused it stops.
    pub fn send(&self, name: &str, bodies: Vec<String>) -> Result<usize, LocalQueueError> {
        let queue_url = self.queue_url(name);
        let provider = Arc::clone(&self.provider);
        let count = bodies.len();
        let send_all = async move {
            for message_body in bodies {
                let input =
                    SendMessageInput { queue_url: queue_url.clone(), message_body, ..SendMessageInput::default() };
                provider.send_message(input).await?;
            }
            Ok(count)
        };
        self.on_server(send_all)?.map_err(refused("send to queue", name))
    }

    /// The number of messages in the queue now.
    pub fn counts(&self, name: &str) -> Result<QueueCounts, LocalQueueError> {
        let input =
            GetQueueAttributesInput { queue_url: self.queue_url(name), attribute_names: vec!["All".to_owned()] };
        let provider = Arc::clone(&self.provider);
        let attributes = self
            .on_server(async move { provider.get_queue_attributes(input).await })?
            .map_err(refused("count queue", name))?
            .attributes;
        let count = |attribute| attributes.get(attribute).and_then(|count| count.parse().ok()).unwrap_or(0);
        Ok(QueueCounts {
            visible: count("ApproximateNumberOfMessages"),
            in_flight: count("ApproximateNumberOfMessagesNotVisible"),
            delayed: count("ApproximateNumberOfMessagesDelayed"),
        })
    }

    fn on_server<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, LocalQueueError> {
        // A channel of the standard library, because it may block also where the caller runs on a runtime.
        let (sender, receiver) = mpsc::sync_channel(1);
        self.runtime.spawn(async move { sender.send(work.await) });
        receiver.recv().map_err(|_| LocalQueueError::Stopped)
    }
}

impl Drop for LocalQueue {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

fn refused(action: &'static str, queue: &str) -> impl FnOnce(SqsError) -> LocalQueueError {
    let queue = queue.to_owned();
    move |source| LocalQueueError::Refused { action, queue, source }
}

async fn serve(listener: std::net::TcpListener, service: SqsHttpService<FaultyQueue>, stop: CancellationToken) {
    let accept_all = async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(serve_connection(stream, service.clone()))),
                Err(error) => {
                    // For instance too many open files; a moment later some are closed.
                    tracing::warn!(%error, "the local queue server cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    let ended: Option<io::Result<()>> = stop.run_until_cancelled(accept_all).await;
    if let Some(Err(error)) = ended {
        tracing::error!(%error, "the local queue server cannot listen");
    }
}

async fn serve_connection(stream: TcpStream, service: SqsHttpService<FaultyQueue>) {
    // A delayed acknowledgement would cost every small answer 40 ms.
    _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let answer = service.call(request);
        async { deliver(answer.await).await }
    });
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a client of the local queue server went away");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_messages_are_sent_and_counted() {
        let server = LocalQueue::start(Faults::default()).unwrap();
        server.create_queue("logins").unwrap();
        assert_eq!(server.send("logins", vec!["{}".to_owned(); 10_000]).unwrap(), 10_000);
        let expected = QueueCounts { visible: 10_000, ..QueueCounts::default() };
        assert_eq!(server.counts("logins").unwrap(), expected);
    }

    #[test]
    fn a_queue_that_was_not_created_is_named_in_the_error() {
        let server = LocalQueue::start(Faults::default()).unwrap();
        let error = server.send("missing", vec!["{}".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "the local queue server cannot send to queue missing");
    }

    #[test]
    fn a_dropped_server_no_longer_accepts_connections() {
        let server = LocalQueue::start(Faults::default()).unwrap();
        let address = server.address;
        std::net::TcpStream::connect(address).unwrap();
        drop(server);
        assert!(std::net::TcpStream::connect(address).is_err());
    }

    #[tokio::test]
    async fn it_may_be_called_from_a_runtime() {
        let server = LocalQueue::start(Faults::default()).unwrap();
        server.create_queue("logins").unwrap();
        assert_eq!(server.counts("logins").unwrap(), QueueCounts::default());
    }
}
