//! `pgsluice keygen`: a new random key.

use crate::error::{ConfigError, Error};
use crate::exit_code::ExitCode;

const KEY_BYTES: usize = 32;

pub(super) fn run() -> Result<ExitCode, Error> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(|error| ConfigError::InvalidSetting {
        setting: "the system's random source",
        problem: error.to_string(),
    })?;
    println!("{}", hex::encode(key));
    Ok(ExitCode::Done)
}
