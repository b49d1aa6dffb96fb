//! A database of a test's own, in the one temporary cluster of this process.

use std::pin::pin;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use futures::SinkExt;
use pgsluice::local::{LocalPostgres, LocalPostgresOptions};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

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

    /// A database that is there already, in any cluster.
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

    /// `\copy table from … csv`, as a person would load a file by hand. Returns how many rows there were.
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

    /// The values of a query's only column; none may be null.
    pub(crate) fn texts(&self, sql: &str) -> Vec<String> {
        self.rows(sql).into_iter().map(|mut row| row.remove(0).expect("a value that is not null")).collect()
    }

    /// The only value of a query, as a number that is not negative.
    pub(crate) fn number(&self, sql: &str) -> u64 {
        let [text] = &self.texts(sql)[..] else { panic!("{sql} gave not one row") };
        text.parse().unwrap_or_else(|_| panic!("{sql} gave {text}"))
    }

    /// How many rows a table has.
    pub(crate) fn count(&self, table: &str) -> u64 {
        self.number(&format!("select count(*) from {table}"))
    }
}
