//! The staging directory: whether it can be used, whose files lie in it, and whether the backlog fits on its disk.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, statvfs};

use super::Check;
use crate::config::SpoolSettings;
use crate::report::grouped;
use crate::stages::{Inventory, Owner};
use crate::staging::Staging;

/// As a drain: a segment is begun only with room for this number of the largest.
const ROOM_IN_SEGMENTS: u64 = 3;

/// Looks at the directory, which need not be there yet. `backlog_bytes`: what the messages in the queue will take.
#[must_use]
pub fn check_staging(staging: &Staging, owner: &Owner, spool: &SpoolSettings, backlog_bytes: u64) -> Vec<Check> {
    let Some(place) = existing(staging.root()) else {
        let seen = format!("{} does not exist, and nor does any directory above it", staging.root().display());
        return vec![Check::failure("staging", seen, "choose another --staging-dir")];
    };
    let mut checks = vec![rights(staging.root(), &place)];
    checks.extend(room(&place, spool, backlog_bytes));
    if place == staging.root() {
        checks.push(files(staging, owner));
    }
    checks
}

/// The directory, or the nearest above it that is there.
fn existing(root: &Path) -> Option<PathBuf> {
    let root = if root.is_relative() { Path::new(".").join(root) } else { root.to_owned() };
    root.ancestors().find(|path| path.exists()).map(|path| path.strip_prefix("./").unwrap_or(path).to_owned()).map(
        |path| {
            if path.as_os_str().is_empty() { PathBuf::from(".") } else { path }
        },
    )
}

fn rights(root: &Path, place: &Path) -> Check {
    const NAME: &str = "staging";
    let shown = root.display();
    if access(place, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        let advice = "give this user write access, or choose another --staging-dir";
        return Check::failure(NAME, format!("{} cannot be written by this user", place.display()), advice);
    }
    if place != root {
        return Check::ok(NAME, format!("{shown} does not exist yet, and will be made"));
    }
    let Ok(metadata) = fs::metadata(root) else {
        return Check::failure(NAME, format!("{shown} cannot be looked at"), "choose another --staging-dir");
    };
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        let seen = format!("{shown} belongs to user {}, and this is user {user}", metadata.uid());
        return Check::warning(NAME, seen, "run as that user: files that it made are readable by it alone");
    }
    if metadata.mode() & 0o077 != 0 {
        let seen = format!("{shown} is open to other users, and holds messages");
        return Check::warning(NAME, seen, format!("chmod 700 {shown}"));
    }
    Check::ok(NAME, format!("{shown} belongs to this user alone"))
}

fn room(place: &Path, spool: &SpoolSettings, backlog_bytes: u64) -> Option<Check> {
    const NAME: &str = "disk";
    let disk = statvfs(place).ok().filter(|disk| disk.f_blocks > 0)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let seen =
        format!("{} bytes are free, and the queue's messages take about {}", grouped(free), grouped(backlog_bytes));
    let least = ROOM_IN_SEGMENTS.saturating_mul(spool.segment_max_bytes);
    Some(if free < least {
        let seen = format!("{seen}; a segment is begun only with {} bytes free", grouped(least));
        Check::failure(NAME, seen, "make room, or lower spool.segment_max_bytes")
    } else if spool.archive_days > 0 && free - least < backlog_bytes {
        let advice = "make room, or set spool.archive_days = 0, which keeps only what is not loaded yet";
        Check::warning(NAME, seen, advice)
    } else {
        Check::ok(NAME, seen)
    })
}

fn files(staging: &Staging, owner: &Owner) -> Check {
    const NAME: &str = "unfinished";
    let looked = Inventory::take(staging, owner).and_then(|inventory| Ok((inventory, staging.damaged_segments()?)));
    match looked {
        Err(error) => Check::failure(
            NAME,
            error.one_line(),
            error.hint().unwrap_or("give this pipeline a --staging-dir of its own"),
        ),
        Ok((_, damaged)) if !damaged.is_empty() => Check::warning(
            NAME,
            format!("{} damaged segments, the first {}", damaged.len(), staging.damaged(damaged[0]).path().display()),
            "restore each from a copy and move it to spool/, or remove it",
        ),
        Ok((inventory, _)) if !inventory.unreadable.is_empty() => Check::warning(
            NAME,
            format!("{} segments cannot be read", inventory.unreadable.len()),
            "give this user the right to read them",
        ),
        Ok((inventory, _)) => {
            let segments = inventory.sealed.len() + inventory.committed.len();
            Check::ok(NAME, format!("{segments} segments of earlier runs, which a run finishes first"))
        }
    }
}
