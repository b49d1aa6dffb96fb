//! Several workers of one stage, side by side.

use tokio::task::JoinSet;

use crate::error::Error;

/// Waits for all workers of a stage, or for the first that fails.
pub(crate) async fn until_ended(workers: &mut JoinSet<Result<(), Error>>) -> Result<(), Error> {
    while let Some(end) = workers.join_next().await {
        end.map_err(Error::panicked)??;
    }
    Ok(())
}
