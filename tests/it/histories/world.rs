//! Everything that a history happens to: queues, hosts, pipelines, a database, and the model of what was sent.

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex};

use pgsluice::local::{Faults, LocalPostgres, LocalPostgresOptions};

use super::expected::Messages;
use super::pipelines::{PIPELINES, PLACES, Pipeline, VISIBILITY_SECONDS};
use super::step::{Kind, Plan};
use crate::testenv::{Database, Queue, QueueKind, Server, TestEnv, postgres};

/// A message is delivered once more after this number of deliveries, where a history has redeliveries.
pub(super) const REDELIVER_EVERY: u32 = 5;
/// Receives after which a message moves to the dead-letter queue.
pub(super) const MAX_RECEIVES: u32 = 6;

/// A pipeline's queues.
pub(super) struct Source {
    pub(super) queue: Queue,
    /// Where the queue's redrive policy moves messages, where it has one.
    pub(super) dead_letters: Option<Queue>,
}

pub(super) struct World {
    pub(super) plan: Plan,
    /// Its own queue is a spare one that stays empty.
    pub(super) env: TestEnv,
    sources: [Source; 2],
    /// Where `on_reject = "dlq"` sends rejects.
    pub(super) letters: Queue,
    pub(super) messages: Messages,
    /// Ids of messages that a command has asked a queue to delete.
    pub(super) deleted: Arc<Mutex<BTreeSet<String>>>,
    /// Bodies that came to the queue of letters.
    pub(super) lettered: BTreeSet<String>,
    /// The mapping declares its columns in the other order.
    pub(super) swapped: [bool; 2],
    /// A person removed rows that the ledger or an archive still stands for.
    pub(super) lost_rows: bool,
    /// An old dump was restored, so a reject that was retried since then may be one again.
    pub(super) went_back: bool,
    /// Rows were loaded with the pipeline's key.
    pub(super) has_loaded: [bool; 2],
    /// Segments that were seen sealed.
    pub(super) segments_seen: BTreeSet<String>,
    /// Files that were imported.
    pub(super) imported: Vec<super::imports::ImportedFile>,
    /// The last dump that was kept, and the rows at that time.
    pub(super) dump: Option<String>,
    pub(super) has_check: [bool; 2],
    /// Databases that are left behind at the end.
    databases: Vec<String>,
    pub(super) server: Option<LocalPostgres>,
    log: Vec<String>,
}

impl World {
    pub(super) fn new(plan: Plan) -> Self {
        let redeliver_every = plan.has(Kind::Redeliveries).then_some(REDELIVER_EVERY);
        let mut env = TestEnv::without_tables(Server::Faulty(Faults { redeliver_every }));
        let server = plan.has(Kind::Restart).then(|| {
            let server = LocalPostgres::start(LocalPostgresOptions { durable: true }).unwrap();
            server.create_database("history").unwrap();
            env.database = Database::connect(server.url("history"));
            server
        });
        env.set("DATABASE_URL", env.database.url());
        let logins = if plan.has(Kind::Fifo) { QueueKind::Fifo } else { QueueKind::Standard };
        let redriving = [Kind::Redrive, Kind::RunDeadLetters, Kind::Resend, Kind::Leave];
        let has_dead_letters = redriving.into_iter().any(|kind| plan.has(kind));
        let sources = [logins, QueueKind::Standard].map(|kind| Source::create(&env, kind, has_dead_letters));
        let letters = env.queue.beside(QueueKind::Standard);
        let mut world = Self {
            plan,
            sources,
            letters,
            messages: Messages::default(),
            deleted: Arc::default(),
            lettered: BTreeSet::new(),
            swapped: [false; 2],
            lost_rows: false,
            went_back: false,
            has_loaded: [false; 2],
            segments_seen: BTreeSet::new(),
            imported: Vec::new(),
            dump: None,
            has_check: [false; 2],
            databases: vec![env.database.url()],
            server,
            env,
            log: Vec::new(),
        };
        world.prepare();
        world
    }

