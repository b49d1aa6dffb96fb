//! A bounded list of a long run: where it is full, every second entry goes, and from then on every second one comes.
//!
//! Always true: what is kept are the entries 0, n, 2n, … of those that came, n a power of two; so it covers the whole
//! run evenly, however long that is.

/// A bounded list, thinned by halves.
#[derive(Debug, Clone)]
pub struct Thinned<T> {
    kept: Vec<T>,
    /// An even number.
    most: usize,
    every: usize,
    came: usize,
}

impl<T> Thinned<T> {
    /// An empty list that keeps at most `2 * half` entries; at least two.
    #[must_use]
    pub fn of_twice(half: usize) -> Self {
        Self { kept: Vec::new(), most: 2 * half.max(1), every: 1, came: 0 }
    }

    /// One more came.
    pub fn push(&mut self, entry: T) {
        if self.came.is_multiple_of(self.every) {
            if self.kept.len() == self.most {
                let mut position = 0_usize;
                self.kept.retain(|_| {
                    position += 1;
                    !position.is_multiple_of(2)
                });
                self.every *= 2;
            }
            self.kept.push(entry);
        }
        self.came += 1;
    }

    /// The last of all came: it is kept, in the place of the one before where the list is full.
    pub fn push_last(&mut self, entry: T) {
        self.kept.truncate(self.most - 1);
        self.kept.push(entry);
    }

    /// What is kept, in its order.
    #[must_use]
    pub fn kept(&self) -> &[T] {
        &self.kept
    }

    /// What is kept, to be changed.
    pub(super) fn kept_mut(&mut self) -> &mut [T] {
        &mut self.kept
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_kept_covers_all_evenly_and_is_bounded(came in 0..5000_usize, half in 1..40_usize) {
            let mut list = Thinned::of_twice(half);
            for entry in 0..came {
                list.push(entry);
            }
            prop_assert!(list.kept().len() <= 2 * half);
            let every = list.every;
            let expected: Vec<usize> = (0..came).step_by(every).collect();
            prop_assert_eq!(list.kept(), expected);
            prop_assert!(every == 1 || list.kept().len() >= half);

            list.push_last(came);
            prop_assert!(list.kept().len() <= 2 * half);
            prop_assert_eq!(list.kept().last(), Some(&came));
        }
    }
}
