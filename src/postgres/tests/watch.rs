use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

use super::super::PostgresError;
use super::super::connection::Database;
use super::super::watch::{TransactionId, Watch};

const PATIENCE: Duration = Duration::from_secs(30);

/// Nothing listens there.
fn watch_over_a_server_that_is_gone() -> Watch {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    Watch::of(Database::new(&format!("postgres://u:p@{closed}/d").into()).unwrap())
}

async fn waits_for(patiences: u32) -> Result<(), PostgresError> {
    sleep(PATIENCE * patiences).await;
    Ok(())
}

/// Once a load was given up after a minute in the line of a full pooler, again and again, and ended the run.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_waits_for_a_pooler_to_begin_is_not_given_up() {
    let watch = watch_over_a_server_that_is_gone();
    watch.during(waits_for(15)).await.unwrap();
    // Nor because the transaction of the attempt before is over.
    let began_and_failed = async {
        watch.began(TransactionId { backend: 1, started_us: 1 });
        Ok::<_, PostgresError>(())
    };
    watch.during(began_and_failed).await.unwrap();
    watch.during(waits_for(15)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_open_transaction_is_not_given_up_because_nobody_answers_for_a_while() {
    let watch = watch_over_a_server_that_is_gone();
    let attempt = async {
        watch.began(TransactionId { backend: 1, started_us: 1 });
        waits_for(10).await
    };
    watch.during(attempt).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_nothing_is_heard_of_is_given_up_after_ten_minutes() {
    let watch = watch_over_a_server_that_is_gone();
    let started = Instant::now();
    let error = watch.during(std::future::pending::<Result<(), PostgresError>>()).await.unwrap_err();
    assert!(matches!(error, PostgresError::ConnectionLost { .. }), "{error}");
    assert_eq!(started.elapsed().as_secs(), 600);
}

/// Once a question that a full pooler did not answer stayed in its line after the load had ended, and then took the
/// place of a load.
#[tokio::test]
async fn a_look_leaves_the_line_of_a_pooler_with_its_attempt() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://u@{}/d?sslmode=disable&keepalives_idle=1", listener.local_addr().unwrap());
    let watch = Watch::of(Database::new(&url.into()).unwrap());
    let attempt = async {
        watch.began(TransactionId { backend: 1, started_us: 1 });
        let (mut pooler, _) = listener.accept().await.unwrap();
        greet(&mut pooler).await;
        // The question has come, and the attempt ends before it is answered.
        assert!(pooler.read(&mut [0; 8192]).await.unwrap() > 0);
        Ok::<_, PostgresError>(pooler)
    };
    let mut pooler = Box::pin(watch.during(attempt)).await.unwrap();
    let mut rest = Vec::new();
    // A connection that is cut may be reset instead of ended.
    _ = pooler.read_to_end(&mut rest).await;
    assert!(!rest.ends_with(b"X\0\0\0\x04"), "it was ended in order, so after an answer");
}

/// Takes a start-up message, and lets the client in.
async fn greet(client: &mut TcpStream) {
    let length = client.read_u32().await.unwrap();
    client.read_exact(&mut vec![0; length as usize - 4]).await.unwrap();
    // AuthenticationOk, ReadyForQuery (idle).
    client.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await.unwrap();
}
