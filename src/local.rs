//! Servers that start by themselves and leave nothing behind: for `demo`, tests and benches, never for production.

mod faults;
mod installed;
mod logins;
mod postgres;
mod queue;

pub use faults::Faults;
pub use logins::Logins;
pub use postgres::{LocalError, LocalPostgres, LocalPostgresOptions, Shutdown};
pub use queue::{LocalQueue, LocalQueueError, QueueCounts};
