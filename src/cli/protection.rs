//! What keeps keys and plaintext out of where they would outlive the process, or be seen by others: core dumps, the
//! messages of panics, and the environment of child processes.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::panic::{self, PanicHookInfo};
use std::process::Command;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Resource, Rlimit, setrlimit};
use zeroize::Zeroizing;

use super::output::say;
use crate::config::KeySource;

const KEYS: [&str; 2] = ["PGSLUICE_KEY", "PGSLUICE_FIXED_IV"];
/// Names the pipe that the keys come by.
const PIPE: &str = "PGSLUICE_KEY_PIPE";
/// Two keys and more. What does not fit is no key, and could block the pipe.
const MAX_BYTES: usize = 4096;

/// Keeps keys out of the environment, as far as they were in it, and memory out of core dumps. To be called before
/// anything else, since the process may begin once more.
pub(super) fn protect() {
    panic::set_hook(Box::new(say_place));
    // What cannot be set is as it would be without.
    _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    match env::var_os(PIPE) {
        Some(path) => drop(take_keys(path)),
        None => _ = hide_keys(),
    }
    // Last: who may not be dumped has files in /proc that are root's.
    forbid_dumps();
}

#[cfg(target_os = "linux")]
fn forbid_dumps() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Elsewhere the limit is all there is.
#[cfg(not(target_os = "linux"))]
const fn forbid_dumps() {}

/// A panic's message may hold a value. Its place is enough to find it.
fn say_place(panic: &PanicHookInfo<'_>) {
    match panic.location() {
        Some(place) => say(format_args!("panicked at {place}")),
        None => say("panicked"),
    }
}

/// Where the environment holds keys, executes this program again without them, and hands them over by a pipe: a variable
/// cannot be removed from a running process, and whatever it starts (the AWS SDK's `credential_process`) would inherit it.
fn hide_keys() -> io::Result<()> {
    let keys = KEYS.map(|name| Zeroizing::new(env::var_os(name).unwrap_or_default().into_vec()));
    let bytes = keys.iter().map(|key| key.len()).sum::<usize>();
    if bytes == 0 || bytes > MAX_BYTES {
        return Ok(());
    }
    let (reader, mut writer) = io::pipe()?;
    // No variable holds a zero byte.
    writer.write_all(&keys[0])?;
    writer.write_all(&[0])?;
    writer.write_all(&keys[1])?;
    fcntl_setfd(&reader, FdFlags::empty())?;
    let mut arguments = env::args_os();
    let mut program = Command::new(env::current_exe()?);
    program.arg0(arguments.next().unwrap_or_default()).args(arguments);
    for name in KEYS {
        program.env_remove(name);
    }
    program.env(PIPE, format!("/dev/fd/{}", reader.as_raw_fd()));
    drop(writer);
    // Returns only where it failed. Then the keys are used from where they are.
    Err(program.exec())
}

/// Reads the keys that the process was handed over. Whoever opens the pipe later finds it empty.
fn take_keys(path: OsString) -> io::Result<()> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 1));
    File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    let mut keys = bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec);
    let [key, fixed_iv] = [keys.next(), keys.next()].map(|key| String::from_utf8(key.unwrap_or_default()).ok());
    KeySource::hand_over(key, fixed_iv);
    Ok(())
}
