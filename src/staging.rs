//! The staging directory: where each stage's files lie, how they are named, and who may touch them.
//!
//! The states of a segment `S`, and who moves it from one to the next:
//!
//! | state | where | moved there by |
//! |---|---|---|
//! | open | `spool/S.ndjson.open` | drain, import: created |
//! | sealed | `spool/S.ndjson` | drain, import, recovery: `spool` |
//! | staged | also `chunks/S.*`, of which the manifest `S.json` is written last | transform: `chunk` |
//! | committed | `committed/S.ndjson`; its chunk is removed | load: [`Staging::commit_segment`] |
//! | acknowledged | `archive/S.ndjson`, kept for `archive_days` from here | ack: [`Staging::archive_segment`] |
//! | damaged | `damaged/S.ndjson`, until a person restores or removes it | any stage that reads it: [`Staging::set_damaged_aside`] |
//!
//! `rejects/S.ndjson` holds the bodies of what was rejected; load alone writes it.
//!
//! Always true:
//! - a segment keeps one name, its [`SegmentId`], in every stage, so the files alone tell its state. What is loaded, only
//!   the ledger knows: a file in `committed/` says that a process saw the COMMIT, a file in `spool/` says nothing of it;
//! - directories are 0700 and files 0600, because spool and reject files hold personal data;
//! - one process at a time holds [`StagingLock`].
//!
//! Files are written by [`crate::durable`]. A crash leaves at worst an open segment, which `spool` recovers, and a chunk
//! without its manifest, which is made again.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;

use crate::advice::{Advice, Advised, fatal};
use crate::crash_point::CrashPoint;
use crate::durable::{Directory, FileError, Place, TEMPORARY, create_directory, remove_if_present, rename_durably};
use crate::segment::SegmentId;

/// The directories in the staging directory.
#[derive(Debug, Clone, Copy)]
enum Part {
    Spool,
    Chunks,
    Rejects,
    Committed,
    Archive,
    Damaged,
}

impl Part {
    /// In the order of the enum.
    const ALL: [Self; 6] = [Self::Spool, Self::Chunks, Self::Rejects, Self::Committed, Self::Archive, Self::Damaged];

    const fn name(self) -> &'static str {
        match self {
            Self::Spool => "spool",
            Self::Chunks => "chunks",
            Self::Rejects => "rejects",
            Self::Committed => "committed",
            Self::Archive => "archive",
            Self::Damaged => "damaged",
        }
    }
}

/// The staging directory could not be used.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is the documentation")]
pub enum StagingError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} is in use by another process", path.display())]
    Locked { path: PathBuf },
    /// As [`Self::Locked`], for a command whose work every run does as well.
    #[error("{} is in use by another process", path.display())]
    LockedByRun { path: PathBuf },
    #[error("no segment {segment} in the spool or the archive")]
    NoSuchSegment { segment: SegmentId },
}

impl StagingError {
    /// The disk, or what this user may have of it, is used up.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::File(error) if error.is_disk_full())
    }
}

impl Advised for StagingError {
    fn advice(&self) -> Advice {
        match self {
            Self::File(error) => error.advice(),
            Self::Locked { .. } => fatal("wait for that process, or give this one a --staging-dir of its own"),
            Self::LockedByRun { .. } => fatal(
                "there is nothing to do: `run`, `replay` and `ack` remove at their end what `prune` would, and `run --follow` \
                 every hour",
            ),
            Self::NoSuchSegment { .. } => fatal(
                "the files in spool/ and archive/ of the staging directory begin with their segments' names; check --staging-dir",
            ),
        }
    }
}

/// The staging directory and the places of files in it.
#[derive(Debug, Clone)]
pub struct Staging {
    root: Arc<Directory>,
    /// As in [`Part::ALL`].
    parts: [Arc<Directory>; 6],
}

impl Staging {
    /// Opens the staging directory, creating it and its parts where they are missing. Parts that exist must be
    /// directories of this user, and are closed to others. The directory itself may be another's, as a volume is that
    /// Kubernetes mounts, but not one in which everybody may rename everything.
    pub fn open(root: &Path) -> Result<Self, FileError> {
        create_directory(root)?;
        Self::in_directory(Directory::open(root)?)
    }

    fn in_directory(root: Directory) -> Result<Self, FileError> {
        let staging = Self::of_parts(root, Directory::own)?;
        // Whoever made the parts may have died before it flushed them.
        staging.root.sync()?;
        Ok(staging)
    }

    /// The staging directory as it is, to be looked at: nothing is created or changed. A part that is missing holds
    /// nothing.
    pub fn existing(root: &Path) -> Result<Self, FileError> {
        Self::of_parts(Directory::existing(root)?, Directory::existing_within)
    }

