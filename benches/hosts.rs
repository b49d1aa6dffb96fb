//! Whether processes add up: one, two and four `pgsluice run` on one queue and one Postgres, the books checked.
//!
//! Every SQS call takes [`LATENCY`] more, as over a network, and each process has [`POLLERS`] at most. So a process
//! waits for answers rather than for the cores that all of them, the queue server and Postgres share here, and
//! receives and deletes `POLLERS` × 10 ÷ `LATENCY` messages a second at best. What else hosts share is real: the
//! queue, which gives some messages to two of them, and the ledger, which counts those once.
//!
//! Each round has a queue and a database of its own, filled and empty. Its seconds are those from the start of the
//! processes to the end of the last one, so what they need to start, and to prove the queue empty, is part of them.
//!
//! Where the books do not balance, or a process fails, it ends with an error and no further row is printed.

#![allow(clippy::print_stdout, reason = "what a program prints is its result")]

use std::panic::resume_unwind;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use std::{fs, iter, thread};

use anyhow::{Context, ensure};
use pgsluice::local::{
    Fault, Faults, LocalPostgres, LocalPostgresOptions, LocalQueue, Logins, Operation, QueueCounts, Rule, When,
};
use pgsluice::report::grouped;
use serde::Deserialize;
use tempfile::TempDir;
use tokio_postgres::NoTls;

const PROCESSES: [u16; 3] = [1, 2, 4];
const MESSAGES_PER_PROCESS: usize = 16_000;
const POLLERS: u32 = 8;
const LATENCY: Duration = Duration::from_millis(50);
/// One message in a hundred is delivered twice.
const REDELIVER_EVERY: u32 = 100;
const SEED: u64 = 1;
const SLOW_CALLS: [Operation; 4] =
    [Operation::Receive, Operation::Delete, Operation::ChangeVisibility, Operation::Attributes];

/// What all rounds share; dropped, it is gone.
struct Site {
    queue: LocalQueue,
    postgres: LocalPostgres,
    directory: TempDir,
}

/// What was sent in a round, and so must be found.
struct Sent {
    messages: u64,
    rejects: u64,
}

/// A process' `report.json`, as far as it is read here.
#[derive(Debug, Deserialize)]
struct Report {
    received: u64,
    loaded: u64,
    duplicates: u64,
    rejected: u64,
    pending: u64,
}

fn main() -> anyhow::Result<()> {
    let site = Site::start()?;
    println!("| processes | messages | seconds | messages/s | × one process | received by each | delivered twice |");
    println!("|--:|--:|--:|--:|--:|--:|--:|");
    let mut seconds_of_one = None;
    for processes in PROCESSES {
        let round = format!("logins-{processes}");
        let sent = site.prepare(&round, processes)?;
        let started = Instant::now();
        let reports = site.run_side_by_side(&round, processes)?;
        let took = started.elapsed();
        site.check_books(&round, &sent, &reports)?;

        let seconds = took.as_secs_f64();
        // Each process has as many messages as one had alone.
        let ratio = f64::from(processes) * *seconds_of_one.get_or_insert(seconds) / seconds;
        let mut received: Vec<u64> = reports.iter().map(|report| report.received).collect();
        received.sort_unstable();
        println!(
            "| {processes} | {} | {seconds:.1} | {} | {ratio:.2} | {} | {} |",
            grouped(sent.messages),
            grouped(sent.messages * 1000 / u64::try_from(took.as_millis())?),
            received.into_iter().map(grouped).collect::<Vec<_>>().join(" · "),
            grouped(reports.iter().map(|report| report.duplicates).sum()),
        );
    }
    Ok(())
}

impl Site {
    fn start() -> anyhow::Result<Self> {
        let queue = LocalQueue::start(Faults { redeliver_every: Some(REDELIVER_EVERY) })?;
        queue.inject(&SLOW_CALLS.map(|operation| Rule { operation, when: When::Always, fault: Fault::Slow(LATENCY) }));
        let postgres = LocalPostgres::start(LocalPostgresOptions { durable: true })?;
        let directory = TempDir::with_prefix("pgsluice-hosts-")?;
        fs::write(directory.path().join("pgsluice.toml"), format!("[queue]\npollers = {POLLERS}\n"))?;
        Ok(Self { queue, postgres, directory })
    }

