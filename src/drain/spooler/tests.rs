//! The guard of the disk: without room no segment is begun, and one that the disk cuts short keeps its whole lines.
//!
//! A full disk is a file that cannot grow. Any user can have one: `ulimit -f` limits the size of a process's files, so
//! these tests need no file system of their own; they run themselves again in a process with that limit.

use std::any::type_name;
use std::env;
use std::fs;
use std::process::Command;

use super::*;
use crate::segment::SegmentId;
use crate::spool::{Receipts, origin};

/// Set in a process whose files cannot grow.
const FILES_ARE_SMALL: &str = "PGSLUICE_TEST_FILES_ARE_SMALL";
/// Lets a write beyond 8 blocks of `ulimit`, which are 4 or 8 KiB, fail instead of killing the process.
const WITH_SMALL_FILES: &str = "trap '' XFSZ; ulimit -f 8; exec \"$@\"";
/// Of this number of lines some fit into such a file, and others do not.
const LINES: usize = 200;
/// More than [`SegmentWriter`] keeps in memory, so it is written when it is appended.
const LARGE_BODY_BYTES: usize = 300_000;

/// Runs `body`, the whole of a test, in a process whose files cannot grow beyond a few KiB.
pub(in crate::drain) fn where_files_are_small<Body: FnOnce()>(body: Body) {
    if env::var_os(FILES_ARE_SMALL).is_some() {
        return body();
    }
    // A closure is named by the function around it, and that is the test.
    let (_, path) = type_name::<Body>().split_once("::").unwrap();
    let test = path.trim_end_matches("::{{closure}}");
    let mut limited = Command::new("sh");
    limited.args(["-c", WITH_SMALL_FILES, "sh"]).arg(env::current_exe().unwrap()).args(["--exact", test]);
    let ended = limited.env(FILES_ARE_SMALL, "1").output().unwrap();
    let [stdout, stderr] = [&ended.stdout, &ended.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(ended.status.success() && stdout.contains("1 passed"), "{test}:\n{stdout}\n{stderr}");
}

/// The receipt handles in a segment file, whose lines must all be whole.
pub(in crate::drain) fn handles_in(staging: &Staging, segment: SegmentId) -> Vec<String> {
    let path = staging.spool(segment);
    Receipts::open(&path).unwrap().next_handles(usize::MAX).unwrap()
}

/// The names of the files in the spool.
pub(in crate::drain) fn spool_files(staging: &Staging) -> Vec<String> {
    let entries = fs::read_dir(staging.root().join("spool")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

struct Spool {
    staging: Staging,
    _root: tempfile::TempDir,
}

impl Spool {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        Self { staging: Staging::open(root.path()).unwrap(), _root: root }
    }

    /// An open segment of small messages, whose receipt handles are their numbers.
    fn writer(&self, messages: usize) -> SegmentWriter {
        let mut writer = SegmentWriter::create(&self.staging, &origin()).unwrap();
        for number in 0..messages {
            let receipt_handle = number.to_string().into();
            writer.append(&Record { receipt_handle, ..Record::with_body("{}") }).unwrap();
        }
        writer
    }

    fn assert_holds_the_first(&self, segment: SealedSegment) {
        let numbers = 0..usize::try_from(segment.messages).unwrap();
        let expected: Vec<String> = numbers.map(|number| number.to_string()).collect();
        assert_eq!(handles_in(&self.staging, segment.id), expected);
        assert_eq!(fs::metadata(self.staging.spool(segment.id)).unwrap().len(), segment.bytes);
    }
}

#[test]
fn without_room_for_three_segments_of_the_largest_size_none_is_begun() {
    let spool = Spool::new();
    // No disk is as large as that, and the second is more than a u64 holds.
    for max_bytes in [u64::MAX / ROOM_IN_SEGMENTS, u64::MAX / ROOM_IN_SEGMENTS + 1] {
        assert!(begin_segment(&spool.staging, &origin(), None, max_bytes).unwrap().is_none());
    }
    assert!(spool_files(&spool.staging).is_empty());
    assert!(begin_segment(&spool.staging, &origin(), None, 1).unwrap().is_some());
}

#[test]
fn a_segment_that_fits_is_sealed_with_everything() {
    let spool = Spool::new();
    let on_disk = seal_what_fits(spool.writer(LINES)).unwrap();
    let OnDisk::Whole(segment) = on_disk else { panic!("{on_disk:?}") };
    assert_eq!(segment.messages, LINES as u64);
    spool.assert_holds_the_first(segment);
}

#[test]
fn a_segment_that_does_not_fit_is_sealed_with_its_first_whole_lines() {
    where_files_are_small(|| {
        let spool = Spool::new();
        let on_disk = seal_what_fits(spool.writer(LINES)).unwrap();
        let OnDisk::Cut(segment) = on_disk else { panic!("{on_disk:?}") };
        assert!((1..LINES as u64).contains(&segment.messages), "{segment:?}");
        spool.assert_holds_the_first(segment);
    });
}

#[test]
fn of_a_segment_of_which_not_one_line_fits_no_file_is_left() {
    where_files_are_small(|| {
        let spool = Spool::new();
        let mut writer = SegmentWriter::create(&spool.staging, &origin()).unwrap();
        let appended = writer.append(&Record::with_body(&"x".repeat(LARGE_BODY_BYTES)));
        assert!(appended.unwrap_err().is_disk_full());
        assert_eq!(writer.messages(), 1, "what was appended is the segment's, also where it could not be written");
        assert_eq!(seal_what_fits(writer).unwrap(), OnDisk::Nothing);
        assert!(spool_files(&spool.staging).is_empty());
    });
}

/// The disk is full in the midst of a line: what is before that line stays.
#[test]
fn a_line_that_could_not_be_appended_costs_none_of_those_before_it() {
    where_files_are_small(|| {
        let spool = Spool::new();
        let mut writer = spool.writer(5);
        assert!(writer.append(&Record::with_body(&"x".repeat(LARGE_BODY_BYTES))).unwrap_err().is_disk_full());
        let on_disk = seal_what_fits(writer).unwrap();
        let OnDisk::Cut(segment) = on_disk else { panic!("{on_disk:?}") };
        assert_eq!(segment.messages, 5);
        spool.assert_holds_the_first(segment);
    });
}
