//! The local queue server as a process of its own, so that the cost of a client can be measured apart from it.
//!
//! `cargo run --release --example local-queue -- login-queue 100000` creates the queue, fills it with 100,000 logins,
//! prints `AWS_ENDPOINT_URL=…` and `PGSLUICE_QUEUE_URL=…`, and serves until its standard input is closed.

#![allow(clippy::print_stdout, reason = "what a program prints is its result")]

use std::io::Read;

use anyhow::Context;
use pgsluice::local::{Faults, LocalQueue, Logins};

const SEED: u64 = 1;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "login-queue".to_owned());
    let messages = arguments.next().map_or(Ok(0), |count| count.parse()).context("the count of messages")?;

    let server = LocalQueue::start(Faults::default())?;
    let queue_url = server.create_queue(&name)?;
    server.send(&name, Logins::new(SEED).take(messages).collect())?;
    println!("AWS_ENDPOINT_URL={}\nPGSLUICE_QUEUE_URL={queue_url}", server.endpoint());

    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
