//! What can be wrong with keys and their source. Never quotes what was read.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::advice::{Advice, Advised, BoxedError, fatal, usage};

/// The keys could not be read, or not be written.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is the documentation")]
pub enum KeyringError {
    #[error("cannot {action} the keyring {}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("the keyring {} {problem}", path.display())]
    Exposed { path: PathBuf, problem: &'static str },
    #[error("the keyring of {origin} is not valid: line {line}: {problem}")]
    Invalid { origin: String, line: usize, problem: String },
    #[error("the keyring of {origin} has no key")]
    Empty { origin: String },
    #[error("{origin} is not valid: {problem}")]
    InvalidKey { origin: String, problem: String },
    #[error("key {id} is in the keyring already")]
    KnownKey { id: String },
    #[error("key {id} is the same as key {known}, which has another algorithm")]
    SharedKey { id: String, known: String },
    #[error("the keyring has no key {id}; it has {known}")]
    NoSuchKey { id: String, known: String },
    #[error("the spool is to be encrypted, and the keyring has no key of algorithm spool; it has {known}")]
    NoSpoolKey { known: String },
    #[error("key_command cannot be run: {program}")]
    CommandNotRun { program: String, source: io::Error },
    #[error("key_command {problem}")]
    CommandFailed { problem: String },
    #[error("cannot read the secret {id} of AWS Secrets Manager")]
    AwsSecret { id: String, source: BoxedError },
    #[error("this pgsluice was built without the feature aws-secretsmanager, which key_source needs")]
    WithoutAwsSecrets,
    #[error("cannot get random bytes")]
    Random { source: io::Error },
}

impl KeyringError {
    /// For `map_err`: what was tried of a file.
    pub(super) fn of_file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}

impl Advised for KeyringError {
    fn advice(&self) -> Advice {
        match self {
            Self::File { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => usage(
                "a keyring is never overwritten: give another name, or add a key to this one by `pgsluice keygen --add`",
            ),
            Self::File { .. } => {
                usage("check --key-file and PGSLUICE_KEY_FILE; `pgsluice keygen --out FILE` makes a keyring")
            }
            Self::Exposed { .. } => usage(
                "let its owner alone write it, and its owner and group alone read it, such as by `chmod 600`; a file that \
                 root owns on tmpfs may be read by all",
            ),
            Self::Invalid { .. } | Self::Empty { .. } | Self::InvalidKey { .. } => usage(
                "`pgsluice keygen --out FILE` makes a keyring to compare with; PGSLUICE_KEY takes 32 or 64 hex digits",
            ),
            Self::KnownKey { .. } => {
                usage("a key is in a keyring once; `pgsluice keygen --promote ID` lets it encrypt")
            }
            Self::SharedKey { .. } => usage("each algorithm needs a key of its own"),
            Self::NoSpoolKey { .. } => usage(
                "add one by `pgsluice keygen --add --algorithm spool`, and name the keyring by --key-file or \
                 PGSLUICE_KEY_FILE; or leave out `encryption` in [spool]",
            ),
            Self::NoSuchKey { .. } => usage("give one of these ids"),
            Self::CommandNotRun { .. } => {
                usage("key_command is a list of a program and its arguments; no shell reads it")
            }
            Self::CommandFailed { .. } => {
                fatal("run key_command by hand, with neither PG* nor PGSLUICE_* variables: it must print a keyring")
            }
            Self::AwsSecret { .. } => {
                fatal("check the secret's id, the region, and the right secretsmanager:GetSecretValue")
            }
            Self::WithoutAwsSecrets => {
                usage("build with `--features aws-secretsmanager`, or use another source of keys")
            }
            Self::Random { .. } => fatal("see what the system says"),
        }
    }
}
