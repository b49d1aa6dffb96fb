//! What Postgres refuses, or a connection fails to do, and what follows from it.

use thiserror::Error;
use tokio_postgres::error::DbError;

use super::refusal::{Names, Refusal};
use super::sqlstate::{Meaning, judge};
use crate::advice::{Advice, Advised, BoxedError, fatal, retried};
use crate::config::ConfigError;

const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// Postgres refused, or the connection failed.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is the documentation")]
pub enum PostgresError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot connect to Postgres at {address}")]
    Unreachable { address: String, source: BoxedError },
    #[error("cannot make a token for {address}")]
    NoToken { address: String, source: BoxedError },
    #[error("Postgres at {address} refused the connection: {message} (SQLSTATE {sqlstate})")]
    ConnectionRefused { address: String, message: String, sqlstate: String },
    /// With what of the server's answer can quote no value, see `refusal`; `said` begins with a colon, `place` with a
    /// comma, and each may be empty.
    #[error("Postgres refused {action}{said} (SQLSTATE {sqlstate}{place})")]
    Refused { action: String, said: String, sqlstate: String, place: String },
    #[error("the connection to Postgres was lost during {action}")]
    ConnectionLost { action: String, source: BoxedError },
}

impl PostgresError {
    /// An error of a statement, without what may quote a value.
    pub(crate) fn of_statement(action: &str, error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(refusal) => Self::of_refusal(action, refusal),
            None => Self::ConnectionLost { action: action.to_owned(), source: error.into() },
        }
    }

    /// What the server refused, without what may quote a value.
    pub(crate) fn of_refusal(action: &str, refusal: &DbError) -> Self {
        let action = action.to_owned();
        let refusal = Refusal::from(refusal);
        let said = refusal.message().map_or_else(String::new, |message| format!(": {message}"));
        let Names { table, column, constraint } = refusal.names();
        let names = [("table", table), ("column", column), ("constraint", constraint)];
        let place = names.iter().filter_map(|(kind, name)| Some(format!(", {kind} {}", (*name)?))).collect();
        Self::Refused { action, said, sqlstate: refusal.sqlstate.to_owned(), place }
    }

    /// The role lacks a right, as the server would say if it were asked.
    pub(crate) fn forbidden(action: &str, place: String) -> Self {
        let (action, sqlstate) = (action.to_owned(), INSUFFICIENT_PRIVILEGE.to_owned());
        Self::Refused { action, said: String::new(), sqlstate, place }
    }
}

impl Advised for PostgresError {
    fn advice(&self) -> Advice {
        match self {
            Self::Config(error) => error.advice(),
            Self::Unreachable { .. } => retried("check DATABASE_URL, and that Postgres runs and accepts connections"),
            Self::NoToken { .. } => retried("check the AWS credentials, and that AWS_REGION is the database's region"),
            Self::ConnectionRefused { sqlstate, .. } | Self::Refused { sqlstate, .. } => {
                let (meaning, hint) = judge(sqlstate);
                Advice { retry: meaning == Meaning::Moment, ..fatal(hint) }
            }
            Self::ConnectionLost { .. } => retried("see the server's log; run again, what is loaded is recognised"),
        }
    }
}

/// A mistake in the connection string, the PG* variables or the files that they name.
pub(super) fn invalid_setting(problem: String) -> ConfigError {
    ConfigError::InvalidSetting { setting: "--database-url (DATABASE_URL)", problem }
}
