//! What a connection string means, with the service file, the PG* variables and the password file where it is silent: a
//! configuration of the driver, what TLS must prove, and how the server may ask who we are. Nothing here connects.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, Host, LoadBalanceHosts, SslMode, SslNegotiation, TargetSessionAttrs};

use super::authentication::Methods;
use super::conninfo::{Parameters, is_connection_string};
use super::error::invalid_setting as invalid;
use super::parameters::{self, Effect, Parameter};
use super::passfile::{Login, PasswordFile};
use super::rds::Tokens;
use super::sslmode::Encryption;
use super::{caution, service, timeouts};
use crate::config::{ConfigError, PasswordSource};

const DEFAULT_HOST: &str = "localhost";
const DEFAULT_PORT: u16 = 5432;
/// Below the home directory.
const DEFAULT_PASSWORD_FILE: &str = ".pgpass";

/// Where and how to connect.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) config: Config,
    pub(super) encryption: Encryption,
    /// Ways of asking who we are that are allowed, and what the driver would have done of TLS by itself; then the driver
    /// must be told to begin TLS at once.
    pub(super) watched: Option<(SslMode, Methods)>,
    /// Make the password of each connection.
    pub(super) tokens: Option<Tokens>,
    /// What a person should know.
    pub(super) cautions: Vec<String>,
}

impl Settings {
    /// Reads a connection string, which may be empty; `environment` looks up a variable.
    pub(super) fn parse(
        text: &str,
        source: Option<PasswordSource>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        // An empty variable is as if it were not set.
        let environment = |name: &str| environment(name).filter(|value| !value.is_empty());
        let parameters = read_parameters(text, &environment)?;
        let mut config = Config::new();
        add_places(&mut config, &parameters)?;
        add_identity(&mut config, &parameters)?;
        add_choices(&mut config, &parameters)?;
        timeouts::apply(&mut config, &parameters)?;
        let home = environment("HOME");
        let mut encryption = Encryption::resolve(&parameters, home.as_deref())?;
        let mut cautions = Vec::new();
        if config.get_password().is_none() && source.is_none() {
            let default = home.map(|home| Path::new(&home).join(DEFAULT_PASSWORD_FILE));
            let file = parameters.non_empty("passfile").map(PathBuf::from).or(default);
            if let Some(password) = file.map(|file| password_of(&file, &config, &mut cautions)).transpose()?.flatten() {
                config.password(password);
            }
        }
        let is_socket = |host: &Host| matches!(host, Host::Unix(_));
        // As libpq: nothing is encrypted that stays on this machine.
        let only_sockets = config.get_hosts().iter().all(is_socket);
        let mode = if only_sockets { SslMode::Disable } else { encryption.mode };
        config.ssl_mode(mode);
        if mode == SslMode::Disable {
            encryption.client = None;
        }
        let methods = Methods::parse(parameters.get("require_auth").unwrap_or_default())?;
        let tokens = source.map(|PasswordSource::RdsIam| Tokens::of(&config)).transpose()?;
        if config.get_password().is_some() || tokens.is_some() {
            cautions.extend(caution::of_unverified(&config, &encryption, methods.as_ref()));
        }
        if methods.is_some() {
            if config.get_hosts().iter().any(is_socket) {
                return Err(invalid("require_auth is not supported over a socket of this machine".to_owned()));
            }
            config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
        }
        Ok(Self { config, encryption, watched: methods.map(|methods| (mode, methods)), tokens, cautions })
    }
}

/// The parameters that the string gives, then those of the service, then those of the environment. Refuses what cannot be honoured.
fn read_parameters(text: &str, environment: &impl Fn(&str) -> Option<String>) -> Result<Parameters, ConfigError> {
    let mut read = Parameters::parse(text).map_err(invalid)?;
    service::apply(&mut read, environment)?;
    for Parameter { name, variable, effect } in parameters::all() {
        let mut said_by = *name;
        if let (None, Some(variable)) = (read.get(name), *variable)
            && let Some(value) = environment(variable)
        {
            said_by = variable;
            read.set(name, &value);
        }
        match (effect, read.get(name)) {
            (Effect::Only(values, reason), Some(value)) if !values.contains(&value) => {
                return Err(invalid(format!("{said_by}: {reason}")));
            }
            _ => {}
        }
    }
    Ok(read)
}

/// The password that a password file has for the hosts. The driver knows one for all of them.
fn password_of(path: &Path, config: &Config, cautions: &mut Vec<String>) -> Result<Option<String>, ConfigError> {
    let file = PasswordFile::read(path, cautions)?;
    let user = match config.get_user() {
        Some(user) => user.to_owned(),
        None => whoami::username().map_err(|error| invalid(format!("user: {error}")))?,
    };
    let ports = config.get_ports();
    let found = config.get_hosts().iter().enumerate().map(|(index, host)| {
        let host = match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(directory) => directory.display().to_string().replacen('\0', "@", 1),
        };
        let port = ports.get(index).or(ports.first()).unwrap_or(&DEFAULT_PORT).to_string();
        file.password(Login { host: &host, port: &port, database: config.get_dbname().unwrap_or(&user), user: &user })
    });
    let mut passwords: BTreeSet<Option<String>> = found.collect();
    if passwords.len() > 1 {
        let problem = format!("password file {} has not the same password for each of the hosts", path.display());
        return Err(invalid(problem));
    }
    Ok(passwords.pop_first().flatten().filter(|password| !password.is_empty()))
}

