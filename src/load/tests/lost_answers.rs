use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::super::*;
use super::fixture::{Fixture, counts, messages, server};

#[tokio::test]
async fn a_commit_whose_answer_is_lost_counts_once() {
    for again in [false, true] {
        let fixture = Fixture::new().await;
        let staged = fixture.stage(&messages(0..100));
        if again {
            fixture.load(&staged).await;
            fixture.client.batch_execute("TRUNCATE items").await.unwrap();
            fixture.loader().await.forget(&[staged.segment], false).await.unwrap();
        }
        let port = start_proxy_that_loses_one_commit().await;
        let through_proxy = fixture.url.expose().replace(&server().port().to_string(), &port.to_string());
        let mut loader = Loader::connect(&through_proxy.into(), &fixture.pipeline).await.unwrap();
        let committed = loader.load(&fixture.staging, &staged).await.unwrap();
        assert_eq!((counts(&committed), committed.was_known()), ((100, 0, 0), false), "{again}");
        assert_eq!(fixture.rows().await, 100, "{again}");
    }
}

/// A port that leads to the server. On the first connection a COMMIT is passed on and applied, and then the
/// connection is cut in place of an answer.
async fn start_proxy_that_loses_one_commit() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        relay_until_commit(client, to_server().await).await;
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = to_server().await;
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        }
    });
    port
}

async fn to_server() -> TcpStream {
    TcpStream::connect(("127.0.0.1", server().port())).await.unwrap()
}

async fn relay_until_commit(mut client: TcpStream, mut server: TcpStream) {
    let (mut request, mut answer) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            read = client.read(&mut request) => {
                let request = &request[..read.unwrap()];
                server.write_all(request).await.unwrap();
                if request.windows(7).any(|bytes| bytes == b"COMMIT\0") {
                    assert!(server.read(&mut answer).await.unwrap() > 0);
                    return;
                }
            }
            read = server.read(&mut answer) => client.write_all(&answer[..read.unwrap()]).await.unwrap(),
        }
    }
}
