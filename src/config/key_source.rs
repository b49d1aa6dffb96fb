//! Where the keys come from: one source, so that nobody has to know which of two wins.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::ConfigError;
use super::secrets::Secret;

const KEY: &str = "PGSLUICE_KEY";
const FIXED_IV: &str = "PGSLUICE_FIXED_IV";

/// What PGSLUICE_KEY and PGSLUICE_FIXED_IV held when the program began, where they are not in its environment any more.
static HANDED_OVER: OnceLock<[Option<Secret>; 2]> = OnceLock::new();

/// Where the keys come from. They are read when a command needs one.
#[derive(Debug, Clone, Default)]
pub enum KeySource {
    /// Nothing gives a key.
    #[default]
    None,
    /// PGSLUICE_KEY and PGSLUICE_FIXED_IV: hexadecimal digits.
    Environment {
        /// The masking key.
        key: Secret,
        /// The one IV of `mask = "fixed"`.
        fixed_iv: Option<Secret>,
    },
    /// A keyring: `--key-file`, PGSLUICE_KEY_FILE.
    File(PathBuf),
    /// `key_command`: a program and its arguments, which print a keyring.
    Command(Vec<String>),
}

impl KeySource {
    /// The source that is configured. Two are refused, and named.
    pub(super) fn resolve(key_file: Option<&Path>, key_command: Option<Vec<String>>) -> Result<Self, ConfigError> {
        let environment = Self::of_environment();
        let file = key_file.map(|path| ("--key-file or PGSLUICE_KEY_FILE", Ok(Self::File(path.to_owned()))));
        let command = key_command.map(|command| ("key_command", checked(command)));
        let mut sources = [file, command, environment].into_iter().flatten();
        let Some((name, source)) = sources.next() else { return Ok(Self::None) };
        match sources.next() {
            Some((second, _)) => Err(ConfigError::TwoKeySources { first: name, second }),
            None => source,
        }
    }

    /// PGSLUICE_KEY and PGSLUICE_FIXED_IV, as far as one of them is set.
    fn of_environment() -> Option<(&'static str, Result<Self, ConfigError>)> {
        let [key, fixed_iv] = match HANDED_OVER.get() {
            Some(keys) => keys.clone(),
            None => [KEY, FIXED_IV].map(|name| given(env::var(name).ok())),
        };
        match (key, fixed_iv) {
            (Some(key), fixed_iv) => Some((KEY, Ok(Self::Environment { key, fixed_iv }))),
            (None, Some(_)) => {
                let hint = "PGSLUICE_FIXED_IV goes with it; a keyring holds an IV with its key";
                Some((FIXED_IV, Err(ConfigError::Missing { setting: KEY, hint })))
            }
            (None, None) => None,
        }
    }

    /// From now on these are the values of PGSLUICE_KEY and PGSLUICE_FIXED_IV.
    pub fn hand_over(key: Option<String>, fixed_iv: Option<String>) {
        // A process begins once.
        _ = HANDED_OVER.set([given(key), given(fixed_iv)]);
    }

    /// What PGSLUICE_KEY and PGSLUICE_FIXED_IV give, beside any other source.
    #[must_use]
    pub fn beside_a_file() -> Self {
        let environment = Self::of_environment().and_then(|(_, source)| source.ok());
        environment.unwrap_or_default()
    }
}

fn checked(command: Vec<String>) -> Result<KeySource, ConfigError> {
    if command.first().is_none_or(String::is_empty) {
        let problem = "expected a list of a program and its arguments".to_owned();
        return Err(ConfigError::InvalidSetting { setting: "key_command", problem });
    }
    Ok(KeySource::Command(command))
}

fn given(value: Option<String>) -> Option<Secret> {
    value.map(Secret::from).filter(|value| !value.expose().trim().is_empty())
}
