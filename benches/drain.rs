//! What the drain costs: a queue into sealed segments, by the binary in a process of its own. The queue server is in
//! this one, on the same cores: it is a part of what is measured.

#![allow(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]

#[path = "support/disk.rs"]
mod disk;
#[path = "support/program.rs"]
mod program;

use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use pgsluice::local::{Faults, LocalQueue, Logins};
use program::{Program, queue_environment};

const MESSAGES: usize = 20_000;
const SEED: u64 = 1;

fn drain(criterion: &mut Criterion) {
    let server = LocalQueue::start(Faults::default()).expect("a queue server");
    let bodies: Vec<String> = Logins::new(SEED).take(MESSAGES).collect();
    let mut queues = (0..).map(|number| format!("logins-{number}"));

    let mut group = criterion.benchmark_group("drain");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(8));
    group.throughput(Throughput::Elements(MESSAGES as u64));
    group.bench_function("local queue server", |bencher| {
        bencher.iter_custom(|iterations| {
            queues
                .by_ref()
                .take(usize::try_from(iterations).expect("few"))
                .map(|queue| drain_once(&server, &queue, &bodies))
                .sum()
        });
    });
    group.finish();
}

/// A drain deletes nothing, so each has a queue of its own.
fn drain_once(server: &LocalQueue, queue: &str, bodies: &[String]) -> Duration {
    server.create_queue(queue).expect("a queue");
    server.send(queue, bodies.to_vec()).expect("a filled queue");
    let program = Program::new(queue_environment(server, queue));
    let started = Instant::now();
    // The limit ends it at once; the proof that nothing is left would take a long poll.
    program.start(&["drain", "--max-messages", &MESSAGES.to_string()]).wait().expect("a child of this process");
    let taken = started.elapsed();
    assert_eq!(program.report()["received"], MESSAGES);
    taken
}

criterion_group!(benches, drain);
criterion_main!(benches);
