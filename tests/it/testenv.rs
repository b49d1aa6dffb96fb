//! What a test works in: a temporary directory, a queue and a database, all of its own, so that tests run side by
//! side; and the binary, run in that directory with a clean environment.
//!
//! The servers behind them are shared by all tests of this process and end with it, whether it passes, fails or is
//! killed: each has a guard that reads a pipe from here.

mod database;
mod localstack;
mod outcome;
mod proxy;
mod queue;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(crate) use database::{Database, postgres};
pub(crate) use outcome::{Counts, Outcome};
pub(crate) use proxy::{Break, Point, Proxy, Traffic};
pub(crate) use queue::{Queue, QueueKind, Server};

/// `Sixteen byte key` and `InitializationVe`: the key and IV of the exercise.
pub(crate) const KEY: &str = "5369787465656e2062797465206b6579";
pub(crate) const FIXED_IV: &str = "496e697469616c697a6174696f6e5665";

/// Long enough for the slowest test on a loaded machine; a command that takes longer hangs.
const COMMAND_LIMIT: Duration = Duration::from_mins(2);

const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Clients of the servers run here; tests themselves are synchronous.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a tokio runtime")
});

pub(crate) struct TestEnv {
    pub(crate) queue: Queue,
    pub(crate) database: Database,
    directory: TempDir,
    variables: BTreeMap<String, String>,
}

impl TestEnv {
    /// An empty queue on `server`, and a database in which `pgsluice init` ran.
    pub(crate) fn new(server: Server) -> Self {
        Self::with_queue(Queue::create(server, QueueKind::Standard)).initialised()
    }

    /// The same with a FIFO queue.
    pub(crate) fn with_fifo_queue(server: Server) -> Self {
        Self::with_queue(Queue::create(server, QueueKind::Fifo)).initialised()
    }

    /// An empty queue and an empty database.
    pub(crate) fn without_tables(server: Server) -> Self {
        Self::with_queue(Queue::create(server, QueueKind::Standard))
    }

    fn initialised(self) -> Self {
        self.pgsluice(&["init"]).succeeds();
        self
    }

    fn with_queue(queue: Queue) -> Self {
        let database = Database::create();
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
        let mut env = Self { queue, database, directory, variables: BTreeMap::new() };
        let settings = [
            ("AWS_ENDPOINT_URL", env.queue.endpoint().to_owned()),
            ("AWS_REGION", queue::REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test-secret".to_owned()),
            // A test must not find the credentials of the cloud machine that it runs on.
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("HOME", env.path("").display().to_string()),
            ("PGSLUICE_QUEUE_URL", env.queue.url().to_owned()),
            ("PGSLUICE_KEY", KEY.to_owned()),
            ("DATABASE_URL", env.database.url()),
        ];
        for (name, value) in settings {
            env.set(name, value);
        }
        env
    }

    /// Gives the binary an environment variable.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.insert(name.to_owned(), value.into());
    }

    pub(crate) fn unset(&mut self, name: &str) {
        self.variables.remove(name);
    }

    /// Writes `pgsluice.toml`, which the binary finds in its directory.
    pub(crate) fn configure(&self, toml: &str) {
        fs::write(self.path("pgsluice.toml"), toml).expect("a configuration file");
    }

    /// Goes on with an empty database in which `pgsluice init` ran.
    pub(crate) fn change_database(&mut self) {
        self.database = Database::create();
        self.set("DATABASE_URL", self.database.url());
        self.pgsluice(&["init"]).succeeds();
    }

    /// Runs a command to its end.
    pub(crate) fn pgsluice(&self, arguments: &[&str]) -> Outcome {
        self.pgsluice_with_input(arguments, "")
    }

    /// Runs a command to its end with this text as its standard input.
    pub(crate) fn pgsluice_with_input(&self, arguments: &[&str], input: &str) -> Outcome {
        let mut command = self.command(env!("CARGO_BIN_EXE_pgsluice"));
        command.args(arguments);
        self.run_to_end_with(command, input, self.report_path())
    }

    /// Runs a prepared command to its end.
    pub(crate) fn run_to_end(&self, command: Command) -> Outcome {
        self.run_to_end_with(command, "", self.report_path())
    }

    fn run_to_end_with(&self, command: Command, input: &str, report_path: PathBuf) -> Outcome {
        let outcome = run_to_end(command, input, report_path);
        for name in ["PGSLUICE_KEY", "PGSLUICE_FIXED_IV", "AWS_SECRET_ACCESS_KEY", "DATABASE_URL"] {
            if let Some(secret) = self.variables.get(name) {
                assert!(!outcome.stderr.contains(secret.as_str()), "{name} is a secret: {outcome}");
            }
        }
        outcome
    }

