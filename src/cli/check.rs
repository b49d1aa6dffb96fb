//! `pgsluice check`: looks at everything that a run needs, tries the mapping on real messages, and says what the whole
//! will take. Deletes nothing, creates nothing.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::SharedFlags;
use super::output::{DataLines, print_line};
use super::session::{PEEK, connect_queue, runtime};
use crate::ack::RejectRoute;
use crate::check::{
    Backlog, Check, Estimate, Outcome, Trial, check_clock, check_copy, check_database, check_queue, check_retention,
    check_staging, check_trial, read_sample,
};
use crate::config::{Config, DatabaseUrl};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::keyring;
use crate::load::{Survey, try_copy};
use crate::queue::{Message, QueueFacts, Right, Sqs};
use crate::report::grouped;
use crate::stages::Owner;
use crate::staging::Staging;
use crate::transform::Plan;

/// The body of docs/sizing.md, where no sample tells.
const ASSUMED_BODY_BYTES: f64 = 155.0;

#[derive(Debug, Clone, Args)]
pub(super) struct Flags {
    /// Try the mapping on the bodies in this file, one a line
    #[arg(long, value_name = "FILE", conflicts_with = "peek")]
    sample: Option<PathBuf>,
    /// Try the mapping on this number of messages of the queue; counts as a receive of each
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    peek: Option<u16>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// All that `check` says; `--json` prints it as it is.
#[derive(Debug, Serialize)]
struct Checked {
    outcome: Outcome,
    checks: Vec<Check>,
    sample: Option<Trial>,
    estimate: Option<Estimate>,
}

pub(super) fn run(flags: &SharedFlags, check: &Flags) -> Result<ExitCode, Error> {
    let config = Config::resolve(flags.overrides())?;
    let runtime = runtime()?;
    let keys = runtime.block_on(keyring::read(&config.keys))?;
    if config.spool.encryption {
        keys.spool_key()?;
    }
    let plan = Plan::compile(&config.pipeline, &keys, config.queue_name())?;
    config.queue_address()?;
    let database = config.database_url()?;
    let sample = check.sample.as_deref().map(read_sample).transpose()?;
    let checked = runtime.block_on(Checked::of(&config, &database, &plan, sample, check.peek))?;
    if check.json {
        print_line(serde_json::to_string(&checked).unwrap_or_default())?;
    } else {
        checked.print()?;
    }
    Ok(if checked.outcome == Outcome::Failure { ExitCode::Failed } else { ExitCode::Done })
}

impl Checked {
    async fn of(
        config: &Config,
        database: &DatabaseUrl,
        plan: &Plan,
        sample: Option<Vec<Message>>,
        peek: Option<u16>,
    ) -> Result<Self, Error> {
        let Config { pipeline, .. } = config;
        let mut checks = vec![Check::ok(
            "configuration",
            format!("pipeline {} maps {} columns of {}", pipeline.name, pipeline.columns.len(), pipeline.table),
        )];
        let queue = match ask_queue(config).await {
            Ok((queue, facts)) => {
                checks.extend(check_queue(&facts, &config.queue, &pipeline.rejects));
                checks.extend(rights(&queue, config).await);
                checks.extend(facts.clock.map(|clock| check_clock("SQS", clock, Timestamp::now())));
                Some((queue, facts))
            }
            Err(error) => {
                checks.push(refused("queue", &error));
                None
            }
        };
        let survey = Survey::take(database, pipeline).await;
        let is_reachable = survey.is_ok();
        match survey {
            Ok(survey) => {
                checks.extend(check_database(&survey, pipeline, plan.keys(), plan.ring()));
                checks.push(check_clock("Postgres", survey.server.clock, Timestamp::now()));
            }
            Err(error) => checks.push(refused("database", &error.into())),
        }
        let is_peeked = peek.is_some();
        let sample = match (sample, peek, &queue) {
            (Some(sample), ..) => Some(sample),
            (None, Some(most), Some((queue, facts))) => peeked(queue, facts, most, &mut checks).await,
            _ => None,
        };
        let oldest = sample.iter().flatten().map(|message| message.sent_at).min().filter(|_| is_peeked);
        let trial = sample.map(|sample| Trial::of(&sample, pipeline, plan, config.queue_name()));
        let trial = match trial {
            Some(trial) => Some(tried(database, config, is_reachable, trial, &mut checks).await),
            None => None,
        };
        let estimate = queue.as_ref().map(|(_, facts)| estimate(config, facts, trial.as_ref()));
        if let Some((_, facts)) = &queue {
            let oldest = oldest.and_then(|oldest| Timestamp::from_millisecond(oldest).ok());
            let seconds = estimate.map(|estimate| estimate.seconds);
            checks.push(check_retention(facts, oldest, seconds, Timestamp::now()));
        }
        let owner = Owner {
            pipeline: pipeline.name.clone(),
            queue_url: queue.as_ref().map(|(queue, _)| queue.url().to_owned()),
        };
        let backlog = estimate.map_or(0, |estimate| estimate.spool_bytes);
        checks.extend(check_staging(&Staging::existing(&config.staging_dir)?, &owner, &config.spool, backlog));
        let outcome = checks.iter().map(|check| check.outcome).max().unwrap_or(Outcome::Ok);
        Ok(Self { outcome, checks, sample: trial, estimate })
    }

