//! Servers that start by themselves and leave nothing behind: for `demo`, tests and benches, never for production.

mod installed;
mod postgres;

pub use postgres::{LocalError, LocalPostgres, LocalPostgresOptions};
