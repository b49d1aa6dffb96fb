//! What masking costs: values a second, by method and length.

#![allow(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pgsluice::config::Mask;
use pgsluice::keyring::{Keyring, SecretKey};
use pgsluice::mask::Masker;

fn mask(criterion: &mut Criterion) {
    let key = SecretKey::from_hex("key", &"07".repeat(32)).expect("a key of 32 bytes");
    let keys = Keyring::of_one_key(key, Some([9; 16]));
    let mut group = criterion.benchmark_group("mask");
    group.throughput(Throughput::Elements(1));
    for (name, method) in [("siv", Mask::Siv), ("fixed", Mask::Fixed)] {
        let masker = Masker::new(method, "masked_ip", &keys).expect("both keys are given");
        for value in ["199.172.111.135".to_owned(), "x".repeat(100)] {
            let mut out = Vec::new();
            group.bench_with_input(BenchmarkId::new(name, value.len()), &value, |bencher, value| {
                bencher.iter(|| {
                    out.clear();
                    masker.mask(black_box(value), &mut out);
                    black_box(out.len())
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, mask);
criterion_main!(benches);