    fn of_parts(
        root: Directory,
        open: impl Fn(&Directory, &str) -> Result<Directory, FileError>,
    ) -> Result<Self, FileError> {
        let [spool, chunks, rejects, committed, archive, damaged] =
            Part::ALL.map(|part| open(&root, part.name()).map(Arc::new));
        Ok(Self { parts: [spool?, chunks?, rejects?, committed?, archive?, damaged?], root: Arc::new(root) })
    }

    /// A staging directory within this one, which is empty: what has that name is removed.
    pub(crate) fn emptied_within(&self, name: &str) -> Result<Self, FileError> {
        self.remove_within(name)?;
        Self::in_directory(self.root.own(name)?)
    }

    /// Removes a staging directory within this one.
    pub(crate) fn remove_within(&self, name: &str) -> Result<(), FileError> {
        self.root.remove_tree(name)
    }

    /// Claims the directory for this process until the lock is dropped or the process ends, however it ends. Files that
    /// a process left unfinished are removed.
    pub fn lock(&self) -> Result<StagingLock, StagingError> {
        let place = self.root.place("lock");
        let file = place.open_or_create()?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StagingError::Locked { path: self.root().to_owned() }),
            Err(TryLockError::Error(source)) => return Err(place.failed("lock")(source).into()),
        }
        self.remove_unfinished()?;
        Ok(StagingLock { _file: file })
    }

    /// Only under the lock is every `*.tmp` a dead process's.
    fn remove_unfinished(&self) -> Result<(), FileError> {
        for part in &self.parts {
            for name in part.names()? {
                let (id, _) = name.to_str().and_then(|name| name.strip_suffix(TEMPORARY)?.split_once('.')).unzip();
                if id.is_some_and(|id| id.parse::<SegmentId>().is_ok()) {
                    remove_if_present(&part.place(&name))?;
                }
            }
        }
        Ok(())
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Whether the disk has room for this number of bytes. A file system that does not tell its size counts as roomy.
    pub fn has_room(&self, bytes: u64) -> Result<bool, FileError> {
        self.root.has_room(bytes)
    }

    fn place(&self, part: Part, name: String) -> Place {
        self.parts[part as usize].place(name)
    }

    /// A segment that is being written.
    #[must_use]
    pub fn open_segment(&self, segment: SegmentId) -> Place {
        self.place(Part::Spool, format!("{segment}.ndjson.open"))
    }

    /// A sealed segment of which no COMMIT is known.
    #[must_use]
    pub fn spool(&self, segment: SegmentId) -> Place {
        self.place(Part::Spool, format!("{segment}.ndjson"))
    }

    /// A committed segment that is not acknowledged yet.
    #[must_use]
    pub fn committed(&self, segment: SegmentId) -> Place {
        self.place(Part::Committed, format!("{segment}.ndjson"))
    }

    /// An acknowledged segment, kept for replay.
    #[must_use]
    pub fn archive(&self, segment: SegmentId) -> Place {
        self.place(Part::Archive, format!("{segment}.ndjson"))
    }

    /// A segment that cannot be read to its end.
    #[must_use]
    pub fn damaged(&self, segment: SegmentId) -> Place {
        self.place(Part::Damaged, format!("{segment}.ndjson"))
    }

    /// The manifest of a segment's chunk: written last, so its presence says "staged".
    #[must_use]
    pub fn manifest(&self, segment: SegmentId) -> Place {
        self.place(Part::Chunks, format!("{segment}.json"))
    }

    /// A segment's rows, as the target table gets them by COPY.
    #[must_use]
    pub fn chunk(&self, segment: SegmentId) -> Place {
        self.place(Part::Chunks, format!("{segment}.csv"))
    }

    /// The identities of the chunk's rows, in the chunk's order.
    #[must_use]
    pub fn ids(&self, segment: SegmentId) -> Place {
        self.place(Part::Chunks, format!("{segment}.ids.csv"))
    }

    /// The messages that the transform refused.
    #[must_use]
    pub fn chunk_rejects(&self, segment: SegmentId) -> Place {
        self.place(Part::Chunks, format!("{segment}.rejects.ndjson"))
    }

    /// The messages of a segment that could not become rows, kept.
    #[must_use]
    pub fn rejects(&self, segment: SegmentId) -> Place {
        self.place(Part::Rejects, format!("{segment}.ndjson"))
    }

    /// The report of the last run.
    #[must_use]
    pub fn last_run(&self) -> Place {
        self.root.place("last-run.json")
    }

    /// The report of the last run that ended with exit code 0.
    #[must_use]
    pub fn last_done(&self) -> Place {
        self.root.place("last-done.json")
    }

    /// Sealed segments in the spool, oldest first.
    pub fn sealed_segments(&self) -> Result<Vec<SegmentId>, FileError> {
        self.segments_in(Part::Spool, ".ndjson")
    }

    /// Segments that a process left open, oldest first.
    pub fn open_segments(&self) -> Result<Vec<SegmentId>, FileError> {
        self.segments_in(Part::Spool, ".ndjson.open")
    }

    /// Segments whose chunk is complete, oldest first.
    pub fn staged_segments(&self) -> Result<Vec<SegmentId>, FileError> {
        self.segments_in(Part::Chunks, ".json")
    }

    /// Segments that are not here, of which rows lie here without the manifest that would make them a chunk: somebody
    /// copied a part of it.
    pub fn segments_of_stray_rows(&self) -> Result<Vec<SegmentId>, FileError> {
        let mut stray = self.segments_in(Part::Chunks, ".csv")?;
        stray.retain(|&segment| !self.manifest(segment).is_taken() && self.find_segment(segment).is_none());
        Ok(stray)
    }

    /// Segments that are committed and not acknowledged, oldest first. A segment that also lies in the spool, because
    /// somebody copied a directory into another, is sealed: the file there says less.
    pub fn committed_segments(&self) -> Result<Vec<SegmentId>, FileError> {
        let sealed = self.sealed_segments()?;
        let mut committed = self.segments_in(Part::Committed, ".ndjson")?;
        committed.retain(|segment| sealed.binary_search(segment).is_err());
        Ok(committed)
    }

    /// Acknowledged segments that are still kept, oldest first.
    pub fn archived_segments(&self) -> Result<Vec<SegmentId>, FileError> {
        self.segments_in(Part::Archive, ".ndjson")
    }

    /// Segments that cannot be read to their end, oldest first.
    pub fn damaged_segments(&self) -> Result<Vec<SegmentId>, FileError> {
        self.segments_in(Part::Damaged, ".ndjson")
    }

    /// Segments that have a reject file, oldest first.
    pub fn rejected_segments(&self) -> Result<Vec<SegmentId>, FileError> {
        self.segments_in(Part::Rejects, ".ndjson")
    }

    /// Where a segment's messages lie now: in the spool, committed, or in the archive.
    #[must_use]
    pub fn find_segment(&self, segment: SegmentId) -> Option<Place> {
        [self.spool(segment), self.committed(segment), self.archive(segment)].into_iter().find(Place::is_taken)
    }

    /// Where a segment lies whose messages a queue may still have: in the spool, or committed.
    #[must_use]
    pub fn find_unacknowledged(&self, segment: SegmentId) -> Option<Place> {
        [self.spool(segment), self.committed(segment)].into_iter().find(Place::is_taken)
    }

    /// The segment's COMMIT is known: moves it to `committed/` and removes its chunk. A segment that was acknowledged before
    /// stays in the archive.
    pub fn commit_segment(&self, segment: SegmentId) -> Result<(), FileError> {
        let spool = self.spool(segment);
        if spool.is_taken() {
            rename_durably(&spool, &self.committed(segment))?;
        }
        self.remove_chunk(segment)
    }

    /// All deletes of a committed segment are done: moves it to the archive, and removes what a crash left of its chunk.
    /// Its retention begins now, and that of its rejects, which may have waited for the acknowledgement for longer.
    pub fn archive_segment(&self, segment: SegmentId) -> Result<(), FileError> {
        let Some(place) = self.find_unacknowledged(segment) else { return Ok(()) };
        self.remove_chunk(segment)?;
        let now = SystemTime::now();
        place.open_for_writing()?.set_modified(now).map_err(place.failed("date"))?;
        // That they cannot be dated, or are not here, is no reason not to acknowledge the others.
        _ = self.rejects(segment).open_for_writing().map(|rejects| rejects.set_modified(now));
        rename_durably(&place, &self.archive(segment))?;
        CrashPoint::Archive.pass();
        Ok(())
    }

    /// A segment cannot be read to its end: moves it to `damaged/`, so that no later command tries it again.
    pub fn set_damaged_aside(&self, segment: SegmentId) -> Result<(), FileError> {
        if let Some(place) = self.find_segment(segment) {
            rename_durably(&place, &self.damaged(segment))?;
        }
        self.remove_chunk(segment)
    }

    /// Removes a segment's chunk, which its segment can produce again.
    pub fn remove_chunk(&self, segment: SegmentId) -> Result<(), FileError> {
        // The manifest goes first: its presence is what says "staged".
        let parts = [self.manifest(segment), self.chunk(segment), self.ids(segment), self.chunk_rejects(segment)];
        parts.iter().try_for_each(remove_if_present)
    }

    /// Segments that were acknowledged longer ago than `archive_days`.
    pub fn expired_archive(&self, archive_days: u32) -> Result<Vec<(SegmentId, Place)>, FileError> {
        older_than(archive_days, self.archived_segments()?, |segment| self.archive(segment))
    }

    /// Reject files that were last written, or whose segment was acknowledged, longer ago than `rejects_days`.
    pub fn expired_rejects(&self, rejects_days: u32) -> Result<Vec<(SegmentId, Place)>, FileError> {
        older_than(rejects_days, self.rejected_segments()?, |segment| self.rejects(segment))
    }

    fn segments_in(&self, part: Part, suffix: &str) -> Result<Vec<SegmentId>, FileError> {
        let names = self.parts[part as usize].names()?;
        let ids = names.iter().filter_map(|name| name.to_str()?.strip_suffix(suffix)?.parse().ok());
        let mut segments: Vec<SegmentId> = ids.collect();
        segments.sort_unstable();
        Ok(segments)
    }
}

