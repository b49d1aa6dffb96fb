//! Mistakes in flags, environment, configuration file or keys, and what follows from them.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::advice::{Advice, Advised, usage};

/// A mistake in flags, environment, configuration file or keys.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is the documentation")]
pub enum ConfigError {
    #[error("cannot {action} {}", path.display())]
    GivenFile { action: &'static str, path: PathBuf, hint: &'static str, source: io::Error },
    #[error("{} line {line}: {problem}", path.display())]
    Invalid { path: PathBuf, line: usize, problem: String },
    #[error("{setting} is not set")]
    Missing { setting: &'static str, hint: &'static str },
    #[error("{setting} is not valid: {problem}")]
    InvalidSetting { setting: &'static str, problem: String },
    #[error("keys have two sources: {first}, and {second}")]
    TwoKeySources { first: &'static str, second: &'static str },
    #[error("the mapping masks by siv and by fixed, with one key for both")]
    SharedKey,
    #[error("`pgsluice {command}` moves no messages, so there is nothing to report")]
    NoReport { command: String },
    #[error("column {column}: {problem}")]
    InvalidColumn { column: String, problem: String },
    #[error("the mapping does not fit table {table}: {problem}")]
    MappingMismatch { table: String, problem: String },
}

impl ConfigError {
    /// For `map_err`: what was tried of a file that a flag or a variable names; `hint` names that flag.
    pub(crate) fn of_given_file(
        action: &'static str,
        path: &Path,
        hint: &'static str,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::GivenFile { action, path, hint, source }
    }
}

impl Advised for ConfigError {
    fn advice(&self) -> Advice {
        match self {
            Self::Missing { hint, .. } | Self::GivenFile { hint, .. } => usage(hint),
            Self::Invalid { .. } | Self::InvalidColumn { .. } => {
                usage("compare with the annotated pgsluice.toml that `pgsluice config example` prints")
            }
            Self::NoReport { .. } => usage("leave out --report"),
            Self::InvalidSetting { .. } => usage("correct the setting; `pgsluice --help` lists where each comes from"),
            Self::SharedKey => {
                usage("`fixed` needs a key of its own: a keyring holds one for each, see `pgsluice keygen --add`")
            }
            Self::TwoKeySources { .. } => usage("unset one of them, so that it is certain which keys count"),
            Self::MappingMismatch { .. } => usage("correct [[column]] in pgsluice.toml, or the table"),
        }
    }
}
