//! Password files as libpq reads them: `host:port:database:user:password` a line, the first that fits counts.
//!
//! A file that group or others may read or write is not used, and that is said. A file that is not there has no password.
//!
//! Source: PostgreSQL documentation, "The Password File" of libpq.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::error::invalid_setting as invalid;
use crate::config::ConfigError;

/// The fields that a line is chosen by; `*` in a line fits any.
#[derive(Debug, Clone, Copy)]
pub(super) struct Login<'a> {
    pub(super) host: &'a str,
    pub(super) port: &'a str,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// The lines of a password file that may be used. Without `Debug`: they are passwords.
#[derive(Default)]
pub(super) struct PasswordFile(String);

impl PasswordFile {
    /// Reads a file. Why it is not used is added to `cautions`.
    pub(super) fn read(path: &Path, cautions: &mut Vec<String>) -> Result<Self, ConfigError> {
        let shown = path.display();
        let Ok(metadata) = fs::metadata(path) else { return Ok(Self::default()) };
        if !metadata.is_file() {
            cautions.push(format!("password file {shown} is not used: it is no plain file"));
            return Ok(Self::default());
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            cautions.push(format!(
                "password file {shown} is not used: group or others have access to it; its mode must be 0600 or less"
            ));
            return Ok(Self::default());
        }
        let text = fs::read(path).map_err(|error| invalid(format!("password file {shown}: {error}")))?;
        // A line that is not UTF-8 fits nothing, and costs its neighbours nothing.
        Ok(Self(String::from_utf8_lossy(&text).into_owned()))
    }

    /// The password for a login, unless no line fits.
    pub(super) fn password(&self, login: Login<'_>) -> Option<String> {
        let wanted = [login.host, login.port, login.database, login.user];
        let lines = self.0.lines().filter(|line| !line.starts_with('#'));
        let mut fitting = lines.filter_map(|line| wanted.iter().try_fold(line, |rest, field| after_field(rest, field)));
        fitting.next().map(unescape)
    }
}

/// What follows the first field of a line, if that field fits.
fn after_field<'a>(line: &'a str, wanted: &str) -> Option<&'a str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let (mut rest, mut wanted) = (line.chars(), wanted.chars());
    loop {
        match (rest.next()?, wanted.clone().next()) {
            (':', None) => return Some(rest.as_str()),
            ('\\', Some(expected)) if rest.next() == Some(expected) => {}
            (found, Some(expected)) if found == expected && found != '\\' => {}
            _ => return None,
        }
        wanted.next();
    }
}

fn unescape(text: &str) -> String {
    let mut characters = text.chars();
    let mut unescaped = String::new();
    while let Some(character) = characters.next() {
        // A backslash that ends the line is itself.
        let kept = if character == '\\' { characters.next().unwrap_or(character) } else { character };
        unescaped.push(kept);
    }
    unescaped
}
