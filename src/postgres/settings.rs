//! What a connection string means, with the PG* variables where it is silent: a configuration of the driver, and what
//! TLS must prove. Nothing here connects.

use std::net::IpAddr;

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, Host, LoadBalanceHosts, SslMode, TargetSessionAttrs};

use super::conninfo::{Parameters, is_connection_string};
use super::error::invalid_setting as invalid;
use super::parameters::{self, Effect, Parameter};
use super::sslmode::Encryption;
use super::timeouts;
use crate::config::ConfigError;

const DEFAULT_HOST: &str = "localhost";
const DEFAULT_PORT: u16 = 5432;

/// Where and how to connect.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) config: Config,
    pub(super) encryption: Encryption,
}

impl Settings {
    /// Reads a connection string, which may be empty; `environment` looks up a variable.
    pub(super) fn parse(text: &str, environment: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        // An empty variable is as if it were not set.
        let environment = |name: &str| environment(name).filter(|value| !value.is_empty());
        let parameters = read_parameters(text, &environment)?;
        let mut config = Config::new();
        add_places(&mut config, &parameters)?;
        add_identity(&mut config, &parameters)?;
        add_choices(&mut config, &parameters)?;
        timeouts::apply(&mut config, &parameters)?;
        let encryption = Encryption::resolve(&parameters, environment("HOME").as_deref())?;
        let only_sockets = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        // As libpq: nothing is encrypted that stays on this machine.
        config.ssl_mode(if only_sockets { SslMode::Disable } else { encryption.mode });
        Ok(Self { config, encryption })
    }
}

/// The parameters that the string gives, then those of the environment. Refuses what cannot be honoured.
fn read_parameters(text: &str, environment: &impl Fn(&str) -> Option<String>) -> Result<Parameters, ConfigError> {
    let mut read = Parameters::parse(text).map_err(invalid)?;
    for Parameter { name, variable, effect } in parameters::all() {
        let mut said_by = *name;
        if let (None, Some(variable)) = (read.get(name), *variable)
            && let Some(value) = environment(variable)
        {
            said_by = variable;
            read.set(name, &value);
        }
        // A password stands before it in the table, and makes a file of passwords needless.
        let unused = *name == "passfile" && read.non_empty("password").is_some();
        match (effect, read.get(name)) {
            (Effect::Only(values, reason), Some(value)) if !unused && !values.contains(&value) => {
                return Err(invalid(format!("{said_by}: {reason}")));
            }
            _ => {}
        }
    }
    Ok(read)
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
