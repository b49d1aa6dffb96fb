//! A directory that was opened once, and the places of files in it.
//!
//! Always true:
//! - a name is looked up in the directory that was opened, whatever was renamed or linked on its path since;
//! - the last part of a path is never followed as a link;
//! - a file that is opened is a regular file of this user. Opening waits for nobody, so a pipe that somebody put there
//!   holds nothing up.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, Stat};
use rustix::io::{Errno, retry_on_intr};

use super::{FileError, Refusal};

/// What group and others may do.
const OTHERS: u32 = 0o077;
const STICKY_AND_OPEN_TO_ALL: u32 = 0o1002;
const OPEN_TO_ALL: u32 = 0o0002;

/// A directory. One that is missing holds nothing.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    handle: Option<File>,
}

/// A name in a directory, whether or not there is a file of that name.
#[derive(Debug, Clone)]
pub struct Place {
    directory: Arc<Directory>,
    /// For people, and for the name at its end.
    path: PathBuf,
}

impl Directory {
    /// Opens a directory that a person named: links on the way to it are followed. One to which everybody may write, and
    /// may rename what others put there, is refused.
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        let handle = open_directory_at(CWD, path.as_os_str(), OFlags::empty()).map_err(FileError::of("open", path))?;
        let mode = handle.metadata().map_err(FileError::of("inspect", path))?.mode();
        if mode & STICKY_AND_OPEN_TO_ALL == OPEN_TO_ALL {
            return Err(FileError::of("use", path)(Refusal::OpenToAll.into()));
        }
        Ok(Self { path: path.to_owned(), handle: Some(handle) })
    }

    /// Opens a directory that a person named, as it is, to be looked at.
    pub(crate) fn existing(path: &Path) -> Result<Self, FileError> {
        Self::if_present(path.to_owned(), open_directory_at(CWD, path.as_os_str(), OFlags::empty()))
    }

    /// Opens a directory in this one, which is created where it is missing. It must be a directory of this user, and is
    /// closed to others (0700).
    pub(crate) fn own(&self, name: &str) -> Result<Self, FileError> {
        let path = self.path.join(name);
        let created = self.handle().and_then(|handle| Ok(rustix::fs::mkdirat(handle, name, Mode::RWXU)?));
        match created {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => created.map_err(FileError::of("create", &path))?,
        }
        let handle = self.open_within(name.as_ref()).map_err(FileError::of("open", &path))?;
        let metadata = handle.metadata().map_err(FileError::of("inspect", &path))?;
        must_be_own(metadata.uid()).map_err(FileError::of("use", &path))?;
        if metadata.mode() & OTHERS != 0 {
            let closed = handle.set_permissions(Permissions::from_mode(metadata.mode() & !OTHERS));
            closed.map_err(FileError::of("close to others", &path))?;
        }
        Ok(Self { path, handle: Some(handle) })
    }

    /// Opens a directory in this one as it is, to be looked at.
    pub(crate) fn existing_within(&self, name: &str) -> Result<Self, FileError> {
        Self::if_present(self.path.join(name), self.open_within(name.as_ref()))
    }

    fn if_present(path: PathBuf, opened: io::Result<File>) -> Result<Self, FileError> {
        match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self { path, handle: None }),
            opened => Ok(Self { handle: Some(opened.map_err(FileError::of("open", &path))?), path }),
        }
    }

    /// Where it was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A name in this directory.
    pub(crate) fn place(self: &Arc<Self>, name: impl AsRef<Path>) -> Place {
        Place { directory: Arc::clone(self), path: self.path.join(name) }
    }

    /// The names in it, in no order.
    pub(crate) fn names(&self) -> Result<Vec<OsString>, FileError> {
        let Some(handle) = &self.handle else { return Ok(Vec::new()) };
        names(handle).map_err(FileError::of("list", &self.path))
    }

    /// Flushes it, so that the names in it survive a power loss.
    pub(crate) fn sync(&self) -> Result<(), FileError> {
        self.handle().and_then(File::sync_all).map_err(FileError::of("flush", &self.path))
    }

    /// Whether its disk has room for this number of bytes. A file system that does not tell its size counts as roomy.
    pub(crate) fn has_room(&self, bytes: u64) -> Result<bool, FileError> {
        let disk = self.handle().and_then(|handle| Ok(rustix::fs::fstatvfs(handle)?));
        let disk = disk.map_err(FileError::of("inspect", &self.path))?;
        Ok(disk.f_blocks == 0 || disk.f_bavail.saturating_mul(disk.f_frsize) >= bytes)
    }

    /// Removes what has this name, and what is below it. Nothing of that name is as good as removed.
    pub(crate) fn remove_tree(&self, name: &str) -> Result<(), FileError> {
        let removed = self.handle().and_then(|handle| remove_tree(handle, name.as_ref()));
        removed.map_err(FileError::of("remove", &self.path.join(name)))
    }

    fn handle(&self) -> io::Result<&File> {
        self.handle.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn open_within(&self, name: &OsStr) -> io::Result<File> {
        let handle = self.handle()?;
        // The system's own error is that of a file, or that of a loop of links.
        open_directory_at(handle, name, OFlags::NOFOLLOW).map_err(|error| match rustix::fs::statat(handle, name, AT) {
            Ok(found) if is_link(&found) => Refusal::Link.into(),
            _ => error,
        })
    }
}

