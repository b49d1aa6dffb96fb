//! The trace of a run for OpenTelemetry: the command is its root, and each stage's work on a segment is a span below it.
//!
//! Always true:
//! - OpenTelemetry's own variables alone configure it. Where none names a collector, nothing is made and nothing sent.
//! - What is sent is what report and log hold: never a value of a message, a key or a password. `-q` and `-v` change
//!   nothing of it.
//! - How a run ends does not depend on the collector. One that fails is one warning, and the end of the run waits for it
//!   for three seconds at most.
//!
//! A stage's span is the span of its log lines. Its parent is what the OpenTelemetry context of the thread says: the main
//! thread, on which all stages wait, is in that of the root, and work on other threads takes it along (`blocking`).

mod collector;

use std::env;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::{Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, ContextGuard, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracer, SdkTracerProvider};
use thiserror::Error;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

use crate::report::{EVENTS, EndedBy, Report};
use collector::{Delivery, Exporter};

/// How long the end of a run waits for the collector.
const DELIVERY_LIMIT: Duration = Duration::from_secs(3);

/// The trace of one run.
#[derive(Debug)]
pub struct Trace {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    /// The context in which the root is the current span.
    root: Context,
    delivery: Arc<Delivery>,
}

/// Why there is no trace although a collector is named. Neither shows a value: endpoints and headers may hold secrets.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is the documentation")]
pub enum TraceError {
    #[error(
        "one of OpenTelemetry's variables is not valid: the endpoint is to be a URL such as http://localhost:4318, and \
         nothing is compressed"
    )]
    Configuration,
    #[error("a thread for them cannot be started")]
    NoThread(#[source] std::io::Error),
}

impl Trace {
    /// Begins the trace of a command, `run` for example, where variables name a collector.
    pub fn from_environment(command: &str) -> Result<Option<Self>, TraceError> {
        if !is_wanted(variable) {
            return Ok(None);
        }
        let delivery = Arc::default();
        let exporter = Exporter::from_environment(Arc::clone(&delivery))?;
        let processor = BatchSpanProcessor::builder(exporter).build();
        let provider = SdkTracerProvider::builder().with_resource(resource()).with_span_processor(processor).build();
        let tracer = provider.tracer("pgsluice");
        let root = tracer.start_with_context(format!("pgsluice {command}"), &Context::new());
        Ok(Some(Self { provider, tracer, root: Context::new().with_span(root), delivery }))
    }

    /// Takes the spans of the stages, with what is logged within them.
    #[must_use]
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let spans = tracing_opentelemetry::layer().with_tracer(self.tracer.clone());
        let spans = spans.with_location(false).with_threads(false).with_tracked_inactivity(false).with_target(false);
        // Never another crate's: spans of the AWS SDK hold message bodies.
        let own = Targets::new().with_target("pgsluice", LevelFilter::INFO).with_target(EVENTS, LevelFilter::OFF);
        spans.with_filter(own)
    }

    /// Spans that begin on this thread are of this trace, until the guard is dropped.
    #[must_use]
    pub fn enter(&self) -> ContextGuard {
        self.root.clone().attach()
    }

    /// The run has ended with this report.
    pub fn end(&self, report: &Report) {
        let root = self.root.span();
        root.set_attributes(attributes(report));
        if report.exit_code != Some(0) {
            let ended_by = report.ended_by.map_or("", EndedBy::name);
            let message = report.error.as_ref().map_or(ended_by, |error| &error.message);
            root.set_status(Status::error(message.to_owned()));
        }
        root.end();
    }

    /// Sends what has not been sent.
    pub fn deliver(&self) {
        if self.provider.shutdown_with_timeout(DELIVERY_LIMIT).is_err() {
            self.delivery.ran_out_of_time(DELIVERY_LIMIT);
        }
    }
}

/// Whether these variables ask for a trace.
fn is_wanted(variable: impl Fn(&str) -> Option<String>) -> bool {
    let is_disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let mut endpoints = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"].into_iter();
    !is_disabled && endpoints.any(|name| variable(name).is_some())
}

/// A variable that is empty counts as one that is not set, as OpenTelemetry has it.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// What sends: pgsluice, unless the variables give it another name.
fn resource() -> Resource {
    let own = Resource::builder_empty()
        .with_service_name("pgsluice")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    let detected = own.with_detectors(&[Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())]);
    match variable("OTEL_SERVICE_NAME") {
        Some(name) => detected.with_service_name(name).build(),
        None => detected.build(),
    }
}

/// Named as in the report.
fn attributes(report: &Report) -> Vec<KeyValue> {
    let run = &report.run;
    let mut attributes = vec![KeyValue::new("run_id", run.run_id.to_string()), KeyValue::new("host", run.host.clone())];
    let texts = [
        ("pipeline", run.pipeline.as_deref()),
        ("queue", run.queue.as_deref()),
        ("ended_by", report.ended_by.map(EndedBy::name)),
    ];
    attributes.extend(texts.into_iter().filter_map(|(key, text)| Some(KeyValue::new(key, text?.to_owned()))));
    attributes.extend(report.exit_code.map(|code| KeyValue::new("exit_code", i64::from(code))));
    let counts = [
        ("received", report.received),
        ("loaded", report.loaded),
        ("duplicates", report.duplicates),
        ("rejected", report.rejected),
        ("pending", report.pending),
        ("acknowledged", report.acknowledged),
        ("segments", report.segments),
    ];
    attributes.extend(counts.map(|(key, count)| KeyValue::new(key, count.cast_signed())));
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_collector_that_is_named_and_not_switched_off_gets_a_trace() {
        let wanted = |set: &[(&str, &str)]| {
            is_wanted(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318");
        let of_traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://localhost:4318/v1/traces");
        assert!(!wanted(&[]));
        assert!(!wanted(&[("OTEL_SERVICE_NAME", "loads")]));
        assert!(wanted(&[endpoint]));
        assert!(wanted(&[of_traces]));
        assert!(wanted(&[endpoint, ("OTEL_SDK_DISABLED", "false")]));
        assert!(!wanted(&[endpoint, ("OTEL_SDK_DISABLED", "True")]));
    }
}
