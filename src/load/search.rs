//! Which rows to COPY next, so that all refused ones are found in few COPYs of few rows.
//!
//! Always true: rows are settled in their order, a row as refused only after a COPY of it alone was refused; and each
//! step settles rows or narrows the range that holds a refused one. So it ends.
//!
//! A good range is followed by one twice as large, a refused row by one twice as large as the good run before it: where
//! every row is refused, rows go one by one, and where one in a thousand is, they go a thousand at a time. A refused
//! range ends before the row that Postgres names, or is halved where it names none. All in all no more than about ten
//! times the chunk's rows are sent, and three COPYs for each refused row, beside those that grow or halve a range.

use std::ops::Range;

/// The state of the search.
#[derive(Debug)]
pub(super) struct Search {
    rows: usize,
    /// Rows before it are settled.
    start: usize,
    /// How many rows to try, where nothing is known of them.
    window: usize,
    /// Rows taken since the last refused one.
    run: usize,
    /// A range from `start` to here was refused.
    refused_to: Option<usize>,
    /// The row that is said to be refused.
    suspect: Option<usize>,
}

impl Search {
    /// Over this number of rows, of which nothing is known.
    pub(super) const fn new(rows: usize) -> Self {
        Self { rows, start: 0, window: rows, run: 0, refused_to: None, suspect: None }
    }

    /// The rows to COPY next; `None` when all are settled.
    pub(super) fn next(&self) -> Option<Range<usize>> {
        let end = match (self.suspect, self.refused_to) {
            _ if self.start >= self.rows => return None,
            (Some(row), _) if row > self.start => row,
            (Some(_), _) => self.start + 1,
            (None, Some(end)) => self.start + (end - self.start).div_ceil(2),
            (None, None) => self.rows.min(self.start.saturating_add(self.window)),
        };
        Some(self.start..end)
    }

    /// The table took the rows.
    pub(super) fn take(&mut self, range: &Range<usize>) {
        self.run += range.len();
        self.start = range.end;
        if self.refused_to.is_none() {
            self.window = self.window.saturating_mul(2);
        }
        self.suspect = self.suspect.filter(|&row| row >= self.start);
        self.refused_to = self.refused_to.filter(|&end| end > self.start);
    }

    /// The table refused the only row.
    pub(super) fn refuse_row(&mut self) {
        self.start += 1;
        self.window = self.run.saturating_mul(2).max(1);
        self.run = 0;
        (self.refused_to, self.suspect) = (None, None);
    }

    /// The table refused a range of several rows; `suspect` is the one that it named.
    pub(super) const fn refuse_range(&mut self, range: &Range<usize>, suspect: Option<usize>) {
        (self.refused_to, self.suspect) = (Some(range.end), suspect);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Hint {
        Right,
        /// Of a row within the range, but any.
        Wrong(usize),
        None,
    }

    struct Effort {
        found: Vec<usize>,
        copies: usize,
        rows_sent: usize,
    }

    fn search(refused: &[bool], hint: Hint) -> Effort {
        let mut effort = Effort { found: Vec::new(), copies: 0, rows_sent: 0 };
        let mut search = Search::new(refused.len());
        while let Some(range) = search.next() {
            effort.copies += 1;
            effort.rows_sent += range.len();
            assert!(effort.copies <= 10 * refused.len() + 10, "it does not end");
            match refused[range.clone()].iter().position(|&refused| refused) {
                None => search.take(&range),
                Some(_) if range.len() == 1 => {
                    effort.found.push(range.start);
                    search.refuse_row();
                }
                Some(first) => search.refuse_range(
                    &range,
                    match hint {
                        Hint::Right => Some(range.start + first),
                        Hint::Wrong(any) => Some(range.start + any % range.len()),
                        Hint::None => None,
                    },
                ),
            }
        }
        effort
    }

    fn hint() -> impl Strategy<Value = Hint> {
        prop_oneof![Just(Hint::Right), any::<usize>().prop_map(Hint::Wrong), Just(Hint::None)]
    }

    #[test]
    fn one_refused_row_among_many_takes_four_copies() {
        let mut refused = vec![false; 20_000];
        refused[12_345] = true;
        let Effort { found, copies, rows_sent } = search(&refused, Hint::Right);
        assert_eq!(found, [12_345]);
        assert!(copies <= 4 && rows_sent <= 2 * refused.len(), "{copies} copies of {rows_sent} rows");
    }

    #[test]
    fn where_every_row_is_refused_each_is_sent_alone() {
        let refused = vec![true; 20_000];
        for hint in [Hint::Right, Hint::None] {
            let Effort { found, copies, rows_sent } = search(&refused, hint);
            assert_eq!(found.len(), refused.len());
            assert!(copies <= 20_020 && rows_sent <= 60_020, "{copies} copies of {rows_sent} rows");
        }
    }

    proptest! {
        #[test]
        fn all_refused_rows_are_found_and_no_others(
            refused in proptest::collection::vec(any::<bool>(), 0..300), hint in hint()
        ) {
            let expected: Vec<usize> = (0..refused.len()).filter(|&row| refused[row]).collect();
            prop_assert_eq!(search(&refused, hint).found, expected);
        }

        #[test]
        fn the_effort_grows_with_the_rows_and_not_with_their_square(
            runs in proptest::collection::vec(0..400_usize, 1..60), hints in any::<bool>()
        ) {
            let refused: Vec<bool> =
                runs.iter().flat_map(|&run| std::iter::repeat_n(false, run).chain([true])).collect();
            let Effort { copies, rows_sent, .. } = search(&refused, if hints { Hint::Right } else { Hint::None });
            prop_assert!(rows_sent <= 10 * refused.len() + 10, "{rows_sent} rows sent of {}", refused.len());
            let growing = |run: &usize| 2 * run.checked_ilog2().map_or(0, |log| log as usize + 1);
            let most = 4 * runs.len() + runs.iter().map(growing).sum::<usize>() + 20;
            prop_assert!(copies <= most, "{copies} copies of at most {most}");
        }
    }
}
