//! Connections to Postgres: opens them, and says in our words why one could not be opened.
//!
//! A password is in no error and no log. Nothing is tried again here; [`super::retry`] says what is.

use std::time::Duration;

use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::settings::Settings;
use super::tls;
use crate::config::DatabaseUrl;
use crate::error::{ConfigError, LoadError};

/// How long a server may take to answer, unless the connection string says `connect_timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A database that can be connected to, again and again.
#[derive(Clone)]
pub(super) struct Database {
    config: Config,
    tls: MakeRustlsConnect,
    timeout: Duration,
    address: String,
}

impl Database {
    /// Reads the connection string, the PG* variables, and the trusted authorities where they are needed.
    pub(super) fn new(url: &DatabaseUrl) -> Result<Self, ConfigError> {
        let settings = Settings::parse(url.expose(), |name| std::env::var(name).ok())?;
        let tls = tls::connector(settings.verify, settings.root_certificates.as_deref())?;
        let mut config = settings.config;
        let each_host = *config.get_connect_timeout().unwrap_or(&CONNECT_TIMEOUT);
        config.connect_timeout(each_host);
        let hosts = config.get_hosts().len().max(config.get_hostaddrs().len());
        // The driver's own limit ends once TCP is connected; a server that then says nothing is no better.
        let timeout = each_host.saturating_mul(u32::try_from(hosts).unwrap_or(u32::MAX));
        Ok(Self { address: address(&config), config, tls, timeout })
    }

    /// Opens a connection.
    pub(super) async fn connect(&self) -> Result<Client, LoadError> {
        let connecting = tokio::time::timeout(self.timeout, self.config.connect(self.tls.clone()));
        let (client, connection) = match connecting.await {
            Ok(connected) => connected.map_err(|error| self.explain(error))?,
            Err(elapsed) => {
                return Err(LoadError::Unreachable { address: self.address.clone(), source: elapsed.into() });
            }
        };
        tokio::spawn(async move {
            // Whoever waits for an answer on this connection gets the error as well.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to Postgres ended");
            }
        });
        Ok(client)
    }

    fn explain(&self, error: tokio_postgres::Error) -> LoadError {
        let address = self.address.clone();
        match error.as_db_error() {
            Some(refusal) => LoadError::ConnectionRefused {
                address,
                message: refusal.message().to_owned(),
                sqlstate: refusal.code().code().to_owned(),
            },
            None => LoadError::Unreachable { address, source: error.into() },
        }
    }
}

/// Opens a connection to look at or prepare a database; loading goes through [`super::Loader`].
pub async fn connect(database: &DatabaseUrl) -> Result<Client, LoadError> {
    Database::new(database)?.connect().await
}

fn address(config: &Config) -> String {
    let addresses = config.get_hostaddrs().iter().map(ToString::to_string);
    let hosts = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(directory) => directory.display().to_string(),
    });
    let names: Vec<String> = if config.get_hosts().is_empty() { addresses.collect() } else { hosts.collect() };
    let ports = config.get_ports();
    let places = names.iter().enumerate().map(|(index, name)| {
        let port = ports.get(index).or(ports.first()).unwrap_or(&5432);
        format!("{name}:{port}")
    });
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
    format!("{}/{database}", places.collect::<Vec<_>>().join(","))
}
