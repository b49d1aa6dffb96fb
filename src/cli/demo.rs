//! `pgsluice demo`: the whole job on a queue server and a Postgres of its own, with nothing to configure.
//!
//! The steps are real `pgsluice` commands, each a process of its own, shown as they are run.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::Args;
use tempfile::TempDir;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::output::print_line;
use super::session::runtime;
use crate::advice::BoxedError;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::local::{Faults, LocalPostgres, LocalPostgresOptions, LocalQueue, Logins};
use crate::report::grouped;

const QUEUE: &str = "login-queue";
const DATABASE: &str = "demo";
/// About one message in a hundred is delivered twice.
const REDELIVER_EVERY: u32 = 100;

#[derive(Debug, Clone, Args)]
pub(super) struct Flags {
    /// The number of messages in the queue
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    messages: u32,
}

/// Everything that the demo starts; dropping it stops the servers and removes the directory.
struct Demo {
    program: PathBuf,
    queue: LocalQueue,
    postgres: LocalPostgres,
    directory: TempDir,
    key: String,
}

pub(super) fn run(flags: &Flags) -> Result<ExitCode, Error> {
    let demo = Demo::start()?;
    let sent = demo.fill_queue(flags.messages)?;
    print_line(format_args!(
        "{} messages are in {QUEUE}; Postgres is empty; everything lies in a temporary directory",
        grouped(sent)
    ))?;

    demo.show(&["init"])?;
    let code = demo.show(&["run", "--progress", "never"])?;
    let rows = runtime()?.block_on(demo.query("SELECT * FROM user_logins LIMIT 5"))?;
    print_line(format_args!("\nuser_logins, 5 rows:"))?;
    for row in &rows {
        print_line(format_args!("  {}", row.join(" | ")))?;
    }
    if let Some(masked) = rows.first().and_then(|row| row.get(2)) {
        print_line(format_args!("\nthe key reveals masked_ip of the first row:"))?;
        demo.show(&["reveal", masked])?;
    }
    let rejects = runtime()?.block_on(demo.query("SELECT reason, count(*) FROM pgsluice.reject GROUP BY 1"))?;
    print_line(format_args!("\nwhy messages were rejected (their bodies stay in staging/rejects/):"))?;
    for row in &rejects {
        print_line(format_args!("  {}", row.join(" | ")))?;
    }
    Ok(code)
}

impl Demo {
    fn start() -> Result<Self, Error> {
        let demo = Self {
            program: env::current_exe().map_err(failed("find this program"))?,
            queue: LocalQueue::start(Faults { redeliver_every: Some(REDELIVER_EVERY) })
                .map_err(failed("start a queue"))?,
            postgres: LocalPostgres::start(LocalPostgresOptions::default()).map_err(failed("start Postgres"))?,
            directory: TempDir::with_prefix("pgsluice-demo-").map_err(failed("create a directory"))?,
            key: String::new(),
        };
        demo.postgres.create_database(DATABASE).map_err(failed("create a database"))?;
        demo.queue.create_queue(QUEUE).map_err(failed("create a queue"))?;
        let key = demo.command(&["keygen"]).output().map_err(failed("make a key"))?;
        Ok(Self { key: String::from_utf8_lossy(&key.stdout).trim().to_owned(), ..demo })
    }

    fn fill_queue(&self, messages: u32) -> Result<u64, Error> {
        let seed = u64::from(std::process::id());
        let bodies = Logins::new(seed).take(messages as usize).collect();
        let sent = self.queue.send(QUEUE, bodies).map_err(failed("fill the queue"))?;
        Ok(sent as u64)
    }

    /// Shows a command of pgsluice, runs it, and lets it print.
    fn show(&self, arguments: &[&str]) -> Result<ExitCode, Error> {
        print_line(format_args!("\n$ pgsluice {}", arguments.join(" ")))?;
        let status = self.command(arguments).status().map_err(failed("run pgsluice"))?;
        Ok(if status.success() { ExitCode::Done } else { ExitCode::Failed })
    }

    /// A command in an environment that holds the demo's servers and nothing else.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env_clear()
            .env("AWS_ENDPOINT_URL", self.queue.endpoint())
            .env("AWS_REGION", self.queue.region())
            .env("AWS_ACCESS_KEY_ID", "demo")
            .env("AWS_SECRET_ACCESS_KEY", "demo")
            .env("PGSLUICE_QUEUE_URL", self.queue.queue_url(QUEUE))
            .env("DATABASE_URL", self.postgres.url(DATABASE))
            .env("PGSLUICE_KEY", &self.key)
            .stdin(Stdio::null());
        command
    }

    /// The rows of a query, as texts.
    async fn query(&self, sql: &str) -> Result<Vec<Vec<String>>, Error> {
        let connect = tokio_postgres::connect(&self.postgres.url(DATABASE), NoTls).await;
        let (client, connection) = connect.map_err(failed("connect to Postgres"))?;
        tokio::spawn(connection);
        let messages = client.simple_query(sql).await.map_err(failed("query Postgres"))?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).unwrap_or("null").to_owned()).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }
}

fn failed<E: Into<BoxedError>>(action: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::Demo { action, source: source.into() }
}
