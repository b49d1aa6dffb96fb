//! The tables of `pgsluice.toml` as they are written. The documentation of each key is its description in the JSON Schema.
//!
//! Always true: a file that is empty has the values of the annotated one.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::PasswordSource;
use super::column_type::ColumnType;
use super::pipeline::{Dedupe, Mask, MessageValue};
use super::rejects::{MaxRejects, OnRejectName};

/// The configuration of pgsluice. Flags and environment variables win over it.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
#[schemars(title = "pgsluice.toml")]
pub(super) struct ConfigFile {
    /// The queue's URL, its ARN, or its name.
    pub(super) queue_url: Option<String>,
    /// The database, as a libpq URL. Keep a password out of it: PGPASSWORD, a password file, or `password_source`.
    #[serde(skip_serializing)] // it may hold a password
    pub(super) database_url: Option<String>,
    /// Where spool, chunks, rejects and archive lie.
    #[schemars(extend("default" = "staging"))]
    pub(super) staging_dir: Option<PathBuf>,
    /// A program and its arguments, which print a keyring.
    #[serde(skip_serializing)] // an argument may be a secret
    #[schemars(length(min = 1))]
    pub(super) key_command: Option<Vec<String>>,
    /// `aws-secretsmanager:` and the name or ARN of a secret that holds a keyring.
    #[schemars(regex(pattern = "^aws-secretsmanager:."))]
    pub(super) key_source: Option<String>,
    /// What `encryption` in `[spool]` is where that does not say.
    #[serde(default)]
    pub(super) spool_encryption: bool,
    /// How Postgres is reached.
    #[serde(default)]
    pub(super) database: DatabaseTable,
    /// How the queue is drained.
    #[serde(default)]
    pub(super) queue: QueueTable,
    /// When a segment is sealed, and how long it is kept.
    #[serde(default)]
    pub(super) spool: SpoolTable,
    /// How Postgres is loaded.
    #[serde(default)]
    pub(super) load: LoadTable,
    /// Which messages become rows of which table.
    #[serde(default)]
    pub(super) pipeline: PipelineTable,
    /// The mapped columns of the table. Those declared here replace the built-in ones as a whole.
    #[serde(default, rename = "column")]
    pub(super) columns: Vec<ColumnTable>,
}

/// How Postgres is reached.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct DatabaseTable {
    /// Where the password comes from, if not from the URL, PGPASSWORD or a password file.
    pub(super) password_source: Option<PasswordSource>,
}

/// How the queue is drained.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct QueueTable {
    /// Parallel receives of up to 10 messages, at most, and parallel deletes.
    #[schemars(range(min = 1, max = 256))]
    pub(super) pollers: usize,
    /// The long poll, which is how long a receive waits for a first message.
    #[schemars(range(min = 1, max = 20))]
    pub(super) wait_seconds: u32,
    /// How long what is received stays invisible to others, whatever the queue's own default is.
    #[schemars(range(min = 1, max = 43_200))]
    pub(super) visibility_seconds: u32,
    /// Messages received and not yet deleted, at most.
    #[schemars(range(min = 10, max = 120_000))]
    pub(super) max_in_flight: u32,
    /// A run that is told to stop finishes what is sealed in this number of milliseconds.
    #[schemars(range(min = 0, max = 3_600_000))]
    pub(super) shutdown_grace_ms: u64,
}

/// When a segment is sealed, and how long it is kept.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct SpoolTable {
    /// A segment is sealed at this number of messages,
    #[schemars(range(min = 1))]
    pub(super) segment_max_messages: u64,
    /// or at this size in bytes,
    #[schemars(range(min = 1, max = 1_073_741_824))]
    pub(super) segment_max_bytes: u64,
    /// or at this number of milliseconds after its first message.
    #[schemars(range(min = 1, max = 86_400_000))]
    pub(super) segment_max_age_ms: u64,
    /// Acknowledged segments are kept for replay for this number of days; 0: not at all.
    #[schemars(range(min = 0, max = 36_500))]
    pub(super) archive_days: u32,
    /// Rejected messages are kept for this number of days.
    #[schemars(range(min = 1, max = 36_500))]
    pub(super) rejects_days: u32,
    /// Encrypts what messages say, with the first `spool` key of the keyring.
    #[schemars(with = "bool", extend("default" = false))]
    pub(super) encryption: Option<bool>,
}

/// How Postgres is loaded.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct LoadTable {
    /// Postgres connections that load segments side by side.
    #[schemars(range(min = 1, max = 64))]
    pub(super) connections: usize,
}

/// Which messages become rows of which table.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct PipelineTable {
    /// The ledger keeps pipelines apart by this name.
    #[schemars(length(min = 1), extend("default" = "user_logins"))]
    pub(super) name: Option<String>,
    /// The table: `table` or `schema.table`.
    #[schemars(extend("default" = "public.user_logins"))]
    pub(super) table: Option<String>,
    /// What makes two deliveries the same.
    #[serde(default)]
    pub(super) dedupe: Dedupe,
    /// What becomes of a message that cannot become a row.
    #[serde(default)]
    pub(super) on_reject: OnRejectName,
    /// With on_reject = "dlq": the URL of the queue that rejects are sent to.
    pub(super) dlq_url: Option<String>,
    /// With more rejects the run stops: a number, or a share of the messages of the run such as "5%".
    pub(super) max_rejects: Option<MaxRejects>,
}

/// A mapped column of the table.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct ColumnTable {
    /// The table's column.
    #[schemars(length(min = 1))]
    pub(super) name: String,
    /// JSON pointer (RFC 6901) into the body; "" is the whole body. Default: the body's member of the column's name.
    #[schemars(regex(pattern = "^(/.*)?$"))]
    pub(super) from: Option<String>,
    /// Instead of `from`, what the message has beside its body.
    pub(super) value: Option<MessageValue>,
    /// What the value must be, or the message is a reject. Default: text.
    #[serde(rename = "type")]
    pub(super) kind: Option<ColumnType>,
    /// With type = "version", how the number is made.
    pub(super) version: Option<VersionForm>,
    /// A missing or null value is a reject; otherwise it is NULL.
    #[serde(default)]
    pub(super) required: bool,
    /// Text only: characters at most, counted after masking.
    pub(super) max_length: Option<usize>,
    /// Numeric only: decimal digits at most.
    pub(super) scale: Option<u16>,
    /// Text only: how the value is encrypted. It needs a key.
    pub(super) mask: Option<Mask>,
    /// With mask = "siv": what the column was called when its values were masked. Default: the column's name.
    pub(super) mask_name: Option<String>,
}

/// How the number of a version is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum VersionForm {
    /// The dots are removed: "2.3.0" is 230.
    Dotless,
    /// Three digits a part: "2.3.0" is 2003000, which sorts.
    Packed,
}

impl Default for QueueTable {
    fn default() -> Self {
        Self { pollers: 64, wait_seconds: 1, visibility_seconds: 300, max_in_flight: 100_000, shutdown_grace_ms: 8_000 }
    }
}

impl Default for SpoolTable {
    fn default() -> Self {
        Self {
            segment_max_messages: 20_000,
            segment_max_bytes: 64 << 20,
            segment_max_age_ms: 2000,
            archive_days: 7,
            rejects_days: 90,
            encryption: None,
        }
    }
}

impl Default for LoadTable {
    fn default() -> Self {
        Self { connections: 2 }
    }
}
