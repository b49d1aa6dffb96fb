//! Files on the disk that holds the build, where flushing costs what that disk takes. A system's own temporary
//! directory may lie in memory.

use tempfile::TempDir;

pub(crate) fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on disk")
}
