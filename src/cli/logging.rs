//! Log lines: pgsluice's own, on stderr or in a file.
//!
//! Only pgsluice's own events pass. The AWS SDK's debug events hold whole message bodies, so no setting shows them.

use std::io::{self, IsTerminal};
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use super::{LogFormat, SharedFlags};
use crate::config::ConfigError;
use crate::durable::given;
use crate::error::Error;
use crate::progress::AboveTheLine;
use crate::report::EVENTS;
#[cfg(feature = "otel")]
use crate::trace::Trace;

pub(super) fn start(flags: &SharedFlags) -> Result<(), Error> {
    let (writer, colours) = match &flags.log_file {
        Some(path) => {
            let file = given::open_to_append(path);
            (
                BoxMakeWriter::new(Arc::new(file.map_err(ConfigError::of_given_file(
                    "open",
                    path,
                    "check --log-file",
                ))?)),
                false,
            )
        }
        None => (BoxMakeWriter::new(AboveTheLine::default), io::stderr().is_terminal()),
    };
    let level = match (flags.quiet, flags.verbose) {
        (true, _) => LevelFilter::ERROR,
        (_, 0) => LevelFilter::INFO,
        (_, 1) => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // One span a stage and segment: its lines say where they belong, and -v adds the time that it took.
    let ends = if flags.verbose > 0 { FmtSpan::CLOSE } else { FmtSpan::NONE };
    let lines = fmt::layer().with_writer(writer).with_ansi(colours).with_target(false).with_span_events(ends);
    // The internal error of a full stderr would go to stderr.
    let lines = lines.log_internal_errors(false);
    let lines = match flags.log_format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // On a terminal, the summary and the error line say the same.
    let is_said_otherwise = flags.log_format == LogFormat::Text && flags.log_file.is_none();
    let events = if is_said_otherwise { LevelFilter::OFF } else { level };
    let shown = Targets::new().with_target("pgsluice", level).with_target(EVENTS, events);
    let registry = tracing_subscriber::registry().with(lines.with_filter(shown));
    #[cfg(feature = "otel")]
    let registry = registry.with(flags.account.trace().map(Trace::layer));
    registry.init();
    Ok(())
}
