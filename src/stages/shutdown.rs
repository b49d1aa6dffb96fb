//! How a run ends early: after a time, or told to stop, with a grace for what is sealed.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// SQS allows 20 s.
const LONGEST_POLL: Duration = Duration::from_secs(21);

/// Cancelled with `stop`, and by itself after `max_duration`.
#[must_use]
pub fn stop_after(stop: &CancellationToken, max_duration: Option<Duration>) -> CancellationToken {
    let stop = stop.child_token();
    if let Some(max_duration) = max_duration {
        let timer = stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(max_duration).await;
            timer.cancel();
        });
    }
    stop
}

/// Does something beside a run: at once, and after each `period`. A last time that has begun when the run ends is
/// finished.
pub async fn beside<T>(run: impl Future<Output = T>, period: Duration, again: impl AsyncFn()) -> T {
    let ended = CancellationToken::new();
    let run = async {
        let outcome = run.await;
        ended.cancel();
        outcome
    };
    let repeat = async {
        while !ended.is_cancelled() {
            again().await;
            _ = tokio::time::timeout(period, ended.cancelled()).await;
        }
    };
    tokio::join!(run, repeat).0
}

/// Waits until a run that was told to stop has used up its grace.
///
/// A grace shorter than a long poll still waits for the receives under way: they would get what is released.
pub(super) async fn grace_is_over(stop: &CancellationToken, grace: Duration, all_sealed: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(grace).await;
    _ = tokio::time::timeout(LONGEST_POLL, all_sealed.cancelled()).await;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_done_beside_a_run_is_done_at_once_and_after_each_period() {
        let (hour, times) = (Duration::from_hours(1), AtomicU32::new(0));
        let again = async || _ = times.fetch_add(1, Ordering::Relaxed);
        assert_eq!(beside(async { 7 }, hour, &again).await, 7);
        assert!(times.swap(0, Ordering::Relaxed) <= 1, "a run that ends at once");
        beside(tokio::time::sleep(hour * 2 + hour / 2), hour, &again).await;
        assert_eq!(times.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_begun_beside_a_run_is_finished() {
        let (hour, done) = (Duration::from_hours(1), AtomicU32::new(0));
        let slow = async || {
            tokio::time::sleep(hour * 2).await;
            done.fetch_add(1, Ordering::Relaxed);
        };
        beside(tokio::time::sleep(hour), hour, slow).await;
        assert_eq!(done.load(Ordering::Relaxed), 1);
    }
}
