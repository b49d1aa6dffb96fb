//! What the whole job costs: from a queue into a durable Postgres, every message deleted after its commit. Postgres
//! and the queue server, which is in this process, are on the same cores: they are a part of what is measured.

#![allow(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]

#[path = "support/database.rs"]
mod database;
#[path = "support/disk.rs"]
mod disk;
#[path = "support/program.rs"]
mod program;

use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use database::Database;
use pgsluice::local::{Faults, LocalQueue, Logins, QueueCounts};
use program::{Program, queue_environment};
use tokio::runtime::Runtime;

const QUEUE: &str = "login-queue";
const MESSAGES: usize = 20_000;
const SEED: u64 = 1;

fn end_to_end(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let database = runtime.block_on(Database::start());
    let server = LocalQueue::start(Faults::default()).expect("a queue server");
    server.create_queue(QUEUE).expect("a queue");
    let bodies: Vec<String> = Logins::new(SEED).take(MESSAGES).collect();

    let mut group = criterion.benchmark_group("end to end");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(20));
    group.throughput(Throughput::Elements(MESSAGES as u64));
    group.bench_function("local queue server", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut taken = Duration::ZERO;
            for _ in 0..iterations {
                runtime.block_on(database.empty());
                server.send(QUEUE, bodies.clone()).expect("a filled queue");
                taken += run_once(&server, &database);
            }
            taken
        });
    });
    group.finish();
}

fn run_once(server: &LocalQueue, database: &Database) -> Duration {
    let mut environment = queue_environment(server, QUEUE);
    environment.push(("DATABASE_URL", database.url().expose().to_owned()));
    let program = Program::new(environment);
    let started = Instant::now();
    // The limit ends it at once; the proof that nothing is left would take a long poll.
    program.start(&["run", "--max-messages", &MESSAGES.to_string()]).wait().expect("a child of this process");
    let taken = started.elapsed();
    assert_eq!(program.report()["acknowledged"], MESSAGES);
    assert_eq!(server.counts(QUEUE).expect("the queue"), QueueCounts::default());
    taken
}

criterion_group!(benches, end_to_end);
criterion_main!(benches);
