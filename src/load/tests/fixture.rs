//! A table `items (name text, value integer, sent date)`, a pipeline into it, and segments made by the stages before.

use std::sync::OnceLock;

use serde_json::json;
use tempfile::TempDir;
use tokio_postgres::Client;
use uuid::Uuid;

use super::super::*;
use crate::config::{Column, ColumnType, MessageValue, RejectPolicy, Source, TableName};
use crate::keyring::Keyring;
use crate::local::{LocalPostgres, LocalPostgresOptions};
use crate::postgres::connect;
use crate::spool::{Origin, Record, SegmentWriter};
use crate::transform::{Plan, transform};

/// 2026-07-01T12:00:00Z, long ago as partitions go.
pub(super) const OLD_MS: i64 = 1_782_907_200_000;

pub(super) fn server() -> &'static LocalPostgres {
    static SERVER: OnceLock<LocalPostgres> = OnceLock::new();
    SERVER.get_or_init(|| LocalPostgres::start(LocalPostgresOptions::default()).unwrap())
}

pub(super) fn new_database() -> DatabaseUrl {
    let name = format!("test_{}", Uuid::now_v7().simple());
    server().create_database(&name).unwrap();
    server().url(&name).into()
}

pub(super) struct Fixture {
    pub(super) url: DatabaseUrl,
    pub(super) staging: Staging,
    pub(super) pipeline: Pipeline,
    pub(super) client: Client,
    _root: TempDir,
}

/// A message: id, when it was sent, body.
pub(super) type Message = (String, i64, String);

pub(super) fn message(id: &str, value: i64) -> Message {
    (id.to_owned(), OLD_MS, json!({ "name": format!("name of {id}"), "value": value }).to_string())
}

/// A message that `transform` rejects.
pub(super) fn bad_message(id: &str) -> Message {
    (id.to_owned(), OLD_MS, "not json".to_owned())
}

pub(super) fn messages(numbers: std::ops::Range<i64>) -> Vec<Message> {
    numbers.map(|number| message(&format!("m{number}"), number)).collect()
}

impl Fixture {
    pub(super) async fn new() -> Self {
        let url = new_database();
        let client = connect(&url).await.unwrap();
        client.batch_execute("CREATE TABLE items (name text, value integer, sent date)").await.unwrap();
        init(&url, &pipeline()).await.unwrap();
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::open(root.path()).unwrap();
        Self { url, staging, pipeline: pipeline(), client, _root: root }
    }

    pub(super) async fn loader(&self) -> Loader {
        Loader::connect(&self.url, &self.pipeline).await.unwrap()
    }

    pub(super) fn stage(&self, messages: &[Message]) -> Manifest {
        let mut writer =
            SegmentWriter::create(&self.staging, &Origin::of_queue(&self.pipeline.name, "http://localhost/items"))
                .unwrap();
        for (id, sent_at, body) in messages {
            writer
                .append(&Record { message_id: id.as_str().into(), sent_at: *sent_at, ..Record::with_body(body) })
                .unwrap();
        }
        let sealed = writer.seal().unwrap();
        let plan = Plan::compile(&self.pipeline, &Keyring::default(), None).unwrap();
        transform(&self.staging, sealed.id, &plan).unwrap()
    }

    pub(super) async fn load(&self, staged: &Manifest) -> Committed {
        self.loader().await.load(&self.staging, staged).await.unwrap()
    }

    /// Why a load fails.
    pub(super) async fn refusal(&self, staged: &Manifest) -> LoadError {
        self.loader().await.load(&self.staging, staged).await.unwrap_err()
    }

    /// Rows, and messages whose fate the ledger knows.
    pub(super) async fn decided(&self) -> i64 {
        let decided = "SELECT (SELECT count(*) FROM items) + (SELECT count(*) FROM pgsluice.message) \
                       + (SELECT count(*) FROM pgsluice.reject) + (SELECT count(*) FROM pgsluice.segment)";
        self.number(decided).await
    }

    /// Until a session of this database waits for a lock of this type.
    pub(super) async fn wait_for_waiting(&self, lock_type: &str) {
        let waiting = format!(
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) \
             WHERE NOT granted AND locktype = '{lock_type}' AND datname = current_database()"
        );
        while self.number(&waiting).await == 0 {
            tokio::task::yield_now().await;
        }
    }

    /// One number that a query gives.
    pub(super) async fn number(&self, query: &str) -> i64 {
        self.client.query_one(query, &[]).await.unwrap().get(0)
    }

    pub(super) async fn rows(&self) -> i64 {
        self.number("SELECT count(*) FROM items").await
    }

    /// The lines of a segment's reject file.
    pub(super) fn reject_lines(&self, staged: &Manifest) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.staging.rejects(staged.segment)).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn pipeline() -> Pipeline {
    let column = |name: &str, kind| Column::of(name, Source::Body(format!("/{name}")), kind);
    Pipeline {
        name: "items".to_owned(),
        table: TableName { schema: None, table: "items".to_owned() },
        dedupe: Dedupe::Message,
        rejects: RejectPolicy::default(),
        columns: vec![
            column("name", ColumnType::Text),
            column("value", ColumnType::Integer),
            Column { source: Source::Message(MessageValue::SentDate), ..column("sent", ColumnType::Date) },
        ],
    }
}

/// Loaded, duplicates, rejected.
pub(super) const fn counts(committed: &Committed) -> (u64, u64, u64) {
    (committed.loaded(), committed.duplicates(), committed.rejected())
}
