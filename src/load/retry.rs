//! When a load is tried again: after every error that [`LoadError::is_transient`] says may pass, a few times, at
//! growing distances.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use crate::error::LoadError;

/// Retries after the first attempt. With the delays below a server has about 15 s to restart.
const RETRIES: usize = 6;

/// The attempts that are left.
#[derive(Debug)]
pub(super) struct Retries {
    /// Each up to twice as long as it says, so that loaders do not come in step.
    delays: ExponentialBackoff,
}

impl Retries {
    pub(super) fn new() -> Self {
        let delays = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(250))
            .with_max_delay(Duration::from_secs(8))
            .with_max_times(RETRIES)
            .with_jitter();
        Self { delays: delays.build() }
    }

    /// Waits before the next attempt, or gives the error back: it does not pass, or none is left.
    pub(super) async fn wait_after(&mut self, error: LoadError) -> Result<(), LoadError> {
        let delay = if error.is_transient() { self.delays.next() } else { None };
        let Some(delay) = delay else { return Err(error) };
        tracing::warn!(%error, delay_ms = delay.as_millis(), "trying Postgres again");
        tokio::time::sleep(delay).await;
        Ok(())
    }
}
