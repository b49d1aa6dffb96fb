//! The metrics in a file, for the node exporter's textfile collector.
//!
//! Always true: whoever reads the file reads it whole, because it is renamed into place. It is no record of anything, so
//! it is not flushed to disk; and another user may read it, as the collector does.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Metrics;
use crate::durable::FileError;

const EVERY: Duration = Duration::from_secs(10);

/// Writes the metrics as they are now.
pub fn write_file(metrics: &Metrics, path: &Path) -> Result<(), FileError> {
    let write = || -> io::Result<()> {
        let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
        // The collector reads `*.prom` alone.
        let mut unfinished = name.to_owned();
        unfinished.push(".unfinished");
        let unfinished = path.with_file_name(unfinished);
        fs::write(&unfinished, metrics.classic())?;
        fs::rename(&unfinished, path)
    };
    write().map_err(FileError::of("write", path))
}

/// Writes the file every ten seconds, until it is dropped. What fails is said once.
pub async fn keep_written(metrics: Arc<Metrics>, path: Arc<Path>) {
    let mut ticks = tokio::time::interval(EVERY);
    let mut is_said = false;
    ticks.tick().await; // the first is immediate, and the file is written already
    loop {
        ticks.tick().await;
        if let Err(error) = write_file(&metrics, &path)
            && !is_said
        {
            is_said = true;
            tracing::warn!("metrics are not written: {error}: {}", error.source);
        }
    }
}
