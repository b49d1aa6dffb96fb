//! What TLS must prove, as libpq decides it from `sslmode`, `sslrootcert` and the file that it looks for by itself.
//!
//! Always true: what is verified is never less than what libpq verifies with `require`, `verify-ca` and `verify-full`.
//! With `prefer` and `allow` nothing is verified. Libpq does verify with them where it finds root certificates; yet where
//! that fails, it goes on without any encryption.

use std::path::{Path, PathBuf};

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use tokio_postgres::config::SslMode;

use super::client_certificate::ClientCertificate;
use super::conninfo::Parameters;
use super::error::invalid_setting as invalid;
use crate::config::ConfigError;

/// Below the home directory.
const DEFAULT_ROOTS: &str = ".postgresql/root.crt";
type Versions = &'static [&'static SupportedProtocolVersion];
const TLS_1_2: Versions = &[&TLS12];
const TLS_1_3: Versions = &[&TLS13];
const BOTH: Versions = &[&TLS12, &TLS13];

/// How a connection is encrypted.
#[derive(Debug, Clone)]
pub(super) struct Encryption {
    pub(super) mode: SslMode,
    pub(super) verify: Verify,
    /// Whether the server is told which host is meant.
    pub(super) sni: bool,
    pub(super) versions: Versions,
    /// By which the server may know us.
    pub(super) client: Option<ClientCertificate>,
}

/// What of the server's certificate must be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verify {
    /// Nothing: encryption alone.
    Nothing,
    /// A trusted authority signed it.
    Authority(Roots),
    /// And it is for the host that we asked for.
    AuthorityAndHost(Roots),
}

/// Whom to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Roots {
    /// Whom this machine trusts.
    System,
    /// The certificates in a PEM file.
    File(PathBuf),
}

impl Encryption {
    /// `home` is where libpq looks for certificates.
    pub(super) fn resolve(parameters: &Parameters, home: Option<&str>) -> Result<Self, ConfigError> {
        let (mode, verify) = verification(parameters, home)?;
        let sni = match parameters.get("sslsni") {
            None | Some("1") => true,
            Some("0") => false,
            Some(_) => return Err(invalid("sslsni is neither 0 nor 1".to_owned())),
        };
        let client = ClientCertificate::find(parameters, home)?;
        Ok(Self { mode, verify, sni, versions: versions(parameters)?, client })
    }
}

fn verification(parameters: &Parameters, home: Option<&str>) -> Result<(SslMode, Verify), ConfigError> {
    let named = parameters.non_empty("sslrootcert");
    let mode = parameters.get("sslmode");
    if named == Some("system") {
        return match mode {
            None | Some("verify-full") => Ok((SslMode::Require, Verify::AuthorityAndHost(Roots::System))),
            Some(_) => Err(invalid(
                "sslrootcert=system is for sslmode=verify-full alone: any site can get a certificate from one of \
                 the authorities that a system trusts"
                    .to_owned(),
            )),
        };
    }
    let default = home.map(|home| Path::new(home).join(DEFAULT_ROOTS));
    let existing = || match named {
        Some(path) => Some(PathBuf::from(path)),
        None => default.clone().filter(|path| path.exists()),
    };
    let needed = || existing().map(Roots::File).ok_or_else(|| no_roots(default.as_deref()));
    Ok(match mode {
        Some("disable") => (SslMode::Disable, Verify::Nothing),
        // `allow` tries without encryption first, for servers that are slow with it. `prefer` serves them too.
        None | Some("prefer" | "allow") => (SslMode::Prefer, Verify::Nothing),
        Some("require") => {
            (SslMode::Require, existing().map_or(Verify::Nothing, |path| Verify::Authority(Roots::File(path))))
        }
        Some("verify-ca") => (SslMode::Require, Verify::Authority(needed()?)),
        Some("verify-full") => (SslMode::Require, Verify::AuthorityAndHost(needed()?)),
        Some(_) => return Err(invalid("sslmode is none that libpq knows".to_owned())),
    })
}

fn no_roots(default: Option<&Path>) -> ConfigError {
    let place = default.map_or_else(
        || "there is no home directory with root certificates".to_owned(),
        |path| format!("root certificate file {} does not exist", path.display()),
    );
    invalid(format!("{place}; name one by sslrootcert, or say sslrootcert=system and sslmode=verify-full"))
}

fn versions(parameters: &Parameters) -> Result<Versions, ConfigError> {
    let lowest = parameters.non_empty("ssl_min_protocol_version").unwrap_or("TLSv1.2");
    let highest = parameters.non_empty("ssl_max_protocol_version").unwrap_or("TLSv1.3");
    let place = |name: &str| {
        let known = ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];
        known.iter().position(|version| version.eq_ignore_ascii_case(name))
    };
    match (place(lowest), place(highest)) {
        (None, _) => Err(invalid("ssl_min_protocol_version is none that libpq knows".to_owned())),
        (_, None) => Err(invalid("ssl_max_protocol_version is none that libpq knows".to_owned())),
        (Some(lowest), Some(highest)) if lowest > highest => {
            Err(invalid("ssl_min_protocol_version is above ssl_max_protocol_version".to_owned()))
        }
        (_, Some(0 | 1)) => {
            Err(invalid("ssl_max_protocol_version: nothing older than TLS 1.2 is supported".to_owned()))
        }
        (_, Some(2)) => Ok(TLS_1_2),
        (Some(3), _) => Ok(TLS_1_3),
        _ => Ok(BOTH),
    }
}
