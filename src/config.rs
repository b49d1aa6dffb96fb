//! Configuration: defaults < `pgsluice.toml` < environment < flags, resolved and checked once into one [`Config`].
//!
//! The rest of the program never sees a flag, an environment variable or the file. Secrets do not `Debug`-print.

mod column_type;
mod environment;
mod error;
mod file;
mod key_source;
mod lines;
mod mistake;
mod pipeline;
mod queue_address;
mod rejects;
mod schema;
mod secrets;
mod settings;
mod tables;

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use column_type::ColumnType;
pub use error::ConfigError;
pub use file::ANNOTATED_FILE;
pub(crate) use file::escape_pointer;
pub use key_source::KeySource;
pub use pipeline::{Column, Dedupe, Mask, MessageValue, Pipeline, Source, TableName};
pub use queue_address::QueueAddress;
pub use rejects::{MaxRejects, OnReject, RejectPolicy};
pub use schema::schema;
pub use secrets::{DatabaseUrl, PasswordSource, Secret};
pub use settings::{HIDDEN, Setting, SettingSource};

const DEFAULT_FILE: &str = "pgsluice.toml";

/// Everything that a command needs to know, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which messages become which rows.
    pub pipeline: Pipeline,
    /// Where each stage's files lie.
    pub staging_dir: PathBuf,
    /// How the queue is drained.
    pub queue: QueueSettings,
    /// When a segment is sealed, and how long it is kept.
    pub spool: SpoolSettings,
    /// How Postgres is loaded.
    pub load: LoadSettings,
    /// Where the keys come from.
    pub keys: KeySource,
    queue_url: Option<String>,
    database_url: Option<DatabaseUrl>,
    password_source: Option<PasswordSource>,
}

/// How the queue is drained: `[queue]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueSettings {
    /// Parallel receives at most, and parallel deletes.
    pub pollers: usize,
    /// `WaitTimeSeconds` of a receive: 1 to 20.
    pub wait_seconds: u32,
    /// `VisibilityTimeout` of a receive: 1 s to 12 hours. The queue's own default does not count.
    pub visibility_seconds: u32,
    /// Unacknowledged messages at most. SQS itself stops at about 120,000 a queue.
    pub max_in_flight: u32,
    /// How long a run that was told to stop may take to finish what is sealed.
    pub shutdown_grace: Duration,
}

/// When a segment is sealed, and how long it is kept: `[spool]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolSettings {
    /// A segment is sealed at this number of messages,
    pub segment_max_messages: u64,
    /// at this size in bytes,
    pub segment_max_bytes: u64,
    /// or this time after its first message, whichever comes first.
    pub segment_max_age_ms: u64,
    /// Days for which acknowledged segments are kept for replay; 0 removes them at once.
    pub archive_days: u32,
    /// How long rejected messages are kept.
    pub rejects_days: u32,
    /// What messages say is encrypted, with the first spool key.
    pub encryption: bool,
}

/// How Postgres is loaded: `[load]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadSettings {
    /// Connections that load segments side by side.
    pub connections: usize,
}

/// What flags and environment say. `None` means that the file or the default decides.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--config`, PGSLUICE_CONFIG.
    pub config: Option<PathBuf>,
    /// `--queue-url`, PGSLUICE_QUEUE_URL.
    pub queue_url: Option<String>,
    /// `--database-url`, DATABASE_URL.
    pub database_url: Option<DatabaseUrl>,
    /// `--staging-dir`, PGSLUICE_STAGING_DIR.
    pub staging_dir: Option<PathBuf>,
    /// `--key-file`, PGSLUICE_KEY_FILE.
    pub key_file: Option<PathBuf>,
}

impl Overrides {
    fn read_file(&self) -> Result<file::Read, ConfigError> {
        match &self.config {
            Some(path) => file::read(path),
            None if Path::new(DEFAULT_FILE).exists() => file::read(Path::new(DEFAULT_FILE)),
            None => Ok(file::Read::default()),
        }
    }
}

impl Config {
    /// Resolves and checks the configuration. Reads the file and the environment; keys are not read yet.
    pub fn resolve(overrides: Overrides) -> Result<Self, ConfigError> {
        let file = overrides.read_file()?.with_environment(env::vars_os())?;
        let pipeline = file.pipeline()?;
        let staging_dir = overrides.staging_dir.or(file.staging_dir).unwrap_or_else(|| "staging".into());
        if staging_dir.as_os_str().is_empty() {
            let problem = "expected a path".to_owned();
            return Err(ConfigError::InvalidSetting { setting: "staging_dir", problem });
        }
        Ok(Self {
            pipeline,
            staging_dir,
            queue: file.queue.checked()?,
            spool: SpoolSettings {
                encryption: file.spool.encryption.unwrap_or(file.spool_encryption),
                ..file.spool.checked()?
            },
            load: file.load.checked()?,
            keys: KeySource::resolve(overrides.key_file.as_deref(), file.key_command, file.key_source.as_deref())?,
            queue_url: overrides.queue_url.or(file.queue_url),
            database_url: overrides.database_url.or_else(|| file.database_url.map(DatabaseUrl::from)),
            password_source: file.database.password_source,
        })
    }

    /// The queue, for commands that need SQS.
    pub fn queue_address(&self) -> Result<QueueAddress, ConfigError> {
        QueueAddress::parse(self.queue_url()?).ok_or_else(|| ConfigError::InvalidSetting {
            setting: "the queue",
            problem:
                "expected a URL such as https://sqs.eu-west-1.amazonaws.com/123456789012/login-queue, an ARN, or a name"
                    .to_owned(),
        })
    }

    /// The queue as it is configured: its URL, unless it is named otherwise and [`Self::set_queue_url`] was not called.
    pub fn queue_url(&self) -> Result<&str, ConfigError> {
        self.queue_url
            .as_deref()
            .filter(|url| !url.is_empty())
            .ok_or(ConfigError::Missing { setting: "the queue's URL", hint: "give --queue-url or PGSLUICE_QUEUE_URL" })
    }

    /// The queue's URL was asked for.
    pub fn set_queue_url(&mut self, url: &str) {
        self.queue_url = Some(url.to_owned());
    }

    /// The queue's name: the last part of its URL or ARN.
    #[must_use]
    pub fn queue_name(&self) -> Option<&str> {
        self.queue_url.as_deref().and_then(|url| url.rsplit(['/', ':']).next()).filter(|name| !name.is_empty())
    }

    /// Where Postgres is, for commands that need it. Libpq's variables alone are enough: then the URL is empty.
    pub fn database_url(&self) -> Result<DatabaseUrl, ConfigError> {
        let url = match &self.database_url {
            Some(url) if !url.expose().is_empty() => url.clone(),
            _ if ["PGHOST", "PGDATABASE", "PGSERVICE"].iter().any(|name| env::var_os(name).is_some()) => {
                DatabaseUrl::from(String::new())
            }
            _ => {
                return Err(ConfigError::Missing {
                    setting: "the database's URL",
                    hint: "give --database-url or DATABASE_URL (postgres://user@host/database), or PGHOST and its like",
                });
            }
        };
        Ok(url.with_password_from(self.password_source))
    }
}
