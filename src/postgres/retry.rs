//! When work on Postgres is tried again: after every error that [`Advised::is_transient`] says may pass, a few times, at
//! growing distances.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use crate::advice::Advised;

/// Retries after the first attempt. With the delays below a server has about 15 s to restart.
const RETRIES: usize = 6;

/// The attempts that are left.
#[derive(Debug)]
pub(crate) struct Retries {
    /// Each up to twice as long as it says, so that loaders do not come in step.
    delays: ExponentialBackoff,
}

impl Retries {
    pub(crate) fn new() -> Self {
        let delays = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(250))
            .with_max_delay(Duration::from_secs(8))
            .with_max_times(RETRIES)
            .with_jitter();
        Self { delays: delays.build() }
    }

    /// Waits before the next attempt, or gives the error back: it does not pass, or none is left.
    pub(crate) async fn wait_after<E: Advised>(&mut self, error: E) -> Result<(), E> {
        let delay = if error.is_transient() { self.delays.next() } else { None };
        let Some(delay) = delay else { return Err(error) };
        tracing::warn!(%error, delay_ms = delay.as_millis(), "trying Postgres again");
        tokio::time::sleep(delay).await;
        Ok(())
    }
}
