//! Killed at random moments, again and again, over one queue that is being refilled.
//!
//! `make soak` runs the long form. PGSLUICE_SOAK_ROUNDS and PGSLUICE_SOAK_SEED change it; the seed decides what is
//! sent and when a process is killed, so a failure is repeated by its seed, as far as a race can be.

use std::env;
use std::ops::Range;
use std::thread;
use std::time::Duration;

use pgsluice::local::{Faults, Logins};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::books::{assert_balanced, standing};
use crate::testenv::{Server, TestEnv};

const ROUNDS: u32 = 20;
/// From before the first receive to the wait for the proof that the queue is empty.
const LIFETIME_MS: Range<u64> = 0..1500;
/// Sent before a process starts, and again while it runs.
const REFILL: Range<usize> = 0..40;
/// The messages of a killed process are redelivered some processes later; by then its handles are stale. The visibility
/// timeout is long enough for the last process to load all that remains before its redelivery, also on a busy machine.
/// Segments are small and soon sealed, so that at any moment there is one in every stage.
const CONFIGURATION: &str = "
[queue]
pollers = 3
visibility_seconds = 6
[spool]
segment_max_messages = 10
segment_max_age_ms = 100
";

struct Soak {
    env: TestEnv,
    random: StdRng,
    supply: Logins,
    sent: Vec<String>,
    kills: u32,
}

#[test]
fn killed_at_random_moments_every_message_is_loaded_or_rejected_once() {
    let rounds = variable("PGSLUICE_SOAK_ROUNDS").map_or(ROUNDS, |rounds| u32::try_from(rounds).unwrap());
    let seed = variable("PGSLUICE_SOAK_SEED").unwrap_or_else(rand::random);
    eprintln!("soak: {rounds} rounds, PGSLUICE_SOAK_SEED={seed}");
    let mut soak = Soak::new(seed);
    for round in 1..=rounds {
        soak.round();
        if round % ROUNDS == 0 {
            let committed = soak.env.database.count("pgsluice.message");
            eprintln!("soak: round {round}, {} messages sent, {committed} committed", soak.sent.len());
        }
    }
    soak.env.run().succeeds();
    assert_balanced(&soak.env, &soak.sent);
    soak.refill();
    soak.env.run().succeeds();
    assert_balanced(&soak.env, &soak.sent);
    soak.print_totals(rounds);
}

impl Soak {
    fn new(seed: u64) -> Self {
        // Now and then a message is redelivered although nothing failed, as by SQS.
        let env = TestEnv::new(Server::Faulty(Faults { redeliver_every: Some(11) }));
        env.configure(CONFIGURATION);
        Self { env, random: StdRng::seed_from_u64(seed), supply: Logins::new(seed), sent: Vec::new(), kills: 0 }
    }

    /// One process, which lives until it is done or until the random moment.
    fn round(&mut self) {
        self.refill();
        let lifetime = Duration::from_millis(self.random.random_range(LIFETIME_MS));
        let running = self.env.start(&["run"]);
        let killer = thread::spawn(move || {
            thread::sleep(lifetime);
            running.kill()
        });
        self.refill();
        self.kills += u32::from(killer.join().unwrap().was_killed());
        standing(&self.env, self.sent.len());
    }

    fn refill(&mut self) {
        let count = self.random.random_range(REFILL);
        let bodies: Vec<String> = self.supply.by_ref().take(count).collect();
        self.env.queue.send(&bodies);
        self.sent.extend(bodies);
    }

    fn print_totals(&self, rounds: u32) {
        let database = &self.env.database;
        let sum = |column: &str| database.number(&format!("select coalesce(sum({column}), 0) from pgsluice.segment"));
        eprintln!(
            "soak: {rounds} rounds, {} kills survived, {} messages sent, {} loaded, {} rejected, {} duplicates \
             recognised, {} segments",
            self.kills,
            self.sent.len(),
            sum("loaded"),
            sum("rejected"),
            sum("duplicates"),
            database.count("pgsluice.segment"),
        );
    }
}

fn variable(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}
