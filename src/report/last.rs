//! The reports that the staging directory keeps of its runs, so that `status` can say how the last one ended.
//!
//! `last-run.json` is the report of the last `run`: as of its beginning while it runs, or where it was killed.
//! `last-done.json` is that of the last `run` that ended with exit code 0. Both have the format of `report.json`.

use std::fs;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Report;
use crate::durable::{FileError, replace_unflushed};
use crate::staging::Staging;

/// What a kept report says of its run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the keys of report.json")]
pub struct LastRun {
    pub run_id: String,
    pub started_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    pub ended_by: Option<String>,
    pub exit_code: Option<u8>,
    pub received: u64,
    pub loaded: u64,
    pub duplicates: u64,
    pub rejected: u64,
    pub pending: u64,
    pub queue_empty: Option<bool>,
}

impl Report {
    /// Keeps the report as that of the last run and, where it ended with exit code 0, of the last that did.
    pub fn keep(&self, staging: &Staging) -> Result<(), FileError> {
        let path = staging.last_run();
        let json = serde_json::to_string_pretty(self).map_err(io::Error::from);
        let json = json.map_err(FileError::of("write", &path))? + "\n";
        replace_unflushed(&path, json.as_bytes())?;
        if self.exit_code == Some(0) { replace_unflushed(&staging.last_done(), json.as_bytes()) } else { Ok(()) }
    }
}

impl LastRun {
    /// The last run of this staging directory.
    pub fn read(staging: &Staging) -> Result<Option<Self>, FileError> {
        read(&staging.last_run())
    }

    /// The last run that ended with exit code 0.
    pub fn read_done(staging: &Staging) -> Result<Option<Self>, FileError> {
        read(&staging.last_done())
    }
}

fn read(path: &Path) -> Result<Option<LastRun>, FileError> {
    let json = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        json => json.map_err(FileError::of("read", path))?,
    };
    serde_json::from_slice(&json).map(Some).map_err(io::Error::from).map_err(FileError::of("read", path))
}
