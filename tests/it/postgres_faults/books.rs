//! What was sent, and whether it all arrived.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Debug;

use pgsluice::local::LocalPostgres;

use crate::logins::{PLAIN_COLUMNS, expected_rows, login};
use crate::testenv::{Database, Outcome, Proxy, Server, TestEnv, postgres};

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

    /// Each message sent is one row with its values or one reject, and no more is in the queue.
    pub(super) fn balance(&self, fault: &dyn Debug) {
        let (database, sent) = (&self.env.database, self.sent.borrow());
        let rows = database.rows(&format!("select {PLAIN_COLUMNS} from user_logins"));
        let expected = expected_rows(&sent);
        assert_eq!(rows.len(), expected.len(), "{fault:?}");
        assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), expected, "{fault:?}");
        assert_eq!(database.count("pgsluice.reject"), (sent.len() - expected.len()) as u64, "{fault:?}");
        assert!(self.env.queue.is_empty(), "{fault:?}: {:?}", self.env.queue.counts());
    }
}

/// Until a load waits for the table, which this session has locked.
pub(super) fn wait_for_a_waiting_load(database: &Database) {
    database
        .wait_until("select exists (select from pg_locks where relation = 'user_logins'::regclass and not granted)");
}
