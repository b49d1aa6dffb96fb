//! `pgsluice keygen`: a new random key.

use std::io;

use super::output::print_line;
use crate::error::Error;
use crate::exit_code::ExitCode;

const KEY_BYTES: usize = 32;

pub(super) fn run() -> Result<ExitCode, Error> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(io::Error::from).map_err(Error::system("get random bytes"))?;
    print_line(hex::encode(key))?;
    Ok(ExitCode::Done)
}
