//! Brings message bodies from elsewhere into the spool: NDJSON, one body a line.
//!
//! Always true:
//! - a line's `message_id` is the `UUIDv5` of the file's name, the line's byte offset and its content: the same line of
//!   the same file is one message however often it is imported, and another line is another message; the time given to
//!   the messages only dates them;
//! - a segment's name follows from the pipeline, the file's name and the segment's lines, and its boundary from the
//!   content alone, so importing a file twice gives the same segments, which the ledger knows;
//! - a segment is sealed only where the second pass read the lines that its name was made of;
//! - imported messages have no receipt handle: nothing acknowledges them, and after their commit they go to the archive.
//!
//! A failure leaves the segments that were sealed by then; importing the file again completes it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use thiserror::Error;
use uuid::{Builder, Uuid};

use crate::advice::{Advice, Advised, fatal};
use crate::durable::{FileError, given};
use crate::keyring::Key;
use crate::segment::SegmentId;
use crate::spool::{Origin, Record, SealedSegment, SegmentWriter, Source};
use crate::staging::Staging;

const READ_BUFFER_BYTES: usize = 256 * 1024;
/// Twice the largest message of SQS. As a JSON string it grows at most six-fold, which is what a spool line may hold.
const MAX_BODY_BYTES: usize = 2 << 20;
/// Not those of the configuration: another one must give the same segments.
const SEGMENT_MAX_MESSAGES: u64 = 20_000;
const SEGMENT_MAX_BYTES: u64 = 64 << 20;

