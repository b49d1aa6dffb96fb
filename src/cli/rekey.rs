//! `pgsluice rekey`: the values of masked columns under the first key of the keyring, whatever they were masked with.

use clap::Args;

use super::SharedFlags;
use super::output::say;
use super::session::{first_signal, runtime};
use crate::config::Config;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::keyring;
use crate::load::{RekeyPlan, Rekeyer};
use crate::progress::Progress;
use crate::report::grouped;

#[derive(Debug, Clone, Args)]
pub(super) struct Flags {
    /// Only this column, as the mapping names it [default: all with mask = "siv"]
    #[arg(long, value_name = "NAME")]
    column: Option<String>,
}

pub(super) fn run(flags: &SharedFlags, rekey: &Flags) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        let config = Config::resolve(flags.overrides())?;
        let keys = keyring::read(&config.keys).await?;
        let database = config.database_url()?;
        let mut rekeyer = Rekeyer::connect(&database, &config.pipeline, &keys, rekey.column.as_deref()).await?;
        let counts = rekeyer.counts();
        let shown = rekeyer.counts();
        let line = move || format!("rows rekeyed: {}; {} % of the table read", grouped(shown.rows()), shown.percent());
        let progress = Progress::of(flags.progress, flags.quiet, line);
        let tell = |line: &str| {
            if !flags.quiet {
                say(line);
            }
        };
        let outcome = tokio::select! {
            done = rekey_all(&mut rekeyer, &tell) => Some(done),
            () = first_signal() => None,
        };
        progress.finish();
        if counts.rows() > 0 {
            tell(&format!("rows rekeyed: {}", grouped(counts.rows())));
        }
        outcome.map_or_else(
            || {
                tell("stopped: every value reveals; run it again for the rest");
                Ok(ExitCode::WorkLeft)
            },
            |done| done.map(|()| ExitCode::Done),
        )
    })
}

async fn rekey_all(rekeyer: &mut Rekeyer, tell: &impl Fn(&str)) -> Result<(), Error> {
    let plan = rekeyer.plan().await?;
    for line in before(&plan) {
        tell(&line);
    }
    Ok(rekeyer.rekey().await?)
}

/// What is said before anything is written.
fn before(plan: &RekeyPlan) -> Vec<String> {
    let RekeyPlan { table, columns, key, rows, bytes, unique_indexes } = plan;
    let columns = columns.join(", ");
    if *rows == 0 {
        return vec![format!("every value of {columns} in {table} is masked with key {key}")];
    }
    let mut lines = vec![
        format!("rows of {table} to be rekeyed to {key}, by {columns}: {}", grouped(*rows)),
        format!(
            "each is written anew: {} MB of table and indexes may double, until VACUUM removes the old rows",
            grouped(bytes.div_ceil(1_000_000))
        ),
        "until the end, a value may have two texts: `pgsluice mask` prints both".to_owned(),
    ];
    if !unique_indexes.is_empty() {
        let names = unique_indexes.join(", ");
        lines.push(format!(
            "until the end, {names} takes these two texts for two values; a row that then has the key of another one \
             stays as it is"
        ));
    }
    lines
}
