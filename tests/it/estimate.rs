//! The estimate of `check` beside what a run then takes. Requests are counted at a proxy before the queue server.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pgsluice::local::Fault::Slow;
use pgsluice::local::Operation::{Attributes, Delete, Receive};
use pgsluice::local::When::Always;
use pgsluice::local::{Faults, Rule};
use serde_json::Value;

use crate::logins::generated;
use crate::testenv::{Server, TestEnv};

/// From this number on, the estimate of requests holds.
const MESSAGES: usize = 10_000;
const FAR: Duration = Duration::from_millis(400);
const FAR_MESSAGES: usize = 600;
/// Each request to SQS names what it asks for.
const TARGET: &[u8] = b"x-amz-target:";

/// Passes connections on to a server, and counts the requests.
struct CountingProxy {
    port: u16,
    requests: Arc<AtomicU64>,
}

impl CountingProxy {
    /// Its thread waits for connections until this process ends.
    fn before(server: &str) -> Self {
        let (listener, server) = (TcpListener::bind(("127.0.0.1", 0)).unwrap(), server.to_owned());
        let (port, requests) = (listener.local_addr().unwrap().port(), Arc::<AtomicU64>::default());
        let counted = Arc::clone(&requests);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(&server).unwrap());
                let (back, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let counted = Arc::clone(&counted);
                thread::spawn(move || relay(client, server, |seen| _ = counted.fetch_add(seen, Ordering::AcqRel)));
                thread::spawn(move || relay(back, to_client, |_| {}));
            }
        });
        Self { port, requests }
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Acquire)
    }
}

fn relay(mut from: TcpStream, mut to: TcpStream, count: impl Fn(u64)) {
    let (mut buffer, mut seen) = (vec![0; 64 * 1024], Vec::new());
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        seen.extend(buffer[..read].iter().map(u8::to_ascii_lowercase));
        count(seen.windows(TARGET.len()).filter(|window| *window == TARGET).count() as u64);
        // What may be the beginning of one is looked at again with what follows.
        seen.drain(..seen.len().saturating_sub(TARGET.len() - 1));
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    _ = to.shutdown(Shutdown::Write);
}

#[test]
fn a_run_makes_as_many_requests_as_the_check_estimates() {
    let mut env = TestEnv::new(Server::Embedded);
    env.queue.send(&generated(MESSAGES));
    let proxy = CountingProxy::before(env.queue.endpoint().trim_start_matches("http://"));
    env.set("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", proxy.port));
    let checked: Value = serde_json::from_str(&env.pgsluice(&["check", "--json"]).succeeds().stdout).unwrap();
    let estimated = checked["estimate"]["requests"].as_u64().unwrap();
    let before = proxy.requests();
    assert!(before > 0);
    env.run().succeeds();
    let made = proxy.requests() - before;
    let difference = estimated.abs_diff(made);
    assert!(difference * 20 <= made, "{estimated} requests were estimated, and {made} were made");
}

/// Where each call takes as long as to a distant region, waiting sets the pace, and a busy machine changes little. More than
/// two pollers would be found by trials, which it does disturb.
#[test]
fn a_run_takes_as_long_as_the_check_estimates() {
    let env = TestEnv::new(Server::Faulty(Faults::default()));
    env.configure("[queue]\npollers = 2\n");
    env.queue.send(&generated(FAR_MESSAGES));
    let slow = |operation| Rule { operation, when: Always, fault: Slow(FAR) };
    env.queue.inject(&[Attributes, Receive, Delete].map(slow));
    let checked: Value = serde_json::from_str(&env.pgsluice(&["check", "--json"]).succeeds().stdout).unwrap();
    let estimated = checked["estimate"]["seconds"].as_f64().unwrap();
    let began = Instant::now();
    env.run().succeeds();
    let taken = began.elapsed().as_secs_f64();
    assert!((estimated - taken).abs() < taken / 5.0, "{estimated} s were estimated, and it took {taken} s");
}
