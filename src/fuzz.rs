//! What must hold whatever stands in the input, of everything that reads what others wrote.
//!
//! Each target takes any bytes and panics where something does not hold. `make fuzz` looks for such bytes, guided by
//! coverage. The tests run each target over `fuzz/seeds`, which holds an input of each kind and everything that was once
//! found, and over changed copies of these. The properties stand beside the code that they are of.

use crate::{chunk, keyring, mask, postgres, spool, transform};

/// What must hold of some bytes.
type Target = fn(&[u8]);

/// The targets, by the names that `make fuzz` knows.
const TARGETS: [(&str, Target); 9] = [
    ("spool_line", spool::fuzz::line),
    ("spool_segment", spool::fuzz::segment),
    ("spool_header", spool::fuzz::header),
    ("manifest", chunk::fuzz::manifest),
    ("body", transform::fuzz::body),
    ("version", transform::fuzz::version),
    ("reveal", mask::fuzz::reveal_any),
    ("keyring", keyring::fuzz::ring),
    ("connection_string", postgres::fuzz::connection_string),
];

/// Runs a target once.
///
/// # Panics
///
/// Where something does not hold, or there is no target of this name.
pub fn run(target: &str, input: &[u8]) {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    let (_, target) = found.unwrap_or_else(|| panic!("there is no target {target}"));
    target(input);
}

/// A text that an error must not quote: no six digits in a row, and nothing that is not ASCII, are of our own words.
pub(crate) fn assert_quotes_nothing(error: &str, input: &str) {
    assert!(error.is_ascii(), "an error holds a character of the input: {error}");
    for digits in error.split(|character: char| !character.is_ascii_digit()).filter(|digits| digits.len() >= 6) {
        assert!(!input.contains(digits), "an error quotes {digits}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use proptest::prelude::*;

    use super::*;

    fn seeds_of(target: &str) -> Vec<PathBuf> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let mut seeds: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        seeds.sort();
        assert!(!seeds.is_empty(), "{target} has no seed");
        seeds
    }

    #[test]
    fn each_target_holds_for_its_seeds() {
        for (target, _) in TARGETS {
            for seed in seeds_of(target) {
                let input = fs::read(&seed).unwrap();
                let held = std::panic::catch_unwind(|| run(target, &input));
                assert!(held.is_ok(), "{target} does not hold for {}", seed.display());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn each_target_holds_for_changed_seeds(
            seed in any::<prop::sample::Index>(),
            position in any::<prop::sample::Index>(),
            removed in 0..12_usize,
            inserted in proptest::collection::vec(
                prop_oneof![any::<u8>(), proptest::sample::select(b"\"\\{}[],:@/?&=.0\n".to_vec())],
                0..12,
            ),
        ) {
            for (target, _) in TARGETS {
                let seeds = seeds_of(target);
                let mut input = fs::read(&seeds[seed.index(seeds.len())]).unwrap();
                let start = position.index(input.len() + 1);
                let end = (start + removed).min(input.len());
                input.splice(start..end, inserted.iter().copied());
                run(target, &input);
            }
        }
    }
}
