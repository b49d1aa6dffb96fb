//! The reports that the staging directory keeps of its runs, so that `status` can say how the last one ended.
//!
//! `last-run.json` is the report of the last `run`: as of its beginning while it runs, or where it was killed.
//! `last-done.json` is that of the last `run` that ended with exit code 0. Both have the format of `report.json`.

use std::io::{self, BufReader};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Report;
use crate::durable::{FileError, Place, replace_unflushed};
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
        let json = self.to_json();
        replace_unflushed(&staging.last_run(), &json)?;
        if self.exit_code == Some(0) { replace_unflushed(&staging.last_done(), &json) } else { Ok(()) }
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

fn read(place: &Place) -> Result<Option<LastRun>, FileError> {
    let file = match place.open() {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    serde_json::from_reader(BufReader::new(file)).map(Some).map_err(io::Error::from).map_err(place.failed("read"))
}
