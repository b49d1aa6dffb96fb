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

#![allow(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]
#![allow(clippy::print_stdout, reason = "what a program prints is its result")]

#[path = "support/disk.rs"]
mod disk;
#[path = "support/program.rs"]
mod program;

use std::process::Child;
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context, ensure};
use pgsluice::config::{DatabaseUrl, Pipeline};
use pgsluice::load;
use pgsluice::local::{
    Fault, Faults, LocalPostgres, LocalPostgresOptions, LocalQueue, Logins, Operation, QueueCounts, Rule, When,
};
use pgsluice::report::grouped;
use program::{Program, queue_environment};
use serde::Deserialize;
use tokio::runtime::{Builder, Runtime};
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

/// The servers of all rounds; dropping it stops them.
struct Site {
    queue: LocalQueue,
    postgres: LocalPostgres,
    runtime: Runtime,
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
        // Each process has the number of messages that one had alone.
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
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { queue, postgres, runtime })
    }

    /// Fills a queue of this name, and creates the tables in a database of this name.
    fn prepare(&self, round: &str, processes: u16) -> anyhow::Result<Sent> {
        self.postgres.create_database(round)?;
        self.runtime.block_on(load::init(
            &DatabaseUrl::from(self.postgres.url(round)),
            &Pipeline::user_logins().expect("the built-in pipeline"),
        ))?;
        self.queue.create_queue(round)?;
        let mut logins = Logins::new(SEED);
        let bodies = logins.by_ref().take(usize::from(processes) * MESSAGES_PER_PROCESS).collect();
        let messages = u64::try_from(self.queue.send(round, bodies)?)?;
        Ok(Sent { messages, rejects: u64::try_from(logins.of_another_kind())? })
    }

    /// Runs this number of processes, each in a directory of its own, until the last one has ended.
    fn run_side_by_side(&self, round: &str, processes: u16) -> anyhow::Result<Vec<Report>> {
        let programs = (0..processes).map(|_| self.program(round)).collect::<io::Result<Vec<_>>>()?;
        let mut running: Vec<Child> = programs.iter().map(|program| program.start(&["run"])).collect();
        for ended in running.iter_mut().map(Child::wait).collect::<Vec<_>>() {
            let status = ended?;
            ensure!(status.success(), "a process ended with {status}");
        }
        programs.iter().map(|program| serde_json::from_value(program.report()).context("report.json")).collect()
    }

    /// One of several processes on the round's queue and database.
    fn program(&self, round: &str) -> io::Result<Program> {
        let mut environment = queue_environment(&self.queue, round);
        environment.push(("DATABASE_URL", self.postgres.url(round)));
        let program = Program::new(environment);
        fs::write(program.directory.path().join("pgsluice.toml"), format!("[queue]\npollers = {POLLERS}\n"))?;
        Ok(program)
    }

    /// Every message is one row or one reject, however often and by whichever process it was received; the queue is
    /// empty.
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
        let counts = self.queue.counts(round)?;
        ensure!(counts == QueueCounts::default(), "the queue still holds messages: {counts:?}");
        Ok(())
    }

    fn count(&self, database: &str, of: &str) -> anyhow::Result<u64> {
        self.runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&self.postgres.url(database), NoTls).await?;
            tokio::spawn(connection);
            let count: i64 = client.query_one(&format!("select {of}"), &[]).await?.get(0);
            Ok(u64::try_from(count)?)
        })
    }
}