    fn prepare(&mut self) {
        let deleted = Arc::clone(&self.deleted);
        self.env.queue.witness_deletes(move |ids| deleted.lock().unwrap().extend(ids.iter().cloned()));
        for pipeline in PIPELINES {
            self.env.database.execute(&pipeline.create_table());
            self.write_configuration(pipeline);
        }
        for place in PLACES {
            fs::create_dir_all(self.env.path(&place.directory()).parent().unwrap()).unwrap();
        }
        self.env.pgsluice(&["init", "--config", "logins.toml"]).succeeds();
    }

    /// Whether the pipeline leaves its rejects to its queue.
    pub(super) fn leaves(&self, pipeline: Pipeline) -> bool {
        pipeline == Pipeline::Logins && self.plan.has(Kind::Leave)
    }

    /// Writes a pipeline's configuration files: its own, that of somebody who renamed it, and one that keeps rejects.
    pub(super) fn write_configuration(&self, pipeline: Pipeline) {
        let keep = "on_reject = \"keep\"".to_owned();
        let policy = match pipeline {
            _ if self.leaves(pipeline) => "on_reject = \"leave\"".to_owned(),
            Pipeline::Logins => keep.clone(),
            Pipeline::Visits => format!("on_reject = \"dlq\"\ndlq_url = \"{}\"", self.letters.url()),
        };
        let (own, swapped) = (pipeline.name(), self.swapped[pipeline as usize]);
        for (file, name, rejects) in [
            (own.to_owned(), own.to_owned(), &policy),
            (renamed(pipeline), renamed(pipeline), &policy),
            (keeping(pipeline), own.to_owned(), &keep),
        ] {
            let toml = pipeline.configuration(&name, rejects, swapped);
            fs::write(self.env.path(&format!("{file}.toml")), toml).unwrap();
        }
    }

    pub(super) fn source(&self, pipeline: Pipeline) -> &Source {
        &self.sources[pipeline as usize]
    }

    /// Says what happens, for the list that is printed where a history fails.
    pub(super) fn note(&mut self, line: impl Into<String>) {
        self.log.push(line.into());
    }

    /// What a person says to the database.
    pub(super) fn execute(&mut self, sql: &str) {
        self.note(format!("     {}", sql.split_whitespace().collect::<Vec<_>>().join(" ")));
        self.env.database.execute(sql);
    }

    pub(super) fn log(&self) -> String {
        self.log.join("\n")
    }

    /// Goes on with this database, which has tables and ledger.
    pub(super) fn move_to(&mut self, database: Database) {
        self.databases.push(database.url());
        self.env.set("DATABASE_URL", database.url());
        self.env.database = database;
    }
}

impl Drop for World {
    /// A long soak would fill the disk with databases.
    fn drop(&mut self) {
        if self.server.is_some() || std::thread::panicking() {
            return;
        }
        let server = Database::connect(postgres().url("postgres"));
        for url in &self.databases {
            let name = url.rsplit('/').next().unwrap_or_default();
            server.execute(&format!("drop database if exists \"{name}\" with (force)"));
        }
    }
}

impl Source {
    fn create(env: &TestEnv, kind: QueueKind, has_dead_letters: bool) -> Self {
        let queue = env.queue.beside(kind);
        queue.set_visibility_timeout(VISIBILITY_SECONDS);
        let dead_letters = has_dead_letters.then(|| env.queue.beside(kind));
        if let Some(dead_letters) = &dead_letters {
            dead_letters.set_visibility_timeout(VISIBILITY_SECONDS);
            queue.redrive_to(dead_letters, MAX_RECEIVES);
        }
        Self { queue, dead_letters }
    }
}

/// What a pipeline is called in the configuration of somebody who renamed it.
pub(super) fn renamed(pipeline: Pipeline) -> String {
    format!("{}-renamed", pipeline.name())
}

/// The configuration in which rejects are kept, whatever the pipeline does otherwise: for a queue without a redrive
/// policy.
pub(super) fn keeping(pipeline: Pipeline) -> String {
    format!("{}-keeping", pipeline.name())
}
