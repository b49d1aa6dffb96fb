//! Mistakes in flags, environment, configuration file or keys, and what follows from them.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::advice::{Advice, Advised, usage};

/// A mistake in flags, environment, configuration file or keys.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is the documentation")]
pub enum ConfigError {
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} line {line}: {problem}", path.display())]
    Invalid { path: PathBuf, line: usize, problem: String },
    #[error("{setting} is not set")]
    Missing { setting: &'static str, hint: &'static str },
    #[error("{setting} is not valid: {problem}")]
    InvalidSetting { setting: &'static str, problem: String },
    #[error("column {column}: {problem}")]
    InvalidColumn { column: String, problem: String },
    #[error("the mapping does not fit table {table}: {problem}")]
    MappingMismatch { table: String, problem: String },
}

impl Advised for ConfigError {
    fn advice(&self) -> Advice {
        match self {
            Self::Missing { hint, .. } => usage(hint),
            Self::Unreadable { .. } => usage("check --config and PGSLUICE_CONFIG"),
            Self::Invalid { .. } | Self::InvalidColumn { .. } => {
                usage("compare with the annotated pgsluice.toml that `pgsluice config example` prints")
            }
            Self::InvalidSetting { .. } => usage("correct the setting; `pgsluice --help` lists where each comes from"),
            Self::MappingMismatch { .. } => usage("correct [[column]] in pgsluice.toml, or the table"),
        }
    }
}