impl Place {
    /// The path, for people. What is done with the file is done through the place.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that the name is in.
    pub(crate) const fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// The name with something appended.
    pub(super) fn with_suffix(&self, suffix: &str) -> Self {
        let mut path = self.path.clone().into_os_string();
        path.push(suffix);
        Self { directory: Arc::clone(&self.directory), path: path.into() }
    }

    /// For `map_err`: what was tried of this file.
    pub(crate) fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> FileError {
        FileError::of(action, &self.path)
    }

    /// Whether there is something of this name. What cannot be looked at is there, and fails when it is used.
    pub(crate) fn is_taken(&self) -> bool {
        !self.stat().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// When the file was last written.
    pub(crate) fn modified(&self) -> Result<SystemTime, FileError> {
        let found = self.stat().map_err(self.failed("inspect"))?;
        Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(found.st_mtime).unwrap_or(0)))
    }

    /// Opens the file for reading.
    pub(crate) fn open(&self) -> Result<File, FileError> {
        self.open_as("open", OFlags::RDONLY)
    }

    /// Opens the file for writing, as it is.
    pub(crate) fn open_for_writing(&self) -> Result<File, FileError> {
        self.open_as("open", OFlags::WRONLY)
    }

    /// Opens the file for writing, as it is, or creates it.
    pub(crate) fn open_or_create(&self) -> Result<File, FileError> {
        self.open_as("open", OFlags::WRONLY | OFlags::CREATE)
    }

    /// Creates the file, for writing. There must be nothing of this name.
    pub(crate) fn create_new(&self) -> Result<File, FileError> {
        self.open_as("create", OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)
    }

    pub(super) fn rename(&self, to: &Self) -> Result<(), FileError> {
        let renamed = self
            .directory
            .handle()
            .and_then(|from| Ok(rustix::fs::renameat(from, self.name(), to.directory.handle()?, to.name())?));
        renamed.map_err(self.failed("rename"))
    }

    pub(super) fn remove(&self) -> Result<(), FileError> {
        let removed =
            self.directory.handle().and_then(|handle| Ok(rustix::fs::unlinkat(handle, self.name(), AtFlags::empty())?));
        removed.map_err(self.failed("remove"))
    }

    fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(rustix::fs::statat(self.directory.handle()?, self.name(), AT)?)
    }

    fn open_as(&self, action: &'static str, flags: OFlags) -> Result<File, FileError> {
        self.directory
            .handle()
            .and_then(|handle| open_own_file(handle, self.name(), flags))
            .map_err(self.failed(action))
    }
}

impl AsRef<Path> for Place {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

const AT: AtFlags = AtFlags::SYMLINK_NOFOLLOW;

fn open_own_file(directory: &File, name: &OsStr, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match retry_on_intr(|| rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)) {
        Err(Errno::LOOP) => return Err(Refusal::Link.into()),
        // A pipe without a reader, a socket.
        Err(Errno::NXIO | Errno::OPNOTSUPP) => return Err(Refusal::NotAFile.into()),
        opened => File::from(opened?),
    };
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        return Err(Refusal::NotAFile.into());
    }
    must_be_own(metadata.uid())?;
    Ok(file)
}

fn open_directory_at(directory: impl std::os::fd::AsFd, name: &OsStr, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(File::from(retry_on_intr(|| rustix::fs::openat(&directory, name, flags, Mode::empty()))?))
}

fn must_be_own(owner: u32) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    if owner == own { Ok(()) } else { Err(Refusal::OfAnother { owner, own }.into()) }
}

fn is_link(found: &Stat) -> bool {
    rustix::fs::FileType::from_raw_mode(found.st_mode).is_symlink()
}

fn names(directory: &File) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    Ok(names)
}

