//! The command line: one file a command, which parses, calls and prints.
//!
//! Data goes to stdout; the summary, progress, logs and errors go to stderr.

mod account;
mod ack;
mod check;
mod completions;
mod config;
#[cfg(feature = "local")]
mod demo;
mod drain;
mod end;
mod examples;
mod find;
mod import;
mod infer;
mod init;
mod keygen;
mod load;
mod logging;
mod man;
mod mask;
mod output;
mod protection;
mod prune;
mod rejects;
mod rekey;
mod replay;
mod report;
mod reveal;
mod run;
mod session;
mod status;
mod transform;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp};

use account::Account;

use crate::config::{ConfigError, DatabaseUrl, Overrides};
use crate::drain::DrainLimits;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::postgres::holds_a_password;
use crate::progress::ProgressMode;
#[cfg(feature = "otel")]
use crate::trace::Trace;

/// The end of each help: the settings that are not flags.
const ENVIRONMENT: &str = "\
Environment:
  PGSLUICE_KEY       Instead of a keyring: the masking key, 32 or 64 hex digits
  PGSLUICE_FIXED_IV  The IV of columns with mask = \"fixed\", 32 hex digits
  PGSLUICE_CONFIG, PGSLUICE_QUEUE_URL, PGSLUICE_STAGING_DIR, PGSLUICE_KEY_FILE, DATABASE_URL,
  PGSLUICE_METRICS_LISTEN, PGSLUICE_METRICS_FILE, PGSLUICE_NOTIFY_URL
                     As --config, --queue-url, --staging-dir, --key-file, --database-url,
                     --metrics-listen, --metrics-file, --notify-url; a flag wins
  PGSLUICE_QUEUE_POLLERS and the like
                     Any setting of [queue], [spool], [load] and [pipeline]; wins over the file
  PGHOST, PGHOSTADDR, PGPORT, PGUSER, PGPASSWORD, PGPASSFILE, PGDATABASE, PGSERVICE,
  PGSERVICEFILE, PGOPTIONS, PGAPPNAME, PGCONNECT_TIMEOUT, PGTARGETSESSIONATTRS,
  PGLOADBALANCEHOSTS, PGREQUIREAUTH, PGCHANNELBINDING, PGSSLMODE, PGSSLROOTCERT, PGSSLCERT,
  PGSSLKEY, PGSSLCERTMODE, PGSSLSNI, PGSSLMINPROTOCOLVERSION, PGSSLMAXPROTOCOLVERSION
                     What the database's URL does not say, as psql reads them
  AWS_REGION, AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN,
  AWS_ENDPOINT_URL   Region, credentials and endpoint, as all AWS tools read them

`pgsluice config example` lists the settings of the configuration file, such as pollers in [queue].";

/// Where a password goes instead of the command line.
const KEEP_IT_OUT: &str = "give it in PGPASSWORD, in the DATABASE_URL variable or in ~/.pgpass";

