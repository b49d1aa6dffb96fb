//! The peak memory of a process. Linux keeps it while the process runs, so a late question loses only the memory that
//! was added after the last answer.

use std::fs;
use std::process::Child;
use std::thread;
use std::time::Duration;

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Waits for the process, and tells its peak resident memory in bytes.
pub(crate) fn until_exit(child: &mut Child) -> u64 {
    let path = format!("/proc/{}/status", child.id());
    let mut peak_bytes = None;
    while child.try_wait().expect("a child of this process").is_none() {
        peak_bytes = fs::read_to_string(&path).ok().as_deref().and_then(high_water_mark).or(peak_bytes);
        thread::sleep(POLL_INTERVAL);
    }
    peak_bytes.expect("a process whose memory Linux tells in /proc")
}

/// A process that has ended but was not waited for has none.
fn high_water_mark(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}