fn remove_tree(directory: &File, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        // What Linux and other systems say of a directory.
        Err(Errno::ISDIR | Errno::PERM) => {
            let inner = open_directory_at(directory, name, OFlags::NOFOLLOW)?;
            names(&inner)?.iter().try_for_each(|name| remove_tree(&inner, name))?;
            Ok(rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?)
        }
        removed => Ok(removed?),
    }
}

#[cfg(test)]
impl Place {
    /// A name in a directory of a test.
    pub(crate) fn in_test(directory: &tempfile::TempDir, name: &str) -> Self {
        Arc::new(Directory::open(directory.path()).unwrap()).place(name)
    }
}

/// A pipe that has neither reader nor writer.
#[cfg(test)]
pub(crate) fn make_fifo(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn refusal(error: &FileError) -> Refusal {
        Refusal::of(&error.source).unwrap_or_else(|| panic!("{error}: {}", error.source))
    }

    #[test]
    fn a_file_that_is_a_link_a_pipe_or_a_socket_is_refused_without_waiting() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "content").unwrap();
        symlink(root.path().join("file"), root.path().join("link")).unwrap();
        symlink("nothing", root.path().join("dangling")).unwrap();
        make_fifo(&root.path().join("pipe"));
        let _listener = std::os::unix::net::UnixListener::bind(root.path().join("socket")).unwrap();
        for (name, expected) in [
            ("link", Refusal::Link),
            ("dangling", Refusal::Link),
            ("pipe", Refusal::NotAFile),
            ("socket", Refusal::NotAFile),
        ] {
            let place = Place::in_test(&root, name);
            assert_eq!(refusal(&place.open().unwrap_err()), expected, "{name}");
            assert_eq!(refusal(&place.open_for_writing().unwrap_err()), expected, "{name}");
            assert_eq!(refusal(&place.open_or_create().unwrap_err()), expected, "{name}");
            let error = place.create_new().unwrap_err();
            assert_eq!(error.source.kind(), io::ErrorKind::AlreadyExists, "{name}");
            assert!(place.is_taken());
        }
        assert!(!Place::in_test(&root, "nothing").is_taken());
    }

    /// Whoever could rename the directory, or put a link in its stead, chose where files went.
    #[test]
    fn names_are_looked_up_in_the_directory_that_was_opened() {
        let root = tempfile::tempdir().unwrap();
        let part = Arc::new(Directory::open(root.path()).unwrap().own("part").unwrap());
        fs::create_dir(root.path().join("elsewhere")).unwrap();
        fs::rename(root.path().join("part"), root.path().join("moved")).unwrap();
        symlink("elsewhere", root.path().join("part")).unwrap();
        part.place("file").create_new().unwrap();
        assert!(root.path().join("moved/file").is_file());
        assert_eq!(part.names().unwrap(), ["file"]);
        assert_eq!(fs::read_dir(root.path().join("elsewhere")).unwrap().count(), 0);
    }

    #[test]
    #[allow(clippy::print_stderr, reason = "a test that cannot run here says so")]
    fn a_directory_of_another_user_is_refused_and_so_are_its_files() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can give a file away");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::open(root.path()).unwrap();
        drop(directory.own("part").unwrap());
        fs::write(root.path().join("file"), "").unwrap();
        for name in ["part", "file"] {
            std::os::unix::fs::chown(root.path().join(name), Some(4711), None).unwrap();
        }
        let expected = Refusal::OfAnother { owner: 4711, own: 0 };
        assert_eq!(refusal(&directory.own("part").unwrap_err()), expected);
        assert_eq!(refusal(&Place::in_test(&root, "file").open().unwrap_err()), expected);
    }

    #[test]
    fn a_directory_that_is_a_link_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::open(root.path()).unwrap();
        fs::create_dir(root.path().join("real")).unwrap();
        symlink("real", root.path().join("link")).unwrap();
        assert_eq!(refusal(&directory.own("link").unwrap_err()), Refusal::Link);
        assert_eq!(refusal(&directory.existing_within("link").unwrap_err()), Refusal::Link);
        assert!(directory.existing_within("nothing").unwrap().names().unwrap().is_empty());
    }

    #[test]
    fn a_tree_is_removed_without_what_its_links_point_to() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::open(root.path()).unwrap();
        fs::create_dir_all(root.path().join("tree/inner")).unwrap();
        fs::create_dir(root.path().join("other")).unwrap();
        for name in ["tree/inner/file", "other/file"] {
            fs::write(root.path().join(name), "").unwrap();
        }
        symlink("../../other", root.path().join("tree/inner/link")).unwrap();
        directory.remove_tree("tree").unwrap();
        directory.remove_tree("tree").unwrap();
        assert_eq!(directory.names().unwrap(), ["other"]);
        assert!(root.path().join("other/file").exists());
    }
}
