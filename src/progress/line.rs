//! What is said of a run's progress, in one line.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::counters::{Counters, Expected};
use crate::gate::Gate;
use crate::report::grouped;

/// Over which the rate is a mean: segments commit as a whole, so that a shorter time would show jumps.
const WINDOW: Duration = Duration::from_secs(10);

/// The line as it is now.
#[derive(Debug)]
pub(super) struct Line {
    counters: Arc<Counters>,
    gate: Arc<Gate>,
    pace: Pace,
}

impl Line {
    pub(super) fn new(counters: Arc<Counters>, gate: Arc<Gate>) -> Self {
        Self { counters, gate, pace: Pace::default() }
    }

    pub(super) fn now(&mut self) -> String {
        let counts = self.counters.counts();
        let expected = self.counters.expected();
        let done = match expected {
            Some(Expected { are_received: true, .. }) => counts.received.max(self.counters.drain.counts().items),
            _ => counts.loaded + counts.duplicates + counts.rejected,
        };
        let in_flight = self.counters.in_flight.get();
        let seen = Seen {
            done,
            expected,
            a_second: self.pace.at(counts.elapsed, done),
            rejected: counts.rejected,
            in_flight: in_flight.map(|in_flight| in_flight.messages()),
            waits_for: self.gate.waits_for().or_else(|| in_flight?.is_full().then_some("no room in flight")),
        };
        seen.to_string()
    }
}

/// How fast something grows.
#[derive(Debug, Default)]
struct Pace(VecDeque<(Duration, u64)>);

impl Pace {
    /// The mean rate a second, when `done` is reached after `elapsed`.
    fn at(&mut self, elapsed: Duration, done: u64) -> f64 {
        if self.0.is_empty() {
            self.0.push_back((Duration::ZERO, 0));
        }
        self.0.push_back((elapsed, done));
        // One older than the window stays, where it begins.
        while self.0.get(1).is_some_and(|(at, _)| elapsed.saturating_sub(*at) >= WINDOW) {
            self.0.pop_front();
        }
        let (from, before) = self.0.front().copied().unwrap_or_default();
        let seconds = elapsed.saturating_sub(from).as_secs_f64();
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        let grown = done.saturating_sub(before) as f64;
        if seconds > 0.0 { grown / seconds } else { 0.0 }
    }
}

/// What there is to say.
#[derive(Debug, Clone, Copy)]
struct Seen {
    done: u64,
    expected: Option<Expected>,
    a_second: f64,
    rejected: u64,
    in_flight: Option<u64>,
    waits_for: Option<&'static str>,
}

impl std::fmt::Display for Seen {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "for people, and none is negative"
    )]
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&grouped(self.done))?;
        if let Some(Expected { messages, is_estimate, .. }) = self.expected {
            // More may have been sent meanwhile.
            let messages = messages.max(self.done);
            let about = if is_estimate { "~" } else { "" };
            let percent = self.done.checked_mul(100).and_then(|done| done.checked_div(messages)).unwrap_or(100);
            write!(formatter, " of {about}{} ({percent} %)", grouped(messages))?;
        }
        write!(formatter, " · {}/s", grouped(self.a_second as u64))?;
        if self.rejected > 0 {
            write!(formatter, " · rejected {}", grouped(self.rejected))?;
        }
        if let Some(in_flight) = self.in_flight {
            write!(formatter, " · in flight {}", grouped(in_flight))?;
        }
        let left = self.expected.map_or(0, |expected| expected.messages.saturating_sub(self.done));
        if left > 0 && self.a_second >= 1.0 {
            write!(formatter, " · {} left", duration((left as f64 / self.a_second).ceil() as u64))?;
        }
        self.waits_for.map_or(Ok(()), |what| write!(formatter, " · {what}"))
    }
}

/// `28 s`, `3 min`, `2 h 5 min`.
fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: Seen =
        Seen { done: 12_490, expected: None, a_second: 2400.7, rejected: 0, in_flight: Some(9100), waits_for: None };

    #[test]
    fn the_line_says_how_far_how_fast_and_how_long() {
        let about = Some(Expected { messages: 80_000, is_estimate: true, are_received: false });
        let counted = Some(Expected { messages: 80_000, is_estimate: false, are_received: false });
        for (seen, line) in [
            (Seen { expected: about, ..SEEN }, "12,490 of ~80,000 (15 %) · 2,400/s · in flight 9,100 · 29 s left"),
            (Seen { expected: counted, in_flight: None, ..SEEN }, "12,490 of 80,000 (15 %) · 2,400/s · 29 s left"),
            (SEEN, "12,490 · 2,400/s · in flight 9,100"),
            (Seen { rejected: 3, ..SEEN }, "12,490 · 2,400/s · rejected 3 · in flight 9,100"),
            (
                Seen { a_second: 0.0, expected: about, waits_for: Some("no room in flight"), ..SEEN },
                "12,490 of ~80,000 (15 %) · 0/s · in flight 9,100 · no room in flight",
            ),
            (Seen { done: 90_000, expected: about, ..SEEN }, "90,000 of ~90,000 (100 %) · 2,400/s · in flight 9,100"),
        ] {
            assert_eq!(seen.to_string(), line);
        }
        assert_eq!([119, 120, 7199, 7500].map(duration), ["119 s", "2 min", "119 min", "2 h 5 min"]);
    }

    #[test]
    fn the_rate_is_that_of_the_last_ten_seconds() {
        let mut pace = Pace::default();
        let rates = (1..=20).map(|second| {
            let done = if second <= 10 { second * 100 } else { 1000 + (second - 10) * 300 };
            pace.at(Duration::from_secs(second), done)
        });
        let rates: Vec<f64> = rates.collect();
        let is = |rate: f64, expected: f64| (rate - expected).abs() < 1e-9;
        assert!(
            is(rates[0], 100.0) && is(rates[9], 100.0) && is(rates[14], 200.0) && is(rates[19], 300.0),
            "{rates:?}"
        );
    }
}
