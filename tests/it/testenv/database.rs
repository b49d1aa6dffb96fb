//! A database of a test's own, in the one temporary cluster of this process.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use futures::SinkExt;
use pgsluice::local::{LocalPostgres, LocalPostgresOptions};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, SimpleQueryRow};

use super::RUNTIME;

static POSTGRES: LazyLock<LocalPostgres> =
    LazyLock::new(|| LocalPostgres::start(LocalPostgresOptions::default()).expect("a temporary Postgres"));

/// The cluster that the databases are in.
pub(crate) fn postgres() -> &'static LocalPostgres {
    &POSTGRES
}

pub(crate) struct Database {
    url: String,
    client: Client,
}

impl Database {
    /// An empty database of its own.
    pub(crate) fn create() -> Self {
        static CREATED: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", CREATED.fetch_add(1, Ordering::Relaxed));
        POSTGRES.create_database(&name).expect("a database");
        Self::connect(POSTGRES.url(&name))
    }

    /// Another connection to the same database.
    pub(crate) fn again(&self) -> Self {
        Self::connect(self.url())
    }

    /// A database that exists already, in any cluster.
    pub(crate) fn connect(url: String) -> Self {
        let client = RUNTIME.block_on(async {
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await.expect("a connection");
            tokio::spawn(connection);
            client
        });
        Self { url, client }
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    pub(crate) fn execute(&self, sql: &str) {
        RUNTIME.block_on(self.client.batch_execute(sql)).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// How many sessions of this database, and of no other in the cluster, wait for a lock. Not asked of
    /// `pg_stat_activity`, which says the same throughout a transaction.
    pub(crate) fn sessions_waiting_for_a_lock(&self) -> u64 {
        self.number(
            "select count(distinct pid) from pg_locks where not granted and pid in (select pid from pg_locks
             where database = (select oid from pg_database where datname = current_database()))",
        )
    }

    /// `\copy table from … csv`, as a person would load a file by hand. Returns the number of rows.
    pub(crate) fn copy_csv(&self, table: &str, csv: Vec<u8>) -> u64 {
        RUNTIME.block_on(async {
            let sink = self.client.copy_in(&format!("copy {table} from stdin csv")).await.expect("a COPY");
            let mut sink = pin!(sink);
            sink.send(Bytes::from(csv)).await.expect("sent rows");
            sink.finish().await.expect("copied rows")
        })
    }

    /// The rows of a query, each value as Postgres writes it.
    pub(crate) fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let messages =
            RUNTIME.block_on(self.client.simple_query(sql)).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|index| row.get(index).map(str::to_owned)).collect())
            }
            _ => None,
        };
        messages.into_iter().filter_map(row).collect()
    }

    /// The rows of a query, each value by its column's name; null is empty.
    pub(crate) fn records(&self, sql: &str) -> Vec<BTreeMap<String, String>> {
        let messages =
            RUNTIME.block_on(self.client.simple_query(sql)).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let value = |row: &SimpleQueryRow, index| row.get(index).unwrap_or_default().to_owned();
        let record = |message| match message {
            SimpleQueryMessage::Row(row) => {
                let columns = row.columns().iter().enumerate();
                Some(columns.map(|(index, column)| (column.name().to_owned(), value(&row, index))).collect())
            }
            _ => None,
        };
        messages.into_iter().filter_map(record).collect()
    }

    /// The values of a query's only column; none may be null.
    pub(crate) fn texts(&self, sql: &str) -> Vec<String> {
        self.rows(sql).into_iter().map(|mut row| row.remove(0).expect("a value that is not null")).collect()
    }

    /// The only value of a query, as a number that is not negative.
    pub(crate) fn number(&self, sql: &str) -> u64 {
        let [text] = &self.texts(sql)[..] else { panic!("{sql} gave not one row") };
        text.parse().unwrap_or_else(|_| panic!("{sql} gave {text}"))
    }

    /// The number of rows in a table.
    pub(crate) fn count(&self, table: &str) -> u64 {
        self.number(&format!("select count(*) from {table}"))
    }
}
