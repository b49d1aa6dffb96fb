//! Reads the counts of a run each time that metrics are asked for.

use std::fmt;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::End;
use crate::counters::{Counters, RunStage, StageCounters};

/// The counts of a run.
#[derive(Debug)]
pub(super) struct RunCollector {
    pub(super) counters: Arc<Counters>,
    pub(super) started_at: Timestamp,
    pub(super) version: &'static str,
    pub(super) end: Arc<OnceLock<End>>,
}

impl Collector for RunCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.messages(&mut encoder)?;
        self.stages(&mut encoder)?;
        self.run(&mut encoder)
    }
}

impl RunCollector {
    fn messages(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.counters.counts();
        for (name, help, unit, count) in [
            ("messages_received", "Messages that entered the run", None, counts.received),
            ("messages_loaded", "Rows committed", None, counts.loaded),
            ("messages_duplicate", "Messages recognised as loaded or rejected before", None, counts.duplicates),
            ("messages_rejected", "Messages that could not become rows", None, counts.rejected),
            ("messages_acknowledged", "Deletes that SQS confirmed", None, counts.acknowledged),
            ("messages_ack_failed", "Deletes that failed for good", None, counts.ack_failed),
            ("segments_loaded", "Segments committed", None, counts.segments),
            ("retries", "Requests and transactions that were tried again", None, counts.retries),
            ("throttles", "Answers in which SQS limited the rate of requests", None, counts.throttles),
            ("received", "Spool bytes that entered the run", Some(&Unit::Bytes), counts.bytes),
        ] {
            let metric = encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
            ConstCounter::new(count).encode(metric)?;
        }
        let gauge = |value: u64| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        let metric = encoder.encode_descriptor(
            "messages_pending",
            "Messages safe in the spool and not yet committed",
            None,
            MetricType::Gauge,
        )?;
        gauge(counts.pending).encode(metric)?;
        if let Some(in_flight) = self.counters.in_flight.get() {
            for (name, help, value) in [
                ("messages_in_flight", "Messages received and not yet deleted", in_flight.messages()),
                ("max_in_flight_messages", "The cap on messages in flight", in_flight.cap().into()),
            ] {
                gauge(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
            }
        }
        Ok(())
    }

    fn stages(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let each = |name: &str, help: &str, unit: Option<&Unit>, encoder: &mut DescriptorEncoder<'_>, count: Count| {
            let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
            for stage in RunStage::ALL {
                let labels = [("stage", stage.name())];
                ConstCounter::new(count(self.counters.stage(stage))).encode(family.encode_family(&labels)?)?;
            }
            Ok(())
        };
        let seconds = Some(&Unit::Seconds);
        each("stage_busy", "Time that a stage's workers worked, added up", seconds, encoder, |stage| {
            stage.counts().busy.as_secs_f64()
        })?;
        each("stage_waiting", "Time that a stage's workers waited for another", seconds, encoder, |stage| {
            stage.counts().waiting.as_secs_f64()
        })?;
        #[allow(clippy::cast_precision_loss, reason = "exact up to 2^53 messages")]
        each("stage_messages", "Messages that a stage finished", None, encoder, |stage| stage.counts().items as f64)?;

        let help = "Time of a segment in a stage";
        let mut family = encoder.encode_descriptor("segment_stage", help, seconds, MetricType::Histogram)?;
        for stage in RunStage::ALL {
            let labels = [("stage", stage.name())];
            self.counters.stage(stage).segment_seconds().encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn run(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "The version of pgsluice";
        let mut family = encoder.encode_descriptor("run_info", help, None, MetricType::Gauge)?;
        let labels = [("version", self.version)];
        ConstGauge::new(1_i64).encode(family.encode_family(&labels)?)?;

        let mut seconds = |name: &str, help: &str, at: Timestamp| {
            let metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
            #[allow(clippy::cast_precision_loss, reason = "milliseconds since the epoch are below 2^53")]
            ConstGauge::new(at.as_millisecond() as f64 / 1000.0).encode(metric)
        };
        seconds("run_start_time", "When the run began, since the epoch", self.started_at)?;
        let Some(End { at, exit_code }) = self.end.get() else { return Ok(()) };
        seconds("run_end_time", "When the run ended, since the epoch; absent while it runs", *at)?;
        let help = "How the run ended; absent while it runs";
        ConstGauge::new(i64::from(*exit_code)).encode(encoder.encode_descriptor(
            "run_exit_code",
            help,
            None,
            MetricType::Gauge,
        )?)
    }
}

type Count = fn(&StageCounters) -> f64;
