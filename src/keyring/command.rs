//! `key_command`: a program that prints a keyring, such as sops, age or a client of Vault.
//!
//! It gets no shell, no standard input and none of pgsluice's own settings; the rest of the environment stays, because
//! these programs are configured by it. Its stderr is ours, so it can ask a person, and say what went wrong.

use std::env;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::file::MAX_BYTES;
use super::{Keyring, KeyringError};

/// A person may have to type a passphrase or touch a device.
const LIMIT: Duration = Duration::from_mins(1);

/// Runs the command and reads what it prints.
pub(super) async fn read(command: &[String]) -> Result<Keyring, KeyringError> {
    let program = command.first().map(String::as_str).unwrap_or_default();
    let mut prepared = Command::new(program);
    prepared.args(&command[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    for (name, _) in env::vars_os().filter(|(name, _)| is_ours(name)) {
        prepared.env_remove(name);
    }
    let not_run = |source| KeyringError::CommandNotRun { program: program.to_owned(), source };
    let mut child = prepared.spawn().map_err(not_run)?;
    let printed = timeout(LIMIT, output_of(&mut child)).await;
    let text = printed.map_err(|_| failed(format!("took longer than {} s", LIMIT.as_secs())))??;
    Keyring::parse("key_command", &text)
}

async fn output_of(child: &mut Child) -> Result<Zeroizing<String>, KeyringError> {
    let unreadable = |error: std::io::Error| failed(format!("has an output that cannot be read: {error}"));
    // Large enough for almost any ring: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(1 << 16));
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).await.map_err(unreadable)?;
    }
    if bytes.len() > MAX_BYTES {
        return Err(failed(format!("prints more than {MAX_BYTES} bytes")));
    }
    let status = child.wait().await.map_err(unreadable)?;
    if !status.success() {
        return Err(failed(format!("failed: {status}")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| failed("prints what is not UTF-8".to_owned()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn failed(problem: String) -> KeyringError {
    KeyringError::CommandFailed { problem }
}

/// PGSLUICE_*, PG* and DATABASE_URL.
fn is_ours(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"PG") || name == "DATABASE_URL"
}
