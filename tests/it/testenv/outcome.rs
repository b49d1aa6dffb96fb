//! What a command did: its exit code, what it printed, and the report it wrote.

use std::fmt;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Output;

use serde::Deserialize;
use serde_json::Value;

const SIGKILL: i32 = 9;

pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    signal: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    command: String,
    report_path: PathBuf,
}

/// `report.json`, as far as tests read it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    pub(crate) counts: Counts,
    pub(crate) ack_failed: u64,
    pub(crate) rejects_by_reason: Vec<RejectCount>,
    pub(crate) stages: Stages,
    pub(crate) queue_empty: Option<bool>,
    pub(crate) exit_code: Option<i32>,
}

/// What became of the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub(crate) struct Counts {
    pub(crate) received: u64,
    pub(crate) loaded: u64,
    pub(crate) duplicates: u64,
    pub(crate) rejected: u64,
    pub(crate) pending: u64,
    pub(crate) acknowledged: u64,
}

/// Rejects with the same reason.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct RejectCount {
    pub(crate) stage: String,
    pub(crate) field: Option<String>,
    pub(crate) reason: String,
    pub(crate) count: u64,
}

/// Where the time went.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Stages {
    pub(crate) drain: Stage,
    pub(crate) transform: Stage,
    pub(crate) load: Stage,
    pub(crate) ack: Stage,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Stage {
    pub(crate) seconds_busy: f64,
    pub(crate) seconds_waiting: f64,
    pub(crate) items: u64,
}

impl Report {
    /// Rejects that are counted by their reason.
    pub(crate) fn reasons(&self) -> u64 {
        self.rejects_by_reason.iter().map(|rejects| rejects.count).sum()
    }

    pub(crate) const fn sum_holds(&self) -> bool {
        let Counts { received, loaded, duplicates, rejected, pending, .. } = self.counts;
        received == loaded + duplicates + rejected + pending
    }
}

impl Outcome {
    pub(super) fn new(command: String, output: &Output, report_path: PathBuf) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("output in UTF-8");
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        let (code, signal) = (output.status.code(), output.status.signal());
        Self { code, signal, stdout, stderr, command, report_path }
    }

    pub(crate) fn succeeds(self) -> Self {
        self.ends_with(0)
    }

    pub(crate) fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// The command is killed by SIGKILL.
    pub(crate) fn dies(self) -> Self {
        assert!(self.was_killed(), "{self}");
        self
    }

    /// Whether SIGKILL ended the command.
    pub(crate) fn was_killed(&self) -> bool {
        self.signal == Some(SIGKILL)
    }

    /// The command fails with this exit code, one line `error: …` that holds `error`, and a line `hint: …` that
    /// holds `hint`.
    pub(crate) fn fails(self, code: i32, error: &str, hint: &str) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        for (prefix, part) in [("error: ", error), ("hint: ", hint)] {
            let lines: Vec<_> = self.stderr.lines().filter(|line| line.starts_with(prefix)).collect();
            let [line] = lines[..] else { panic!("not one line `{prefix}…`: {self}") };
            assert!(line.contains(part), "no {part:?} in {line:?}: {self}");
        }
        self
    }

    /// What it printed to stdout, read as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    pub(crate) fn find_report(&self) -> Option<Report> {
        let json = fs::read(&self.report_path).ok()?;
        let report: Report = serde_json::from_slice(&json).unwrap_or_else(|error| panic!("report.json: {error}"));
        // Without a code it is of a run that was killed.
        report.exit_code.is_some().then_some(report)
    }

    pub(crate) fn report(&self) -> Report {
        self.find_report().unwrap_or_else(|| panic!("no report: {self}"))
    }

    pub(crate) fn counts(&self) -> Counts {
        self.report().counts
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, stdout, stderr, command, .. } = self;
        write!(formatter, "{command} ended with {code:?}\nstdout:\n{stdout}\nstderr:\n{stderr}")
    }
}