    /// Fills a queue of this name, and creates the tables in a database of this name.
    fn prepare(&self, round: &str, processes: u16) -> anyhow::Result<Sent> {
        self.postgres.create_database(round)?;
        succeeded(&self.pgsluice(round, &["init"]).output()?)?;
        self.queue.create_queue(round)?;
        let mut logins = Logins::new(SEED);
        let bodies = logins.by_ref().take(usize::from(processes) * MESSAGES_PER_PROCESS).collect();
        let messages = u64::try_from(self.queue.send(round, bodies)?)?;
        Ok(Sent { messages, rejects: u64::try_from(logins.of_another_kind())? })
    }

    /// Runs so many processes, each with a staging directory of its own, until the last one has ended.
    fn run_side_by_side(&self, round: &str, processes: u16) -> anyhow::Result<Vec<Report>> {
        let run = |process: u16| {
            let (staging, report) = (format!("{round}-{process}"), format!("{round}-{process}.json"));
            let arguments = ["run", "--staging-dir", &staging, "--report", &report];
            succeeded(&self.pgsluice(round, &arguments).output()?)?;
            let json = fs::read(self.directory.path().join(&report))?;
            serde_json::from_slice(&json).context("report.json")
        };
        thread::scope(|scope| {
            let running: Vec<_> = (0..processes).map(|process| scope.spawn(move || run(process))).collect();
            running.into_iter().map(|process| process.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        })
    }

    /// Every message is one row or one reject, whoever received it and how often; the queue holds nothing more.
    fn check_books(&self, round: &str, sent: &Sent, reports: &[Report]) -> anyhow::Result<()> {
        for report in reports {
            let accounted = report.loaded + report.duplicates + report.rejected;
            ensure!(report.pending == 0 && report.received == accounted, "a process' sum does not hold: {report:?}");
        }
        let sum = |count: fn(&Report) -> u64| reports.iter().map(count).sum::<u64>();
        let logins = sent.messages - sent.rejects;
        let delivered_twice = sent.messages / u64::from(REDELIVER_EVERY);
        let books = [
            ("loaded, as the processes say", sum(|report| report.loaded), logins),
            ("rejected, as the processes say", sum(|report| report.rejected), sent.rejects),
            ("duplicates, as the processes say", sum(|report| report.duplicates), delivered_twice),
            ("rows", self.count(round, "count(*) from user_logins")?, logins),
            ("users", self.count(round, "count(distinct user_id) from user_logins")?, logins),
            ("rejects", self.count(round, "count(*) from pgsluice.reject")?, sent.rejects),
            ("messages in the ledger", self.count(round, "count(*) from pgsluice.message")?, sent.messages),
        ];
        for (what, found, expected) in books {
            ensure!(found == expected, "{what}: {found} and not {expected}");
        }
        let left = self.queue.counts(round)?;
        ensure!(left == QueueCounts::default(), "the queue still holds messages: {left:?}");
        Ok(())
    }

    /// A command in an environment that holds these servers and nothing else.
    fn pgsluice(&self, round: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgsluice"));
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env_clear()
            .env("AWS_ENDPOINT_URL", self.queue.endpoint())
            .env("AWS_REGION", self.queue.region())
            .env("AWS_ACCESS_KEY_ID", "bench")
            .env("AWS_SECRET_ACCESS_KEY", "bench")
            .env("PGSLUICE_QUEUE_URL", self.queue.queue_url(round))
            .env("DATABASE_URL", self.postgres.url(round))
            .env("PGSLUICE_KEY", iter::repeat_n("07", 32).collect::<String>());
        command
    }

    fn count(&self, database: &str, of: &str) -> anyhow::Result<u64> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&self.postgres.url(database), NoTls).await?;
            tokio::spawn(connection);
            let count: i64 = client.query_one(&format!("select {of}"), &[]).await?.get(0);
            Ok(u64::try_from(count)?)
        })
    }
}

fn succeeded(output: &Output) -> anyhow::Result<()> {
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(())
}
