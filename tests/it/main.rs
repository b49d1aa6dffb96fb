//! The binary from outside, against real servers: one test program, so that it is linked once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the way to fail")]
#![allow(clippy::print_stderr, reason = "a test that cannot run here says so")]
#![cfg_attr(not(feature = "crash-points"), allow(dead_code, unused_imports, reason = "the crash tests need more"))]

/// Makes a test of each function for each server: they take the server as their only argument.
macro_rules! on_each_server {
    ($($test:ident),* $(,)?) => {
        mod embedded {
            $(#[test] fn $test() { super::$test(crate::testenv::Server::Embedded); })*
        }
        mod localstack {
            $(#[test] fn $test() { super::$test(crate::testenv::Server::LocalStack); })*
        }
    };
}

mod account;
mod addressing;
mod books;
mod cautions;
mod check;
mod commands;
mod comparison;
mod compose;
mod config;
mod consumers;
#[cfg(feature = "crash-points")]
mod crash;
mod disk;
mod documentation;
mod dropped_rejects;
mod errors;
mod estimate;
mod exit_codes;
mod files;
mod find;
mod help;
mod histories;
mod hygiene;
mod infer;
mod keys;
mod leaks;
mod logins;
mod main_job;
mod masking;
mod metrics;
mod model;
mod notify;
mod output;
mod pollers;
mod pooler;
mod postgres_faults;
mod progress;
mod queues;
mod recovery;
mod regressions;
mod reject_commands;
mod reject_policy;
mod rejects;
mod rekey;
mod report_page;
mod reveal;
mod roles;
mod soak;
mod spool_encryption;
mod sqs_faults;
mod stages;
mod status;
mod summary;
mod testenv;
#[cfg(feature = "otel")]
mod traces;
mod until;
mod visibility;
