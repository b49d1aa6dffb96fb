//! The only place that writes durable files: create, flush, rename, flush the directory.
//!
//! Always true:
//! - a file under its final name is complete: it was written under another name, flushed to disk, then renamed, and the
//!   directory was flushed after that;
//! - a file is readable and writable by its owner alone (0600).
//!
//! A crash leaves at worst a `*.tmp` file, which the next writer of the same name replaces.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::advice::{Advice, Advised, fatal};
use crate::crash_point::CrashPoint;

const WRITE_BUFFER_BYTES: usize = 256 * 1024;

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
    temporary: PathBuf,
    path: PathBuf,
}

impl AtomicFile {
    /// Starts the file, readable and writable by its owner alone. An unfinished one of the same name is replaced.
    pub fn create(path: &Path) -> Result<Self, FileError> {
        let temporary = path.with_added_extension("tmp");
        let file = private_options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&temporary)
            .map_err(FileError::of("create", &temporary))?;
        Ok(Self { writer: Some(BufWriter::with_capacity(WRITE_BUFFER_BYTES, file)), temporary, path: path.to_owned() })
    }

    /// Appends to the file.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        match &mut self.writer {
            Some(writer) => writer.write_all(bytes).map_err(FileError::of("write", &self.temporary)),
            None => Ok(()),
        }
    }

    /// Makes the file durable and gives it its name.
    pub fn finish(mut self) -> Result<(), FileError> {
        if let Some(writer) = self.writer.take() {
            let written = writer.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| file.sync_all());
            if let Err(source) = written {
                _ = fs::remove_file(&self.temporary);
                return Err(FileError::of("write", &self.temporary)(source));
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

/// Replaces a small file that nothing depends on: complete or as before, but not flushed, so a power loss may take it.
pub(crate) fn replace_unflushed(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let temporary = path.with_added_extension("tmp");
    let file = private_options().write(true).create(true).truncate(true).open(&temporary);
    let written = file.and_then(|mut file| file.write_all(bytes));
    written.map_err(FileError::of("write", &temporary))?;
    fs::rename(&temporary, path).map_err(FileError::of("rename", &temporary))
}

/// Renames within the staging directory and flushes the directories, so that the new name survives a power loss.
pub(crate) fn rename_durably(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(FileError::of("rename", from))?;
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
pub(crate) fn remove_if_present(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(FileError::of("remove", path)(source)),
        _ => Ok(()),
    }
}

/// Creates a directory that only its owner may use (0700), and those above it that are missing. Each is flushed into the
/// one above: a file is durable only if the directories above it are. One that exists stays as it is.
pub(crate) fn create_directory(path: &Path) -> Result<(), FileError> {
    let create = || match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
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
pub(crate) fn sync_directory(directory: Option<&Path>) -> Result<(), FileError> {
    let Some(directory) = directory else { return Ok(()) };
    // What stands above a relative path of one part: the working directory.
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(FileError::of("flush", directory))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_dropped_file_leaves_nothing_and_a_finished_one_is_private() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");

        let mut dropped = AtomicFile::create(&path).unwrap();
        dropped.write(b"half").unwrap();
        drop(dropped);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);

        let mut finished = AtomicFile::create(&path).unwrap();
        finished.write(b"whole").unwrap();
        finished.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
