//! Sealed spool segments without a queue, as a drain of logins would write them.
//!
//! `cargo run --release --example spool-logins -- STAGING_DIR 2000000` writes segments of 20,000 messages, the default
//! of `segment_max_messages`. Bodies and ids are the same in every run. The messages were sent a millisecond apart
//! yesterday, so that the ledger treats them as the recent messages that a queue holds.

use std::iter;
use std::path::Path;

use anyhow::Context;
use jiff::Timestamp;
use pgsluice::local::Logins;
use pgsluice::spool::{Origin, Record, SegmentWriter};
use pgsluice::staging::Staging;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Builder;

const SEED: u64 = 1;
const SEGMENT_MESSAGES: usize = 20_000;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// As long as those of SQS.
const RECEIPT_HANDLE_BYTES: usize = 180;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().context("the staging directory is missing")?;
    let messages: usize = arguments.next().context("the count of messages is missing")?.parse()?;

    let staging = Staging::open(Path::new(&directory))?;
    let origin = Origin::of_queue("user_logins", "http://localhost/000000000000/login-queue");
    let mut ids = StdRng::seed_from_u64(!SEED);
    let mut logins = Logins::new(SEED);
    let yesterday = Timestamp::now().as_millisecond() / DAY_MS * DAY_MS - DAY_MS;
    let mut messages = iter::from_fn(|| next_login(&mut logins)).zip(yesterday..).take(messages).peekable();
    while messages.peek().is_some() {
        let mut writer = SegmentWriter::create(&staging, &origin)?;
        for (body, sent_at) in messages.by_ref().take(SEGMENT_MESSAGES) {
            let message_id = Builder::from_random_bytes(ids.random()).into_uuid();
            writer.append(&Record {
                received_at: sent_at + 1000,
                receipt_handle: "A".repeat(RECEIPT_HANDLE_BYTES).into(),
                ..Record::first_delivery(message_id.to_string(), sent_at, body)
            })?;
        }
        writer.seal()?;
    }
    Ok(())
}

/// The next body that is a login, past those of another kind.
fn next_login(logins: &mut Logins) -> Option<String> {
    loop {
        let others = logins.of_another_kind();
        let body = logins.next()?;
        if logins.of_another_kind() == others {
            return Some(body);
        }
    }
}
