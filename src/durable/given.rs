//! Files that a person names: where a report and log lines go, and what is imported.
//!
//! Always true:
//! - what is written to is no link, except where its name stands for a stream that this process has open already, such as
//!   `/dev/stderr`; it belongs to this user or to root. So nobody who may write to the directory can choose another file;
//! - a new file is readable and writable by its owner alone (0600); one that exists keeps its mode;
//! - opening waits for nobody: a pipe must have its other end open.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, retry_on_intr};

use super::Refusal;

const ROOT: u32 = 0;

/// Whether what is written there goes on to a reader, and stays for nobody who looks later.
pub(crate) fn is_stream(path: &Path) -> bool {
    let is_special = |found: fs::FileType| found.is_fifo() || found.is_socket() || found.is_char_device();
    is_own_stream(path) || path.symlink_metadata().is_ok_and(|found| is_special(found.file_type()))
}

/// Opens a file whose content is replaced.
pub(crate) fn open_to_replace(path: &Path) -> io::Result<File> {
    let file = open_output(path, OFlags::empty())?;
    if !is_stream(path) {
        file.set_len(0)?;
    }
    Ok(file)
}

/// Opens a file that is appended to.
pub(crate) fn open_to_append(path: &Path) -> io::Result<File> {
    open_output(path, OFlags::APPEND)
}

/// Opens a file for reading; links are followed.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    let file = open(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let found = file.metadata()?;
    if found.is_file() || found.is_dir() { Ok(file) } else { Err(Refusal::NotAFile.into()) }
}

fn open_output(path: &Path, flags: OFlags) -> io::Result<File> {
    let clone = |stream: &dyn AsFd| Ok(File::from(stream.as_fd().try_clone_to_owned()?));
    match path.to_str() {
        // Opened by their names, they would be written from their first byte on, and not at all where they are sockets.
        Some("/dev/stdout") => return clone(&io::stdout()),
        Some("/dev/stderr") => return clone(&io::stderr()),
        _ => {}
    }
    let flags = flags | OFlags::WRONLY | OFlags::NONBLOCK;
    let file = if is_own_stream(path) {
        open(path, flags | OFlags::APPEND)?
    } else {
        open(path, flags | OFlags::CREATE | OFlags::NOFOLLOW)?
    };
    let found = file.metadata()?;
    let own = rustix::process::geteuid().as_raw();
    if ![own, ROOT].contains(&found.uid()) {
        return Err(Refusal::OfAnother { owner: found.uid(), own }.into());
    }
    // A reader that is slow is waited for.
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

fn is_own_stream(path: &Path) -> bool {
    let directories = ["/dev/fd", "/proc/self/fd"];
    ["/dev/stdout", "/dev/stderr"].map(Path::new).contains(&path)
        || path.parent().is_some_and(|parent| directories.map(Path::new).contains(&parent))
}

fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    let mode = Mode::RUSR | Mode::WUSR;
    match retry_on_intr(|| rustix::fs::open(path, flags | OFlags::NOCTTY | OFlags::CLOEXEC, mode)) {
        Err(Errno::LOOP) if flags.contains(OFlags::NOFOLLOW) => Err(Refusal::Link.into()),
        Err(Errno::NXIO) => Err(Refusal::NoReader.into()),
        opened => Ok(File::from(opened?)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::directory::make_fifo;
    use super::*;

    #[test]
    fn a_new_file_is_private_and_one_that_exists_keeps_its_mode() {
        let root = tempfile::tempdir().unwrap();
        for (name, mode) in [("new", 0o600), ("there", 0o640)] {
            let path = root.path().join(name);
            if name == "there" {
                fs::write(&path, "what was there before, which is longer").unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            }
            open_to_replace(&path).unwrap().write_all(b"one ").unwrap();
            open_to_append(&path).unwrap().write_all(b"two").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "one two");
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        }
    }

    #[test]
    fn a_link_is_not_written_through() {
        let root = tempfile::tempdir().unwrap();
        let (precious, link) = (root.path().join("precious"), root.path().join("link"));
        fs::write(&precious, "precious").unwrap();
        symlink(&precious, &link).unwrap();
        for opened in [open_to_replace(&link), open_to_append(&link)] {
            assert_eq!(Refusal::of(&opened.unwrap_err()), Some(Refusal::Link));
        }
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        assert!(open_to_read(&link).is_ok(), "what is read may be a link");
    }

    #[test]
    fn a_pipe_is_written_to_where_it_has_a_reader_and_is_never_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("pipe");
        make_fifo(&path);
        assert!(is_stream(&path));
        assert_eq!(Refusal::of(&open_to_replace(&path).unwrap_err()), Some(Refusal::NoReader));
        assert_eq!(Refusal::of(&open_to_read(&path).unwrap_err()), Some(Refusal::NotAFile));
        let mut reader = open(&path, OFlags::RDONLY | OFlags::NONBLOCK).unwrap();
        open_to_replace(&path).unwrap().write_all(b"report").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "report");
    }

    #[test]
    #[allow(clippy::print_stderr, reason = "a test that cannot run here says so")]
    fn a_file_of_another_user_is_refused_and_one_of_root_is_not() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        fs::write(&path, "").unwrap();
        assert!(open_to_append(Path::new("/dev/null")).is_ok());
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can give a file away");
            return;
        }
        std::os::unix::fs::chown(&path, Some(4711), None).unwrap();
        let expected = Refusal::OfAnother { owner: 4711, own: 0 };
        assert_eq!(Refusal::of(&open_to_append(&path).unwrap_err()), Some(expected));
    }
}
