//! What the load stage costs: staged segments into a durable Postgres, by dedupe and connections, and the claim path,
//! which a segment takes when the ledger knows some of its messages.

#![allow(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]

#[path = "support/database.rs"]
mod database;
#[path = "support/disk.rs"]
mod disk;

use std::time::{Duration, Instant, SystemTime};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use database::Database;
use pgsluice::chunk::Manifest;
use pgsluice::config::{Dedupe, Pipeline};
use pgsluice::keyring::{Keyring, SecretKey};
use pgsluice::load::{Committed, Loader};
use pgsluice::local::Logins;
use pgsluice::staging::Staging;
use pgsluice::transform::{Plan, transform};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const MESSAGES: usize = 20_000;

struct Bench {
    runtime: Runtime,
    database: Database,
    staging: Staging,
    sent_at_ms: i64,
    plan: Plan,
    _root: TempDir,
}

impl Bench {
    fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let database = runtime.block_on(Database::start());
        let root = disk::directory();
        let staging = Staging::open(root.path()).expect("a staging directory");
        let key = SecretKey::from_hex("key", &"07".repeat(32)).expect("a key of 32 bytes");
        let keys = Keyring::of_one_key(key, None);
        let plan = Plan::compile(&Pipeline::user_logins().expect("the built-in pipeline"), &keys, None)
            .expect("the built-in mapping");
        // Today: older messages have no partition of their own in the ledger.
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("a clock that is right");
        let sent_at_ms = i64::try_from(now.as_millis()).expect("a clock that is right");
        Self { runtime, database, staging, sent_at_ms, plan, _root: root }
    }

    /// Two of the same seed hold the same messages, as far as the shorter goes.
    fn stage(&self, seed: u64, messages: usize) -> Manifest {
        let mut logins = Logins::new(seed).sent(self.sent_at_ms, 1);
        let segment = logins.seal_segment(&self.staging, messages).expect("a disk with room");
        transform(&self.staging, segment.id, &self.plan).expect("an undamaged segment")
    }

    async fn connect(&self, dedupe: Dedupe) -> Loader {
        let pipeline = Pipeline { dedupe, ..Pipeline::user_logins().expect("the built-in pipeline") };
        Loader::connect(self.database.url(), &pipeline).await.expect("a connection")
    }
}

fn load(criterion: &mut Criterion) {
    let bench = Bench::start();
    fresh_segments(criterion, &bench);
    known_messages(criterion, &bench);
}

fn fresh_segments(criterion: &mut Criterion, bench: &Bench) {
    let segments = [bench.stage(1, MESSAGES), bench.stage(2, MESSAGES)];
    let mut group = criterion.benchmark_group("load");
    configure(&mut group);
    for (name, dedupe) in [("dedupe by message", Dedupe::Message), ("dedupe by segment", Dedupe::Segment)] {
        for connections in [1, 2] {
            group.throughput(Throughput::Elements((connections * MESSAGES) as u64));
            group.bench_function(BenchmarkId::new(name, format!("{connections} connections")), |bencher| {
                let connect_all = futures::future::join_all((0..connections).map(|_| bench.connect(dedupe)));
                let mut loaders = bench.runtime.block_on(connect_all);
                bencher.iter_custom(|iterations| {
                    let mut taken = Duration::ZERO;
                    for _ in 0..iterations {
                        bench.runtime.block_on(async {
                            bench.database.empty().await;
                            let started = Instant::now();
                            loaders = load_each(&bench.staging, std::mem::take(&mut loaders), &segments).await;
                            taken += started.elapsed();
                        });
                    }
                    taken
                });
            });
        }
    }
    group.finish();
}

/// A segment a loader, side by side.
async fn load_each(staging: &Staging, loaders: Vec<Loader>, segments: &[Manifest]) -> Vec<Loader> {
    let mut loads = JoinSet::new();
    for (mut loader, segment) in loaders.into_iter().zip(segments) {
        let (staging, segment) = (staging.clone(), segment.clone());
        loads.spawn(async move {
            let committed = load_one(&staging, &mut loader, &segment).await;
            assert_eq!(committed.loaded(), segment.rows());
            loader
        });
    }
    loads.join_all().await
}

async fn load_one(staging: &Staging, loader: &mut Loader, segment: &Manifest) -> Committed {
    loader.load(staging, segment).await.expect("a commit")
}

fn known_messages(criterion: &mut Criterion, bench: &Bench) {
    let segment = bench.stage(1, MESSAGES);
    let mut group = criterion.benchmark_group("claim");
    configure(&mut group);
    group.throughput(Throughput::Elements(MESSAGES as u64));
    for (name, known) in [("1 in 100 known", MESSAGES / 100), ("all known", MESSAGES)] {
        let loaded_before = bench.stage(1, known);
        group.bench_function(name, |bencher| {
            let mut loader = bench.runtime.block_on(bench.connect(Dedupe::Message));
            bencher.iter_custom(|iterations| {
                let mut taken = Duration::ZERO;
                for _ in 0..iterations {
                    bench.runtime.block_on(async {
                        bench.database.empty().await;
                        load_one(&bench.staging, &mut loader, &loaded_before).await;
                        let started = Instant::now();
                        let committed = load_one(&bench.staging, &mut loader, &segment).await;
                        taken += started.elapsed();
                        assert_eq!(committed.duplicates(), known as u64);
                    });
                }
                taken
            });
        });
    }
    group.finish();
}

/// An iteration takes a good part of a second, and emptying the tables before it takes as long.
fn configure(group: &mut BenchmarkGroup<'_, WallTime>) {
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(6));
}

criterion_group!(benches, load);
criterion_main!(benches);