/// A file could not be imported to its end.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is the documentation")]
pub enum ImportError {
    #[error(transparent)]
    Unreadable(FileError),
    #[error("the line at byte {offset} of {} {problem}; the other lines are imported", path.display())]
    UnusableLine { path: PathBuf, offset: u64, problem: &'static str },
    #[error("{} changed while it was read", path.display())]
    Changed { path: PathBuf },
    #[error(transparent)]
    Spool(#[from] FileError),
}

impl ImportError {
    /// The disk is full that holds the staging directory.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Spool(error) if error.is_disk_full())
    }
}

impl Advised for ImportError {
    fn advice(&self) -> Advice {
        match self {
            Self::Unreadable(_) => fatal("check that the argument is a file, and that this user may read it"),
            Self::Changed { .. } => {
                fatal("import it again once nobody writes to it; what was imported by then is recognised")
            }
            Self::UnusableLine { .. } => fatal("no message can hold the line: correct it, or do without it"),
            Self::Spool(error) => error.advice(),
        }
    }
}

/// What one file came to.
#[derive(Debug, Default)]
pub struct Imported {
    /// The segments that are new.
    pub sealed: Vec<SealedSegment>,
    /// Segments that this staging directory has from an earlier import.
    pub known: Vec<SegmentId>,
}

/// Imports one file for a pipeline; empty lines are skipped.
///
/// A line that no SQS message can be (not UTF-8, or longer than 2 MiB) is an error with its offset, after all others are
/// imported. `on_sealed` is told each new segment, also where an error follows.
pub fn import(
    staging: &Staging,
    pipeline: &str,
    path: &Path,
    sent_at: Option<Timestamp>,
    spool_key: Option<&Key>,
    mut on_sealed: impl FnMut(&SealedSegment),
) -> Result<Imported, ImportError> {
    let file = given::open_to_read(path).map_err(FileError::of("open", path)).map_err(ImportError::Unreadable)?;
    let modified = modification_time(&file).map_err(FileError::of("inspect", path));
    let sent_at = sent_at.map_or(modified, Ok).map_err(ImportError::Unreadable)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let lines = Lines::open(path).map_err(ImportError::Unreadable)?;
    let contents = Contents::of(pipeline, &name, lines).map_err(ImportError::Unreadable)?;
    let origin = Origin {
        pipeline: pipeline.to_owned(),
        source: Source::Import { file: name.to_string(), sha256: contents.sha256 },
    };
    let mut imported = Imported::default();
    let mut lines = Lines::open(path).map_err(ImportError::Unreadable)?;
    for part in contents.parts {
        if staging.find_segment(part.id).is_some() {
            imported.known.push(part.id);
            lines.skip(part.lines).map_err(ImportError::Unreadable)?;
            continue;
        }
        let mut writer = SegmentWriter::create_as(part.id, staging, &origin, spool_key)?;
        let mut again = OpenPart::new(pipeline, &name);
        for _ in 0..part.lines {
            let line = lines.next_line().map_err(ImportError::Unreadable)?;
            if let Some((offset, Content::Body(body))) = line {
                again.add(offset, body);
                writer.append(&record(&name, offset, sent_at, body))?;
            }
        }
        if again.close().id != part.id {
            return Err(ImportError::Changed { path: path.to_owned() });
        }
        let sealed = writer.seal()?;
        on_sealed(&sealed);
        imported.sealed.push(sealed);
    }
    match contents.unusable {
        None => Ok(imported),
        Some((offset, problem)) => Err(ImportError::UnusableLine { path: path.to_owned(), offset, problem }),
    }
}

/// What a pass over a file found: how it falls into segments.
struct Contents {
    sha256: String,
    parts: Vec<Part>,
    /// The first line that cannot be imported.
    unusable: Option<(u64, &'static str)>,
}

/// Some lines of a file that become one segment.
struct Part {
    id: SegmentId,
    /// Lines of the file, also those that give no message.
    lines: u64,
}

impl Contents {
    fn of(pipeline: &str, name: &str, mut lines: Lines<'_>) -> Result<Self, FileError> {
        let mut contents = Self { sha256: String::new(), parts: Vec::new(), unusable: None };
        let mut part = OpenPart::new(pipeline, name);
        while let Some((offset, content)) = lines.next_line()? {
            part.lines += 1;
            match content {
                Content::Empty => {}
                Content::Body(body) => part.add(offset, body),
                Content::Unusable(problem) => _ = contents.unusable.get_or_insert((offset, problem)),
            }
            if part.messages >= SEGMENT_MAX_MESSAGES || part.bytes >= SEGMENT_MAX_BYTES {
                contents.parts.push(part.close());
                part = OpenPart::new(pipeline, name);
            }
        }
        if part.messages > 0 {
            contents.parts.push(part.close());
        }
        contents.sha256 = hex::encode(lines.digest.finalize());
        Ok(contents)
    }
}

struct OpenPart {
    hash: Sha256,
    lines: u64,
    messages: u64,
    bytes: u64,
}

impl OpenPart {
    fn new(pipeline: &str, name: &str) -> Self {
        let mut part = Self { hash: Sha256::new(), lines: 0, messages: 0, bytes: 0 };
        part.hash_text(pipeline);
        part.hash_text(name);
        part
    }

    fn hash_text(&mut self, text: &str) {
        self.hash.update((text.len() as u64).to_be_bytes());
        self.hash.update(text);
    }

    fn add(&mut self, offset: u64, body: &str) {
        self.hash.update(offset.to_be_bytes());
        self.hash_text(body);
        self.messages += 1;
        self.bytes += body.len() as u64;
    }