/// Empties an Amazon SQS queue into a Postgres table.
#[derive(Debug, Parser)]
#[command(version = env!("BUILD_VERSION"), about, long_about = None, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    shared: SharedFlags,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Shared options")]
struct SharedFlags {
    /// Configuration file [default: pgsluice.toml where there is one]
    #[arg(long, global = true, env = "PGSLUICE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The queue's URL, its ARN, or its name
    #[arg(long, global = true, env = "PGSLUICE_QUEUE_URL", value_name = "URL")]
    queue_url: Option<String>,
    /// The database, as a libpq URL; PG* variables work too
    #[arg(long, global = true, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
    /// Where spool, chunks, rejects and archive lie [default: staging]
    #[arg(long, global = true, env = "PGSLUICE_STAGING_DIR", value_name = "DIR")]
    staging_dir: Option<PathBuf>,
    /// The keyring; `pgsluice keygen --out FILE` makes one
    #[arg(long, global = true, env = "PGSLUICE_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Write the run report to this file, as JSON; for commands that move messages
    #[arg(long, global = true, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Answer /metrics, /healthz and /readyz at this address while messages are moved
    #[arg(long, global = true, env = "PGSLUICE_METRICS_LISTEN", value_name = "ADDR")]
    metrics_listen: Option<SocketAddr>,
    /// Keep Prometheus metrics in this file, for the node exporter's textfile collector
    #[arg(long, global = true, env = "PGSLUICE_METRICS_FILE", value_name = "FILE")]
    metrics_file: Option<PathBuf>,
    /// POST the report to this URL when messages were moved, or could not be
    #[arg(long, global = true, env = "PGSLUICE_NOTIFY_URL", hide_env_values = true, value_name = "URL")]
    notify_url: Option<String>,
    /// The format of log lines
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Write log lines to this file instead of stderr
    #[arg(long, global = true, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Say more; twice says everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Show progress: a line that is redrawn on a terminal, log lines elsewhere
    #[arg(long, global = true, value_enum, default_value_t = ProgressMode::Auto)]
    progress: ProgressMode,
    #[arg(skip)]
    account: Account,
    /// The ids of those that stand on the command line.
    #[arg(skip)]
    on_command_line: BTreeSet<String>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// For collectors: one JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create the ledger, and user_logins for the built-in mapping, where they are missing
    Init(init::Flags),
    /// Drain the queue into Postgres until it is empty, and delete what is committed
    Run(run::Flags),
    /// Load segments from the spool and the archive again; needs no AWS
    Replay(replay::Flags),
    /// Bring NDJSON files of message bodies into the spool
    Import(import::Flags),
    /// Only receive: from the queue into sealed spool segments
    Drain(LimitFlags),
    /// Only transform: spool segments into CSV chunks
    Transform,
    /// Only load: chunks into Postgres
    Load(KeyFlags),
    /// Only acknowledge: delete from the queue what is committed
    Ack,
    /// Draft a mapping and its table from samples
    Infer(infer::Flags),
    /// Look at all that a run needs, try the mapping, and estimate the whole; moves nothing
    Check(check::Flags),
    /// Show segments by state, the last run, ledger totals and queue depth
    Status(status::Flags),
    /// Say what became of one message, and where it lies
    Find(find::Flags),
    /// List messages that could not become rows, show one, try them again, or give them up
    #[command(subcommand)]
    Rejects(rejects::Command),
    /// Remove what was kept for long enough: archive, rejects, and messages in the ledger
    Prune,
    /// Mask values under each key of the keyring, to find them in a masked column
    Mask(mask::Flags),
    /// Decrypt masked values: arguments, lines, or columns of CSV or JSON on stdin
    Reveal(reveal::Flags),
    /// Mask the table's values anew, with the first key of the keyring instead of older ones
    Rekey(rekey::Flags),
    /// Make a new random key, or a keyring; add a key to a keyring, or let another one encrypt
    Keygen(keygen::Flags),
    /// Make a page with charts from the report of a run, or of several
    Report(report::Flags),
    /// Show the settings and where each comes from, or what a configuration file may hold
    #[command(subcommand)]
    Config(config::Command),
    /// Print the script by which a shell completes commands and flags
    Completions(completions::Flags),
    /// Print a man page
    Man(man::Flags),
    /// Show the whole job on a temporary queue and a temporary Postgres
    #[cfg(feature = "local")]
    Demo(demo::Flags),
}

/// When a drain ends.
#[derive(Debug, Clone, Args)]
struct LimitFlags {
    /// How long to wait for messages that others hold or that are delayed
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    idle: Duration,
    /// Stop after this number of messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_messages: Option<u64>,
    /// Stop after this time
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    max_duration: Option<Duration>,
    /// Go on when the queue is empty
    #[arg(long, conflicts_with = "idle")]
    follow: bool,
    /// When to end: when the queue is empty, or when nothing is left that was sent before this command began
    #[arg(long, value_enum, default_value_t = Until::Empty, conflicts_with = "follow")]
    until: Until,
}

/// What is to be drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Until {
    /// All that the queue holds.
    Empty,
    /// What was sent before the command began, while others go on sending.
    Started,
}

/// Which masking keys may be written.
#[derive(Debug, Clone, Copy, Default, Args)]
struct KeyFlags {
    /// Write with a masking key that the columns have not been written with, and that no known key comes with
    #[arg(long)]
    new_key: bool,
}

impl LimitFlags {
    fn drain_limits(&self, started_at: Timestamp) -> DrainLimits {
        DrainLimits {
            idle: (!self.follow).then_some(self.idle),
            max_messages: self.max_messages,
            started_at_ms: (self.until == Until::Started).then(|| started_at.as_millisecond()),
        }
    }
}

impl SharedFlags {
    fn overrides(&self) -> Overrides {
        Overrides {
            config: self.config.clone(),
            queue_url: self.queue_url.clone(),
            database_url: self.database_url.clone().map(DatabaseUrl::from),
            staging_dir: self.staging_dir.clone(),
            key_file: self.key_file.clone(),
        }
    }
}

