//! A TCP proxy before Postgres that breaks one connection at a chosen point of the conversation, and from then on
//! passes everything on.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::RUNTIME;

/// Far longer than any event takes that a test waits for.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where a conversation breaks. Bytes are counted over all connections through the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// When this number of bytes has gone to the server.
    Sent(u64),
    /// When this number of bytes of answers has come back.
    Answered(u64),
    /// At a COMMIT, which the server never sees.
    Commit,
    /// At the answer to a COMMIT, which the client never sees.
    CommitAnswer,
}

/// What happens there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// Both ends are closed.
    Cut,
    /// Both ends stay open, and nothing goes through any more.
    Hold,
}

/// What went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Traffic {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
}

pub(crate) struct Proxy {
    server_port: u16,
    port: u16,
    shared: Arc<Shared>,
    listening: AbortHandle,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    fault: Option<(Point, Break)>,
    connections: usize,
    traffic: Traffic,
    answers: Vec<u8>,
}

impl Proxy {
    /// Leads to a port of this machine.
    pub(crate) fn before(server_port: u16) -> Self {
        let listener = RUNTIME.block_on(TcpListener::bind(("127.0.0.1", 0))).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::<Shared>::default();
        let listening = RUNTIME.spawn(relay_all(listener, server_port, Arc::clone(&shared))).abort_handle();
        Self { server_port, port, shared, listening }
    }

    /// A connection string of the server, changed to go through here.
    pub(crate) fn url(&self, direct: &str) -> String {
        direct.replace(&format!(":{}/", self.server_port), &format!(":{}/", self.port))
    }

    /// Counts from zero again, and breaks one connection at this point.
    pub(crate) fn arm(&self, point: Point, what: Break) {
        *self.shared.lock() = State { fault: Some((point, what)), ..State::default() };
    }

    /// Whether no connection was broken since [`Proxy::arm`].
    pub(crate) fn is_armed(&self) -> bool {
        self.shared.lock().fault.is_some()
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.shared.lock().traffic
    }

    /// Waits until the server has answered with an error of this SQLSTATE.
    pub(crate) fn wait_for_error(&self, sqlstate: &str) {
        let field = format!("C{sqlstate}\0");
        self.shared.wait_until(sqlstate, |state| contains(&state.answers, field.as_bytes()));
    }

    /// Waits until this number of connections was opened.
    pub(crate) fn wait_for_connections(&self, connections: usize) {
        self.shared.wait_until("a connection", |state| state.connections >= connections);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the state")
    }

    fn wait_until(&self, event: &str, mut has_come: impl FnMut(&State) -> bool) {
        let waited = self.changed.wait_timeout_while(self.lock(), PATIENCE, |state| !has_come(state));
        let (state, timeout) = waited.expect("the state");
        drop(state);
        assert!(!timeout.timed_out(), "no {event} within {} s", PATIENCE.as_secs());
    }

    fn connected(&self) {
        self.lock().connections += 1;
        self.changed.notify_all();
    }

    /// The number of bytes of a request to pass on, and what happens then.
    fn request(&self, bytes: &[u8]) -> (usize, Option<Break>) {
        let mut state = self.lock();
        let before = state.traffic.sent;
        state.traffic.sent += bytes.len() as u64;
        match state.fault {
            Some((Point::Sent(limit), what)) => state.break_at(limit.saturating_sub(before), bytes.len(), what),
            Some((Point::Commit, what)) if is_commit(bytes) => state.break_at(0, bytes.len(), what),
            _ => (bytes.len(), None),
        }
    }

    /// The same of an answer.
    fn answer(&self, bytes: &[u8], to_commit: bool) -> (usize, Option<Break>) {
        let mut state = self.lock();
        let before = state.traffic.answered;
        state.traffic.answered += bytes.len() as u64;
        state.answers.extend_from_slice(bytes);
        self.changed.notify_all();
        match state.fault {
            Some((Point::Answered(limit), what)) => state.break_at(limit.saturating_sub(before), bytes.len(), what),
            Some((Point::CommitAnswer, what)) if to_commit => state.break_at(0, bytes.len(), what),
            _ => (bytes.len(), None),
        }
    }
}

impl State {
    fn break_at(&mut self, position: u64, length: usize, what: Break) -> (usize, Option<Break>) {
        match usize::try_from(position) {
            Ok(position) if position < length => {
                self.fault = None;
                (position, Some(what))
            }
            _ => (length, None),
        }
    }
}

async fn relay_all(listener: TcpListener, server_port: u16, shared: Arc<Shared>) {
    loop {
        let (client, _) = listener.accept().await.expect("a connection");
        let shared = Arc::clone(&shared);
        shared.connected();
        tokio::spawn(async move {
            // Where the server is down, the client finds its connection closed.
            let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)).await else { return };
            let (mut client, mut server) = (client, server);
            if relay(&shared, &mut client, &mut server).await == Some(Break::Hold) {
                std::future::pending::<()>().await;
            }
        });
    }
}

/// Until one end closes, or the connection is to break.
async fn relay(shared: &Shared, client: &mut TcpStream, server: &mut TcpStream) -> Option<Break> {
    let (mut request, mut answer) = (vec![0; 65_536], vec![0; 65_536]);
    let mut committing = false;
    loop {
        tokio::select! {
            read = client.read(&mut request) => {
                let bytes = received(&request, read)?;
                committing |= is_commit(bytes);
                let (passed, what) = shared.request(bytes);
                server.write_all(&bytes[..passed]).await.ok()?;
                if what.is_some() {
                    return what;
                }
            }
            read = server.read(&mut answer) => {
                let bytes = received(&answer, read)?;
                let (passed, what) = shared.answer(bytes, committing);
                client.write_all(&bytes[..passed]).await.ok()?;
                if what.is_some() {
                    return what;
                }
            }
        }
    }
}

fn received(buffer: &[u8], read: std::io::Result<usize>) -> Option<&[u8]> {
    read.ok().filter(|&length| length > 0).map(|length| &buffer[..length])
}

fn is_commit(request: &[u8]) -> bool {
    contains(request, b"COMMIT\0")
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
