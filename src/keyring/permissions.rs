//! Who else may touch the file of a keyring.
//!
//! The rule fits where secrets come from: a file of one's own (0600), Kubernetes (0644 through symbolic links, or 0640 for
//! a group), Docker (0444). The last ones lie on tmpfs and are root's, and only a container sees them.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

const WRITABLE_BY_OTHERS: u32 = 0o022;
const READABLE_BY_ALL: u32 = 0o004;

/// What speaks against an opened file, which is looked at behind all links.
pub(super) fn problem(file: &File) -> io::Result<Option<&'static str>> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(Some("is not a regular file"));
    }
    Ok(exposure(metadata.mode(), metadata.uid() == 0 && is_on_tmpfs(file)?))
}

fn exposure(mode: u32, is_roots_on_tmpfs: bool) -> Option<&'static str> {
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Some("may be written by others than its owner");
    }
    (mode & READABLE_BY_ALL != 0 && !is_roots_on_tmpfs).then_some("may be read by every user of this machine")
}

#[cfg(target_os = "linux")]
fn is_on_tmpfs(file: &File) -> io::Result<bool> {
    // Linux' linux/magic.h.
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    let file_system = rustix::fs::fstatfs(file)?;
    Ok(u64::try_from(file_system.f_type).is_ok_and(|kind| kind == TMPFS_MAGIC))
}

#[cfg(not(target_os = "linux"))]
fn is_on_tmpfs(_file: &File) -> io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::exposure;

    #[test]
    fn a_file_that_others_may_write_or_all_may_read_is_exposed() {
        for mode in [0o600, 0o400, 0o640, 0o440, 0o100_600] {
            assert_eq!(exposure(mode, false), None, "{mode:o}");
        }
        for mode in [0o604, 0o644, 0o444, 0o660, 0o602, 0o620, 0o666] {
            assert!(exposure(mode, false).is_some(), "{mode:o}");
        }
    }

    #[test]
    fn roots_file_on_tmpfs_may_be_read_by_all_and_written_by_nobody_else() {
        for mode in [0o644, 0o444, 0o604] {
            assert_eq!(exposure(mode, true), None, "{mode:o}");
        }
        for mode in [0o664, 0o646, 0o666, 0o777] {
            assert!(exposure(mode, true).is_some(), "{mode:o}");
        }
    }
}
