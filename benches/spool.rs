//! What the spool costs: append and seal on disk and where flushing is free, the scans with which a run begins, and what
//! encryption adds to writing and to reading.

#![allow(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]

#[path = "support/disk.rs"]
mod disk;
#[path = "support/memory.rs"]
mod memory;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::iter;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Bencher, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use pgsluice::keyring::{Algorithm, Key, Keyring};
use pgsluice::local::Logins;
use pgsluice::segment::SegmentId;
use pgsluice::spool::{
    Block, Opener, Origin, Record, SealedSegment, SegmentReader, SegmentWriter, SpoolKeys, recover, sealed_segment,
};
use pgsluice::staging::Staging;

const MESSAGES: usize = 20_000;
const SEED: u64 = 1;
const TORN_LINE: &[u8] = br#"{"message_id":"0198b1a4-7c1e-7000-8"#;

fn append_and_seal(criterion: &mut Criterion) {
    let root = disk::directory();
    let (_, blocks) = segment_in(&Staging::open(root.path()).expect("a staging directory"));
    let records: Vec<Record<'_>> =
        blocks.iter().flat_map(Block::lines).map(|line| line.expect("an undamaged line").record).collect();

    let mut group = criterion.benchmark_group("append and seal");
    group
        .sample_size(20)
        .sampling_mode(SamplingMode::Flat)
        .throughput(throughput(blocks.iter().map(Block::size).sum()));
    group.bench_function("on disk", |bencher| append_and_seal_in(bencher, &root.path().join("bench"), &records, None));
    if let Some(root) = memory::directory() {
        group.bench_function("without fsync", |bencher| append_and_seal_in(bencher, root.path(), &records, None));
        let key = spool_key();
        group.bench_function("without fsync, encrypted", |bencher| {
            append_and_seal_in(bencher, root.path(), &records, Some(&key));
        });
    }
    group.finish();
}

fn append_and_seal_in(bencher: &mut Bencher<'_>, root: &Path, records: &[Record<'_>], key: Option<&Key>) {
    let staging = Staging::open(root).expect("a staging directory");
    let origin = Origin::of_queue("user_logins", "http://localhost/000000000000/login-queue");
    bencher.iter_custom(|iterations| {
        let mut taken = Duration::ZERO;
        for _ in 0..iterations {
            let started = Instant::now();
            let mut writer = SegmentWriter::create_as(SegmentId::now(), &staging, &origin, key).expect("a new segment");
            for record in records {
                writer.append(record).expect("a disk with room");
            }
            let sealed = writer.seal().expect("a disk with room");
            taken += started.elapsed();
            fs::remove_file(staging.spool(sealed.id)).expect("the segment");
        }
        taken
    });
}

/// One thread reads each message's body, as the transform does.
fn read(criterion: &mut Criterion) {
    let root = disk::directory();
    let staging = Staging::open(root.path()).expect("a staging directory");
    let (_, clear) = segment_in(&staging);
    let key = spool_key();
    let origin = Origin::of_queue("user_logins", "http://localhost/000000000000/login-queue");
    let mut writer = SegmentWriter::create_as(SegmentId::now(), &staging, &origin, Some(&key)).expect("a new segment");
    for line in clear.iter().flat_map(Block::lines) {
        writer.append(&line.expect("an undamaged line").record).expect("a disk with room");
    }
    let encrypted = blocks_of(&staging, writer.seal().expect("a disk with room").id);
    let keys = SpoolKeys::of(&Keyring::default().with(key).expect("a ring of one key"));

    let mut group = criterion.benchmark_group("read");
    group.sample_size(20).sampling_mode(SamplingMode::Flat);
    for (name, blocks) in [("in clear", clear), ("encrypted", encrypted)] {
        group.throughput(throughput(blocks.iter().map(Block::size).sum()));
        group.bench_function(name, |bencher| bencher.iter(|| body_bytes(&blocks, &keys)));
    }
    group.finish();
}

fn body_bytes(blocks: &[Block], keys: &SpoolKeys) -> usize {
    let (mut bytes, mut memory, mut opener) = (0, String::new(), Opener::default());
    for line in blocks.iter().flat_map(Block::lines) {
        let record = line.expect("an undamaged line").record;
        let record = opener.open(&record, keys).expect("its key");
        bytes += record.body.text(&mut memory).expect("a body").len();
    }
    bytes
}

fn spool_key() -> Key {
    Key::random(Algorithm::Spool).expect("random bytes")
}

fn scans(criterion: &mut Criterion) {
    let root = disk::directory();
    let staging = Staging::open(root.path()).expect("a staging directory");
    let (segment, _) = segment_in(&staging);

    let mut group = criterion.benchmark_group("scan");
    group.sample_size(20).sampling_mode(SamplingMode::Flat).throughput(throughput(segment.bytes));
    group.bench_function("count a sealed segment", |bencher| {
        bencher.iter(|| sealed_segment(&staging, segment.id).expect("the segment"));
    });
    group.bench_function("recover a torn segment", |bencher| {
        let tear = || {
            fs::rename(staging.spool(segment.id), staging.open_segment(segment.id)).expect("the segment");
            let mut file = OpenOptions::new().append(true).open(staging.open_segment(segment.id)).expect("the segment");
            file.write_all(TORN_LINE).expect("a disk with room");
        };
        bencher.iter_batched(
            tear,
            |()| assert_eq!(recover(&staging).expect("a recovery"), [segment]),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// A sealed segment of logins, and what it holds.
fn segment_in(staging: &Staging) -> (SealedSegment, Vec<Block>) {
    let segment = Logins::new(SEED).seal_segment(staging, MESSAGES).expect("a disk with room");
    (segment, blocks_of(staging, segment.id))
}

fn blocks_of(staging: &Staging, segment: SegmentId) -> Vec<Block> {
    let mut reader = SegmentReader::open(&staging.spool(segment)).expect("the segment");
    iter::from_fn(|| reader.next_block().expect("an undamaged segment")).collect()
}

fn throughput(bytes: u64) -> Throughput {
    Throughput::ElementsAndBytes { elements: MESSAGES as u64, bytes }
}

criterion_group!(benches, append_and_seal, read, scans);
criterion_main!(benches);
