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

/// Waits until a run that was told to stop has used up its grace.
///
/// A grace shorter than a long poll still waits for the receives under way: they would get what is released.
pub(super) async fn grace_is_over(stop: &CancellationToken, grace: Duration, all_sealed: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(grace).await;
    _ = tokio::time::timeout(LONGEST_POLL, all_sealed.cancelled()).await;
}
