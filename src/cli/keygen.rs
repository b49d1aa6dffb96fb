//! `pgsluice keygen`: new random keys, and the order of those in a keyring.
//!
//! A key is rotated in two steps. Each step is rolled out to every host before the next one, so that at any moment each
//! host can decrypt what any other host encrypts: `--add` brings a key that only decrypts, `--promote` lets it encrypt.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::SharedFlags;
use super::output::{print_line, say};
use crate::config::{ConfigError, KeySource};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::keyring::{self, Algorithm, Key, Keyring, create_file, read_file, replace_file};

#[derive(Debug, Clone, Args)]
pub(super) struct Flags {
    /// Make a keyring with one new key, in a new file that only its owner can read
    #[arg(long, value_name = "FILE", conflicts_with_all = ["add", "promote"])]
    out: Option<PathBuf>,
    /// Add a new key to the keyring, which only decrypts until it is promoted
    #[arg(long, conflicts_with = "promote")]
    add: bool,
    /// What the added key is for; the key of `fixed` is that of PGSLUICE_KEY and PGSLUICE_FIXED_IV where both are set
    #[arg(long, value_enum, requires = "add", default_value_t = ForAlgorithm::Siv)]
    algorithm: ForAlgorithm,
    /// Make this key of the keyring the first one, so that it encrypts from now on
    #[arg(long, value_name = "ID")]
    promote: Option<String>,
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ForAlgorithm {
    /// `mask = "siv"`.
    Siv,
    /// `mask = "fixed"`.
    Fixed,
    /// The spool, encrypted at rest.
    Spool,
}

impl From<ForAlgorithm> for Algorithm {
    fn from(given: ForAlgorithm) -> Self {
        match given {
            ForAlgorithm::Siv => Self::Siv,
            ForAlgorithm::Fixed => Self::Fixed,
            ForAlgorithm::Spool => Self::Spool,
        }
    }
}

pub(super) async fn run(flags: &SharedFlags, keygen: &Flags) -> Result<ExitCode, Error> {
    let tell = |told: String| {
        if !flags.quiet {
            say(told);
        }
    };
    if let Some(path) = &keygen.out {
        let key = Key::random(Algorithm::Siv)?;
        let id = key.id().to_owned();
        create_file(path, &Keyring::default().with(key)?)?;
        tell(format!("{} holds key {id}; keep a copy, masked values are lost without it", path.display()));
    } else if keygen.add {
        let (path, ring) = ring_file(flags)?;
        let key = new_key(keygen.algorithm.into()).await?;
        let (id, algorithm) = (key.id().to_owned(), key.algorithm());
        let is_first = ring.first(algorithm).is_none();
        replace_file(path, &ring.with(key)?)?;
        let effect = if is_first { "encrypts, being the first one" } else { "decrypts; it does not encrypt yet" };
        tell(format!("key {id} for {} {effect}", algorithm.name()));
    } else if let Some(id) = &keygen.promote {
        let (path, ring) = ring_file(flags)?;
        replace_file(path, &ring.promoting(id)?)?;
        tell(format!("key {id} encrypts from now on"));
    } else {
        print_line(&*Key::random(Algorithm::Siv)?.secret().to_hex())?;
    }
    Ok(ExitCode::Done)
}

/// The keyring that is to be changed.
fn ring_file(flags: &SharedFlags) -> Result<(&Path, Keyring), Error> {
    let path = flags.key_file.as_deref().ok_or(ConfigError::Missing {
        setting: "the keyring's file",
        hint: "give --key-file or PGSLUICE_KEY_FILE; `pgsluice keygen --out FILE` makes a new one",
    })?;
    Ok((path, read_file(path)?))
}

/// A random key; for `fixed` the key and IV of existing tables, where the environment has both.
async fn new_key(algorithm: Algorithm) -> Result<Key, Error> {
    if algorithm == Algorithm::Fixed {
        let existing = keyring::read(&KeySource::beside_a_file()).await?;
        if let Some(key) = existing.first(Algorithm::Fixed) {
            return Ok(key.clone());
        }
    }
    Ok(Key::random(algorithm)?)
}