fn older_than(
    days: u32,
    segments: Vec<SegmentId>,
    place_of: impl Fn(SegmentId) -> Place,
) -> Result<Vec<(SegmentId, Place)>, FileError> {
    let keep = Duration::from_hours(24 * u64::from(days));
    let mut expired = Vec::new();
    for segment in segments {
        let place = place_of(segment);
        if SystemTime::now().duration_since(place.modified()?).unwrap_or_default() >= keep {
            expired.push((segment, place));
        }
    }
    Ok(expired)
}

/// Proof that no other process works in the staging directory.
#[derive(Debug)]
pub struct StagingLock {
    _file: File,
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_parts_are_closed_to_others() {
        let root = tempfile::tempdir().unwrap();
        Staging::open(root.path()).unwrap();
        for part in Part::ALL.map(Part::name) {
            let directory = fs::metadata(root.path().join(part)).unwrap();
            assert_eq!(directory.permissions().mode() & 0o777, 0o700, "{part}");
        }
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

    /// A spool that was copied over a host's own had a segment in `spool/` and in `committed/`: it was counted, and loaded,
    /// twice, and the report's sum did not hold.
    #[test]
    fn a_segment_that_lies_in_two_states_counts_once() {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::open(root.path()).unwrap();
        let [twice, once] = [SegmentId::now(), SegmentId::now()];
        for path in [staging.spool(twice), staging.committed(twice), staging.committed(once)] {
            fs::write(path, "").unwrap();
        }
        assert_eq!(staging.sealed_segments().unwrap(), [twice]);
        assert_eq!(staging.committed_segments().unwrap(), [once]);
        staging.commit_segment(twice).unwrap();
        assert_eq!(staging.committed_segments().unwrap(), [twice, once]);
    }

    /// The retention was counted from the day of the seal: a segment that waited a week for its load was removed at once.
    /// A process died after it had removed the manifest, and nothing ever removed the rejects' bodies beside it.
    #[test]
    fn nothing_of_a_chunk_outlives_the_acknowledgement() {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::open(root.path()).unwrap();
        let id = SegmentId::now();
        for left in [staging.committed(id), staging.ids(id), staging.chunk_rejects(id)] {
            fs::write(left, "").unwrap();
        }
        staging.archive_segment(id).unwrap();
        assert!(staging.archive(id).is_taken() && !staging.ids(id).is_taken() && !staging.chunk_rejects(id).is_taken());
    }

    #[test]
    fn the_archive_is_kept_from_the_day_of_the_acknowledgement() {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::open(root.path()).unwrap();
        let id = SegmentId::now();
        let file = File::create(staging.spool(id)).unwrap();
        let days = |days: u64| Duration::from_hours(24 * days);
        file.set_modified(SystemTime::now() - days(30)).unwrap();
        let rejects = File::create(staging.rejects(id)).unwrap();
        rejects.set_modified(SystemTime::now() - days(100)).unwrap();
        staging.commit_segment(id).unwrap();
        staging.archive_segment(id).unwrap();
        assert_eq!(staging.expired_archive(7).unwrap().len(), 0);
        assert_eq!(staging.expired_rejects(90).unwrap().len(), 0, "they waited for the acknowledgement for longer");
        file.set_modified(SystemTime::now() - days(8)).unwrap();
        assert_eq!(staging.expired_archive(7).unwrap().len(), 1);
    }
}
