//! The certificate by which a server may know us: `sslcert` and `sslkey`, or the files that libpq looks for by itself.
//!
//! A key that others may read is refused, by libpq's rule.
//!
//! Source: PostgreSQL documentation, "Client Certificates" of libpq.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::conninfo::Parameters;
use super::error::invalid_setting as invalid;
use crate::config::ConfigError;

/// Below the home directory.
const DEFAULT_CERTIFICATE: &str = ".postgresql/postgresql.crt";
const DEFAULT_KEY: &str = ".postgresql/postgresql.key";
const ROOT: u32 = 0;

/// Where certificate and key lie, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientCertificate {
    certificate: PathBuf,
    key: PathBuf,
}

impl ClientCertificate {
    /// The one to show, if there is one. `home` is where libpq looks for it.
    pub(super) fn find(parameters: &Parameters, home: Option<&str>) -> Result<Option<Self>, ConfigError> {
        match parameters.non_empty("sslcertmode") {
            None | Some("allow") => {}
            Some("disable") => return Ok(None),
            Some("require") => {
                let problem =
                    "sslcertmode=require is not supported: let the server insist, by pg_hba.conf's clientcert";
                return Err(invalid(problem.to_owned()));
            }
            Some(_) => return Err(invalid("sslcertmode is none that libpq knows".to_owned())),
        }
        let below_home = |name: &str| home.map(|home| Path::new(home).join(name));
        let place = |name: &str, default: &str| {
            parameters.non_empty(name).map(PathBuf::from).or_else(|| below_home(default).filter(|path| path.exists()))
        };
        let Some(certificate) = place("sslcert", DEFAULT_CERTIFICATE) else { return Ok(None) };
        let missing = || invalid(format!("certificate {} has no key: name one by sslkey", certificate.display()));
        let key = place("sslkey", DEFAULT_KEY).ok_or_else(missing)?;
        Ok(Some(Self { certificate, key }))
    }

    /// Reads both.
    pub(super) fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), ConfigError> {
        let of_certificate = |error| unusable("sslcert", &self.certificate, &error);
        let certificates = CertificateDer::pem_file_iter(&self.certificate).map_err(of_certificate)?;
        let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(of_certificate)?;
        if certificates.is_empty() {
            return Err(unusable("sslcert", &self.certificate, &"it holds no certificate"));
        }
        self.check_access()?;
        let text = fs::read(&self.key).map(Zeroizing::new).map_err(|error| unusable("sslkey", &self.key, &error))?;
        // The parser's own words may quote what it read.
        let unreadable = |_| unusable("sslkey", &self.key, &"it holds no key in PEM, without a passphrase");
        Ok((certificates, PrivateKeyDer::from_pem_slice(&text).map_err(unreadable)?))
    }

    fn check_access(&self) -> Result<(), ConfigError> {
        let metadata = fs::metadata(&self.key).map_err(|error| unusable("sslkey", &self.key, &error))?;
        if !metadata.is_file() {
            return Err(unusable("sslkey", &self.key, &"it is no plain file"));
        }
        // Root may let a group read a key that programs of several users share.
        let others = if metadata.uid() == ROOT { 0o037 } else { 0o077 };
        if metadata.mode() & others == 0 {
            return Ok(());
        }
        let problem = "group or others have access to it; its mode must be 0600 or less, or 0640 where root owns it";
        Err(unusable("sslkey", &self.key, &problem))
    }
}

fn unusable(parameter: &str, path: &Path, problem: &dyn std::fmt::Display) -> ConfigError {
    invalid(format!("{parameter} {}: {problem}", path.display()))
}
