//! A temporary Postgres cluster from the machine's own binaries.
//!
//! Always true:
//! - it listens on a free port of 127.0.0.1 alone and knows one user, `postgres`, with a random password;
//! - server and files are gone when [`LocalPostgres`] is dropped, and also when this process ends in any other way,
//!   SIGKILL included: the server runs under a guard (`guard.sh`), a shell that reads a pipe from this process,
//!   and when the pipe closes, stops the server and removes its directory;
//! - root, whom Postgres refuses, starts it as user `postgres` or `nobody`.
//!
//! A server that does not start is reported with the end of its log.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use tokio_postgres::NoTls;

use super::error::{LocalError, START_TIMEOUT, io_error};
use super::installed::{User, find_binaries, is_root, unprivileged_user};

const GUARD: &str = include_str!("guard.sh");
/// `guard.sh`: the server ended by itself, for instance because another process took the port first.
const SERVER_ENDED: i32 = 3;
/// `guard.sh`: what it says then.
const RESTARTED: &str = "restarted\n";
const START_ATTEMPTS: u32 = 3;
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Nothing in a temporary cluster needs to survive a power loss.
const FAST_SETTINGS: [&str; 3] = ["fsync=off", "full_page_writes=off", "synchronous_commit=off"];

/// The options of a temporary cluster.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalPostgresOptions {
    /// Flush to disk as a production server does: for benches and crash tests. Slower otherwise for nothing.
    pub durable: bool,
}

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Transactions are rolled back, and everything is written: `pg_ctl stop -m fast`.
    Fast,
    /// As if it crashed; the next start recovers: `pg_ctl stop -m immediate`.
    Immediate,
}

/// A running cluster; dropped, it vanishes.
#[derive(Debug)]
pub struct LocalPostgres {
    guard: Guard,
    binaries: PathBuf,
    password: String,
    port: u16,
}

impl LocalPostgres {
    /// Creates a cluster and starts it; returns when it answers. Blocks for a second or two.
    pub fn start(options: LocalPostgresOptions) -> Result<Self, LocalError> {
        let binaries = find_binaries().ok_or(LocalError::NotInstalled)?;
        let user = if is_root()? { Some(unprivileged_user()?) } else { None };
        let mut attempt = 1;
        loop {
            match Self::start_once(&binaries, user, options) {
                // Another process may have taken the port between our choice and the server's start.
                Err(LocalError::NotStarted { .. }) if attempt < START_ATTEMPTS => attempt += 1,
                settled => return settled,
            }
        }
    }

    fn start_once(binaries: &Path, user: Option<User>, options: LocalPostgresOptions) -> Result<Self, LocalError> {
        let port = free_port()?;
        let password = random_hex::<16>()?;
        let guard = Guard::start(binaries, user, port, &password, options)?;
        let mut postgres = Self { guard, binaries: binaries.to_owned(), password, port };
        postgres.wait_until_ready()?;
        Ok(postgres)
    }

    /// The connection string of a database in the cluster, for its superuser.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// Stops the server and starts it again on the same port, with the same data; returns when it answers.
    pub fn restart(&mut self, how: Shutdown) -> Result<(), LocalError> {
        self.guard.restart(how)?;
        self.wait_until_ready()
    }

    /// The TCP port on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// A program of the server's own installation, such as `pg_dump`, which must not be older than the server.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        // PATH may have links to the server's programs, and none to this one.
        let server = self.binaries.join("postgres").canonicalize();
        server.map_or_else(|_| self.binaries.join(name), |server| server.with_file_name(name))
    }

    /// Creates an empty database. Blocks until it is there.
    pub fn create_database(&self, name: &str) -> Result<(), LocalError> {
        let statement = format!("CREATE DATABASE {}", crate::postgres::quote_identifier(name));
        let url = self.url("postgres");
        on_own_runtime(execute(&url, &statement))?.map_err(|source| LocalError::Refused { source })
    }

    fn wait_until_ready(&mut self) -> Result<(), LocalError> {
        let url = self.url("postgres");
        let guard = &mut self.guard;
        on_own_runtime(async {
            let deadline = Instant::now() + START_TIMEOUT;
            loop {
                guard.check_running()?;
                match execute(&url, "SELECT 1").await {
                    Ok(()) => return Ok(()),
                    Err(source) if Instant::now() > deadline => return Err(LocalError::NotReady { source }),
                    Err(_) => tokio::time::sleep(POLL_INTERVAL).await,
                }
            }
        })?
    }
}

/// The shell that ends the server when this process ends.
#[derive(Debug)]
struct Guard {
    shell: Child,
    #[cfg(test)]
    directory: PathBuf,
}

