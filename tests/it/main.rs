//! The binary from outside, against real servers: one test program, so that it is linked once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the way to fail")]
#![allow(clippy::print_stderr, reason = "a test that cannot run here says so")]

mod errors;
mod hygiene;
mod logins;
mod main_job;
mod rejects;
mod stages;
mod testenv;