    /// The name is a `UUIDv7` of time 0, so that it sorts before those of messages that are received.
    fn close(self) -> Part {
        let hash = self.hash.finalize();
        let mut random = [0; 10];
        random.copy_from_slice(&hash[..10]);
        Part { id: Builder::from_unix_timestamp_millis(0, &random).into_uuid().into(), lines: self.lines }
    }
}

/// The lines of a file, and the digest of what was read.
struct Lines<'a> {
    path: &'a Path,
    file: BufReader<File>,
    line: Vec<u8>,
    offset: u64,
    digest: Sha256,
}

enum Content<'a> {
    Empty,
    Body(&'a str),
    Unusable(&'static str),
}

impl<'a> Lines<'a> {
    fn open(path: &'a Path) -> Result<Self, FileError> {
        let file = given::open_to_read(path).map_err(FileError::of("open", path))?;
        let file = BufReader::with_capacity(READ_BUFFER_BYTES, file);
        Ok(Self { path, file, line: Vec::new(), offset: 0, digest: Sha256::new() })
    }

    /// The next line and where it begins.
    fn next_line(&mut self) -> Result<Option<(u64, Content<'_>)>, FileError> {
        let offset = self.offset;
        self.line.clear();
        self.read_on()?;
        if self.line.is_empty() {
            return Ok(None);
        }
        let is_too_long = without_line_end(&self.line).len() > MAX_BODY_BYTES;
        while is_too_long && !self.line.ends_with(b"\n") && !self.line.is_empty() {
            self.line.clear();
            self.read_on()?;
        }
        if is_too_long {
            return Ok(Some((offset, Content::Unusable("is longer than 2 MiB"))));
        }
        Ok(Some((
            offset,
            match std::str::from_utf8(without_line_end(&self.line)) {
                Ok("") => Content::Empty,
                Ok(body) => Content::Body(body),
                Err(_) => Content::Unusable("is not UTF-8"),
            },
        )))
    }

    /// Reads to the end of the line, or as much of it as a body may have and a little more.
    fn read_on(&mut self) -> Result<(), FileError> {
        let most = MAX_BODY_BYTES as u64 + 3;
        let read = (&mut self.file).take(most).read_until(b'\n', &mut self.line);
        self.offset += read.map_err(FileError::of("read", self.path))? as u64;
        self.digest.update(&self.line);
        Ok(())
    }

    fn skip(&mut self, lines: u64) -> Result<(), FileError> {
        for _ in 0..lines {
            self.next_line()?;
        }
        Ok(())
    }
}

fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn record<'a>(file_name: &str, offset: u64, sent_at: Timestamp, body: &'a str) -> Record<'a> {
    let message_id = Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("{file_name}#{offset}#{body}").as_bytes());
    Record {
        received_at: Timestamp::now().as_millisecond(),
        sent_at_is_stable: false,
        ..Record::first_delivery(message_id.to_string(), sent_at.as_millisecond(), body)
    }
}