/// Hosts, each with its address if one is given, and its port.
fn add_places(config: &mut Config, parameters: &Parameters) -> Result<(), ConfigError> {
    let list = |name| parameters.non_empty(name).map(|value| value.split(',').collect::<Vec<_>>());
    let (hosts, addresses) = (list("host"), list("hostaddr"));
    let places = addresses.as_ref().or(hosts.as_ref()).map_or(1, Vec::len);
    if hosts.as_ref().is_some_and(|hosts| hosts.len() != places) {
        return Err(invalid("host and hostaddr do not name the same number of hosts".to_owned()));
    }
    for index in 0..places {
        let host = hosts.as_ref().and_then(|hosts| hosts.get(index)).filter(|host| !host.is_empty());
        if let Some(address) = addresses.as_ref().and_then(|addresses| addresses.get(index)) {
            let parsed = address.parse::<IpAddr>();
            config.hostaddr(parsed.map_err(|_| invalid("hostaddr has an entry that is no IP address".to_owned()))?);
            // The driver wants a name for TLS.
            add_host(config, host.unwrap_or(address))?;
        } else {
            add_host(config, host.unwrap_or(&DEFAULT_HOST))?;
        }
    }
    let ports = list("port").unwrap_or_else(|| vec![""]);
    if ports.len() != 1 && ports.len() != places {
        return Err(invalid("port has neither one entry nor one for each host".to_owned()));
    }
    for port in ports {
        config.port(if port.is_empty() { DEFAULT_PORT } else { number(port, 1..=65535, "port")? });
    }
    Ok(())
}

/// A name, an address, or the directory of a socket; `@` begins one that is in no file system.
fn add_host(config: &mut Config, host: &str) -> Result<(), ConfigError> {
    if host.starts_with('/') {
        config.host_path(host);
    } else if let Some(name) = host.strip_prefix('@') {
        config.host_path(format!("\0{name}"));
    } else if host.chars().all(|character| character.is_alphanumeric() || "-_.:%".contains(character)) {
        config.host(host);
    } else {
        // It may be anything, a password too, so it is not shown.
        return Err(invalid("host has an entry that is no host name".to_owned()));
    }
    Ok(())
}

fn add_identity(config: &mut Config, parameters: &Parameters) -> Result<(), ConfigError> {
    if let Some(user) = parameters.non_empty("user") {
        config.user(user);
    }
    if let Some(password) = parameters.non_empty("password") {
        config.password(password);
    }
    if let Some(database) = parameters.non_empty("dbname") {
        if is_connection_string(database) {
            return Err(invalid("dbname is itself a connection string".to_owned()));
        }
        config.dbname(database);
    }
    if let Some(options) = parameters.non_empty("options") {
        config.options(options);
    }
    let name = parameters.non_empty("application_name").or(parameters.non_empty("fallback_application_name"));
    config.application_name(name.unwrap_or("pgsluice"));
    Ok(())
}

fn add_choices(config: &mut Config, parameters: &Parameters) -> Result<(), ConfigError> {
    let unknown = |name: &str| Err(invalid(format!("{name} is none that libpq knows")));
    match parameters.get("channel_binding") {
        None | Some("prefer") => {}
        Some("disable") => _ = config.channel_binding(ChannelBinding::Disable),
        Some("require") => _ = config.channel_binding(ChannelBinding::Require),
        Some(_) => return unknown("channel_binding"),
    }
    match parameters.get("load_balance_hosts") {
        None | Some("disable") => {}
        Some("random") => _ = config.load_balance_hosts(LoadBalanceHosts::Random),
        Some(_) => return unknown("load_balance_hosts"),
    }
    match parameters.get("target_session_attrs") {
        None | Some("any") => {}
        // A primary that takes no writes is of no use to a load.
        Some("read-write" | "primary") => _ = config.target_session_attrs(TargetSessionAttrs::ReadWrite),
        Some("read-only") => _ = config.target_session_attrs(TargetSessionAttrs::ReadOnly),
        Some("standby" | "prefer-standby") => {
            return Err(invalid("target_session_attrs: a load needs a server that takes writes".to_owned()));
        }
        Some(_) => return unknown("target_session_attrs"),
    }
    Ok(())
}

/// A whole number as libpq takes it, with spaces around.
pub(super) fn number<T>(text: &str, range: std::ops::RangeInclusive<i64>, name: &str) -> Result<T, ConfigError>
where
    T: TryFrom<i64>,
{
    let number = text.trim().parse::<i64>().ok().filter(|number| range.contains(number));
    let wrong = || invalid(format!("{name} is not a number from {} to {}", range.start(), range.end()));
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(wrong)
}
