//! `pgsluice status`: segments by state, the ledger's totals and the queue's depth. Changes nothing, needs no lock.

use super::SharedFlags;
use super::output::DataLines;
use super::session::{connect_queue, runtime};
use crate::config::Config;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::load::{LedgerTotals, Loader};
use crate::queue::{Depth, Queue};
use crate::report::grouped;
use crate::segment::SegmentId;
use crate::staging::Staging;

pub(super) fn run(flags: &SharedFlags) -> Result<ExitCode, Error> {
    let config = Config::resolve(flags.overrides())?;
    let staging = Staging::existing(&config.staging_dir)?;
    let sealed = staging.sealed_segments()?;
    let (ledger, depth) = runtime()?.block_on(async { tokio::join!(ledger(&config, &sealed), depth(&config)) });

    let mut lines = DataLines::new();
    lines.line(format_args!("staging {}", staging.root().display()))?;
    let mut segments = vec![
        ("open", staging.open_segments()?.len()),
        ("sealed", sealed.len()),
        ("of these staged", staging.staged_segments()?.len()),
    ];
    segments.extend(ledger.as_ref().ok().map(|(known, _)| ("of these loaded", *known)));
    segments.push(("committed", staging.committed_segments()?.len()));
    segments.push(("acknowledged", staging.archived_segments()?.len()));
    segments.push(("damaged", staging.damaged_segments()?.len()));
    for (state, count) in segments {
        lines.line(format_args!("{} segments", row(state, count as u64)))?;
    }
    lines.line(format_args!("ledger of {}", config.pipeline.name))?;
    print_counts(&mut lines, ledger.map(|(_, totals)| counts_of(&totals)))?;
    lines.line(format_args!("queue {}", config.queue_name().unwrap_or("-")))?;
    let counts =
        |Depth { visible, in_flight, delayed }| [("visible", visible), ("in flight", in_flight), ("delayed", delayed)];
    print_counts(&mut lines, depth.map(counts))?;
    Ok(ExitCode::Done)
}

/// The number of these segments that the ledger knows, and what it holds in all.
async fn ledger(config: &Config, sealed: &[SegmentId]) -> Result<(usize, LedgerTotals), Error> {
    let mut loader = Loader::connect_to_ask(&config.database_url()?, &config.pipeline).await?;
    Ok((loader.known(sealed).await?.len(), loader.totals().await?))
}

async fn depth(config: &Config) -> Result<Depth, Error> {
    Ok(connect_queue(config).await?.depth().await?)
}

const fn counts_of(totals: &LedgerTotals) -> [(&'static str, u64); 4] {
    [
        ("segments", totals.segments),
        ("loaded", totals.loaded),
        ("duplicates", totals.duplicates),
        ("rejected", totals.rejected),
    ]
}

fn print_counts<const ROWS: usize>(
    lines: &mut DataLines,
    counts: Result<[(&'static str, u64); ROWS], Error>,
) -> Result<(), Error> {
    match counts {
        Ok(counts) => counts.into_iter().try_for_each(|(name, count)| lines.line(row(name, count))),
        Err(error) => lines.line(format_args!("  not reachable: {}", error.one_line())),
    }
}

fn row(name: &str, count: u64) -> String {
    format!("  {name:<20}{:>13}", grouped(count))
}