fn modification_time(file: &File) -> io::Result<Timestamp> {
    let modified = file.metadata()?.modified()?;
    Timestamp::try_from(modified).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::spool::{SegmentReader, recover};

    /// Ids and bodies, in the order of the spool.
    fn messages(staging: &Staging) -> Vec<(String, String)> {
        let mut messages = Vec::new();
        for segment in staging.sealed_segments().unwrap() {
            let mut reader = SegmentReader::open(&staging.spool(segment)).unwrap();
            while let Some(block) = reader.next_block().unwrap() {
                for record in block.lines().map(|line| line.unwrap().record) {
                    let body = record.body.text(&mut String::new()).unwrap().to_owned();
                    messages.push((record.message_id.into_owned(), body));
                }
            }
        }
        messages
    }

    struct Scene {
        root: tempfile::TempDir,
        staging: Staging,
    }

    impl Scene {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let staging = Staging::open(&root.path().join("staging")).unwrap();
            Self { root, staging }
        }

        fn import(&self, name: &str, content: &[u8]) -> Result<Imported, ImportError> {
            let path = self.root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            import(&self.staging, "p", &path, Some("2026-07-01T00:00:00Z".parse().unwrap()), None, |_| {})
        }
    }

    #[test]
    fn a_line_that_is_not_utf_8_is_named_and_costs_its_neighbours_nothing() {
        let scene = Scene::new();
        let error = scene.import("bodies.ndjson", b"one \r\n\n\xff\nthree\nfour").unwrap_err();
        assert!(matches!(error, ImportError::UnusableLine { offset: 7, .. }), "{error}");
        let bodies: Vec<_> = messages(&scene.staging).into_iter().map(|(_, body)| body).collect();
        assert_eq!(bodies, ["one ", "three", "four"], "byte for byte");
    }

    /// Such a line made its segment unreadable once it was spooled.
    #[test]
    fn a_line_that_no_segment_can_hold_is_named_and_costs_its_neighbours_nothing() {
        let scene = Scene::new();
        let long = [vec![b'x'; 3 * MAX_BODY_BYTES], vec![b'\n']].concat();
        let error = scene.import("bodies.ndjson", &[b"one\n", long.as_slice(), b"three\n"].concat()).unwrap_err();
        assert!(matches!(error, ImportError::UnusableLine { offset: 4, .. }), "{error}");
        let bodies: Vec<_> = messages(&scene.staging).into_iter().map(|(_, body)| body).collect();
        assert_eq!(bodies, ["one", "three"]);

        let scene = Scene::new();
        let longest = "\u{1}".repeat(MAX_BODY_BYTES);
        scene.import("bodies.ndjson", longest.as_bytes()).unwrap();
        assert!(messages(&scene.staging)[0].1 == longest, "what is not refused can be read");
    }

    /// Spark and Hive name the files of each directory `part-0`: the second one's lines were taken for duplicates.
    #[test]
    fn files_of_one_name_with_other_lines_hold_other_messages() {
        let scene = Scene::new();
        scene.import("a/part-0.ndjson", b"one\ntwo\n").unwrap();
        scene.import("b/part-0.ndjson", b"uno\ntwo\n").unwrap();
        let mut ids: Vec<_> = messages(&scene.staging).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids.len(), 4);
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 3, "`two` stands at the same place in a file of the same name");
    }

    #[test]
    fn a_file_that_is_imported_again_gives_the_same_segments_and_one_that_has_grown_the_same_messages() {
        let scene = Scene::new();
        let first = scene.import("f.ndjson", b"one\n").unwrap();
        let again = scene.import("f.ndjson", b"one\n").unwrap();
        assert_eq!((again.sealed.len(), again.known), (0, vec![first.sealed[0].id]));
        scene.import("f.ndjson", b"one\ntwo\n").unwrap();
        let messages = messages(&scene.staging);
        assert_eq!(messages.len(), 3);
        assert_eq!(messages.iter().filter(|message| message.1 == "one").collect::<Vec<_>>().len(), 2);
        let mut ids: Vec<_> = messages.into_iter().map(|(id, _)| id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 2);
    }

    /// The segment had the name of lines that it did not hold, so the ledger took these for loaded once they were there again.
    #[test]
    fn a_file_that_is_cut_while_it_is_read_makes_no_segment_of_what_is_gone() {
        let scene = Scene::new();
        let path = scene.root.path().join("f.ndjson");
        let lines: Vec<String> = (0..2 * SEGMENT_MAX_MESSAGES).map(|number| format!("line {number:030}")).collect();
        fs::write(&path, lines.join("\n")).unwrap();
        let cut = |_: &SealedSegment| File::options().write(true).open(&path).unwrap().set_len(800_000).unwrap();
        let time = "2026-07-01T00:00:00Z".parse().unwrap();
        let error = import(&scene.staging, "p", &path, Some(time), None, cut).unwrap_err();
        assert!(matches!(error, ImportError::Changed { .. }), "{error}");
        assert_eq!(messages(&scene.staging).len() as u64, SEGMENT_MAX_MESSAGES);

        recover(&scene.staging).unwrap();
        let again = scene.import("f.ndjson", lines.join("\n").as_bytes()).unwrap();
        assert_eq!((again.known.len(), again.sealed.len()), (1, 1));
        assert_eq!(messages(&scene.staging).len(), lines.len());
    }

    #[test]
    fn a_large_file_falls_into_segments_of_the_same_boundaries() {
        let scene = Scene::new();
        let numbers: Vec<String> = (0..=SEGMENT_MAX_MESSAGES * 2).map(|number| number.to_string()).collect();
        let imported = scene.import("f.ndjson", numbers.join("\n").as_bytes()).unwrap();
        let counts: Vec<u64> = imported.sealed.iter().map(|segment| segment.messages).collect();
        assert_eq!(counts, [SEGMENT_MAX_MESSAGES, SEGMENT_MAX_MESSAGES, 1]);
    }
}
