//! What the transform stage costs: parsing a segment's lines; the whole pass by threads, with and without masking, to
//! durable files and to files in memory, where parsing and mapping are nearly all of it; and the CSV writer.

#![allow(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]

#[path = "support/disk.rs"]
mod disk;
#[path = "support/memory.rs"]
mod memory;

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use pgsluice::chunk::csv;
use pgsluice::config::Pipeline;
use pgsluice::keyring::{Keyring, SecretKey};
use pgsluice::local::Logins;
use pgsluice::spool::SegmentReader;
use pgsluice::staging::Staging;
use pgsluice::transform::{Plan, transform};
use rayon::ThreadPoolBuilder;

const MESSAGES: usize = 20_000;
const SEED: u64 = 1;

fn parse(criterion: &mut Criterion) {
    let root = disk::directory();
    let staging = Staging::open(root.path()).expect("a new staging directory");
    let segment = Logins::new(SEED).seal_segment(&staging, MESSAGES).expect("the disk has room");
    let path = staging.spool(segment.id);

    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::ElementsAndBytes { elements: segment.messages, bytes: segment.bytes });
    group.bench_function("spool lines", |bencher| {
        bencher.iter(|| {
            let mut reader = SegmentReader::open(&path).expect("the segment");
            while let Some(block) = reader.next_block().expect("an undamaged segment") {
                for line in block.lines() {
                    black_box(line.expect("an undamaged line"));
                }
            }
        });
    });
    group.finish();
}

fn full_pass(criterion: &mut Criterion) {
    full_pass_in(criterion, "transform", disk::directory().path());
    if let Some(root) = memory::directory() {
        full_pass_in(criterion, "transform in memory", root.path());
    }
}

fn full_pass_in(criterion: &mut Criterion, name: &str, root: &Path) {
    let staging = Staging::open(root).expect("a new staging directory");
    let segment = Logins::new(SEED).seal_segment(&staging, MESSAGES).expect("the disk has room").id;
    let key = SecretKey::from_hex("key", &"07".repeat(32)).expect("a key of 32 bytes");
    let masked = Pipeline::user_logins().expect("the built-in pipeline");
    let mut unmasked = Pipeline::user_logins().expect("the built-in pipeline");
    unmasked.columns.iter_mut().for_each(|column| column.mask = None);

    let mut group = criterion.benchmark_group(name);
    group.sample_size(20).sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(MESSAGES as u64));
    for (name, pipeline) in [("siv", masked), ("unmasked", unmasked)] {
        let keys = Keyring::of_one_key(key.clone(), None);
        let plan = Plan::compile(&pipeline, &keys, None).expect("the built-in mapping");
        for threads in [1, 2] {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
            group.bench_function(BenchmarkId::new(name, format!("{threads} threads")), |bencher| {
                bencher.iter(|| pool.install(|| transform(&staging, segment, &plan)).expect("an undamaged segment"));
            });
        }
    }
    group.finish();
}

fn csv_encode(criterion: &mut Criterion) {
    let plain = "0198b1a4-7c1e-7000-8000-000000000000";
    let rows = vec![[plain, "a \"quoted\", field", &plain.repeat(3)].map(str::to_owned); MESSAGES];
    let mut out = Vec::new();
    let mut group = criterion.benchmark_group("csv");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    group.bench_function("rows of 3 fields", |bencher| {
        bencher.iter(|| {
            out.clear();
            for row in &rows {
                for (position, field) in row.iter().enumerate() {
                    csv::push_separator(&mut out, position);
                    csv::push_field(&mut out, black_box(field.as_bytes()));
                }
                out.push(b'\n');
            }
            out.len()
        });
    });
    group.finish();
}

criterion_group!(benches, parse, full_pass, csv_encode);
criterion_main!(benches);