    fn print(&self) -> Result<(), Error> {
        let mut lines = DataLines::new();
        for check in &self.checks {
            let outcome = match check.outcome {
                Outcome::Ok => "ok",
                Outcome::Warning => "warning",
                Outcome::Failure => "failure",
            };
            lines.line(format_args!("{outcome:<9}{}: {}", check.name, check.seen))?;
            if let Some(advice) = &check.advice {
                lines.line(format_args!("         → {}", advice.replace('\n', "\n           ")))?;
            }
        }
        if let Some(trial) = &self.sample {
            print_trial(&mut lines, trial)?;
        }
        if let Some(estimate) = &self.estimate {
            print_estimate(&mut lines, estimate)?;
        }
        Ok(())
    }
}

/// Two answers: the second one over a connection that is open, as a run's are.
async fn ask_queue(config: &Config) -> Result<(Sqs, QueueFacts), Error> {
    let queue = connect_queue(config).await?;
    let facts = queue.facts().await?;
    Ok((queue, facts))
}

async fn rights(queue: &Sqs, config: &Config) -> Vec<Check> {
    const NAME: &str = "rights";
    let mut checks = Vec::new();
    for right in [Right::Delete, Right::ChangeVisibility] {
        checks.push(match queue.try_right(right).await {
            Ok(()) => Check::ok(NAME, format!("{} is allowed", right.action())),
            Err(error) => refused(NAME, &error.into()),
        });
    }
    if let Err(error) = RejectRoute::find(&config.pipeline.rejects, queue).await {
        checks.push(refused("rejects", &error.into()));
    }
    checks
}

async fn peeked(queue: &Sqs, facts: &QueueFacts, most: u16, checks: &mut Vec<Check>) -> Option<Vec<Message>> {
    const NAME: &str = "peek";
    match queue.peeking(PEEK).peek(most.into()).await {
        Ok(messages) => {
            let held = if facts.is_fifo { "; their groups stood still meanwhile" } else { "" };
            let seen = format!("{} messages were received and given back{held}", messages.len());
            let advice = "this counts as a receive of each: see maxReceiveCount before you peek again";
            checks.push(Check::warning(NAME, seen, advice));
            Some(messages)
        }
        Err(error) => {
            checks.push(refused(NAME, &error.into()));
            None
        }
    }
}

/// Copies the rows and rolls back; not where the table cannot be used anyway.
async fn tried(
    database: &DatabaseUrl,
    config: &Config,
    is_reachable: bool,
    mut trial: Trial,
    checks: &mut Vec<Check>,
) -> Trial {
    let is_usable = is_reachable
        && !checks.iter().any(|check| ["table", "mapping"].contains(&check.name) && check.outcome == Outcome::Failure);
    if is_usable && !trial.lines.is_empty() {
        match try_copy(database, &config.pipeline, std::mem::take(&mut trial.lines)).await {
            Ok(copied) => {
                trial.add_refused(&copied);
                checks.push(check_copy(&copied));
            }
            Err(error) => checks.push(refused("trial COPY", &error.into())),
        }
    }
    checks.extend(check_trial(&trial));
    trial
}

#[allow(clippy::cast_precision_loss, reason = "an estimate")]
fn estimate(config: &Config, facts: &QueueFacts, trial: Option<&Trial>) -> Estimate {
    let trial = trial.filter(|trial| trial.messages > 0);
    let backlog = Backlog {
        messages: facts.depth.visible + facts.depth.delayed,
        body_bytes: trial.map_or(ASSUMED_BODY_BYTES, |trial| trial.body_bytes),
        row_bytes: trial.filter(|trial| trial.rows > 0).map_or(ASSUMED_BODY_BYTES, |trial| trial.row_bytes),
        call_seconds: facts.answer_ms as f64 / 1000.0,
        is_fifo: facts.is_fifo,
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Estimate::of(&backlog, config, cores)
}

fn refused(name: &'static str, error: &Error) -> Check {
    Check::failure(name, error.one_line(), hint(error.hint()))
}

fn hint(hint: Option<&'static str>) -> &'static str {
    hint.unwrap_or("see the error")
}

fn print_trial(lines: &mut DataLines, trial: &Trial) -> Result<(), Error> {
    lines.line(format_args!("\nsample: {} messages, {} rows", grouped(trial.messages), grouped(trial.rows)))?;
    for column in &trial.columns {
        let length = match (column.shortest, column.longest) {
            (Some(shortest), Some(longest)) if shortest != longest => format!("{shortest} to {longest} characters"),
            (Some(length), _) => format!("{length} characters"),
            _ => "no value".to_owned(),
        };
        let mask = column.mask.map_or_else(String::new, |mask| format!(", masked by {mask}"));
        let preview = column.preview.as_ref().map_or_else(String::new, |preview| format!(", such as {preview}"));
        lines.line(format_args!(
            "  {} from {}{mask}: {} null, {length}{preview}",
            column.name, column.source, column.nulls
        ))?;
    }
    for reject in &trial.rejects {
        lines.line(format_args!(
            "  {} rejected by the {}: {}",
            grouped(reject.count),
            reject.reason.stage.name(),
            reject.reason.text
        ))?;
    }
    for (field, messages) in &trial.fields_not_taken {
        lines.line(format_args!("  no column takes {field}, which {} messages have", grouped(*messages)))?;
    }
    Ok(())
}

fn print_estimate(lines: &mut DataLines, estimate: &Estimate) -> Result<(), Error> {
    lines.line(format_args!(
        "\nestimate for {} messages, by the arithmetic of docs/sizing.md",
        grouped(estimate.messages)
    ))?;
    lines.line(format_args!(
        "  time      {:.0} s, at {:.0} messages/s; bound by {}",
        estimate.seconds, estimate.rate, estimate.bound_by
    ))?;
    lines.line(format_args!(
        "  SQS       {} requests, billed as {}: ${:.2}",
        grouped(estimate.requests),
        grouped(estimate.billed_requests),
        estimate.dollars
    ))?;
    lines.line(format_args!("  spool     {} bytes", grouped(estimate.spool_bytes)))?;
    lines.line(format_args!(
        "  Postgres  {} bytes of WAL, {} in the table, {} in the ledger",
        grouped(estimate.wal_bytes),
        grouped(estimate.table_bytes),
        grouped(estimate.ledger_bytes)
    ))
}
