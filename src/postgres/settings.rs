//! What a connection string says: libpq's URLs and `key=value` strings, with the PG* variables where it is silent.
//!
//! tokio-postgres reads most of both forms. Taken out before it sees them, because it does not know them or knows them
//! by another name or unit, are `sslrootcert`, the values of `sslmode` that verify the server, `keepalives_count` and
//! `tcp_user_timeout`. Nothing here connects.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

use super::error::invalid_setting as invalid;
use super::timeouts::Timeouts;
use crate::config::ConfigError;

/// Where and how to connect.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) config: Config,
    pub(super) verify: Verify,
    /// A PEM file, or `system`; `None` is `system` too.
    pub(super) root_certificates: Option<String>,
}

/// What of the server's certificate must be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verify {
    /// Nothing: encryption alone.
    Nothing,
    /// A trusted authority signed it.
    Authority,
    /// And it is for the host that we asked for.
    AuthorityAndHost,
}

impl Settings {
    /// Reads a connection string, which may be empty; `environment` looks up a variable.
    pub(super) fn parse(text: &str, environment: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let environment = |name: &str| environment(name).filter(|value| !value.is_empty());
        let Split { rest, mode, root_certificates, timeouts } = match text.split_once("://") {
            Some((scheme, rest)) => split_url(scheme, rest, environment("PGPORT").as_deref())?,
            None => split_pairs(text)?,
        };
        let mut config: Config = rest.parse().map_err(|error: tokio_postgres::Error| invalid(describe(&error)))?;
        apply_defaults(&mut config, &environment)?;
        timeouts.apply(&mut config)?;
        let root_certificates = root_certificates.or_else(|| environment("PGSSLROOTCERT"));
        let mode = mode.or_else(|| environment("PGSSLMODE")).unwrap_or_default();
        let (mode, verify) = match (mode.as_str(), &root_certificates) {
            ("disable", _) => (SslMode::Disable, Verify::Nothing),
            // `allow` tries without encryption first, for servers that are slow with it. `prefer` serves them too.
            ("" | "prefer" | "allow", _) => (SslMode::Prefer, Verify::Nothing),
            ("require", None) => (SslMode::Require, Verify::Nothing),
            ("require", Some(_)) | ("verify-ca", _) => (SslMode::Require, Verify::Authority),
            ("verify-full", _) => (SslMode::Require, Verify::AuthorityAndHost),
            _ => return Err(invalid("sslmode is none that libpq knows".to_owned())),
        };
        config.ssl_mode(mode);
        Ok(Self { config, verify, root_certificates })
    }
}

fn apply_defaults(config: &mut Config, environment: &impl Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        config.host(environment("PGHOST").unwrap_or_else(|| "localhost".to_owned()));
    }
    if let (true, Some(port)) = (config.get_ports().is_empty(), environment("PGPORT")) {
        config.port(port.parse().map_err(|_| invalid("PGPORT is not a port".to_owned()))?);
    }
    if let (None, Some(user)) = (config.get_user(), environment("PGUSER")) {
        config.user(user);
    }
    if let (None, Some(password)) = (config.get_password(), environment("PGPASSWORD")) {
        config.password(password);
    }
    if let (None, Some(database)) = (config.get_dbname(), environment("PGDATABASE")) {
        config.dbname(database);
    }
    if config.get_application_name().is_none() {
        config.application_name("pgsluice");
    }
    Ok(())
}

/// A connection string, and what was taken out of it.
#[derive(Debug, Default)]
struct Split {
    rest: String,
    mode: Option<String>,
    root_certificates: Option<String>,
    timeouts: Timeouts,
}

impl Split {
    /// Keeps a parameter that tokio-postgres does not know as libpq does; `false` for any other.
    fn take(&mut self, key: &str, value: Cow<'_, str>) -> bool {
        match key {
            "sslmode" => self.mode = Some(value.into_owned()),
            "sslrootcert" => self.root_certificates = Some(value.into_owned()),
            _ => return self.timeouts.take(key, &value),
        }
        true
    }
}

fn split_url(scheme: &str, rest: &str, default_port: Option<&str>) -> Result<Split, ConfigError> {
    let (base, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut split = Split::default();
    let mut kept = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = percent_decode_str(value).decode_utf8().map_err(|_| invalid("not UTF-8".to_owned()))?;
        if !split.take(key, value) {
            kept.push(parameter);
        }
    }
    let base = default_port.map_or_else(|| base.to_owned(), |port| with_port(base, port));
    split.rest = format!("{scheme}://{base}?{}", kept.join("&"));
    Ok(split)
}

/// Gives the hosts of `user:password@host,host/database` a port where they have none, which tokio-postgres
/// would otherwise set to 5432 before PGPORT is asked.
fn with_port(base: &str, port: &str) -> String {
    let start = base.find('@').map_or(0, |position| position + 1);
    let end = base[start..].find('/').map_or(base.len(), |position| start + position);
    let hosts: Vec<Cow<'_, str>> = base[start..end]
        .split(',')
        .map(|host| {
            let has_port = host.rsplit_once(']').map_or(host, |(_, after)| after).contains(':');
            if host.is_empty() || has_port { Cow::Borrowed(host) } else { Cow::Owned(format!("{host}:{port}")) }
        })
        .collect();
    format!("{}{}{}", &base[..start], hosts.join(","), &base[end..])
}

