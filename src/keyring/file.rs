//! A keyring in a file. It is written as a whole, readable by its owner alone (0600), and durably.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::{Keyring, KeyringError, permissions};
use crate::durable::{Directory, FileError, Place, remove_if_present, rename_durably};

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
    let place = place_of(path).map_err(as_keyring_error)?;
    write_durably(&place, ring)
}

/// Puts another keyring in the place of a file, atomically. Where the path is a link, its target is replaced.
pub fn replace_file(path: &Path, ring: &Keyring) -> Result<(), KeyringError> {
    let path = fs::canonicalize(path).map_err(KeyringError::of_file("find", path))?;
    // Who adds a key at the same time finds this file and is refused, so no key is lost.
    let temporary = place_of(&path.with_added_extension("new")).map_err(as_keyring_error)?;
    write_durably(&temporary, ring)?;
    let replaced = place_of(&path).and_then(|place| rename_durably(&temporary, &place));
    if replaced.is_err() {
        _ = remove_if_present(&temporary);
    }
    replaced.map_err(as_keyring_error)
}

fn place_of(path: &Path) -> Result<Place, FileError> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(Arc::new(Directory::open(directory)?).place(path.file_name().unwrap_or_default()))
}

fn write_durably(place: &Place, ring: &Keyring) -> Result<(), KeyringError> {
    let mut file = place.create_new().map_err(as_keyring_error)?;
    let written = file.write_all(ring.to_toml().as_bytes()).and_then(|()| file.sync_all());
    let written = written.map_err(place.failed("write")).and_then(|()| place.directory().sync());
    if written.is_err() {
        _ = remove_if_present(place);
    }
    written.map_err(as_keyring_error)
}

fn as_keyring_error(error: FileError) -> KeyringError {
    KeyringError::of_file(error.action, &error.path)(error.source)
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
