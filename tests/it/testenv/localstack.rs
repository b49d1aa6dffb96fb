//! LocalStack: a queue server by other authors, one a test process.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use super::project_path;

/// Cargo's directory for files of tests, in the target directory.
const TEMPORARY: &str = env!("CARGO_TARGET_TMPDIR");

/// Starts when it is first used.
pub(super) static LOCALSTACK: LazyLock<LocalStack> = LazyLock::new(LocalStack::start);

pub(super) struct LocalStack {
    endpoint: String,
    /// Ends when its standard input closes, so at the latest with this process.
    _server: Child,
}

impl LocalStack {
    fn start() -> Self {
        let python = Path::new(TEMPORARY).with_file_name("localstack-venv").join("bin/python");
        assert!(python.exists(), "LocalStack is not installed in {}: run `make localstack`", python.display());
        let log_path = Path::new(TEMPORARY).join("localstack.log");
        let log = File::create(&log_path).expect("a log file");
        let mut server = Command::new(python)
            .arg(project_path("tests/localstack/serve.py"))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("LocalStack's process");
        let mut endpoint = String::new();
        BufReader::new(server.stdout.take().expect("a pipe")).read_line(&mut endpoint).expect("LocalStack's output");
        assert!(!endpoint.is_empty(), "LocalStack did not start; see {}", log_path.display());
        Self { endpoint: endpoint.trim_end().to_owned(), _server: server }
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }
}
