//! The queue's attributes against the settings.

use jiff::{SignedDuration, Timestamp};

use super::Check;
use crate::config::{OnReject, QueueSettings, RejectPolicy};
use crate::queue::QueueFacts;
use crate::report::grouped;

/// A delivery to this run, one more where it is killed, and one in reserve.
const RECEIVES_WANTED: u32 = 3;
const SHORT_VISIBILITY_SECONDS: u32 = 30;
const DAY_SECONDS: i64 = 86_400;

/// Judges what the queue says of itself.
#[must_use]
pub fn check_queue(facts: &QueueFacts, settings: &QueueSettings, rejects: &RejectPolicy) -> Vec<Check> {
    let depth = facts.depth;
    let mut checks = vec![Check::ok(
        "queue",
        format!(
            "{} visible, {} in flight, {} delayed{}",
            grouped(depth.visible),
            grouped(depth.in_flight),
            grouped(depth.delayed),
            if facts.is_fifo { "; FIFO: a group's next messages wait for the deletes before them" } else { "" }
        ),
    )];
    checks.push(visibility(facts, settings));
    checks.push(redrive(facts, rejects));
    if depth.in_flight > 0 {
        checks.push(Check::warning(
            "consumers",
            format!("{} messages are in flight with other consumers", grouped(depth.in_flight)),
            "stop other consumers of the queue, or expect exit code 3 where they hold messages for longer than --idle",
        ));
    }
    checks
}

/// Judges how long the oldest message that was seen is still kept, against the time that a run takes.
#[must_use]
pub fn check_retention(
    facts: &QueueFacts,
    oldest: Option<Timestamp>,
    run_seconds: Option<f64>,
    now: Timestamp,
) -> Check {
    const NAME: &str = "retention";
    let advice = "raise MessageRetentionPeriod (14 days at most) before the run";
    let Some(retention) = facts.retention_seconds.and_then(|seconds| i64::try_from(seconds).ok()) else {
        return Check::ok(NAME, "the queue does not say how long it keeps messages");
    };
    let kept = format!("the queue keeps messages for {:.1} days", days(retention));
    let Some(oldest) = oldest else {
        return Check::ok(NAME, format!("{kept}; --peek N compares that with the age of messages"));
    };
    let left = retention - now.duration_since(oldest).as_secs();
    let seen = format!("{kept}, and the oldest of those seen expires in {:.1} days", days(left.max(0)));
    if run_seconds.is_some_and(|seconds| SignedDuration::from_secs_f64(seconds).as_secs() >= left) {
        Check::failure(NAME, format!("{seen}, before a run is done"), advice)
    } else if left < DAY_SECONDS {
        Check::warning(NAME, seen, advice)
    } else {
        Check::ok(NAME, seen)
    }
}

fn visibility(facts: &QueueFacts, settings: &QueueSettings) -> Check {
    let asked = settings.visibility_seconds;
    let own = facts.visibility_seconds.map_or_else(String::new, |own| format!(", whatever the queue's own {own} s"));
    let seen = format!("each receive asks for {asked} s{own}");
    if asked < SHORT_VISIBILITY_SECONDS {
        let advice =
            "raise queue.visibility_seconds: what is not loaded within half of it is extended, a request for ten";
        return Check::warning("visibility", seen, advice);
    }
    Check::ok("visibility", seen)
}

fn redrive(facts: &QueueFacts, rejects: &RejectPolicy) -> Check {
    const NAME: &str = "redrive policy";
    match facts.max_receives {
        None if rejects.on_reject == OnReject::Leave => Check::failure(
            NAME,
            "the queue has no redrive policy, so rejects that stay there would be received again and again",
            "give the queue a RedrivePolicy, or choose on_reject = \"keep\" or \"dlq\"",
        ),
        None => Check::ok(NAME, "none: no message moves to a dead-letter queue"),
        Some(receives) if receives < RECEIVES_WANTED => Check::warning(
            NAME,
            format!("after {receives} receives without a delete, a message moves to the dead-letter queue"),
            format!("set maxReceiveCount to {RECEIVES_WANTED} at least: a run that is killed costs a receive"),
        ),
        Some(receives) => {
            Check::ok(NAME, format!("a message moves to the dead-letter queue after {receives} receives"))
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn days(seconds: i64) -> f64 {
    seconds as f64 / DAY_SECONDS as f64
}

#[cfg(test)]
mod tests {
    use super::super::Outcome::{Failure, Ok, Warning};
    use super::*;
    use crate::queue::Depth;

    fn facts() -> QueueFacts {
        QueueFacts {
            depth: Depth { visible: 1, in_flight: 0, delayed: 0 },
            is_fifo: false,
            retention_seconds: Some(4 * 86_400),
            visibility_seconds: Some(30),
            max_receives: Some(5),
            clock: None,
            answer_ms: 1,
        }
    }

    #[test]
    fn the_receive_count_is_judged_by_what_becomes_of_rejects() {
        let of = |max_receives, on_reject| {
            let rejects = RejectPolicy { on_reject, max_rejects: None };
            redrive(&QueueFacts { max_receives, ..facts() }, &rejects).outcome
        };
        assert_eq!(of(None, OnReject::Keep), Ok);
        assert_eq!(of(None, OnReject::Leave), Failure);
        assert_eq!([1, 2, 3].map(|receives| of(Some(receives), OnReject::Keep)), [Warning, Warning, Ok]);
    }

    #[test]
    fn a_message_must_outlive_the_run() {
        let now = Timestamp::UNIX_EPOCH;
        let outcome = |age_hours, run_seconds| {
            let oldest = now - SignedDuration::from_hours(age_hours);
            check_retention(&facts(), Some(oldest), run_seconds, now).outcome
        };
        assert_eq!(outcome(71, None), Ok);
        assert_eq!(outcome(73, None), Warning);
        assert_eq!(outcome(95, Some(3599.0)), Warning);
        assert_eq!(outcome(95, Some(3600.0)), Failure);
        assert_eq!(check_retention(&facts(), None, None, now).outcome, Ok);
    }
}
