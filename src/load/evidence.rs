//! Whose fault is a refused row? By evidence first, by SQLSTATE second.
//!
//! A message whose row is rejected is deleted from the queue, so a broken set-up must not look like 20,000 bad
//! messages; and one poisonous message must not stop every run because its trigger raises a rare SQLSTATE. So what
//! becomes of the other rows of the chunk decides, and where that says nothing, the SQLSTATE does. As long as no row is
//! taken, rows are tried one by one, in the order of the chunk:
//!
//! | the SQLSTATE says    | a row was taken | none, and [`ALIKE`] were refused alike | none, and the chunk ends before that |
//! |----------------------|-----------------|----------------------------------------|--------------------------------------|
//! | the moment           | tried again     | tried again                            | tried again                          |
//! | likely a row         | reject          | the rest is probed                     | reject                               |
//! | likely the set-up    | reject          | the rest is probed                     | the run stops                        |
//! | certainly the set-up | the run stops   | the run stops                          | the run stops                        |
//!
//! Alike: with the same SQLSTATE, by the same constraint. "A row was taken" also holds where a row's own key is in the
//! table already, because a row with that key was taken before. The rest is probed by [`probes`], whose rows are undone:
//! if one is taken, bad messages came together, and are rejects; if none is, the run stops. In a retry of rejects nothing
//! counts as alike: that these rows are refused is known.
//!
//! Always true: where the run stops, nothing of the segment is rejected, because its transaction is rolled back.

use std::collections::HashMap;

use crate::postgres::sqlstate::Meaning;

/// The number of rows refused alike, before any is taken, that casts doubt on the set-up; as many of the rest are probed.
/// Few enough to be tried in a moment.
pub(super) const ALIKE: usize = 20;

/// Which of the rows from `start` to `end` to try when the ones before were refused alike: [`ALIKE`] at most, evenly
/// spread.
pub(super) fn probes(start: usize, end: usize) -> impl Iterator<Item = usize> {
    let (rows, probes) = (end - start, ALIKE.min(end - start));
    (0..probes).map(move |probe| start + (2 * probe + 1) * rows / (2 * probes))
}

/// What follows from a row that was refused alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is a reject.
    Reject,
    /// It is a reject if a row is taken after all; otherwise the run stops.
    Open,
    /// It is a reject if one of the [`probes`] is taken; otherwise the run stops.
    Probe,
    /// The set-up is at fault, or the moment: the attempt ends.
    Stop,
}

/// The table above. `alike` rows were refused like this one, itself included; `enough` of them stop the run.
const fn verdict(meaning: Meaning, taken: bool, alike: usize, enough: usize) -> Verdict {
    match meaning {
        Meaning::Moment | Meaning::CertainSetup => Verdict::Stop,
        _ if taken => Verdict::Reject,
        _ if alike >= enough => Verdict::Probe,
        Meaning::Row => Verdict::Reject,
        Meaning::Setup => Verdict::Open,
    }
}

/// What has become of the rows of one chunk so far.
#[derive(Debug)]
pub(super) struct Evidence {
    enough: usize,
    taken: bool,
    /// Refused rows before the first that was taken, by SQLSTATE and constraint.
    alike: HashMap<(String, Option<String>), usize>,
}

impl Evidence {
    /// For rows that were never tried before.
    pub(super) fn of_new_rows() -> Self {
        Self { enough: ALIKE, taken: false, alike: HashMap::new() }
    }

    /// For rows that were refused before, and are tried again.
    pub(super) fn of_rejects() -> Self {
        Self { enough: usize::MAX, ..Self::of_new_rows() }
    }

    /// Whether the table is known to take rows of this chunk.
    pub(super) const fn is_taken(&self) -> bool {
        self.taken
    }

    /// A row was taken, or is in the table already.
    pub(super) fn take(&mut self) {
        self.taken = true;
        self.alike = HashMap::new();
    }

    /// A row was refused alone.
    pub(super) fn refuse(&mut self, meaning: Meaning, sqlstate: &str, constraint: Option<&str>) -> Verdict {
        let alike = if self.taken {
            0
        } else {
            let alike = self.alike.entry((sqlstate.to_owned(), constraint.map(str::to_owned))).or_default();
            *alike += 1;
            *alike
        };
        verdict(meaning, self.taken, alike, self.enough)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use Meaning::{CertainSetup, Moment, Row, Setup};
    use Verdict::{Open, Probe, Reject, Stop};

    #[test]
    fn the_verdicts_are_those_of_the_table() {
        for (meaning, taken, enough_alike, fewer) in [
            (Moment, Stop, Stop, Stop),
            (Row, Reject, Probe, Reject),
            (Setup, Reject, Probe, Open),
            (CertainSetup, Stop, Stop, Stop),
        ] {
            assert_eq!(verdict(meaning, true, ALIKE, ALIKE), taken, "{meaning:?}");
            assert_eq!(verdict(meaning, false, ALIKE, ALIKE), enough_alike, "{meaning:?}");
            assert_eq!(verdict(meaning, false, ALIKE - 1, ALIKE), fewer, "{meaning:?}");
        }
    }

    /// A row of a chunk: taken, or refused by one of three constraints.
    fn outcome() -> impl Strategy<Value = Option<(bool, u8)>> {
        proptest::option::weighted(0.95, (any::<bool>(), 0..3_u8))
    }

    proptest! {
        #[test]
        fn the_rest_is_probed_only_while_no_row_is_taken_and_enough_were_refused_alike(
            rows in proptest::collection::vec(outcome(), 0..80)
        ) {
            let mut evidence = Evidence::of_new_rows();
            for (index, row) in rows.iter().enumerate() {
                let Some((likely_row, constraint)) = *row else {
                    evidence.take();
                    continue;
                };
                let (meaning, sqlstate) = if likely_row { (Row, "23514") } else { (Setup, "42501") };
                let said = evidence.refuse(meaning, sqlstate, Some(&constraint.to_string()));
                let before = &rows[..=index];
                let taken = before.contains(&None);
                let alike = before.iter().filter(|other| *other == row).count();
                let expected = match (taken, alike >= ALIKE, likely_row) {
                    (true, ..) | (false, false, true) => Reject,
                    (false, false, false) => Open,
                    (false, true, _) => Probe,
                };
                prop_assert_eq!(said, expected);
                if said == Probe {
                    break;
                }
            }
        }

        #[test]
        fn probes_are_rows_of_the_rest_and_leave_no_large_gap(start in 0..100_usize, rows in 0..30_000_usize) {
            let probes: Vec<usize> = probes(start, start + rows).collect();
            prop_assert_eq!(probes.len(), rows.min(ALIKE));
            let bounds = [&[start], &probes[..], &[start + rows]].concat();
            prop_assert!(probes.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(bounds.windows(2).all(|pair| pair[0] <= pair[1] && pair[1] - pair[0] <= rows / ALIKE + 1));
        }

        #[test]
        fn rejects_that_are_refused_again_stop_nothing_that_likely_is_a_rows_fault(rows in 1..200_usize) {
            let mut evidence = Evidence::of_rejects();
            for _ in 0..rows {
                prop_assert_eq!(evidence.refuse(Row, "23514", None), Reject);
                prop_assert_eq!(evidence.refuse(Setup, "42501", None), Open);
            }
        }
    }
}
