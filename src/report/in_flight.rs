//! The in-flight arithmetic of a run: a cap on the messages in flight bounds their rate by cap ÷ the seconds from
//! receive to delete.

use serde::Serialize;

use super::{grouped, seconds};
use crate::in_flight::InFlight;

/// A shorter time would be shown as 0.0 s.
const SHOWN_FROM_SECONDS: f64 = 0.05;

/// What the cap on messages in flight meant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InFlightReport {
    /// `max_in_flight`.
    pub cap: u32,
    /// Seconds in which at least one receive waited for room.
    pub seconds_at_cap: f64,
    /// Seconds from receive to delete, the mean; null where nothing was deleted.
    pub seconds_to_delete: Option<f64>,
    /// Messages whose visibility timeout was extended, each time counted.
    pub extensions: u64,
}

impl From<&InFlight> for InFlightReport {
    fn from(in_flight: &InFlight) -> Self {
        Self {
            cap: in_flight.cap(),
            seconds_at_cap: seconds(in_flight.time_at_cap()),
            seconds_to_delete: in_flight.mean_time_to_delete().map(seconds),
            extensions: in_flight.extensions(),
        }
    }
}

impl InFlightReport {
    /// The line of the summary, where the cap bound for a time that shows.
    pub(super) fn line(&self) -> Option<String> {
        let at_cap = Some(self.seconds_at_cap).filter(|seconds| *seconds >= SHOWN_FROM_SECONDS)?;
        let to_delete = self.seconds_to_delete.filter(|seconds| *seconds > 0.0)?;
        let (cap, rate) = (grouped(self.cap.into()), grouped(three_digits(f64::from(self.cap) / to_delete)));
        Some(format!(
            "at its cap of {cap} for {at_cap:.1} s: \
             at {to_delete:.1} s from receive to delete that allows {rate} messages/s"
        ))
    }
}

/// More digits would be more exact than the numbers that the rate is computed from.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is positive, and far below 2^64")]
pub(super) fn three_digits(rate: f64) -> u64 {
    let unit = 10_f64.powf((rate.log10().floor() - 2.0).max(0.0));
    ((rate / unit).round() * unit) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_the_cap_allows_and_is_left_out_where_the_cap_did_not_bind() {
        let report = InFlightReport { cap: 100_000, seconds_at_cap: 3.21, seconds_to_delete: Some(5.1), extensions: 0 };
        let expected = "at its cap of 100,000 for 3.2 s: at 5.1 s from receive to delete that allows 19,600 messages/s";
        assert_eq!(report.line().as_deref(), Some(expected));
        assert_eq!(InFlightReport { seconds_at_cap: 0.04, ..report.clone() }.line(), None);
        assert_eq!(InFlightReport { seconds_to_delete: None, ..report }.line(), None);
    }

    #[test]
    fn rates_have_three_digits() {
        assert_eq!([0.4, 7.6, 123.4, 19_607.8, 1_234_567.0].map(three_digits), [0, 8, 123, 19_600, 1_230_000]);
    }
}
