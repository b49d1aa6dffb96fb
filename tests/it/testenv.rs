//! What a test works in: a temporary directory, a queue and a database, all of its own, so that tests run side by
//! side; and the binary, run in that directory with a clean environment.
//!
//! The servers behind them are shared by all tests of this process and end with it, whether it passes, fails or is
//! killed: each has a guard that reads a pipe from here.

mod database;
mod localstack;
mod outcome;
mod process;
mod proxy;
mod queue;
mod roles;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(crate) use database::{Database, postgres};
pub(crate) use outcome::{Counts, Outcome};
pub(crate) use process::Running;
pub(crate) use proxy::{Break, Point, Proxy, Traffic};
pub(crate) use queue::{Queue, QueueKind, Server};

/// `Sixteen byte key` and `InitializationVe`: the key and IV of the exercise.
pub(crate) const KEY: &str = "5369787465656e2062797465206b6579";
pub(crate) const FIXED_IV: &str = "496e697469616c697a6174696f6e5665";

/// Long enough for the slowest test on a loaded machine; a command that takes longer hangs.
const COMMAND_LIMIT: Duration = Duration::from_mins(2);

/// Where a command writes its report, unless it is one of several.
const REPORT: &str = "report.json";

/// Variables that no command may print.
const SECRETS: [&str; 4] = ["PGSLUICE_KEY", "PGSLUICE_FIXED_IV", "AWS_SECRET_ACCESS_KEY", "DATABASE_URL"];

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

    /// The first one, with keys from a keyring.
    pub(crate) fn with_keyring() -> Self {
        let mut env = Self::new(Server::Embedded);
        env.make_keyring();
        env
    }

    /// From now on keys come from the new keyring `keys.toml`, which has a key for `siv`.
    pub(crate) fn make_keyring(&mut self) {
        self.unset("PGSLUICE_KEY");
        self.pgsluice(&["keygen", "--out", "keys.toml"]).succeeds();
        self.set("PGSLUICE_KEY_FILE", "keys.toml");
    }

    /// The ids of the keys of an algorithm in the keyring `keys.toml`, in their order.
    pub(crate) fn key_ids(&self, algorithm: &str) -> Vec<String> {
        let ring = fs::read_to_string(self.path("keys.toml")).expect("a keyring");
        let ring: toml::Table = ring.parse().expect("a keyring in TOML");
        let keys = ring["key"].as_array().expect("keys").iter();
        let keys = keys.filter(|key| key["algorithm"].as_str() == Some(algorithm));
        keys.map(|key| key["id"].as_str().expect("an id").to_owned()).collect()
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
        self.start_command(self.binary(arguments), input, REPORT).ended()
    }

    /// Runs a prepared command to its end.
    pub(crate) fn run_to_end(&self, command: Command) -> Outcome {
        self.start_command(command, "", REPORT).ended()
    }

    /// Runs a command that writes a report to its end.
    pub(crate) fn job(&self, arguments: &[&str]) -> Outcome {
        self.start(arguments).wait()
    }

    /// Empties the queue into the database.
    pub(crate) fn run(&self) -> Outcome {
        self.job(&["run"])
    }

    /// Starts a command that writes a report; the test goes on meanwhile.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        self.start_reporting(arguments, REPORT)
    }

    /// Starts a command that writes none.
    pub(crate) fn start_without_report(&self, arguments: &[&str]) -> Running {
        self.start_command(self.binary(arguments), "", REPORT)
    }

    /// The same as [`Self::start`], as one of several processes: with a staging directory and a report of this name.
    pub(crate) fn start_as(&self, name: &str, arguments: &[&str]) -> Running {
        self.start_reporting(&[arguments, &["--staging-dir", name]].concat(), &format!("{name}.json"))
    }

    fn start_reporting(&self, arguments: &[&str], report: &str) -> Running {
        _ = fs::remove_file(self.path(report));
        self.start_command(self.binary(&[arguments, &["--report", report]].concat()), "", report)
    }

    /// Starts a prepared command that writes its report, where it writes one, to this file.
    pub(crate) fn start_prepared(&self, command: Command, report: &str) -> Running {
        _ = fs::remove_file(self.path(report));
        self.start_command(command, "", report)
    }

    fn start_command(&self, command: Command, input: &str, report: &str) -> Running {
        let secret = |name: &str| Some((name.to_owned(), self.variables.get(name)?.clone()));
        Running::start(command, input, self.path(report), SECRETS.into_iter().filter_map(secret).collect())
    }

    fn binary(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_pgsluice"));
        command.args(arguments);
        command
    }

    /// Any program in the binary's directory and environment.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.directory.path()).env_clear().envs(&self.variables);
        command
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The files in a part of the staging directory, by name; none where the part is not there.
    pub(crate) fn staged_files(&self, part: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("staging").join(part)).into_iter().flatten();
        let mut files: Vec<_> = entries.map(|entry| entry.expect("a directory entry").path()).collect();
        files.sort();
        files
    }

    /// The messages in all files in a part of the staging directory: the objects in their lines, except headers and seals.
    pub(crate) fn staged_objects(&self, part: &str) -> Vec<Value> {
        let read = |path: &PathBuf| fs::read_to_string(path).expect("a staged file");
        let parse = |line: &str| serde_json::from_str(line).expect("a line of JSON");
        let objects = self
            .staged_files(part)
            .iter()
            .flat_map(|path| read(path).lines().map(parse).collect::<Vec<Value>>())
            .collect::<Vec<_>>();
        objects.into_iter().filter(|object| object.get("message_id").is_some()).collect()
    }
}

/// Asks until it is so, for what happens without an event; panics where it takes longer than any command may.
pub(crate) fn wait_until(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + COMMAND_LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "it did not happen within {} s", COMMAND_LIMIT.as_secs());
        thread::sleep(POLL_INTERVAL);
    }
}

/// Makes a pipe that has neither reader nor writer.
pub(crate) fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
}

/// A path in the project.
pub(crate) fn project_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// All files below a directory, sorted.
pub(crate) fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            files.append(&mut files_below(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}
