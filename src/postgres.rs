//! Connections to Postgres: how they are opened, encrypted, watched and tried again, and COPY over them. Knows no
//! segment, no ledger and no table.

mod authentication;
mod caution;
mod client_certificate;
mod connection;
mod conninfo;
mod copy;
mod error;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
mod identifier;
mod negotiation;
mod parameters;
mod passfile;
mod rds;
mod refusal;
mod retry;
mod service;
mod settings;
pub(crate) mod sqlstate;
mod sslmode;
mod timeouts;
mod tls;
pub(crate) mod watch;

pub(crate) use caution::{holds_a_password, without_secrets};
pub use connection::connect;
pub(crate) use connection::{Connection, Database, NOTICE_A_LOST_CLIENT_LOCALLY};
pub(crate) use copy::{CopyError, Feed, copy_in};
pub use error::PostgresError;
pub use identifier::{quote_identifier, quote_qualified};
pub(crate) use retry::Retries;
#[cfg(test)]
pub(crate) mod tests;
