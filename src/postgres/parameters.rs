//! The parameters of a connection, and what becomes of each: the only table of them.
//!
//! Source: PostgreSQL documentation, "Parameter Key Words" and "Environment Variables" of libpq, release 18.
//!
//! A parameter that cannot be honoured is refused unless leaving it out changes nothing that matters: a connection must
//! not be less safe, or lead elsewhere, than its string says.

/// A parameter that libpq knows.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    /// The environment variable that is asked where the connection string is silent.
    pub(super) variable: Option<&'static str>,
    pub(super) effect: Effect,
}

/// What becomes of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// It means what it means to libpq, except as its row says.
    Honoured,
    /// Any value is taken, and changes nothing.
    Ignored,
    /// These values ask for what happens anyway; any other is refused, for this reason.
    Only(&'static [&'static str], &'static str),
}

const fn row(name: &'static str, variable: &'static str, effect: Effect) -> Parameter {
    let variable = if variable.is_empty() { None } else { Some(variable) };
    Parameter { name, variable, effect }
}

const NO_DIRECT_TLS: &str = "TLS without negotiation is not supported; leave the parameter out";
const NO_LISTS: &str = "certificate revocation lists are not supported";
const NO_OAUTH: &str = "OAuth is not supported";
const ONE_PROTOCOL: &str = "the only version of the protocol that is supported is 3.0";
const NO_SCRAM_KEYS: &str = "pass-through keys of SCRAM are not supported; give the password";

use Effect::{Honoured, Ignored, Only};

const PARAMETERS: [Parameter; 51] = [
    row("host", "PGHOST", Honoured), // none: localhost, where libpq takes the socket directory that it was built with
    row("hostaddr", "PGHOSTADDR", Honoured), // alone, it is also the name that verify-full looks for
    row("port", "PGPORT", Honoured),
    row("dbname", "PGDATABASE", Honoured), // a connection string in its place is refused
    row("user", "PGUSER", Honoured),
    row("password", "PGPASSWORD", Honoured),
    row("passfile", "PGPASSFILE", Honoured), // several hosts must have one password in it
    row("service", "PGSERVICE", Honoured),
    row("servicefile", "PGSERVICEFILE", Honoured),
    row("options", "PGOPTIONS", Honoured),
    row("application_name", "PGAPPNAME", Honoured), // none, and no fallback: pgsluice
    row("fallback_application_name", "", Honoured),
    row("client_encoding", "PGCLIENTENCODING", Ignored), // UTF-8 always; the server converts
    row("connect_timeout", "PGCONNECT_TIMEOUT", Honoured), // none or 0: ten seconds, where libpq waits without end
    row("keepalives", "", Honoured),                     // 0 also ends the watch over silent connections
    row("keepalives_idle", "", Honoured),                // none or 0: see `timeouts`, for this and the next three
    row("keepalives_interval", "", Honoured),
    row("keepalives_count", "", Honoured),
    row("tcp_user_timeout", "", Honoured),
    row("target_session_attrs", "PGTARGETSESSIONATTRS", Honoured), // `primary` is taken as read-write
    row("load_balance_hosts", "PGLOADBALANCEHOSTS", Honoured),
    row("sslmode", "PGSSLMODE", Honoured), // `allow` as prefer; prefer verifies nothing, with root certificates or without
    row("sslrootcert", "PGSSLROOTCERT", Honoured), // a file that is named and missing is an error for sslmode=require too
    row("sslsni", "PGSSLSNI", Honoured),
    row("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Honoured), // never older than TLS 1.2
    row("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Honoured),
    row("channel_binding", "PGCHANNELBINDING", Honoured),
    row("sslnegotiation", "PGSSLNEGOTIATION", Only(&["postgres"], NO_DIRECT_TLS)),
    row("sslcompression", "PGSSLCOMPRESSION", Ignored), // libpq ignores it where TLS has no compression
    row("sslcert", "PGSSLCERT", Honoured),              // a file that is named and missing is an error
    row("sslkey", "PGSSLKEY", Honoured),                // a file alone: no engine, no passphrase
    row("sslpassword", "", Only(&[""], "keys with a passphrase are not supported")),
    row("sslcertmode", "PGSSLCERTMODE", Honoured), // `require` is refused: what a server asked for is not known
    row("sslcrl", "PGSSLCRL", Only(&[""], NO_LISTS)),
    row("sslcrldir", "PGSSLCRLDIR", Only(&[""], NO_LISTS)),
    row("sslkeylogfile", "", Only(&[""], "TLS keys are never written to a file")),
    row("require_auth", "PGREQUIREAUTH", Honoured), // over TCP alone
    row("requirepeer", "PGREQUIREPEER", Only(&[""], "the owner of a server's process is not compared")),
    row("gssencmode", "PGGSSENCMODE", Only(&["disable", "prefer"], "encryption by GSSAPI is not supported")),
    row("krbsrvname", "PGKRBSRVNAME", Ignored), // for GSSAPI alone, like the next two
    row("gsslib", "PGGSSLIB", Ignored),
    row("gssdelegation", "PGGSSDELEGATION", Ignored),
    row("min_protocol_version", "PGMINPROTOCOLVERSION", Only(&["", "3.0"], ONE_PROTOCOL)),
    row("max_protocol_version", "PGMAXPROTOCOLVERSION", Ignored), // it cannot be below 3.0
    row("replication", "", Only(&["", "false", "off", "no", "0"], "a load needs an ordinary connection")),
    row("scram_client_key", "", Only(&[""], NO_SCRAM_KEYS)),
    row("scram_server_key", "", Only(&[""], NO_SCRAM_KEYS)),
    row("oauth_issuer", "", Only(&[""], NO_OAUTH)),
    row("oauth_client_id", "", Only(&[""], NO_OAUTH)),
    row("oauth_client_secret", "", Only(&[""], NO_OAUTH)),
    row("oauth_scope", "", Only(&[""], NO_OAUTH)),
];

/// All of them.
pub(super) fn all() -> impl Iterator<Item = &'static Parameter> {
    PARAMETERS.iter()
}

pub(super) fn find(name: &str) -> Option<&'static Parameter> {
    PARAMETERS.iter().find(|parameter| parameter.name == name)
}

/// Whether a value may not even be shown in part.
pub(super) fn is_secret(name: &str) -> bool {
    ["password", "sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret"].contains(&name)
}
