//! The curve that shows flat memory: the memory of the binary, and the rows that it loads a second, as the backlog
//! grows. `make flat` measures it; without `--messages` it takes seconds, and shows only that it works.
//!
//! Each line is one process over a durable Postgres whose tables were emptied: `replay` of a spool whose messages were
//! sent within the last fourteen days, and a `run` that has to hold everything in flight, because the table is locked
//! until nothing is left to receive. Generating the spool is not timed. The bench fails if memory is above the limit.
//! Rows a second depend on the machine too, so their limit is only printed.

#![allow(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]
#![allow(clippy::print_stdout, reason = "what a bench prints is its result")]

#[path = "support/database.rs"]
mod database;
#[path = "support/disk.rs"]
mod disk;
#[path = "support/peak_memory.rs"]
mod peak_memory;
#[path = "support/program.rs"]
mod program;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode};
use std::time::{Duration, Instant, SystemTime};

use database::Database;
use pgsluice::local::{Faults, LocalQueue, Logins};
use pgsluice::report::grouped;
use pgsluice::staging::Staging;
use program::{Environment, Program, queue_environment};
use tokio::runtime::Runtime;

const PEAK_RESIDENT_LIMIT_BYTES: u64 = 150_000_000;
/// Of the rows a second at the second-longest backlog, the longest must keep this share.
const ROWS_SHARE_LIMIT: f64 = 0.9;

const BACKLOGS: [u64; 3] = [100_000, 1_000_000, 10_000_000];
const SMOKE_MESSAGES: u64 = 20_000;
const SEGMENT_MESSAGES: u64 = 20_000;
const LARGEST_SEGMENT_BYTES: u64 = 1 << 30;
/// Both loaders have one, the transform has one, and one waits.
const LARGEST_SEGMENTS: u64 = 4;
const IN_FLIGHT: u64 = 100_000;

/// Spool, chunks under way, table, ledger and write-ahead log.
const DISK_BYTES_PER_MESSAGE: u64 = 1_000;
const DISK_BYTES_AT_LEAST: u64 = 2_000_000_000;
/// How long SQS keeps a message.
const BACKLOG_AGE: Duration = Duration::from_hours(14 * 24);
const QUEUE: &str = "login-queue";
const SEED: u64 = 1;
const POLL_INTERVAL: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let longest = longest_backlog();
    if let Some(full) = disk_without_room(longest) {
        println!("{longest} messages need {} on {}", megabytes(disk_bytes(longest)), full.display());
        return ExitCode::FAILURE;
    }
    let bench = Bench::start();
    println!("{:<28} {:>12} {:>10} {:>9} {:>10} {:>10}", "", "messages", "spool", "seconds", "rows/s", "peak");
    let mut curve: Vec<Measurement> = BACKLOGS
        .into_iter()
        .filter(|&messages| messages <= longest)
        .chain((longest < BACKLOGS[0]).then_some(longest))
        .map(|messages| bench.replay("replay", messages, SEGMENT_MESSAGES))
        .collect();
    let rows_hold = rows_hold(&curve);

    let bytes_per_message = curve[0].spool_bytes / curve[0].messages;
    let large = LARGEST_SEGMENT_BYTES / bytes_per_message;
    curve.push(bench.replay("replay, segments of 1 GiB", longest.min(large * LARGEST_SEGMENTS), large));
    curve.push(bench.run_with_all_in_flight(longest.min(IN_FLIGHT)));

    let memory_holds = curve.iter().all(|point| point.peak_resident_bytes <= PEAK_RESIDENT_LIMIT_BYTES);
    println!("peak resident memory within {}: {}", megabytes(PEAK_RESIDENT_LIMIT_BYTES), yes_or_no(memory_holds));
    if let Some(rows_hold) = rows_hold {
        println!(
            "rows/s of the longest replay at least {ROWS_SHARE_LIMIT} of the one before: {}",
            yes_or_no(rows_hold)
        );
    }
    if memory_holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One line of the curve.
struct Measurement {
    messages: u64,
    spool_bytes: u64,
    rows_per_second: f64,
    peak_resident_bytes: u64,
}

struct Bench {
    runtime: Runtime,
    database: Database,
}

