//! `pgsluice status`: where everything stands; changes nothing and needs no lock.

use super::SharedFlags;
use super::session::runtime;
use crate::config::Config;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::load::{LedgerTotals, Loader};
use crate::queue::{Depth, Queue, Sqs};
use crate::report::grouped;
use crate::staging::{SegmentId, Staging};

pub(super) fn run(flags: &SharedFlags) -> Result<ExitCode, Error> {
    let config = Config::resolve(flags.overrides())?;
    let staging = Staging::open(&config.staging_dir)?;
    let sealed = staging.sealed_segments()?;
    let (ledger, depth) = runtime()?.block_on(async { tokio::join!(ledger(&config, &sealed), depth(&config)) });

    println!("staging {}", staging.root().display());
    let staged = staging.staged_segments()?.len();
    print_count("open", staging.open_segments()?.len());
    print_count("sealed", sealed.len());
    print_count("of these staged", staged);
    if let Ok((committed, _)) = &ledger {
        print_count("of these committed", *committed);
    }
    print_count("acknowledged", staging.archived_segments()?.len());

    println!("ledger of {}", config.pipeline.name);
    match &ledger {
        Ok((_, totals)) => print_totals(totals),
        Err(error) => println!("  not reachable: {}", error.one_line()),
    }
    println!("queue {}", config.queue_name().unwrap_or("-"));
    match depth {
        Ok(Depth { visible, in_flight, delayed }) => {
            println!("  {:<20}{:>13}", "visible", grouped(visible));
            println!("  {:<20}{:>13}", "in flight", grouped(in_flight));
            println!("  {:<20}{:>13}", "delayed", grouped(delayed));
        }
        Err(error) => println!("  not reachable: {}", error.one_line()),
    }
    Ok(ExitCode::Done)
}

async fn ledger(config: &Config, sealed: &[SegmentId]) -> Result<(usize, LedgerTotals), Error> {
    let mut loader = Loader::connect(&config.database_url()?, &config.pipeline).await?;
    Ok((loader.committed(sealed).await?.len(), loader.totals().await?))
}

async fn depth(config: &Config) -> Result<Depth, Error> {
    let queue = Sqs::connect(config.queue_url()?, config.queue.wait_seconds).await?;
    Ok(queue.depth().await?)
}

fn print_count(state: &str, segments: usize) {
    println!("  {state:<20}{:>13} segments", grouped(segments as u64));
}

fn print_totals(totals: &LedgerTotals) {
    for (name, count) in [
        ("segments", totals.segments),
        ("loaded", totals.loaded),
        ("duplicates", totals.duplicates),
        ("rejected", totals.rejected),
    ] {
        println!("  {name:<20}{:>13}", grouped(count));
    }
}
