//! Connections to Postgres: opens them, and says in our words why one could not be opened.
//!
//! A password is in no error and no log. Nothing is tried again here; [`super::retry`] says what is. A connection may
//! lead through a pooler that gives each transaction another session of the server, so nothing is set for a session.

use std::borrow::Cow;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, IsolationLevel, Transaction};

use super::negotiation::Connector;
use super::rds::Tokens;
use super::settings::Settings;
use super::{PostgresError, caution, tls};
use crate::config::{ConfigError, DatabaseUrl};

/// For the beginning of a transaction. Should our host vanish, the server ends the transaction within a minute, so that
/// the next run does not wait for its locks for the two hours that are the default.
pub(crate) const NOTICE_A_LOST_CLIENT_LOCALLY: &str = "SET LOCAL tcp_keepalives_idle = 30; \
     SET LOCAL tcp_keepalives_interval = 10; SET LOCAL tcp_keepalives_count = 3";

/// A database that can be connected to, again and again.
#[derive(Clone)]
pub(crate) struct Database {
    config: Config,
    tokens: Option<Tokens>,
    tls: Connector,
    timeout: Duration,
    /// How long nothing may come before the server is asked; `None` waits without end (`keepalives=0`).
    pub(crate) patience: Option<Duration>,
    address: String,
}

/// An open connection.
pub(crate) struct Connection {
    pub(crate) client: Client,
    task: AbortHandle,
    severed: bool,
}

impl Connection {
    /// Begins a transaction in which each statement sees what was committed before it, whatever the role's default is: what
    /// is asked after a lock was waited for must see what its holder did.
    pub(crate) async fn begin(&mut self) -> Result<Transaction<'_>, tokio_postgres::Error> {
        self.client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start().await
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.severed || self.client.is_closed()
    }

    /// Closes our end at once: nobody waits for what may still come.
    pub(crate) fn sever(&mut self) {
        self.task.abort();
        self.severed = true;
    }
}

impl Database {
    /// Reads the connection string, the PG* variables, and the trusted authorities where they are needed.
    pub(crate) fn new(url: &DatabaseUrl) -> Result<Self, ConfigError> {
        let settings = Settings::parse(url.expose(), url.password_source(), environment)?;
        let Settings { config, encryption, watched, tokens, cautions } = settings;
        caution::say_once(cautions);
        let tls = Connector::new(tls::client(&encryption)?, watched);
        // The driver's own limit ends once TCP is connected; a server that then says nothing is no better.
        let each_host = config.get_connect_timeout().copied().unwrap_or(Duration::MAX);
        let timeout = each_host.saturating_mul(u32::try_from(config.get_hosts().len()).unwrap_or(u32::MAX));
        let patience = config.get_keepalives().then(|| config.get_keepalives_idle());
        Ok(Self { address: address(&config), config, tokens, tls, timeout, patience })
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self) -> Result<Connection, PostgresError> {
        let mut config = Cow::Borrowed(&self.config);
        if let Some(tokens) = &self.tokens {
            let refused = |source| PostgresError::NoToken { address: self.address.clone(), source };
            config.to_mut().password(Box::pin(tokens.token()).await.map_err(refused)?);
        }
        match tokio::time::timeout(self.timeout, self.open(&config)).await {
            Ok(opened) => opened,
            Err(elapsed) => Err(PostgresError::Unreachable { address: self.address.clone(), source: elapsed.into() }),
        }
    }

    async fn open(&self, config: &Config) -> Result<Connection, PostgresError> {
        let connected = config.connect(self.tls.clone()).await;
        let (client, connection) = connected.map_err(|error| self.explain(error))?;
        let running = tokio::spawn(async move {
            // The statement that waits for an answer on this connection gets the error as well.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to Postgres ended");
            }
        });
        Ok(Connection { client, task: running.abort_handle(), severed: false })
    }

    fn explain(&self, error: tokio_postgres::Error) -> PostgresError {
        let address = self.address.clone();
        match error.as_db_error() {
            Some(refusal) => PostgresError::ConnectionRefused {
                address,
                message: refusal.message().to_owned(),
                sqlstate: refusal.code().code().to_owned(),
            },
            None if was_reached(&error) => {
                let action = format!("connecting to Postgres at {address}");
                PostgresError::ConnectionLost { action, source: error.into() }
            }
            None => PostgresError::Unreachable { address, source: error.into() },
        }
    }
}

#[cfg(test)]
impl Database {
    /// Signs tokens with an AWS that no environment has.
    pub(super) fn signing_by(mut self, aws: &aws_config::SdkConfig) -> Self {
        self.tokens = self.tokens.map(|tokens| tokens.signed_by(aws.clone()));
        self
    }
}

/// Opens a connection to look at or prepare a database; the loads have connections of their own.
pub async fn connect(database: &DatabaseUrl) -> Result<Client, PostgresError> {
    Ok(Database::new(database)?.connect().await?.client)
}

/// A variable; a home directory is known without one.
fn environment(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    if name == "HOME" { value.or_else(|| Some(std::env::home_dir()?.display().to_string())) } else { value }
}

/// Whether the connection was accepted and then closed, as a server does that is about to stop.
fn was_reached(error: &tokio_postgres::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, Other, UnexpectedEof};
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    let closed = [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof];
    // The driver calls an end amid a message `Other`.
    error.is_closed() || cause.is_some_and(|cause| closed.contains(&cause.kind()) || cause.kind() == Other)
}

fn address(config: &Config) -> String {
    let ports = config.get_ports();
    let places = config.get_hosts().iter().enumerate().map(|(index, host)| {
        let port = ports.get(index).or(ports.first()).unwrap_or(&5432);
        match host {
            Host::Tcp(name) if name.contains(':') => format!("[{name}]:{port}"),
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(directory) => format!("{}:{port}", directory.display().to_string().replacen('\0', "@", 1)),
        }
    });
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
    format!("{}/{database}", places.collect::<Vec<_>>().join(","))
}
