//! Two pipelines with two mappings, each on two hosts: their names, tables, configurations and messages, and what must
//! become of a message, worked out here and not by the code under test.
//!
//! The tables are alike, so that a chunk of the one pipeline loads into the other's table without an error; the bodies
//! are not. The second mapping requires nothing, so that a body of the first one becomes a row of nulls in it.

use std::fmt;

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};

/// A pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pipeline {
    Logins,
    Visits,
}

/// A staging directory: a pipeline on one of two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) pipeline: Pipeline,
    /// 1 or 2.
    pub(super) host: u8,
}

pub(super) const PIPELINES: [Pipeline; 2] = [Pipeline::Logins, Pipeline::Visits];

pub(super) const PLACES: [Place; 4] = [
    Place { pipeline: Pipeline::Logins, host: 1 },
    Place { pipeline: Pipeline::Logins, host: 2 },
    Place { pipeline: Pipeline::Visits, host: 1 },
    Place { pipeline: Pipeline::Visits, host: 2 },
];

/// Received messages are visible again after this time, where nobody extends it.
pub(super) const VISIBILITY_SECONDS: u32 = 3;

/// Settings that hurry a run: small segments, soon sealed, so that at any moment there is one in every stage.
///
/// What is received is visible again after [`VISIBILITY_SECONDS`].
const SETTINGS: &str = "
[queue]
pollers = 3
visibility_seconds = 3
shutdown_grace_ms = 3000
[spool]
segment_max_messages = 5
segment_max_age_ms = 100
";

/// Values of `kind`; a CHECK refuses one of them.
pub(super) const KINDS: u64 = 4;

impl Place {
    /// The same pipeline on the other host.
    pub(super) fn twin(self) -> Self {
        Self { host: 3 - self.host, ..self }
    }

    /// Its directory, as given to `--staging-dir`.
    pub(super) fn directory(self) -> String {
        format!("host-{}/{}", self.host, self.pipeline.name())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.directory())
    }
}

/// The columns of both tables.
const COLUMNS: &str = "token text, kind text, secret text, plain text, number integer";
/// What a row says without its masked column.
pub(super) const PLAIN_COLUMNS: &str = "token, kind, plain, number";

/// A row as [`PLAIN_COLUMNS`].
pub(super) type Row = Vec<Option<String>>;

impl Pipeline {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Logins => "logins",
            Self::Visits => "visits",
        }
    }

    pub(super) const fn other(self) -> Self {
        match self {
            Self::Logins => Self::Visits,
            Self::Visits => Self::Logins,
        }
    }

    /// The table, with one partition for all rows.
    pub(super) fn create_table(self) -> String {
        let table = self.name();
        format!(
            "create table {table} ({COLUMNS}) partition by list (kind);
             create table {table}_rows partition of {table} default"
        )
    }

    /// Its configuration, under a name that may be another, with what becomes of rejects, and the columns in one order or
    /// in another.
    pub(super) fn configuration(self, name: &str, rejects: &str, swapped: bool) -> String {
        let mut columns = ["token", "kind", "secret", "plain", "number"].map(|name| self.column(name));
        if swapped {
            // Texts that are masked and texts that are not change places.
            columns.swap(2, 3);
            columns.swap(0, 1);
        }
        let pipeline = format!("[pipeline]\nname = \"{name}\"\ntable = \"public.{}\"\n{rejects}\n", self.name());
        format!("{SETTINGS}{pipeline}{}", columns.concat())
    }

    fn column(self, name: &str) -> String {
        let (from, required) = match self {
            Self::Logins => (format!("/{name}"), true),
            Self::Visits => (format!("/visit/{name}"), false),
        };
        let kind = match name {
            "number" => "type = \"integer\"\n",
            "secret" => "mask = \"siv\"\n",
            _ => "",
        };
        format!("[[column]]\nname = \"{name}\"\nfrom = \"{from}\"\nrequired = {required}\n{kind}")
    }

    pub(super) fn token(self, number: u64) -> String {
        format!("{}-{number}", self.name())
    }

    /// A body that fits the mapping.
    pub(super) fn good_body(self, number: u64) -> String {
        self.body(&self.fields(number))
    }

    /// A body that does not.
    pub(super) fn bad_body(self, number: u64, random: &mut StdRng) -> String {
        let mut fields = self.fields(number);
        match random.random_range(0..3) {
            0 => return format!("no JSON, number {number} of {}", self.name()),
            1 => fields["number"] = json!(format!("seven and {number}")),
            _ => fields["plain"] = json!(format!("zero \0 in {number}")),
        }
        self.body(&fields)
    }

    fn fields(self, number: u64) -> Value {
        json!({
            "token": self.token(number),
            "kind": format!("kind-{}", number % KINDS),
            "secret": secret(number),
            "plain": format!("plain {number}"),
            "number": number,
        })
    }

    fn body(self, fields: &Value) -> String {
        match self {
            Self::Logins => fields.to_string(),
            Self::Visits => json!({ "visit": fields }).to_string(),
        }
    }

    /// The row that a good body becomes.
    pub(super) fn row(self, number: u64) -> Row {
        let fields = self.fields(number);
        let text = |name: &str| fields[name].as_str().map(str::to_owned);
        vec![text("token"), text("kind"), text("plain"), Some(number.to_string())]
    }
}

/// What the masked column holds, when it is revealed.
pub(super) fn secret(number: u64) -> String {
    format!("secret of number {number}")
}
