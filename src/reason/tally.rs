//! Counts of rejects by their reason.
//!
//! Always true: the counts add up to the number of rejects that were added, and there are at most
//! [`DISTINCT_REASONS`] reasons of each stage, and one more that stands for the rest. Reasons are made of names and
//! limits, so a mapping and a table have few; a trigger that invents names cannot make a report grow.

use std::collections::BTreeMap;

use super::{Reason, Stage};

/// Reasons of one stage that are counted apart.
pub const DISTINCT_REASONS: usize = 100;
/// The reason that stands for all others.
pub const OTHER_REASONS: &str = "other reasons";

/// Counts of rejects by their reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReasonTally(BTreeMap<Reason, u64>);

impl ReasonTally {
    /// Counts this number of rejects.
    pub fn add(&mut self, reason: &Reason, rejects: u64) {
        if let Some(count) = self.0.get_mut(reason) {
            *count += rejects;
            return;
        }
        let rest = Reason { stage: reason.stage, field: None, text: OTHER_REASONS.to_owned() };
        let reason = if self.distinct(reason.stage) < DISTINCT_REASONS { reason.clone() } else { rest };
        *self.0.entry(reason).or_default() += rejects;
    }

    /// Counts what the other one counted.
    pub fn merge(&mut self, other: &Self) {
        for (reason, rejects) in &other.0 {
            self.add(reason, *rejects);
        }
    }

    /// The reasons with their counts, the most frequent first.
    #[must_use]
    pub fn by_count(&self) -> Vec<(Reason, u64)> {
        let mut counts: Vec<_> = self.0.iter().map(|(reason, rejects)| (reason.clone(), *rejects)).collect();
        counts.sort_by_key(|(_, rejects)| std::cmp::Reverse(*rejects));
        counts
    }

    fn distinct(&self, stage: Stage) -> usize {
        self.0.keys().filter(|reason| reason.stage == stage && reason.text != OTHER_REASONS).count()
    }
}

impl<'a> FromIterator<&'a Reason> for ReasonTally {
    fn from_iter<I: IntoIterator<Item = &'a Reason>>(reasons: I) -> Self {
        let mut tally = Self::default();
        for reason in reasons {
            tally.add(reason, 1);
        }
        tally
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reason(stage: Stage, number: u16) -> Reason {
        Reason { stage, field: Some(format!("field{number}")), text: "is missing".to_owned() }
    }

    #[test]
    fn the_most_frequent_reason_is_the_first() {
        let [rare, frequent] = [1, 2].map(|number| reason(Stage::Transform, number));
        let tally: ReasonTally = [&rare, &frequent, &frequent].into_iter().collect();
        assert_eq!(tally.by_count(), [(frequent, 2), (rare, 1)]);
    }

    proptest! {
        #[test]
        fn counts_add_up_and_reasons_are_bounded(
            added in proptest::collection::vec((any::<bool>(), 0..400_u16, 1..9_u64), 0..900),
            split in any::<prop::sample::Index>(),
        ) {
            let (mut first, mut second) = (ReasonTally::default(), ReasonTally::default());
            for (index, (is_load, number, rejects)) in added.iter().enumerate() {
                let stage = if *is_load { Stage::Load } else { Stage::Transform };
                let tally = if index < split.index(900) { &mut first } else { &mut second };
                tally.add(&reason(stage, *number), *rejects);
            }
            first.merge(&second);
            for stage in [Stage::Load, Stage::Transform] {
                let counted = first.by_count().into_iter().filter(|(reason, _)| reason.stage == stage);
                let expected = added.iter().filter(|(is_load, ..)| *is_load == (stage == Stage::Load));
                prop_assert_eq!(counted.map(|(_, rejects)| rejects).sum::<u64>(), expected.map(|added| added.2).sum::<u64>());
            }
            prop_assert!(first.by_count().len() <= 2 * (DISTINCT_REASONS + 1));
        }
    }
}
