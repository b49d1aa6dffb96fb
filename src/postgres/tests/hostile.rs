//! Operators and functions that anybody with CREATE on a schema can put before those of the server, because
//! `search_path` names that schema first. Statements of ours must reach none of them.

use tokio_postgres::{Client, SimpleQueryMessage};

use super::super::watch::{IDENTIFY, TransactionId, Watch};
use super::super::{Database, NOTICE_A_LOST_CLIENT_LOCALLY, PostgresError, connect};
use crate::local::{LocalPostgres, LocalPostgresOptions};

const PLANT: &str = include_str!("hostile.sql");

/// Plants them in the database that a client is connected to. Sessions that begin later resolve names there first.
pub(crate) async fn plant(client: &Client) {
    client.batch_execute(PLANT).await.unwrap();
}

/// How often one of them was called, over all sessions, whatever was rolled back.
pub(crate) async fn calls(client: &Client) -> i64 {
    let statement = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM hostile.calls";
    client.query_typed_one(statement, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_careless_statement_calls_what_is_planted() {
    let server = LocalPostgres::start(LocalPostgresOptions::default()).unwrap();
    let url = server.url("postgres").into();
    let client = connect(&url).await.unwrap();
    plant(&client).await;
    assert_eq!(calls(&client).await, 0);
    let victim = connect(&url).await.unwrap();
    let careless = [
        "SELECT extract(epoch FROM pg_catalog.now()) * 1000000",
        "SELECT now()",
        "SELECT 'a'::text = 'b'::text",
        "SELECT pg_catalog.gen_random_uuid() = ANY (ARRAY[pg_catalog.gen_random_uuid()])",
    ];
    for (index, statement) in (1..).zip(careless) {
        victim.batch_execute(statement).await.unwrap();
        assert_eq!(calls(&client).await, index, "{statement}");
    }
}

/// Once `extract(…) * 1000000` called an operator of anybody with CREATE on `public`, with the rights of the loader.
#[tokio::test]
async fn watching_a_transaction_calls_nothing_that_is_planted() {
    let server = LocalPostgres::start(LocalPostgresOptions::default()).unwrap();
    let url = server.url("postgres");
    let client = connect(&url.clone().into()).await.unwrap();
    plant(&client).await;
    let database = Database::new(&format!("{url}?keepalives_idle=1").into()).unwrap();
    let watch = Watch::of(database.clone());
    let connection = database.connect().await.unwrap();
    let attempt = async {
        let statements = format!("BEGIN; {IDENTIFY}; {NOTICE_A_LOST_CLIENT_LOCALLY}");
        let begun = connection.client.simple_query(&statements).await.unwrap();
        let identity = begun.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((row.get(0)?.parse().unwrap(), row.get(1)?.parse().unwrap())),
            _ => None,
        });
        let (backend, started_us) = identity.unwrap();
        watch.began(TransactionId { backend, started_us });
        std::future::pending::<Result<(), PostgresError>>().await
    };
    // The server waits for us, which two looks tell.
    watch.during(attempt).await.unwrap_err();
    assert!(!connection.is_closed());
    watch.end_last(&database.connect().await.unwrap().client).await.unwrap();
    let ended = connection.client.batch_execute("COMMIT").await.unwrap_err();
    assert!(ended.is_closed() || ended.code().is_some_and(|code| code.code() == "57P01"), "{ended:?}");
    assert_eq!(calls(&client).await, 0);
}
