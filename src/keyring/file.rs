//! A keyring in a file. It is written as a whole, readable by its owner alone (0600), and durably.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::{Keyring, KeyringError, permissions};
use crate::durable::{private_options, rename_durably, sync_directory};

/// A keyring has a few keys of 200 bytes each.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// Reads a file that no other user may write, and that not every user may read.
pub fn read_file(path: &Path) -> Result<Keyring, KeyringError> {
    // A pipe without a writer must not block.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(nonblocking).open(path);
    let file = file.map_err(KeyringError::of_file("open", path))?;
    if let Some(problem) = permissions::problem(&file).map_err(KeyringError::of_file("look at", path))? {
        return Err(KeyringError::Exposed { path: path.to_owned(), problem });
    }
    let text = read_text(file).map_err(KeyringError::of_file("read", path))?;
    Keyring::parse(&path.display().to_string(), &text)
}

fn read_text(file: File) -> std::io::Result<Zeroizing<String>> {
    // Large enough from the start: a string that grows leaves copies behind.
    let size = file.metadata()?.len().min(MAX_BYTES as u64);
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(size).unwrap_or(0) + 1));
    file.take(MAX_BYTES as u64).read_to_string(&mut text)?;
    Ok(text)
}

/// Writes a new file. One that is there is refused.
pub fn create_file(path: &Path, ring: &Keyring) -> Result<(), KeyringError> {
    let file = private_options().write(true).create_new(true).open(path);
    write_durably(file.map_err(KeyringError::of_file("create", path))?, path, ring)
}

/// Puts another keyring in the place of a file, atomically. Where the path is a link, its target is replaced.
pub fn replace_file(path: &Path, ring: &Keyring) -> Result<(), KeyringError> {
    let path = &fs::canonicalize(path).map_err(KeyringError::of_file("find", path))?;
    let temporary = path.with_added_extension("new");
    let file = private_options().write(true).create_new(true).open(&temporary);
    let file = file.map_err(KeyringError::of_file("create", &temporary))?;
    let replaced = write_durably(file, &temporary, ring).and_then(|()| {
        rename_durably(&temporary, path).map_err(|error| KeyringError::of_file("replace", path)(error.source))
    });
    if replaced.is_err() {
        _ = fs::remove_file(&temporary);
    }
    replaced
}

fn write_durably(mut file: File, path: &Path, ring: &Keyring) -> Result<(), KeyringError> {
    file.write_all(ring.to_toml().as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(KeyringError::of_file("write", path))?;
    sync_directory(path.parent()).map_err(|error| KeyringError::of_file("flush", path)(error.source))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::keyring::{Algorithm, Key};

    fn ring() -> Keyring {
        Keyring::default().with(Key::random(Algorithm::Siv).unwrap()).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_new_file_is_private_and_never_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("keys.toml");
        let first = ring();
        create_file(&path, &first).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert!(create_file(&path, &ring()).is_err());
        assert_eq!(read_file(&path).unwrap().ids(), first.ids());
    }

    /// As Kubernetes has it: the name is a link to a link.
    #[test]
    fn a_replaced_file_stays_behind_its_link() {
        let root = tempfile::tempdir().unwrap();
        let (path, link) = (root.path().join("keys.toml"), root.path().join("link"));
        create_file(&path, &ring()).unwrap();
        symlink("keys.toml", &link).unwrap();
        let second = ring();
        replace_file(&link, &second).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(read_file(&link).unwrap().ids(), second.ids());
        assert_eq!((mode(&path), fs::read_dir(root.path()).unwrap().count()), (0o600, 2));
    }

    #[test]
    fn a_file_that_others_may_touch_is_refused_also_behind_a_link() {
        let root = tempfile::tempdir().unwrap();
        let (path, link) = (root.path().join("keys.toml"), root.path().join("link"));
        create_file(&path, &ring()).unwrap();
        symlink(&path, &link).unwrap();
        for (mode, is_refused) in [(0o600, false), (0o640, false), (0o644, true), (0o660, true), (0o602, true)] {
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            for name in [&path, &link] {
                let exposed = matches!(read_file(name), Err(KeyringError::Exposed { .. }));
                assert_eq!(exposed, is_refused, "{mode:o}");
            }
        }
        assert!(matches!(read_file(root.path()), Err(KeyringError::Exposed { .. })), "a directory");
    }
}