    /// Starts a command that the test goes on beside; what it says goes to the file `stderr`.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(env!("CARGO_BIN_EXE_pgsluice"));
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(self.path("stderr")).expect("a file"));
        Running { child: command.spawn().expect("a process") }
    }

    /// Any program in the binary's directory and environment.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.directory.path()).env_clear().envs(&self.variables);
        command
    }

    /// Runs a command that writes a report. The sum must hold, and the exit code must be the reported one.
    pub(crate) fn job(&self, arguments: &[&str]) -> Outcome {
        _ = fs::remove_file(self.report_path());
        let outcome = self.pgsluice(&[arguments, &["--report", "report.json"]].concat());
        if let Some(report) = outcome.find_report() {
            assert!(report.sum_holds(), "the sum does not hold: {report:?}");
            assert_eq!(Some(report.exit_code), outcome.code, "{outcome}");
            assert_eq!(report.ack_failed, 0, "{outcome}");
        }
        outcome
    }

    /// Empties the queue into the database.
    pub(crate) fn run(&self) -> Outcome {
        self.job(&["run"])
    }

    /// The same, as one of several processes: with a staging directory and a report of this name.
    pub(crate) fn run_as(&self, name: &str) -> Outcome {
        let report = self.path(&format!("{name}.json"));
        let mut command = self.command(env!("CARGO_BIN_EXE_pgsluice"));
        command.args(["run", "--staging-dir", name, "--report"]).arg(&report);
        self.run_to_end_with(command, "", report)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn report_path(&self) -> PathBuf {
        self.path("report.json")
    }

    /// The files in a part of the staging directory, by name; none where the part is not there.
    pub(crate) fn staged_files(&self, part: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("staging").join(part)).into_iter().flatten();
        let mut files: Vec<_> = entries.map(|entry| entry.expect("a directory entry").path()).collect();
        files.sort();
        files
    }

    /// The objects in the lines of all files in a part of the staging directory.
    pub(crate) fn staged_objects(&self, part: &str) -> Vec<Value> {
        let read = |path: &PathBuf| fs::read_to_string(path).expect("a staged file");
        let parse = |line: &str| serde_json::from_str(line).expect("a line of JSON");
        self.staged_files(part).iter().flat_map(|path| read(path).lines().map(parse).collect::<Vec<_>>()).collect()
    }
}

/// A process that runs beside the test; dropped, it is killed.
pub(crate) struct Running {
    child: Child,
}

impl Running {
    /// Whether it was still there to be killed; one that ended before must have succeeded.
    pub(crate) fn kill(mut self) -> bool {
        self.child.kill().expect("a child of this process");
        let status = self.child.wait().expect("a child of this process");
        assert!(status.code().is_none_or(|code| code == 0), "a run that nobody killed ended with {status}");
        status.code().is_none()
    }

    /// Its exit code, once it has ended by itself.
    pub(crate) fn wait(mut self) -> Option<i32> {
        let mut ended = None;
        wait_until(|| {
            ended = self.child.try_wait().expect("a child of this process");
            ended.is_some()
        });
        ended.and_then(|status| status.code())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Asks until it is so, for what happens by itself and tells nobody; panics where it takes longer than any command may.
pub(crate) fn wait_until(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + COMMAND_LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "it did not happen within {} s", COMMAND_LIMIT.as_secs());
        thread::sleep(POLL_INTERVAL);
    }
}

/// Runs a command, and kills it where it takes longer than any should.
fn run_to_end(mut command: Command, input: &str, report_path: PathBuf) -> Outcome {
    let shown = format!("{} {:?}", command.get_program().display(), command.get_args().collect::<Vec<_>>());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {shown}: {error}"));
    let (mut stdin, input) = (child.stdin.take().expect("a pipe"), input.to_owned());
    // Beside the reading of its output: a command that answers as it reads would wait for us, and we for it.
    // One that reads no input may be gone already.
    thread::spawn(move || stdin.write_all(input.as_bytes()));
    let pid = child.id();
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    let in_time = ended.recv_timeout(COMMAND_LIMIT);
    let hung = in_time.is_err();
    let output = in_time.or_else(|_| {
        _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        ended.recv()
    });
    let output = output.expect("the thread that waits for the command");
    let outcome = Outcome::new(shown, &output.expect("the output of a command"), report_path);
    assert!(!hung, "not ended within {} s: {outcome}", COMMAND_LIMIT.as_secs());
    outcome
}

/// A path in the project.
pub(crate) fn project_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