impl Bench {
    fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let database = runtime.block_on(Database::start());
        Self { runtime, database }
    }

    fn replay(&self, name: &str, messages: u64, segment_messages: u64) -> Measurement {
        let program = self.program(Environment::new());
        generate_spool(&program.directory.path().join("staging"), messages, segment_messages);
        self.runtime.block_on(self.database.empty());
        let started = Instant::now();
        let child = program.start(&["replay"]);
        measure(name, &program, child, started, messages)
    }

    fn run_with_all_in_flight(&self, messages: u64) -> Measurement {
        let server = LocalQueue::start(Faults::default()).expect("a queue server");
        server.create_queue(QUEUE).expect("a queue");
        let bodies = Logins::new(SEED).take(as_usize(messages)).collect();
        server.send(QUEUE, bodies).expect("a filled queue");
        let program = self.program(queue_environment(&server, QUEUE));
        self.runtime.block_on(self.database.empty());

        self.runtime.block_on(self.database.execute("BEGIN; LOCK TABLE user_logins IN EXCLUSIVE MODE"));
        let started = Instant::now();
        let mut child = program.start(&["run"]);
        while server.counts(QUEUE).expect("the queue").in_flight < as_usize(messages) {
            assert!(child.try_wait().expect("a child of this process").is_none(), "the run ended early");
            std::thread::sleep(POLL_INTERVAL);
        }
        self.runtime.block_on(self.database.execute("COMMIT"));
        measure("run, all of it in flight", &program, child, started, messages)
    }

    fn program(&self, mut environment: Environment) -> Program {
        environment.push(("DATABASE_URL", self.database.url().expose().to_owned()));
        Program::new(environment)
    }
}

/// Waits for the process, and prints a line of the curve. Every message must have become a row or a reject.
fn measure(name: &str, program: &Program, mut child: Child, started: Instant, messages: u64) -> Measurement {
    let peak_resident_bytes = peak_memory::until_exit(&mut child);
    let seconds = started.elapsed().as_secs_f64();
    let report = program.report();
    let [loaded, rejected, spool_bytes] =
        ["loaded", "rejected", "bytes"].map(|count| report[count].as_u64().expect("a count"));
    assert_eq!((loaded + rejected, &report["exit_code"]), (messages, &0.into()));
    #[allow(clippy::cast_precision_loss, reason = "a rate need not be exact")]
    let rows_per_second = loaded as f64 / seconds;
    println!(
        "{name:<28} {:>12} {:>10} {seconds:>9.1} {rows_per_second:>10.0} {:>10}",
        grouped(messages),
        megabytes(spool_bytes),
        megabytes(peak_resident_bytes),
    );
    Measurement { messages, spool_bytes, rows_per_second, peak_resident_bytes }
}

fn generate_spool(staging: &Path, messages: u64, segment_messages: u64) {
    let staging = Staging::open(staging).expect("a staging directory");
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("a clock that is right");
    let milliseconds = |time: Duration| i64::try_from(time.as_millis()).expect("a clock that is right");
    let every_ms = milliseconds(BACKLOG_AGE) / i64::try_from(messages).expect("a countable backlog");
    let mut logins = Logins::new(SEED).sent(milliseconds(now.saturating_sub(BACKLOG_AGE)), every_ms);
    let mut remaining = messages;
    while remaining > 0 {
        let messages = remaining.min(segment_messages);
        logins.seal_segment(&staging, as_usize(messages)).expect("a disk with room");
        remaining -= messages;
    }
}

/// Whether the longest backlog loads about as fast as the one before; a short curve does not tell.
fn rows_hold(curve: &[Measurement]) -> Option<bool> {
    let [.., shorter, longest] = curve else { return None };
    (longest.messages == BACKLOGS[2]).then_some(longest.rows_per_second >= shorter.rows_per_second * ROWS_SHARE_LIMIT)
}

/// `--messages N`. Cargo and criterion's users give other arguments, which mean nothing here.
fn longest_backlog() -> u64 {
    let value = env::args().skip_while(|argument| argument != "--messages").nth(1);
    value.map_or(SMOKE_MESSAGES, |value| value.parse().expect("a number of messages"))
}

/// The spool lies with the build, Postgres among the temporary files; each is asked for room for both.
fn disk_without_room(messages: u64) -> Option<PathBuf> {
    [PathBuf::from(env!("CARGO_TARGET_TMPDIR")), env::temp_dir()].into_iter().find(|directory| {
        let disk = rustix::fs::statvfs(directory).expect("a directory");
        disk.f_bavail.saturating_mul(disk.f_frsize) < disk_bytes(messages)
    })
}

fn disk_bytes(messages: u64) -> u64 {
    (messages * DISK_BYTES_PER_MESSAGE).max(DISK_BYTES_AT_LEAST)
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", grouped(bytes / 1_000_000))
}

fn yes_or_no(holds: bool) -> &'static str {
    if holds { "yes" } else { "NO" }
}

fn as_usize(messages: u64) -> usize {
    usize::try_from(messages).expect("a countable backlog")
}
