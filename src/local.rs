//! Servers that start by themselves and leave nothing behind: for `demo`, tests and benches, never for production.

mod error;
mod faults;
mod installed;
mod logins;
mod postgres;
mod queue;

pub use error::LocalError;
pub use faults::{Fault, Faults, Operation, Rule, When};
pub use logins::Logins;
pub use postgres::{LocalPostgres, LocalPostgresOptions, Shutdown};
pub use queue::{LocalQueue, LocalQueueError, QueueCounts};
