//! The only place that writes durable files: create, flush, rename, flush the directory.
//!
//! Always true:
//! - a file under its final name is complete: it was written under another name, flushed to disk, then renamed, and the
//!   directory was flushed after that;
//! - a file is readable and writable by its owner alone (0600);
//! - a file is reached by the handle of its directory and its name, see [`Directory`]: no link is followed on the way, and
//!   one that is no regular file, or not of this user, is refused without waiting for anything.
//!
//! A crash leaves at worst a `*.tmp` file, which the next process that locks the directory removes. Files that a person names,
//! for a report or log lines, are the module `given`'s.

mod directory;
pub(crate) mod given;
mod refusal;

use std::fs::{DirBuilder, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::advice::{Advice, Advised, fatal};
use crate::crash_point::CrashPoint;

pub use directory::{Directory, Place};
pub(crate) use refusal::Refusal;

const WRITE_BUFFER_BYTES: usize = 256 * 1024;
/// How the name of an unfinished file ends.
pub(crate) const TEMPORARY: &str = ".tmp";

/// An operation on a file failed.
#[derive(Debug, Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    /// What was tried.
    pub action: &'static str,
    /// On which file or directory.
    pub path: PathBuf,
    /// Why it failed.
    pub source: io::Error,
}

impl FileError {
    /// For `map_err`: an I/O error with what was tried, and on which file.
    pub fn of(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { action, path, source }
    }

    /// A file that is there could not be opened or read.
    #[must_use]
    pub fn is_of_reading(&self) -> bool {
        matches!(self.action, "open" | "read") && self.source.kind() != io::ErrorKind::NotFound
    }

    /// The disk, or what this user may have of it, is used up.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(self.source.kind(), StorageFull | QuotaExceeded | FileTooLarge)
    }
}

impl Advised for FileError {
    fn advice(&self) -> Advice {
        if self.is_disk_full() {
            return fatal("make room in the staging directory and run again; what is sealed is safe there");
        }
        if let Some(refusal) = Refusal::of(&self.source) {
            return refusal.advice();
        }
        match self.source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                fatal("give the user that runs pgsluice read and write access, or choose another --staging-dir")
            }
            io::ErrorKind::NotADirectory => fatal("a part of the path is a file; choose another --staging-dir"),
            _ => fatal("check the path; what is sealed in the staging directory is safe, and a run resumes it"),
        }
    }
}

/// A file that appears under its name only when it is complete: dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub struct AtomicFile {
    writer: Option<BufWriter<File>>,
    temporary: Place,
    place: Place,
}

impl AtomicFile {
    /// Starts the file, readable and writable by its owner alone. An unfinished one of the same name is removed: whoever
    /// made it may still have it open.
    pub fn create(place: &Place) -> Result<Self, FileError> {
        let temporary = place.with_suffix(TEMPORARY);
        remove_if_present(&temporary)?;
        let writer = BufWriter::with_capacity(WRITE_BUFFER_BYTES, temporary.create_new()?);
        Ok(Self { writer: Some(writer), temporary, place: place.clone() })
    }

    /// Appends to the file.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        match &mut self.writer {
            Some(writer) => writer.write_all(bytes).map_err(self.temporary.failed("write")),
            None => Ok(()),
        }
    }

    /// Makes the file durable and gives it its name.
    pub fn finish(mut self) -> Result<(), FileError> {
        if let Some(writer) = self.writer.take() {
            let written = writer.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| file.sync_all());
            if let Err(source) = written {
                _ = remove_if_present(&self.temporary);
                return Err(self.temporary.failed("write")(source));
            }
            rename_durably(&self.temporary, &self.place)?;
        }
        Ok(())
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.writer.is_some() {
            _ = remove_if_present(&self.temporary);
        }
    }
}

/// Replaces a small file that nothing depends on: complete or as before, but not flushed, so a power loss may take it.
pub(crate) fn replace_unflushed(place: &Place, bytes: &[u8]) -> Result<(), FileError> {
    let temporary = place.with_suffix(TEMPORARY);
    remove_if_present(&temporary)?;
    temporary.create_new()?.write_all(bytes).map_err(temporary.failed("write"))?;
    temporary.rename(place)
}

/// Renames within the staging directory and flushes the directories, so that the new name survives a power loss.
pub(crate) fn rename_durably(from: &Place, to: &Place) -> Result<(), FileError> {
    from.rename(to)?;
    CrashPoint::Rename.pass();
    to.directory().sync()?;
    CrashPoint::DirectorySync.pass();
    if Arc::ptr_eq(from.directory(), to.directory()) { Ok(()) } else { from.directory().sync() }
}

/// Removes a file; one that is not there is as good as removed.
pub(crate) fn remove_if_present(place: &Place) -> Result<(), FileError> {
    match place.remove() {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Creates a directory that only its owner may use (0700), and those above it that are missing. Each is flushed into the
/// one above: a file is durable only if the directories above it are. What exists stays as it is.
pub(crate) fn create_directory(path: &Path) -> Result<(), FileError> {
    let create = || match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        created => created.map(|()| true),
    };
    let is_new = match (create(), path.parent()) {
        (Err(error), Some(above)) if error.kind() == io::ErrorKind::NotFound => {
            create_directory(above)?;
            create()
        }
        (created, _) => created,
    };
    if is_new.map_err(FileError::of("create", path))? { sync_directory(path.parent()) } else { Ok(()) }
}

/// Flushes a directory, so that the names in it survive a power loss.
fn sync_directory(directory: Option<&Path>) -> Result<(), FileError> {
    let Some(directory) = directory else { return Ok(()) };
    // What stands above a relative path of one part: the working directory.
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(FileError::of("flush", directory))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_dropped_file_leaves_nothing_and_a_finished_one_is_private() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::in_test(&root, "file");

        let mut dropped = AtomicFile::create(&place).unwrap();
        dropped.write(b"half").unwrap();
        drop(dropped);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);

        let mut finished = AtomicFile::create(&place).unwrap();
        finished.write(b"whole").unwrap();
        finished.finish().unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"whole");
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o600);
    }

    /// An unfinished file was opened and cut, whatever it was: through a link it emptied another file of this user, and
    /// whoever had made it could read on.
    #[test]
    fn what_lies_under_the_temporary_name_is_removed_and_not_written_to() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::in_test(&root, "file");
        let precious = root.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        let plant: [&dyn Fn(&Path); 3] = [
            &|path| symlink(&precious, path).unwrap(),
            &|path| fs::hard_link(&precious, path).unwrap(),
            &directory::make_fifo,
        ];
        for plant in plant {
            plant(&root.path().join("file.tmp"));
            let mut file = AtomicFile::create(&place).unwrap();
            file.write(b"whole").unwrap();
            file.finish().unwrap();
            assert_eq!(fs::read(&precious).unwrap(), b"precious");
            assert!(fs::symlink_metadata(&place).unwrap().is_file());
        }
    }
}
