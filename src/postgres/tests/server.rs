//! A server that says what a test tells it to say, and tells what it was answered: no real one asks for a password that it
//! does not want to know.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::authority::{Authority, Signed};

const TLS_REQUEST: u32 = 80_877_103;

/// What the server asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    Nothing,
    Cleartext,
    Md5,
    Scram,
}

/// What a client did, by the time it went away or was let in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) encrypted: bool,
    pub(super) certificate: bool,
    /// The content of its answer to the question, without the zero at its end.
    pub(super) answer: Option<String>,
}

/// A listening server.
pub(super) struct Server {
    pub(super) port: u16,
    clients: mpsc::UnboundedReceiver<Seen>,
}

impl Server {
    /// Without `signed`, it knows no TLS; with `clients_of`, it asks for the certificate of a client, and can do without.
    pub(super) async fn start(asks: Asks, signed: Option<&Signed>, clients_of: Option<&Authority>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = signed.map(|signed| TlsAcceptor::from(Arc::new(config(signed, clients_of))));
        let (seen, clients) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (tls, seen) = (tls.clone(), seen.clone());
                tokio::spawn(async move {
                    let mut client = Seen::default();
                    // A client that goes away is no fault of the server's.
                    _ = serve(socket, tls, asks, &mut client).await;
                    _ = seen.send(client);
                });
            }
        });
        Self { port, clients }
    }

    /// The next client that has gone away or was let in.
    pub(super) async fn client(&mut self) -> Seen {
        self.clients.recv().await.unwrap()
    }
}

fn config(signed: &Signed, clients_of: Option<&Authority>) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificate = CertificateDer::from_pem_slice(signed.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.unwrap();
    let builder = match clients_of {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        }
    };
    builder.with_single_cert(vec![certificate], key).unwrap()
}

async fn serve(mut socket: TcpStream, tls: Option<TlsAcceptor>, asks: Asks, client: &mut Seen) -> std::io::Result<()> {
    loop {
        let length = socket.read_u32().await?;
        let mut content = vec![0; length as usize - 4];
        socket.read_exact(&mut content).await?;
        if content != TLS_REQUEST.to_be_bytes() {
            return let_in(socket, asks, client).await;
        }
        if let Some(tls) = &tls {
            socket.write_all(b"S").await?;
            let mut stream = tls.accept(socket).await?;
            client.encrypted = true;
            client.certificate = stream.get_ref().1.peer_certificates().is_some();
            let length = stream.read_u32().await?;
            stream.read_exact(&mut vec![0; length as usize - 4]).await?;
            return let_in(stream, asks, client).await;
        }
        socket.write_all(b"N").await?;
    }
}

async fn let_in(mut stream: impl AsyncRead + AsyncWrite + Unpin, asks: Asks, client: &mut Seen) -> std::io::Result<()> {
    let question: &[u8] = match asks {
        Asks::Nothing => b"",
        Asks::Cleartext => b"R\0\0\0\x08\0\0\0\x03",
        Asks::Md5 => b"R\0\0\0\x0c\0\0\0\x05salt",
        Asks::Scram => b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0",
    };
    // In two parts: a message may come in any number.
    let (start, end) = question.split_at(question.len().min(6));
    stream.write_all(start).await?;
    stream.flush().await?;
    stream.write_all(end).await?;
    stream.flush().await?;
    if asks != Asks::Nothing {
        stream.read_u8().await?;
        let length = stream.read_u32().await?;
        let mut content = vec![0; length as usize - 4];
        stream.read_exact(&mut content).await?;
        client.answer = Some(String::from_utf8_lossy(&content).trim_end_matches('\0').to_owned());
    }
    // AuthenticationOk, ReadyForQuery (idle).
    stream.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await?;
    stream.flush().await
}