/// Parses the command line and runs the command.
pub fn run() -> Result<ExitCode, Error> {
    protection::protect();
    let matches = examples::grouped(command_line()).get_matches();
    let Cli { mut shared, command } = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let is_given = |id: &&str| matches.value_source(id) == Some(ValueSource::CommandLine);
    shared.on_command_line =
        shared_flags().get_arguments().map(|flag| flag.get_id().as_str()).filter(is_given).map(str::to_owned).collect();
    if command.moves_messages() {
        shared.account = Account::of_run(&shared);
        #[cfg(feature = "otel")]
        shared.account.begin_trace(&name_of(&matches));
    }
    // The stages wait on this thread, so their spans begin here.
    #[cfg(feature = "otel")]
    let _trace = shared.account.trace().map(Trace::enter);
    let outcome = session::survive_file_size_limit()
        .and_then(|()| logging::start(&shared))
        .and_then(|()| {
            warn_of_password(&shared);
            if shared.report.is_some() && !command.moves_messages() {
                return Err(ConfigError::NoReport { command: name_of(&matches) }.into());
            }
            shared.account.begin()
        })
        .and_then(|()| command.run(&shared));
    if let Err(error) = &outcome {
        shared.account.fail(error);
    }
    shared.account.notify();
    #[cfg(feature = "otel")]
    shared.account.deliver_trace();
    outcome
}

impl Command {
    /// Whether it moves messages, and so has something to report.
    const fn moves_messages(&self) -> bool {
        matches!(
            self,
            Self::Run(_)
                | Self::Replay(_)
                | Self::Import(_)
                | Self::Drain(_)
                | Self::Transform
                | Self::Load(_)
                | Self::Ack
                | Self::Rejects(rejects::Command::Retry(_))
        )
    }

    fn run(self, shared: &SharedFlags) -> Result<ExitCode, Error> {
        match self {
            Self::Init(flags) => init::run(shared, &flags),
            Self::Run(flags) => run::run(shared, &flags),
            Self::Replay(flags) => replay::run(shared, &flags),
            Self::Import(flags) => import::run(shared, &flags),
            Self::Drain(limits) => drain::run(shared, &limits),
            Self::Transform => transform::run(shared),
            Self::Load(keys) => load::run(shared, keys),
            Self::Ack => ack::run(shared),
            Self::Infer(flags) => infer::run(shared, &flags),
            Self::Check(flags) => check::run(shared, &flags),
            Self::Status(flags) => status::run(shared, &flags),
            Self::Find(flags) => find::run(shared, &flags),
            Self::Rejects(command) => rejects::run(shared, &command),
            Self::Prune => prune::run(shared),
            Self::Mask(flags) => session::runtime()?.block_on(mask::run(shared, &flags)),
            Self::Reveal(flags) => session::runtime()?.block_on(reveal::run(shared, &flags)),
            Self::Rekey(flags) => rekey::run(shared, &flags),
            Self::Keygen(flags) => session::runtime()?.block_on(keygen::run(shared, &flags)),
            Self::Report(flags) => report::run(shared, &flags),
            Self::Config(command) => config::run(shared, &command),
            Self::Completions(flags) => completions::run(&flags),
            Self::Man(flags) => man::run(&flags),
            #[cfg(feature = "local")]
            Self::Demo(flags) => demo::run(&flags),
        }
    }
}

/// Whoever may list processes reads the command line.
fn warn_of_password(shared: &SharedFlags) {
    if shared.on_command_line.contains("database_url") && shared.database_url.as_deref().is_some_and(holds_a_password) {
        tracing::warn!("--database-url has a password, which other users of this machine can read: {KEEP_IT_OUT}");
    }
}

/// All commands and flags, as they are parsed and as help, man pages and completions show them.
#[must_use]
pub fn command_line() -> clap::Command {
    with_endings(Cli::command(), "")
}

/// The flags that every command takes.
fn shared_flags() -> clap::Command {
    SharedFlags::augment_args(clap::Command::new("shared"))
}

/// The command that was given: `rejects list`.
fn name_of(matches: &ArgMatches) -> String {
    let mut names = Vec::new();
    let mut below = matches.subcommand();
    while let Some((name, matches)) = below {
        names.push(name);
        below = matches.subcommand();
    }
    names.join(" ")
}

/// The command of this name and all below it, each with a help that ends in [`ENVIRONMENT`] and examples.
fn with_endings(command: clap::Command, name: &str) -> clap::Command {
    let ending = format!("{ENVIRONMENT}{}", examples::examples(name));
    command.after_help(ending).mut_subcommands(|below| {
        let name = format!("{name} {}", below.get_name());
        with_endings(below, name.trim_start())
    })
}

/// Prints the error in one line, and what to do in another.
pub fn print_error(error: &Error) {
    output::say(format_args!("error: {}", error.one_line()));
    if let Some(hint) = error.hint() {
        output::say(format_args!("hint: {hint}"));
    }
}

/// `10s`, `5m`, `1h 30m`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration: SignedDuration = text.parse().map_err(|_| "expected a duration such as 10s or 5m".to_owned())?;
    Duration::try_from(duration).map_err(|_| "expected a duration that is not negative".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command_line().debug_assert();
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_mins(90)));
        assert!(parse_duration("-5s").is_err());
        assert!(parse_duration("soon").is_err());
    }
}
