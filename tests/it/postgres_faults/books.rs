//! What was sent, and whether it all arrived.

use std::cell::RefCell;
use std::fmt::Debug;

use pgsluice::local::LocalPostgres;

use crate::books::assert_balanced;
use crate::logins::login;
use crate::testenv::{Database, Outcome, Proxy, Server, TestEnv, postgres, wait_until};

/// An environment that remembers what was sent.
pub(super) struct Books {
    pub(super) env: TestEnv,
    sent: RefCell<Vec<String>>,
}

impl Books {
    pub(super) fn open() -> Self {
        Self { env: TestEnv::new(Server::Embedded), sent: RefCell::default() }
    }

    /// Lets `run` reach Postgres through a proxy, with further parameters of its connection string.
    pub(super) fn connect_through_proxy(&mut self, parameters: &str) -> Proxy {
        let proxy = Proxy::before(postgres().port());
        self.env.set("DATABASE_URL", proxy.url(&self.env.database.url()) + parameters);
        proxy
    }

    /// Goes on in another cluster.
    pub(super) fn move_to(&mut self, postgres: &LocalPostgres) {
        let url = postgres.url("postgres");
        self.env.database = Database::connect(url.clone());
        self.env.set("DATABASE_URL", url);
        self.env.pgsluice(&["init"]).succeeds();
    }

    /// Sends logins that nobody sent before, and one message of another kind.
    pub(super) fn send(&self, logins: usize) {
        let mut sent = self.sent.borrow_mut();
        let first = sent.len();
        sent.extend((first..first + logins).map(|number| login(&format!("user {number}")).to_string()));
        sent.push(format!(r#"{{"another kind":{first}}}"#));
        self.env.queue.send(&sent[first..]);
    }

    /// Runs; where that fails, it must say why, and the next run must do the rest.
    pub(super) fn run_and_balance(&self, fault: &dyn Debug) -> Outcome {
        let outcome = self.env.run();
        if outcome.code != Some(0) {
            assert!(outcome.code == Some(1) && outcome.stderr.contains("error: "), "{fault:?}: {outcome}");
            self.env.run().succeeds();
        }
        self.balance(fault);
        outcome
    }

    /// Each message sent is one row with its values or one reject, and nothing is left to do.
    pub(super) fn balance(&self, fault: &dyn Debug) {
        eprintln!("after {fault:?}:");
        assert_balanced(&self.env, &self.sent.borrow());
    }
}

/// Until a load waits for a lock that this session holds.
pub(super) fn wait_for_a_waiting_load(database: &Database) {
    let waits = "select exists (select from pg_locks
                 where not granted and pg_backend_pid() = any (pg_blocking_pids(pid)))";
    wait_until(|| database.texts(waits) == ["t"]);
}
