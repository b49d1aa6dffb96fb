//! Secrets as values that cannot be printed.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A secret as text, such as a key. Wiped from memory when dropped, never shown by `Debug`.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The secret itself, for the one place that reads it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// A connection string, which may hold a password: never shown by `Debug`.
#[derive(Clone)]
pub struct DatabaseUrl {
    text: String,
    /// Where the password comes from instead.
    password_source: Option<PasswordSource>,
}

/// Where the password of a connection comes from, if not from the connection string, libpq's variables and files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PasswordSource {
    /// A token of AWS for Amazon RDS, made for each connection.
    RdsIam,
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
