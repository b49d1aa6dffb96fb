//! The staging directory: where each stage's files lie, how they are named, and who may touch them.
//!
//! Always true:
//! - a file under its final name is complete: it was written under another name, flushed to disk, then renamed,
//!   and the directory was flushed after that;
//! - a segment keeps one name, its [`SegmentId`], in every stage, so the files alone tell its state up to "staged"
//!   (what is loaded, only the ledger knows);
//! - directories are 0700 and files 0600, because spool and reject files hold personal data;
//! - one process at a time holds [`StagingLock`].
//!
//! A crash leaves at worst a `*.tmp` file, which the next writer of the same name replaces, or an open segment,
//! which [`crate::spool`] recovers.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::crash_point::CrashPoint;
use crate::error::StagingError;

const WRITE_BUFFER_BYTES: usize = 256 * 1024;

/// The name of a segment in every stage: a `UUIDv7`, so that names sort by the time they were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentId(Uuid);

impl SegmentId {
    /// A new name, later than every name given before by this process.
    #[must_use]
    pub fn now() -> Self {
        Self(Uuid::now_v7())
    }

    /// The name as the ledger stores it.
    #[must_use]
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for SegmentId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(formatter)
    }
}

impl FromStr for SegmentId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// The staging directory and the paths in it.
#[derive(Debug, Clone)]
pub struct Staging {
    root: PathBuf,
}

impl Staging {
    /// Opens the staging directory, creating it and its parts where they are missing.
    pub fn open(root: &Path) -> Result<Self, StagingError> {
        let staging = Self { root: root.to_owned() };
        for part in ["spool", "chunks", "rejects", "archive"] {
            let directory = root.join(part);
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .map_err(StagingError::io("create", &directory))?;
        }
        Ok(staging)
    }

    /// Claims the directory for this process until the lock is dropped or the process ends, however it ends.
    pub fn lock(&self) -> Result<StagingLock, StagingError> {
        let path = self.root.join("lock");
        let file = private_options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(StagingError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(StagingLock { _file: file }),
            Err(fs::TryLockError::WouldBlock) => Err(StagingError::Locked { path: self.root.clone() }),
            Err(fs::TryLockError::Error(source)) => Err(StagingError::io("lock", &path)(source)),
        }
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether the disk has room for this many bytes more. One that does not say how large it is, has.
    pub fn has_room(&self, bytes: u64) -> Result<bool, StagingError> {
        let disk = rustix::fs::statvfs(&self.root).map_err(io::Error::from);
        let disk = disk.map_err(StagingError::io("inspect", &self.root))?;
        Ok(disk.f_blocks == 0 || disk.f_bavail.saturating_mul(disk.f_frsize) >= bytes)
    }

    /// A segment that is being written.
    #[must_use]
    pub fn open_segment(&self, segment: SegmentId) -> PathBuf {
        self.root.join(format!("spool/{segment}.ndjson.open"))
    }

    /// A sealed segment that is not acknowledged yet.
    #[must_use]
    pub fn spool(&self, segment: SegmentId) -> PathBuf {
        self.root.join(format!("spool/{segment}.ndjson"))
    }

    /// A segment's rows, as the target table gets them by COPY.
    #[must_use]
    pub fn chunk(&self, segment: SegmentId) -> PathBuf {
        self.root.join(format!("chunks/{segment}.csv"))
    }

    /// `sent_at` and `message_id` of the chunk's rows, in the chunk's order.
    #[must_use]
    pub fn ids(&self, segment: SegmentId) -> PathBuf {
        self.root.join(format!("chunks/{segment}.ids.csv"))
    }

    /// The messages of a segment that could not become rows.
    #[must_use]
    pub fn rejects(&self, segment: SegmentId) -> PathBuf {
        self.root.join(format!("rejects/{segment}.ndjson"))
    }

    /// An acknowledged segment, kept for replay.
    #[must_use]
    pub fn archive(&self, segment: SegmentId) -> PathBuf {
        self.root.join(format!("archive/{segment}.ndjson"))
    }

    /// Sealed segments in the spool, oldest first.
    pub fn sealed_segments(&self) -> Result<Vec<SegmentId>, StagingError> {
        self.segments_in("spool", ".ndjson")
    }

    /// Segments that a process left open, oldest first.
    pub fn open_segments(&self) -> Result<Vec<SegmentId>, StagingError> {
        self.segments_in("spool", ".ndjson.open")
    }

    /// Segments whose chunk is complete, oldest first.
    pub fn staged_segments(&self) -> Result<Vec<SegmentId>, StagingError> {
        self.segments_in("chunks", ".csv")
    }

    /// Acknowledged segments that are still kept, oldest first.
    pub fn archived_segments(&self) -> Result<Vec<SegmentId>, StagingError> {
        self.segments_in("archive", ".ndjson")
    }

    /// Segments that have a reject file, oldest first.
    pub fn rejected_segments(&self) -> Result<Vec<SegmentId>, StagingError> {
        self.segments_in("rejects", ".ndjson")
    }

    /// Where a segment's messages lie now: in the spool, or in the archive.
    #[must_use]
    pub fn find_segment(&self, segment: SegmentId) -> Option<PathBuf> {
        [self.spool(segment), self.archive(segment)].into_iter().find(|path| path.exists())
    }

    /// Removes a segment's chunk and ids, which its spool file can produce again.
    pub fn remove_chunk(&self, segment: SegmentId) -> Result<(), StagingError> {
        // The chunk goes first: its presence is what says "staged".
        for path in [self.chunk(segment), self.ids(segment)] {
            remove_if_present(&path)?;
        }
        Ok(())
    }

    fn segments_in(&self, part: &str, suffix: &str) -> Result<Vec<SegmentId>, StagingError> {
        let directory = self.root.join(part);
        let mut segments = Vec::new();
        for entry in fs::read_dir(&directory).map_err(StagingError::io("list", &directory))? {
            let name = entry.map_err(StagingError::io("list", &directory))?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(suffix));
            segments.extend(id.and_then(|id| id.parse::<SegmentId>().ok()));
        }
        segments.sort_unstable();
        Ok(segments)
    }
}

