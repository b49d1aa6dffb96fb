//! Postgres fails at every step of a load while `run` goes on. Whatever breaks, each message sent is in the end one
//! row with the right values or one reject, and the queue is empty.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Debug;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::logins::{PLAIN_COLUMNS, expected_rows, login};
use crate::testenv::{Break, Outcome, Point, Proxy, Server, TestEnv, Traffic, postgres};

const MESSAGES: usize = 40;
/// How many connections a test breaks; more with `PGSLUICE_FAULT_ROUNDS`.
const ROUNDS: u64 = 8;

/// An environment that remembers what was sent.
struct Books {
    env: TestEnv,
    sent: RefCell<Vec<String>>,
}

impl Books {
    fn open() -> Self {
        Self { env: TestEnv::new(Server::Embedded), sent: RefCell::default() }
    }

    /// Sends logins that nobody sent before, and one message of another kind.
    fn send(&self, logins: usize) {
        let mut sent = self.sent.borrow_mut();
        let first = sent.len();
        sent.extend((first..first + logins).map(|number| login(&format!("user {number}")).to_string()));
        sent.push(format!(r#"{{"another kind":{first}}}"#));
        self.env.queue.send(&sent[first..]);
    }

    /// Runs; where that fails, it must say why, and the next run must do the rest.
    fn run_and_balance(&self, fault: &dyn Debug) -> Outcome {
        let outcome = self.env.run();
        if outcome.code != Some(0) {
            assert!(outcome.code == Some(1) && outcome.stderr.contains("error: "), "{fault:?}: {outcome}");
            self.env.run().succeeds();
        }
        self.balance(fault);
        outcome
    }

    /// Each message sent is one row with its values or one reject, and no more is in the queue.
    fn balance(&self, fault: &dyn Debug) {
        let (database, sent) = (&self.env.database, self.sent.borrow());
        let rows = database.rows(&format!("select {PLAIN_COLUMNS} from user_logins"));
        let expected = expected_rows(&sent);
        assert_eq!(rows.len(), expected.len(), "{fault:?}");
        assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), expected, "{fault:?}");
        assert_eq!(database.count("pgsluice.reject"), (sent.len() - expected.len()) as u64, "{fault:?}");
        assert!(self.env.queue.is_empty(), "{fault:?}: {:?}", self.env.queue.counts());
    }
}

/// Points spread over a conversation of `length` bytes, other ones each time; printed where a test fails.
fn points(length: u64) -> Vec<u64> {
    let variable = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seed = variable("PGSLUICE_SEED").unwrap_or_else(rand::random);
    let rounds = variable("PGSLUICE_FAULT_ROUNDS").unwrap_or(ROUNDS);
    eprintln!("PGSLUICE_SEED={seed} PGSLUICE_FAULT_ROUNDS={rounds}");
    let mut random = StdRng::seed_from_u64(seed);
    (0..rounds).map(|round| (length * round + random.random_range(0..length)) / rounds).collect()
}

/// Cuts a connection at each point, of as many as a run without faults makes.
fn cut_at(points_of: impl Fn(Traffic) -> Vec<Point>) {
    let mut books = Books::open();
    let proxy = Proxy::before(postgres().port());
    books.env.set("DATABASE_URL", proxy.url(&books.env.database.url()));
    books.send(MESSAGES);
    books.run_and_balance(&"none");
    let mut cut = 0;
    let points = points_of(proxy.traffic());
    for &point in &points {
        books.send(MESSAGES);
        proxy.arm(point, Break::Cut);
        books.run_and_balance(&point);
        cut += usize::from(!proxy.is_armed());
    }
    assert!(cut * 2 > points.len(), "only {cut} of {} points were met", points.len());
}

#[test]
fn a_connection_cut_after_any_number_of_bytes_sent_loses_and_repeats_nothing() {
    cut_at(|traffic| points(traffic.sent).into_iter().map(Point::Sent).collect());
}

#[test]
fn a_connection_cut_after_any_number_of_bytes_answered_loses_and_repeats_nothing() {
    cut_at(|traffic| points(traffic.answered).into_iter().map(Point::Answered).collect());
}

#[test]
fn a_commit_that_is_lost_or_whose_answer_is_lost_counts_once() {
    cut_at(|_| vec![Point::Commit, Point::CommitAnswer]);
}
