//! Encryption keys and other secrets as values that cannot be printed.

use std::fmt;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::ConfigError;

/// A master key for masking: 16 or 32 bytes. Wiped from memory when dropped, never shown by `Debug`.
#[derive(Clone)]
pub struct MaskingKey(Zeroizing<Vec<u8>>);

impl MaskingKey {
    /// Reads 32 or 64 hexadecimal digits; `setting` names their source.
    pub fn from_hex(setting: &'static str, text: &str) -> Result<Self, ConfigError> {
        let bytes = bytes_from_hex(setting, text)?;
        if ![16, 32].contains(&bytes.len()) {
            let problem = format!("expected 16 or 32 bytes (32 or 64 hex digits), got {} bytes", bytes.len());
            return Err(ConfigError::InvalidSetting { setting, problem });
        }
        Ok(Self(bytes))
    }

    /// The key's bytes: 16 or 32.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for MaskingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MaskingKey(…)")
    }
}

/// The keys that the environment gives: PGSLUICE_KEY and PGSLUICE_FIXED_IV.
#[derive(Debug, Clone, Default)]
pub struct MaskingKeys {
    /// The master key; needed by every masked column.
    pub key: Option<MaskingKey>,
    /// The one IV of `mask = "fixed"`.
    pub fixed_iv: Option<[u8; 16]>,
}

impl MaskingKeys {
    /// Reads the 32 hexadecimal digits of PGSLUICE_FIXED_IV.
    pub fn fixed_iv_from_hex(text: &str) -> Result<[u8; 16], ConfigError> {
        const SETTING: &str = "PGSLUICE_FIXED_IV";
        let bytes = bytes_from_hex(SETTING, text)?;
        bytes.as_slice().try_into().map_err(|_| ConfigError::InvalidSetting {
            setting: SETTING,
            problem: format!("expected 16 bytes (32 hex digits), got {} bytes", bytes.len()),
        })
    }
}

fn bytes_from_hex(setting: &'static str, text: &str) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    // hex's own error quotes the offending character of what is a secret.
    hex::decode(text.trim()).map(Zeroizing::new).map_err(|_| ConfigError::InvalidSetting {
        setting,
        problem: "expected an even number of hexadecimal digits".to_owned(),
    })
}

/// A connection string, which may hold a password: never shown by `Debug`.
#[derive(Clone)]
pub struct DatabaseUrl {
    text: String,
    /// Where the password comes from instead.
    password_source: Option<PasswordSource>,
}

/// Where the password of a connection comes from, if not from the connection string, libpq's variables and files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum PasswordSource {
    /// A token of AWS for Amazon RDS, made for each connection.
    RdsIam,
}

impl TryFrom<String> for PasswordSource {
    type Error = &'static str;

    /// The error does not quote the text, which may be a password.
    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text == "rds-iam" { Ok(Self::RdsIam) } else { Err("expected \"rds-iam\"") }
    }
}

impl DatabaseUrl {
    /// The connection string itself, for the one place that connects.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The same database, with the password from there.
    #[must_use]
    pub fn with_password_from(self, password_source: Option<PasswordSource>) -> Self {
        Self { password_source, ..self }
    }

    /// Where the password comes from, if not from the connection string, libpq's variables and files.
    #[must_use]
    pub const fn password_source(&self) -> Option<PasswordSource> {
        self.password_source
    }
}

impl From<String> for DatabaseUrl {
    fn from(text: String) -> Self {
        Self { text, password_source: None }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DatabaseUrl(…)")
    }
}
