//! Whether something waits for too long.
//!
//! The age of what lies in the staging directory is known. SQS tells the age of its oldest message to CloudWatch alone.
//! What is known of it here: a queue that a run has proven empty holds nothing older than that proof.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::StagingStatus;
use crate::queue::Depth;

/// What the queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct QueueStatus {
    /// Waiting to be received.
    pub visible: u64,
    /// Received by somebody and not deleted yet.
    pub in_flight: u64,
    /// Not to be received before their delay ends.
    pub delayed: u64,
    /// No message was sent before this time: then the last run that ended with exit code 0 proved the queue empty.
    pub oldest_not_before: Option<Timestamp>,
}

impl QueueStatus {
    /// What the queue says, and what the last run proved.
    #[must_use]
    pub fn of(depth: Depth, staging: Option<&StagingStatus>) -> Self {
        let done = staging.and_then(|staging| staging.last_done.as_ref());
        let emptied = done.filter(|done| done.queue_empty == Some(true)).and_then(|done| done.finished_at);
        let Depth { visible, in_flight, delayed } = depth;
        let holds_any = visible + in_flight + delayed > 0;
        Self { visible, in_flight, delayed, oldest_not_before: emptied.filter(|_| holds_any) }
    }
}

/// What waits for longer than `max_age` although no run has ended with exit code 0 since; one sentence each.
///
/// A queue that holds messages counts as waiting: how long they have been there, nothing tells.
#[must_use]
pub fn stale(staging: &StagingStatus, queue: Option<&QueueStatus>, max_age: Duration, now: Timestamp) -> Vec<String> {
    let max_age = SignedDuration::try_from(max_age).unwrap_or(SignedDuration::MAX);
    let since = now.checked_sub(max_age).unwrap_or(Timestamp::MIN);
    let done_at = staging.last_done.as_ref().and_then(|done| done.finished_at);
    if done_at.is_some_and(|done_at| done_at >= since) {
        return Vec::new();
    }
    let last = match done_at {
        Some(done_at) => {
            format!("the last run that ended with exit code 0 ended {} ago", shown(now.duration_since(done_at)))
        }
        None => "no run has ended with exit code 0 here".to_owned(),
    };
    let mut stale = Vec::new();
    if let Some((state, oldest)) = staging.oldest_waiting()
        && oldest < since
    {
        let age = shown(now.duration_since(oldest));
        stale.push(format!("a segment that is {} waits for {age}, and {last}", state.name()));
    }
    if let Some(queue) = queue
        && queue.visible + queue.in_flight + queue.delayed > 0
    {
        stale.push(format!("the queue holds messages, and {last}"));
    }
    stale
}

/// A duration in its two largest units: `3 h 20 min`.
fn shown(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{State, StateStatus};
    use super::*;
    use crate::report::LastRun;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;
    const EMPTY: Depth = Depth { visible: 0, in_flight: 0, delayed: 0 };
    const SOME: Depth = Depth { visible: 0, in_flight: 0, delayed: 1 };

    fn minutes_ago(minutes: i64) -> Timestamp {
        NOW - SignedDuration::from_mins(minutes)
    }

    /// One segment waits in this state, and one run ended with exit code 0; the numbers are ages in minutes.
    fn staging(waiting: Option<(State, i64)>, done: Option<i64>) -> StagingStatus {
        let state = |(state, minutes)| {
            let oldest_at = Some(minutes_ago(minutes));
            StateStatus { state, segments: 1, messages: 1, bytes: 1, oldest_at }
        };
        let run = |minutes| LastRun {
            run_id: String::new(),
            started_at: minutes_ago(minutes + 1),
            finished_at: Some(minutes_ago(minutes)),
            ended_by: Some("done".to_owned()),
            exit_code: Some(0),
            received: 0,
            loaded: 0,
            duplicates: 0,
            rejected: 0,
            pending: 0,
            queue_empty: Some(true),
        };
        StagingStatus {
            directory: "staging".into(),
            states: waiting.map(state).into_iter().collect(),
            damaged: Vec::new(),
            last_run: None,
            last_done: done.map(run),
        }
    }

    #[test]
    fn what_waits_is_stale_unless_a_younger_run_ended_well() {
        use State::{Acknowledged, Committed, Damaged, Open, Sealed, Staged};
        let cases = [
            (None, None, EMPTY, 0),
            (None, Some(90), EMPTY, 0),
            (None, Some(90), SOME, 1),
            (None, None, SOME, 1),
            (None, Some(30), SOME, 0),
            (Some((Sealed, 30)), Some(90), EMPTY, 0),
            (Some((Sealed, 61)), Some(90), EMPTY, 1),
            (Some((Sealed, 61)), Some(90), SOME, 2),
            (Some((Sealed, 61)), Some(59), SOME, 0),
            (Some((Open, 61)), None, EMPTY, 1),
            (Some((Committed, 61)), None, EMPTY, 1),
            (Some((Damaged, 61)), None, EMPTY, 1),
            // A part of what is sealed, and what waits for nothing.
            (Some((Staged, 61)), None, EMPTY, 0),
            (Some((Acknowledged, 61)), None, EMPTY, 0),
        ];
        for (waiting, done, depth, expected) in cases {
            let staging = staging(waiting, done);
            let queue = QueueStatus::of(depth, Some(&staging));
            let stale = stale(&staging, Some(&queue), Duration::from_hours(1), NOW);
            assert_eq!(stale.len(), expected, "{waiting:?}, {done:?}, {depth:?}: {stale:?}");
        }
    }

    #[test]
    fn a_queue_that_was_proven_empty_holds_nothing_older_than_the_proof() {
        let proven = staging(None, Some(5));
        assert_eq!(QueueStatus::of(SOME, Some(&proven)).oldest_not_before, Some(minutes_ago(5)));
        assert_eq!(QueueStatus::of(EMPTY, Some(&proven)).oldest_not_before, None);
        assert_eq!(QueueStatus::of(SOME, Some(&staging(None, None))).oldest_not_before, None);
    }

    #[test]
    fn durations_are_shown_in_their_two_largest_units() {
        let shown = |seconds| shown(SignedDuration::from_secs(seconds));
        assert_eq!([-1, 59, 60, 3660, 90_000].map(shown), ["0 s", "59 s", "1 min", "1 h 1 min", "1 d 1 h"]);
    }
}
