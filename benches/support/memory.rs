//! Files in memory, where flushing costs nothing.

use std::path::Path;

use tempfile::TempDir;

/// Not every system has a place for them.
pub(crate) fn directory() -> Option<TempDir> {
    let memory = Path::new("/dev/shm");
    memory.is_dir().then(|| tempfile::tempdir_in(memory).expect("a directory in memory"))
}
