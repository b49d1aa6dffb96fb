//! What the transform stage costs: logins a second from a sealed segment to durable files, by threads, with and
//! without masking; and the CSV writer alone.

#![allow(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pgsluice::config::{Key, Keys, Pipeline};
use pgsluice::spool::{Record, SegmentWriter};
use pgsluice::staging::{SegmentId, Staging};
use pgsluice::transform::{Plan, csv, transform};
use rayon::ThreadPoolBuilder;

const MESSAGES: u64 = 20_000;
const FIRST_SENT_AT_MS: i64 = 1_767_323_045_678;

/// A multiplicative generator with a fixed seed (Steele and Vigna, 2021): the same input in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

fn login(random: &mut Random) -> String {
    let mut part = |limit| random.below(limit);
    format!(
        r#"{{"user_id": "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}", "app_version": "{}.{}.{}", "device_type": "{}", "ip": "{}.{}.{}.{}", "locale": {}, "device_id": "{:03}-{:02}-{:04}"}}"#,
        part(1 << 31),
        part(1 << 16),
        part(1 << 12),
        part(1 << 12),
        part(1 << 31),
        part(6),
        part(10),
        part(10),
        ["android", "ios"][usize::from(part(2) == 0)],
        part(256),
        part(256),
        part(256),
        part(256),
        ["null", "\"RU\"", "\"PH\""][usize::from(part(10) > 2) + usize::from(part(2) == 0)],
        part(1000),
        part(100),
        part(10_000),
    )
}

fn seal_logins(staging: &Staging) -> SegmentId {
    let mut random = Random(1);
    let mut writer = SegmentWriter::create(staging).expect("the staging directory is new");
    for sent_at in (FIRST_SENT_AT_MS..).take(usize::try_from(MESSAGES).unwrap_or(usize::MAX)) {
        let message_id = format!("{:08x}-4a4b-4c4d-8e8f-{:012x}", random.below(1 << 31), random.below(1 << 31));
        let body = login(&mut random);
        let record = Record {
            message_id: message_id.into(),
            sent_at,
            received_at: sent_at + 1000,
            receive_count: 1,
            receipt_handle: "AQEB".repeat(45).into(), // SQS's are about that long
            body: body.into(),
            attributes: None,
            group_id: None,
            sequence_number: None,
        };
        writer.append(&record).expect("the disk has room");
    }
    writer.seal().expect("the disk has room").id
}

fn full_pass(criterion: &mut Criterion) {
    let root = tempfile::tempdir().expect("a temporary directory");
    let staging = Staging::open(root.path()).expect("a new staging directory");
    let segment = seal_logins(&staging);
    let key = Key::from_hex("PGSLUICE_KEY", &"07".repeat(32)).expect("a key of 32 bytes");
    let masked = Pipeline::user_logins();
    let mut unmasked = Pipeline::user_logins();
    unmasked.columns.iter_mut().for_each(|column| column.mask = None);

    let mut group = criterion.benchmark_group("transform");
    group.sample_size(20).throughput(Throughput::Elements(MESSAGES));
    for (name, pipeline) in [("siv", masked), ("unmasked", unmasked)] {
        let keys = Keys { key: Some(key.clone()), fixed_iv: None };
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
    let mut random = Random(1);
    let rows: Vec<[String; 3]> = (0..MESSAGES)
        .map(|_| {
            [
                format!("{:036x}", random.below(1 << 31)),
                "a \"quoted\", field".to_owned(),
                format!("{:0102x}", random.below(1 << 31)),
            ]
        })
        .collect();
    let mut out = Vec::new();
    let mut group = criterion.benchmark_group("csv");
    group.throughput(Throughput::Elements(MESSAGES));
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

criterion_group!(benches, full_pass, csv_encode);
criterion_main!(benches);
