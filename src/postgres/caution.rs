//! What a person should know of a connection that works all the same: said once a process, however many connections
//! are opened.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, Host};

use super::authentication::Methods;
use super::conninfo::Parameters;
use super::parameters::is_secret;
use super::sslmode::{Encryption, Verify};
use crate::host::is_local;

static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

const UNVERIFIED: &str = "the password of Postgres crosses a network to a server that is not verified, which may be \
     another one: say sslmode=verify-full, or require_auth=scram-sha-256";

/// Warns, unless it has been said.
pub(super) fn say_once(cautions: Vec<String>) {
    for caution in cautions {
        let is_new = SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(caution.clone());
        if is_new {
            tracing::warn!("{caution}");
        }
    }
}

/// Whether somebody between us and the server could take its place and be told the password.
pub(super) fn of_unverified(config: &Config, encryption: &Encryption, methods: Option<&Methods>) -> Option<String> {
    let is_verified = matches!(encryption.verify, Verify::AuthorityAndHost(_));
    let is_bound = config.get_channel_binding() == ChannelBinding::Require;
    let is_readable = methods.is_none_or(Methods::allow_a_readable_password);
    (is_readable && !is_verified && !is_bound && crosses_a_network(config)).then(|| UNVERIFIED.to_owned())
}

/// Whether a connection string holds a password.
pub(crate) fn holds_a_password(text: &str) -> bool {
    Parameters::parse(text).is_ok_and(|parameters| parameters.non_empty("password").is_some())
}

/// A connection string as pairs, each secret replaced by `hidden`. `None` where it cannot be read.
pub(crate) fn without_secrets(text: &str, hidden: &str) -> Option<String> {
    let parameters = Parameters::parse(text).ok()?;
    let pair = |(name, value): (&str, &str)| match value {
        _ if is_secret(name) => format!("{name}={hidden}"),
        value if value.is_empty() || value.contains([' ', '\'', '\\']) => {
            format!("{name}='{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
        }
        value => format!("{name}={value}"),
    };
    Some(parameters.iter().map(pair).collect::<Vec<_>>().join(" "))
}

fn crosses_a_network(config: &Config) -> bool {
    let addresses = config.get_hostaddrs();
    if addresses.is_empty() {
        config.get_hosts().iter().any(|host| matches!(host, Host::Tcp(name) if !is_local(name)))
    } else {
        !addresses.iter().all(IpAddr::is_loopback)
    }
}
