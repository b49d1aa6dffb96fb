//! A Postgres of a bench's own that flushes to disk as a production server does, with the ledger and `user_logins`.

use pgsluice::config::{DatabaseUrl, Pipeline};
use pgsluice::load;
use pgsluice::local::{LocalPostgres, LocalPostgresOptions};
use tokio_postgres::{Client, NoTls};

/// Dropped, it is gone.
pub(crate) struct Database {
    client: Client,
    url: DatabaseUrl,
    _postgres: LocalPostgres,
}

impl Database {
    /// Must run in a runtime, which carries the connection.
    pub(crate) async fn start() -> Self {
        let postgres = LocalPostgres::start(LocalPostgresOptions { durable: true }).expect("a Postgres");
        let url = DatabaseUrl::from(postgres.url("postgres"));
        load::init(&url, &Pipeline::user_logins().expect("the built-in pipeline"))
            .await
            .expect("the ledger and user_logins");
        let (client, connection) = tokio_postgres::connect(url.expose(), NoTls).await.expect("a connection");
        tokio::spawn(connection);
        Self { client, url, _postgres: postgres }
    }

    pub(crate) fn url(&self) -> &DatabaseUrl {
        &self.url
    }

    pub(crate) async fn execute(&self, sql: &str) {
        self.client.batch_execute(sql).await.expect("a statement that Postgres takes");
    }

    /// Empties the tables, and writes what is still to write: a bench measures its own work alone.
    pub(crate) async fn empty(&self) {
        self.execute("TRUNCATE user_logins, pgsluice.segment, pgsluice.message, pgsluice.reject").await;
        self.execute("CHECKPOINT").await;
    }
}
