//! `pgsluice status`: segments by state, the last run, the ledger's totals and the queue's depth. Changes nothing, needs
//! no lock.

use std::collections::HashSet;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::output::{DataLines, print_line};
use super::session::{connect_queue, runtime};
use super::{SharedFlags, parse_duration};
use crate::config::Config;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::load::{LedgerTotals, Loader};
use crate::queue::{Depth, Queue};
use crate::report::{LastRun, grouped};
use crate::segment::SegmentId;
use crate::staging::Staging;
use crate::status::{QueueStatus, StagingStatus, State, stale};

#[derive(Debug, Clone, Args)]
pub(super) struct Flags {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Exit with 1 where a part is unreachable, or where something waits for too long
    #[arg(long)]
    check: bool,
    /// With --check: how long something may wait while no run ends with exit code 0
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    max_age: Duration,
}

/// What is asked, or why it could not be.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Asked<T> {
    Told(T),
    Unreachable { error: String },
}

/// All that `status` says; `--json` prints it as it is.
#[derive(Debug, Serialize)]
struct Status {
    pipeline: String,
    at: Timestamp,
    staging: StagingStatus,
    ledger: Asked<LedgerTotals>,
    queue: Asked<QueueStatus>,
    /// What `--check` exits with 1 for.
    problems: Vec<String>,
}

pub(super) fn run(flags: &SharedFlags, status: &Flags) -> Result<ExitCode, Error> {
    let config = Config::resolve(flags.overrides())?;
    let found = runtime()?.block_on(Status::ask(&config, status.max_age))?;
    if status.json {
        print_line(serde_json::to_string(&found).unwrap_or_default())?;
    } else {
        found.print(config.queue_name(), status.check)?;
    }
    Ok(if status.check && !found.problems.is_empty() { ExitCode::Failed } else { ExitCode::Done })
}

impl Status {
    async fn ask(config: &Config, max_age: Duration) -> Result<Self, Error> {
        let staging = Staging::existing(&config.staging_dir)?;
        let sealed = staging.sealed_segments()?;
        let (ledger, depth) = tokio::join!(ledger(config, &sealed), depth(config));
        let loaded = ledger.as_ref().ok().map(|(loaded, _)| loaded);
        let staging = StagingStatus::of(&staging, loaded)?;
        let at = Timestamp::now();
        let queue = Asked::of(depth.map(|depth| QueueStatus::of(depth, Some(&staging))));
        let ledger = Asked::of(ledger.map(|(_, totals)| totals));
        let unreachable = [("the database", ledger.error()), ("the queue", queue.error())];
        let unreachable = unreachable.into_iter().filter_map(|(part, error)| Some(format!("{part}: {}", error?)));
        let mut problems: Vec<String> = unreachable.collect();
        problems.extend(stale(&staging, queue.told(), max_age, at));
        Ok(Self { pipeline: config.pipeline.name.clone(), at, staging, ledger, queue, problems })
    }

    fn print(&self, queue_name: Option<&str>, check: bool) -> Result<(), Error> {
        let mut lines = DataLines::new();
        lines.line(format_args!("staging {}", self.staging.directory.display()))?;
        for status in &self.staging.states {
            let (name, segments) = (shown_name(status.state), grouped(status.segments));
            let more = status.oldest_at.map(|oldest| {
                let (messages, bytes) = (grouped(status.messages), grouped(status.bytes));
                format!(", {messages} messages, {bytes} bytes, the oldest of {}", at_second(oldest))
            });
            lines.line(format_args!("  {name:<20}{segments:>13} segments{}", more.unwrap_or_default()))?;
        }
        for damaged in &self.staging.damaged {
            lines.line(format_args!("  damaged: {}", damaged.file.display()))?;
        }
        lines.line(match &self.staging.last_run {
            Some(run) => format!("last run of {}: {}", at_second(run.started_at), shown_end(run)),
            None => "last run: none yet".to_owned(),
        })?;
        lines.line(format_args!("ledger of {}", self.pipeline))?;
        match &self.ledger {
            Asked::Told(totals) => print_counts(&mut lines, &counts_of(totals))?,
            Asked::Unreachable { error } => lines.line(format_args!("  not reachable: {error}"))?,
        }
        lines.line(format_args!("queue {}", queue_name.unwrap_or("-")))?;
        match &self.queue {
            Asked::Told(QueueStatus { visible, in_flight, delayed, oldest_not_before }) => {
                print_counts(&mut lines, &[("visible", *visible), ("in flight", *in_flight), ("delayed", *delayed)])?;
                if let Some(time) = oldest_not_before {
                    lines.line(format_args!("  none was sent before {}", at_second(*time)))?;
                }
            }
            Asked::Unreachable { error } => lines.line(format_args!("  not reachable: {error}"))?,
        }
        for problem in self.problems.iter().filter(|_| check) {
            lines.line(format_args!("problem: {problem}"))?;
        }
        Ok(())
    }
}

impl<T> Asked<T> {
    fn of(answer: Result<T, Error>) -> Self {
        match answer {
            Ok(told) => Self::Told(told),
            Err(error) => Self::Unreachable { error: error.one_line() },
        }
    }

    const fn told(&self) -> Option<&T> {
        match self {
            Self::Told(told) => Some(told),
            Self::Unreachable { .. } => None,
        }
    }

    fn error(&self) -> Option<&str> {
        match self {
            Self::Told(_) => None,
            Self::Unreachable { error } => Some(error),
        }
    }
}

/// Those of these segments that the ledger knows, and what it holds in all.
async fn ledger(config: &Config, sealed: &[SegmentId]) -> Result<(HashSet<SegmentId>, LedgerTotals), Error> {
    let mut loader = Loader::connect_to_ask(&config.database_url()?, &config.pipeline).await?;
    Ok((loader.known(sealed).await?.into_keys().collect(), loader.totals().await?))
}

async fn depth(config: &Config) -> Result<Depth, Error> {
    Ok(connect_queue(config).await?.depth().await?)
}

const fn shown_name(state: State) -> &'static str {
    match state {
        State::Staged => "of these staged",
        State::Loaded => "of these loaded",
        _ => state.name(),
    }
}

fn shown_end(run: &LastRun) -> String {
    let counts = format!(
        "{} received, {} loaded, {} duplicates, {} rejected, {} pending",
        grouped(run.received),
        grouped(run.loaded),
        grouped(run.duplicates),
        grouped(run.rejected),
        grouped(run.pending)
    );
    match (run.finished_at, run.exit_code) {
        (Some(finished), Some(code)) => {
            let ended_by = run.ended_by.as_deref().unwrap_or("-");
            format!("ended at {} by {ended_by} with exit code {code}; {counts}", at_second(finished))
        }
        _ => "it runs, or was killed".to_owned(),
    }
}

/// In UTC, to the second.
fn at_second(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

const fn counts_of(totals: &LedgerTotals) -> [(&'static str, u64); 4] {
    [
        ("segments", totals.segments),
        ("loaded", totals.loaded),
        ("duplicates", totals.duplicates),
        ("rejected", totals.rejected),
    ]
}

fn print_counts(lines: &mut DataLines, counts: &[(&'static str, u64)]) -> Result<(), Error> {
    counts.iter().try_for_each(|(name, count)| lines.line(format_args!("  {name:<20}{:>13}", grouped(*count))))
}
