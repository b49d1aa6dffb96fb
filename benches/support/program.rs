//! The `pgsluice` binary in a process, a directory and an environment of its own, as its users run it.

use std::fs;
use std::process::{Child, Command, Stdio};

use pgsluice::local::LocalQueue;
use serde_json::Value;
use tempfile::TempDir;

use crate::disk;

/// Environment variables.
pub(crate) type Environment = Vec<(&'static str, String)>;

/// The directory and the environment that the binary runs in. Dropping it removes the directory.
pub(crate) struct Program {
    /// Holds the staging directory, `staging`.
    pub(crate) directory: TempDir,
    environment: Environment,
}

impl Program {
    /// In an empty directory on disk, in this environment and a masking key's.
    pub(crate) fn new(mut environment: Environment) -> Self {
        environment.push(("PGSLUICE_KEY", "07".repeat(32)));
        Self { directory: disk::directory(), environment }
    }

    /// Starts a command that writes a report. Its standard error is shown.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_pgsluice"))
            .args(arguments)
            .args(["--quiet", "--report", "report.json"])
            .current_dir(self.directory.path())
            .env_clear()
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .spawn()
            .expect("a process")
    }

    /// What the last command reported.
    pub(crate) fn report(&self) -> Value {
        let report = fs::read(self.directory.path().join("report.json")).expect("a report");
        serde_json::from_slice(&report).expect("a report in JSON")
    }
}

/// The environment of a client of the local queue server.
pub(crate) fn queue_environment(server: &LocalQueue, queue: &str) -> Environment {
    vec![
        ("AWS_ENDPOINT_URL", server.endpoint()),
        ("AWS_REGION", server.region().to_owned()),
        ("AWS_ACCESS_KEY_ID", "bench".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "bench".to_owned()),
        ("PGSLUICE_QUEUE_URL", server.queue_url(queue)),
    ]
}
