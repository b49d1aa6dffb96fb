//! A run's counts for Prometheus: over HTTP while it runs, and in a file for what is gone before a scrape.
//!
//! Always true: each series carries the pipeline, so that several runs on one host can be told apart, and no label holds
//! anything of a message. The number of series does not grow with a run.

mod collector;
mod file;
mod server;

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::counters::Counters;
use crate::report::RunInfo;
use collector::RunCollector;

pub use file::{keep_written, write_file};
pub use server::{listen, serve};

/// The metrics of one run.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    end: Arc<OnceLock<End>>,
    is_connected: OnceLock<()>,
    /// Closed while nothing shows that a segment can be loaded.
    gate: watch::Receiver<bool>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy)]
struct End {
    at: Timestamp,
    exit_code: u8,
}

impl Metrics {
    /// Metrics over the counts of a run.
    #[must_use]
    pub fn new(run: &RunInfo, counters: Arc<Counters>, gate: watch::Receiver<bool>) -> Self {
        let pipeline = run.pipeline.clone().unwrap_or_default();
        let labels = [("pipeline".into(), pipeline.into())].into_iter();
        let mut registry = Registry::with_prefix_and_labels("pgsluice", labels);
        let end = Arc::<OnceLock<End>>::default();
        let (started_at, ended) = (run.started_at, Arc::clone(&end));
        registry.register_collector(Box::new(RunCollector { counters, started_at, version: run.version, end: ended }));
        Self { registry, end, is_connected: OnceLock::new(), gate }
    }

    /// The run has what it works with: a connection to the queue, or to Postgres.
    pub fn connected(&self) {
        self.is_connected.get_or_init(|| ());
    }

    /// The run has ended.
    pub fn ended(&self, exit_code: u8) {
        self.end.get_or_init(|| End { at: Timestamp::now(), exit_code });
    }

    /// Whether the run is connected, and no load is failing.
    fn is_ready(&self) -> bool {
        self.is_connected.get().is_some() && *self.gate.borrow()
    }

    /// In Prometheus' classic text format, version 0.0.4.
    #[must_use]
    pub fn classic(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        _ = prometheus_text::encode(&mut out, &self.registry);
        out
    }

    /// In the text format of OpenMetrics 1.0.0.
    #[must_use]
    pub fn open_metrics(&self) -> String {
        let mut out = String::new();
        _ = text::encode(&mut out, &self.registry);
        out
    }
}