/// Proof that no other process works in the staging directory.
#[derive(Debug)]
pub struct StagingLock {
    _file: File,
}

/// A file that appears under its name only when it is complete: dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub struct AtomicFile {
    writer: Option<BufWriter<File>>,
    temporary: PathBuf,
    path: PathBuf,
}

impl AtomicFile {
    /// Starts the file, readable and writable by its owner alone. An unfinished one of the same name is replaced.
    pub fn create(path: &Path) -> Result<Self, StagingError> {
        let temporary = path.with_added_extension("tmp");
        let file = private_options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&temporary)
            .map_err(StagingError::io("create", &temporary))?;
        Ok(Self { writer: Some(BufWriter::with_capacity(WRITE_BUFFER_BYTES, file)), temporary, path: path.to_owned() })
    }

    /// Appends to the file.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StagingError> {
        match &mut self.writer {
            Some(writer) => writer.write_all(bytes).map_err(StagingError::io("write", &self.temporary)),
            None => Ok(()),
        }
    }

    /// Makes the file durable and gives it its name.
    pub fn finish(mut self) -> Result<(), StagingError> {
        if let Some(writer) = self.writer.take() {
            let written = writer.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| file.sync_all());
            if let Err(source) = written {
                _ = fs::remove_file(&self.temporary);
                return Err(StagingError::io("write", &self.temporary)(source));
            }
            rename_durably(&self.temporary, &self.path)?;
        }
        Ok(())
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.writer.is_some() {
            _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Options for a file that only its owner may read: 0600.
pub(crate) fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Renames within the staging directory and flushes the directories, so that the new name survives a power loss.
pub(crate) fn rename_durably(from: &Path, to: &Path) -> Result<(), StagingError> {
    fs::rename(from, to).map_err(StagingError::io("rename", from))?;
    CrashPoint::Rename.pass();
    let source_directory = from.parent();
    let target_directory = to.parent();
    sync_directory(target_directory)?;
    CrashPoint::DirectorySync.pass();
    if source_directory != target_directory {
        sync_directory(source_directory)?;
    }
    Ok(())
}

/// Removes a file; one that is not there is as good as removed.
pub(crate) fn remove_if_present(path: &Path) -> Result<(), StagingError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StagingError::io("remove", path)(source)),
        _ => Ok(()),
    }
}

fn sync_directory(directory: Option<&Path>) -> Result<(), StagingError> {
    let Some(directory) = directory else { return Ok(()) };
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(StagingError::io("flush", directory))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_dropped_file_leaves_nothing_and_a_finished_one_is_private() {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::open(root.path()).unwrap();
        let path = staging.chunk(SegmentId::now());

        let mut dropped = AtomicFile::create(&path).unwrap();
        dropped.write(b"half").unwrap();
        drop(dropped);
        assert_eq!(fs::read_dir(root.path().join("chunks")).unwrap().count(), 0);

        let mut finished = AtomicFile::create(&path).unwrap();
        finished.write(b"whole").unwrap();
        finished.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let directory = fs::metadata(root.path().join("chunks")).unwrap();
        assert_eq!(directory.permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_dropped() {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::open(root.path()).unwrap();
        let first = staging.lock().unwrap();
        assert!(matches!(staging.lock(), Err(StagingError::Locked { .. })));
        drop(first);
        staging.lock().unwrap();
    }

    #[test]
    fn segments_are_listed_oldest_first_and_strangers_are_ignored() {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::open(root.path()).unwrap();
        let ids = [SegmentId::now(), SegmentId::now(), SegmentId::now()];
        for id in [ids[2], ids[0], ids[1]] {
            fs::write(staging.spool(id), "").unwrap();
        }
        fs::write(root.path().join("spool/notes.ndjson"), "").unwrap();
        fs::write(staging.open_segment(ids[0]), "").unwrap();
        assert_eq!(staging.sealed_segments().unwrap(), ids);
        assert_eq!(staging.open_segments().unwrap(), [ids[0]]);
    }
}
