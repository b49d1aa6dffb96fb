//! Why a temporary Postgres did not start, or refused a request.

use std::io;
use std::time::Duration;

use thiserror::Error;

/// The time in which a server must answer.
pub(super) const START_TIMEOUT: Duration = Duration::from_mins(1);

/// A temporary cluster did not start or did not answer.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is the documentation")]
pub enum LocalError {
    #[error(
        "no PostgreSQL server (initdb, postgres) is installed here; try `apt install postgresql`, `brew install postgresql` or, \
         for a pgsluice from PyPI, its extra `server`: `uvx 'pgsluice[server]' demo`"
    )]
    NotInstalled,
    #[error("PostgreSQL does not run as root, and there is no user `postgres` or `nobody`")]
    NoUnprivilegedUser,
    #[error("cannot {action}")]
    Io { action: &'static str, source: io::Error },
    #[error("cannot create a temporary Postgres; the end of its log:\n{log}")]
    NotCreated { log: String },
    #[error("the temporary Postgres did not start; the end of its log:\n{log}")]
    NotStarted { log: String },
    #[error("the temporary Postgres did not answer within {} s", START_TIMEOUT.as_secs())]
    NotReady { source: tokio_postgres::Error },
    #[error("the temporary Postgres refused a statement")]
    Refused { source: tokio_postgres::Error },
}

/// For `map_err`: what was tried of the system.
pub(super) fn io_error(action: &'static str) -> impl FnOnce(io::Error) -> LocalError {
    move |source| LocalError::Io { action, source }
}
