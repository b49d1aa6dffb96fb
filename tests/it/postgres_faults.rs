//! Postgres fails at every step of a load while `run` goes on. Whatever breaks, each message sent is in the end one
//! row with the right values or one reject, and the queue is empty.

mod books;
mod connection;
mod server;

/// Logins in one run.
const MESSAGES: usize = 40;