fn split_pairs(text: &str) -> Result<Split, ConfigError> {
    let mut split = Split::default();
    let mut remaining = text.trim_start();
    while !remaining.is_empty() {
        let (key, after) = remaining.split_once('=').ok_or_else(|| invalid("expected key=value".to_owned()))?;
        let (value, after) = take_value(after.trim_start())?;
        let key = key.trim_end();
        if !split.take(key, Cow::Borrowed(&value)) {
            let value = value.replace('\\', "\\\\").replace('\'', "\\'");
            split.rest.extend([key, "='", &value, "' "]);
        }
        remaining = after.trim_start();
    }
    Ok(split)
}

/// A value as libpq writes it, bare or in single quotes, with backslash escapes; and what follows it.
fn take_value(text: &str) -> Result<(String, &str), ConfigError> {
    let (quoted, body) = text.strip_prefix('\'').map_or((false, text), |body| (true, body));
    let mut value = String::new();
    let mut characters = body.char_indices();
    while let Some((position, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &body[position + 1..])),
            space if !quoted && space.is_whitespace() => return Ok((value, &body[position..])),
            other => value.push(other),
        }
    }
    if quoted { Err(invalid("a quoted value has no end".to_owned())) } else { Ok((value, "")) }
}

/// The parser's complaint, which names a parameter and never the value of one.
fn describe(error: &tokio_postgres::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::Host;

    use super::*;

    fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        Settings::parse(text, |name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn host(name: &str) -> Host {
        Host::Tcp(name.to_owned())
    }

    #[test]
    fn an_empty_string_means_the_variables() {
        let variables = [
            ("PGHOST", "db.example"),
            ("PGPORT", "6543"),
            ("PGUSER", "loader"),
            ("PGPASSWORD", "s e'cret"),
            ("PGDATABASE", "logins"),
            ("PGSSLMODE", "verify-full"),
            ("PGSSLROOTCERT", "/etc/ca.pem"),
        ];
        let settings = parse("", &variables).unwrap();
        let config = &settings.config;
        assert_eq!((config.get_hosts(), config.get_ports()), (&[host("db.example")][..], &[6543][..]));
        assert_eq!((config.get_user(), config.get_dbname()), (Some("loader"), Some("logins")));
        assert_eq!(config.get_password(), Some(&b"s e'cret"[..]));
        assert_eq!(config.get_application_name(), Some("pgsluice"));
        assert_eq!((config.get_ssl_mode(), settings.verify), (SslMode::Require, Verify::AuthorityAndHost));
        assert_eq!(settings.root_certificates.as_deref(), Some("/etc/ca.pem"));
    }

    #[test]
    fn a_url_wins_over_the_variables_and_they_fill_its_gaps() {
        let variables = [("PGHOST", "elsewhere"), ("PGPORT", "6543"), ("PGUSER", "other"), ("PGDATABASE", "other")];
        let settings = parse("postgres://me@a,[::1],b:7/logins?application_name=x", &variables).unwrap();
        let config = &settings.config;
        assert_eq!(config.get_hosts(), [host("a"), host("::1"), host("b")]);
        assert_eq!(config.get_ports(), [6543, 6543, 7]);
        assert_eq!((config.get_user(), config.get_dbname()), (Some("me"), Some("logins")));
        assert_eq!(config.get_application_name(), Some("x"));
        assert_eq!(parse("postgres://h", &[]).unwrap().config.get_ports(), [5432]);
    }

    #[test]
    fn key_value_strings_keep_their_quoted_values() {
        let text = r"host=h port = 7 password='it\'s \\ x' sslmode=verify-ca sslrootcert='/a b/ca.pem' dbname=d\ d";
        let settings = parse(text, &[]).unwrap();
        let config = &settings.config;
        assert_eq!((config.get_hosts(), config.get_ports()), (&[host("h")][..], &[7][..]));
        assert_eq!(config.get_password(), Some(&br"it's \ x"[..]));
        assert_eq!(config.get_dbname(), Some("d d"));
        assert_eq!(settings.verify, Verify::Authority);
        assert_eq!(settings.root_certificates.as_deref(), Some("/a b/ca.pem"));
    }

    #[test]
    fn each_sslmode_means_what_it_means_to_libpq() {
        let expected = [
            ("disable", SslMode::Disable, Verify::Nothing),
            ("allow", SslMode::Prefer, Verify::Nothing),
            ("prefer", SslMode::Prefer, Verify::Nothing),
            ("require", SslMode::Require, Verify::Nothing),
            ("require&sslrootcert=%2Fca.pem", SslMode::Require, Verify::Authority),
            ("verify-ca", SslMode::Require, Verify::Authority),
            ("verify-full&connect_timeout=3", SslMode::Require, Verify::AuthorityAndHost),
        ];
        for (query, mode, verify) in expected {
            let settings = parse(&format!("postgres://h/d?sslmode={query}"), &[]).unwrap();
            assert_eq!((settings.config.get_ssl_mode(), settings.verify), (mode, verify), "{query}");
        }
        assert_eq!(parse("postgres://h", &[]).unwrap().config.get_ssl_mode(), SslMode::Prefer);
    }

    #[test]
    fn a_mistake_is_named_without_the_password() {
        for text in
            ["postgres://u:secret@h:port/d", "password='secret", "postgres://u:secret@h?sslmode=maybe", "secret"]
        {
            let error = parse(text, &[]).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