impl Guard {
    fn start(
        binaries: &Path,
        user: Option<User>,
        port: u16,
        password: &str,
        options: LocalPostgresOptions,
    ) -> Result<Self, LocalError> {
        // TMPDIR may be closed to another user; /tmp never is.
        let parent = if user.is_some() { PathBuf::from("/tmp") } else { env::temp_dir() };
        let directory = parent.join(format!("pgsluice-postgres-{}", random_hex::<8>()?));
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "guard"]).arg(&directory).arg(binaries).args(server_arguments(port, options));
        command.current_dir("/").env("LC_ALL", "C").stdin(Stdio::piped()).stdout(Stdio::piped());
        // Ctrl-C in a terminal goes to a whole process group; the guard must outlive us to clean up.
        command.process_group(0);
        if let Some(user) = user {
            command.uid(user.id).gid(user.group);
        }
        let mut shell = command.spawn().map_err(io_error("start the guard of a temporary Postgres"))?;
        if let Some(pipe) = &mut shell.stdin {
            writeln!(pipe, "{password}").map_err(io_error("write to the guard of a temporary Postgres"))?;
        }
        Ok(Self {
            shell,
            #[cfg(test)]
            directory,
        })
    }

    /// Returns when the old server has ended.
    fn restart(&mut self, how: Shutdown) -> Result<(), LocalError> {
        let signal = match how {
            Shutdown::Fast => "INT",
            Shutdown::Immediate => "QUIT",
        };
        let action = "restart a temporary Postgres";
        if let (Some(pipe), Some(output)) = (&mut self.shell.stdin, &mut self.shell.stdout) {
            writeln!(pipe, "{signal}").map_err(io_error(action))?;
            let mut restarted = [0; RESTARTED.len()];
            output.read_exact(&mut restarted).map_err(io_error(action))?;
        }
        Ok(())
    }

    fn check_running(&mut self) -> Result<(), LocalError> {
        let Some(status) = self.shell.try_wait().map_err(io_error("wait for a temporary Postgres"))? else {
            return Ok(());
        };
        let mut log = String::new();
        if let Some(mut output) = self.shell.stdout.take() {
            output.read_to_string(&mut log).map_err(io_error("read the log of a temporary Postgres"))?;
        }
        let started = status.code() == Some(SERVER_ENDED);
        Err(if started { LocalError::NotStarted { log } } else { LocalError::NotCreated { log } })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        _ = self.shell.wait();
    }
}

/// Runs one statement on a connection of its own.
async fn execute(url: &str, statement: &str) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let statement = async {
        let executed = client.batch_execute(statement).await;
        drop(client); // ends the connection, and with it the wait for both
        executed
    };
    tokio::join!(statement, connection).0
}

/// Runs a future on a thread of its own, because the caller may be on a runtime, where blocking on another panics.
fn on_own_runtime<T: Send>(future: impl Future<Output = T> + Send) -> Result<T, LocalError> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(future)).map_err(io_error("start a runtime"))
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn server_arguments(port: u16, options: LocalPostgresOptions) -> Vec<String> {
    // Sockets in a directory need a short path, which a temporary directory need not have.
    let mut settings = vec![
        format!("port={port}"),
        "listen_addresses=127.0.0.1".to_owned(),
        "unix_socket_directories=".to_owned(),
        "max_connections=200".to_owned(),
    ];
    if !options.durable {
        settings.extend(FAST_SETTINGS.map(str::to_owned));
    }
    settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]).collect()
}

fn free_port() -> Result<u16, LocalError> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(io_error("find a free port"))
}

fn random_hex<const BYTES: usize>() -> Result<String, LocalError> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(io::Error::from).map_err(io_error("get random bytes"))?;
    Ok(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    #[test]
    fn a_dropped_cluster_vanishes() {
        let postgres = LocalPostgres::start(LocalPostgresOptions::default()).unwrap();
        let directory = postgres.guard.directory.clone();
        postgres.create_database("logins").unwrap();
        on_own_runtime(execute(&postgres.url("logins"), "SELECT 1")).unwrap().unwrap();
        let wrong_password = postgres.url("logins").replace(&postgres.password, "wrong");
        on_own_runtime(execute(&wrong_password, "SELECT 1")).unwrap().unwrap_err();
        assert!(directory.exists());
        drop(postgres);
        assert!(!directory.exists());
    }

    #[test]
    fn a_restarted_cluster_keeps_what_was_committed_and_vanishes_like_any() {
        let mut postgres = LocalPostgres::start(LocalPostgresOptions { durable: true }).unwrap();
        let directory = postgres.guard.directory.clone();
        let run = |postgres: &LocalPostgres, sql| on_own_runtime(execute(&postgres.url("postgres"), sql)).unwrap();
        run(&postgres, "CREATE TABLE kept (number integer)").unwrap();
        for how in [Shutdown::Fast, Shutdown::Immediate] {
            run(&postgres, "INSERT INTO kept VALUES (1)").unwrap();
            postgres.restart(how).unwrap();
        }
        run(&postgres, "SELECT 1 / (count(*) - 1) FROM kept").unwrap();
        drop(postgres);
        assert!(!directory.exists());
    }

    #[test]
    fn a_cluster_vanishes_when_its_process_is_killed() {
        let this_test = env::current_exe().unwrap();
        let mut child = Command::new(this_test)
            .args(["--exact", "local::postgres::tests::child_that_is_killed", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let directory =
            output.lines().map(Result::unwrap).find_map(|line| Some(line.split_once("started in ")?.1.to_owned()));
        let directory = PathBuf::from(directory.unwrap());
        assert!(directory.exists());
        child.kill().unwrap();
        // The guard inherited this pipe; its end is the guard's.
        child.stderr.take().unwrap().read_to_end(&mut Vec::new()).unwrap();
        child.wait().unwrap();
        assert!(!directory.exists());
    }

    #[test]
    #[ignore = "run, and killed, by a_cluster_vanishes_when_its_process_is_killed"]
    #[allow(clippy::print_stdout, reason = "tells the test that started this process")]
    fn child_that_is_killed() {
        let postgres = LocalPostgres::start(LocalPostgresOptions::default()).unwrap();
        println!("started in {}", postgres.guard.directory.display());
        io::stdin().read_to_end(&mut Vec::new()).unwrap();
        drop(postgres);
    }
}
