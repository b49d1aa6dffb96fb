//! Whether the clocks of this host, of the queue and of the database agree.

use jiff::{SignedDuration, Timestamp};

use super::Check;

/// A request is signed with its time, which AWS refuses when it is 15 minutes off; and times of three clocks stand side by
/// side in the ledger and in reports.
const TOLERATED: SignedDuration = SignedDuration::from_secs(5);

/// Compares another clock with this host's at the same moment.
#[must_use]
pub fn check_clock(whose: &str, other: Timestamp, here: Timestamp) -> Check {
    let ahead = other.duration_since(here);
    let direction = if ahead.is_negative() { "behind" } else { "ahead of" };
    let seen = format!("the clock of {whose} is {} s {direction} this host's", ahead.abs().as_secs());
    if ahead.abs() <= TOLERATED {
        return Check::ok("clocks", format!("the clock of {whose} agrees with this host's"));
    }
    Check::warning("clocks", seen, "synchronise the clocks (NTP): requests are signed with the time")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Outcome;

    #[test]
    fn clocks_may_differ_by_five_seconds_either_way() {
        let outcome = |seconds| {
            check_clock("SQS", Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds), Timestamp::UNIX_EPOCH)
                .outcome
        };
        assert_eq!([-6, -5, 0, 5, 6].map(outcome), {
            use Outcome::{Ok, Warning};
            [Warning, Ok, Ok, Ok, Warning]
        });
    }
}
