//! A temporary Postgres as a process of its own, which flushes to disk as a production server does, so that clients
//! can be measured against it.
//!
//! `cargo run --release --example local-postgres` creates the cluster, prints `DATABASE_URL=…`, and serves until its
//! standard input is closed. Then, or however else it ends, server and data vanish.

#![allow(clippy::print_stdout, reason = "what a program prints is its result")]

use std::io::Read;

use pgsluice::local::{LocalPostgres, LocalPostgresOptions};

fn main() -> anyhow::Result<()> {
    let server = LocalPostgres::start(LocalPostgresOptions { durable: true })?;
    println!("DATABASE_URL={}", server.url("postgres"));

    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
