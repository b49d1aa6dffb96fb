//! The stream that the driver speaks over: TLS where it is wanted, and watched where `require_auth` says so.
//!
//! The driver negotiates TLS by itself, and gives the plain socket to nobody. So where each connection is to be watched,
//! encrypted or not, it is told that TLS begins at once, and the negotiation takes place here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::authentication::{Methods, Watch};

/// Its length, and the code of a request for TLS.
const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
const WITH_TLS: u8 = b'S';
const WITHOUT_TLS: u8 = b'N';

/// Makes the driver's streams.
#[derive(Clone)]
pub(super) struct Connector {
    tls: MakeRustlsConnect,
    watched: Option<(SslMode, Methods)>,
}

impl Connector {
    /// With `watched`, the driver must be told to begin TLS at once.
    pub(super) fn new(tls: ClientConfig, watched: Option<(SslMode, Methods)>) -> Self {
        Self { tls: MakeRustlsConnect::new(tls), watched }
    }
}

type Encrypting = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
type Encrypted = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

impl MakeTlsConnect<Socket> for Connector {
    type Stream = Stream;
    type TlsConnect = Negotiation;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Negotiation> {
        let tls = MakeTlsConnect::<Socket>::make_tls_connect(&mut self.tls, host).map_err(io::Error::other)?;
        Ok(Negotiation { tls, watched: self.watched.clone() })
    }
}

/// What is to happen to one socket.
pub(super) struct Negotiation {
    tls: Encrypting,
    watched: Option<(SslMode, Methods)>,
}

impl TlsConnect<Socket> for Negotiation {
    type Stream = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let Self { tls, watched } = self;
            let Some((mode, methods)) = watched else {
                return Ok(Stream {
                    transport: Transport::Encrypted(Box::new(tls.connect(socket).await?)),
                    watch: None,
                });
            };
            let transport = match mode {
                SslMode::Disable => Transport::Plain(socket),
                mode => match ask_for_tls(socket).await? {
                    (socket, true) => Transport::Encrypted(Box::new(tls.connect(socket).await?)),
                    (socket, false) if mode == SslMode::Prefer => Transport::Plain(socket),
                    _ => return Err(io::Error::other("server does not support TLS")),
                },
            };
            Ok(Stream { transport, watch: Some(Watch::new(methods)) })
        })
    }
}

async fn ask_for_tls(mut socket: Socket) -> io::Result<(Socket, bool)> {
    socket.write_all(&TLS_REQUEST).await?;
    // One byte alone: what follows it may be TLS already.
    match socket.read_u8().await? {
        WITH_TLS => Ok((socket, true)),
        WITHOUT_TLS => Ok((socket, false)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the server does not speak Postgres' protocol")),
    }
}

enum Transport {
    Plain(Socket),
    Encrypted(Box<Encrypted>),
}

/// A connection to a server.
pub(super) struct Stream {
    transport: Transport,
    watch: Option<Watch>,
}

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.transport {
            Transport::Plain(_) => ChannelBinding::none(),
            Transport::Encrypted(stream) => stream.channel_binding(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_read(context, buffer),
            Transport::Encrypted(stream) => Pin::new(stream).poll_read(context, buffer),
        })?;
        let come = buffer.filled().get(before..).unwrap_or_default();
        Poll::Ready(self.watch.as_mut().map_or(Ok(()), |watch| watch.read(come)))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_write(context, bytes),
            Transport::Encrypted(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_flush(context),
            Transport::Encrypted(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_shutdown(context),
            Transport::Encrypted(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
