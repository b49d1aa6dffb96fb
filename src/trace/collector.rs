//! The way to the collector: a thread of its own, one POST a batch of spans.
//!
//! Always true: whatever fails is said once. Neither path and query of the endpoint nor a header is ever shown, because
//! they may hold a token.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, Response};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter as Otlp, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::TraceError;
use crate::https::{HttpsClient, https_client, innermost};

/// Of one attempt; the default of OpenTelemetry.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Of an answer, which is empty or names what was wrong with a batch.
const ANSWER_BYTES: usize = 64 * 1024;

/// What became of the batches.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    /// The part of the endpoint that may be shown.
    host: OnceLock<String>,
    /// Why the last attempt failed, if it did.
    problem: Mutex<Option<String>>,
    is_said: AtomicBool,
}

impl Delivery {
    /// One attempt has ended.
    fn attempted(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// The run has waited for as long as it does.
    pub(super) fn ran_out_of_time(&self, limit: Duration) {
        self.lost(&silent(limit));
    }

    /// A batch is lost: says so, with the last attempt's problem, where there is one.
    fn lost(&self, problem: &str) {
        let last = self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !self.is_said.swap(true, Ordering::AcqRel) {
            let host = self.host.get().map_or("the collector", String::as_str);
            tracing::warn!("the trace was not delivered to {host}: {}", last.as_deref().unwrap_or(problem));
        }
    }
}

fn silent(limit: Duration) -> String {
    format!("it did not answer within {} s", limit.as_secs())
}

/// Sends batches, and says if one is lost.
#[derive(Debug)]
pub(super) struct Exporter {
    otlp: Otlp,
    delivery: Arc<Delivery>,
}

impl Exporter {
    /// Where the variables say, with their headers.
    pub(super) fn from_environment(delivery: Arc<Delivery>) -> Result<Self, TraceError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(TraceError::NoThread)?;
        let client = Client { runtime, https: https_client(), delivery: Arc::clone(&delivery) };
        let otlp = Otlp::builder().with_http().with_http_client(client).build();
        Ok(Self { otlp: otlp.map_err(|_| TraceError::Configuration)?, delivery })
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exported = self.otlp.export(batch).await;
        if exported.is_err() {
            self.delivery.lost("the batch could not be sent");
        }
        exported
    }

    fn shutdown_with_timeout(&self, limit: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(limit)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.otlp.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

/// Is called on the thread of the batches, which has no runtime, and blocks it.
#[derive(Debug)]
struct Client {
    runtime: Runtime,
    https: HttpsClient,
    delivery: Arc<Delivery>,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.delivery.host.get_or_init(|| request.uri().host().unwrap_or_default().to_owned());
        let answer = self.runtime.block_on(async {
            match timeout(ANSWER_LIMIT, self.exchange(request.map(Full::new))).await {
                Ok(answer) => answer,
                Err(_) => Err(silent(ANSWER_LIMIT)),
            }
        });
        self.delivery.attempted(match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answered {}", answer.status())),
            Err(problem) => Some(problem.clone()),
        });
        Ok(answer?)
    }
}

impl Client {
    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, String> {
        let unreachable = |error: &dyn std::error::Error| format!("it cannot be reached: {}", innermost(error));
        let answer = self.https.request(request).await.map_err(|error| unreachable(&error))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES).collect().await.map_err(|error| unreachable(&*error))?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}
