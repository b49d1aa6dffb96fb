//! Reads a sealed segment in blocks of whole lines, so that no stage holds a whole segment in memory and several
//! threads can parse one segment. Header and seal are checked on the way, and are in no block.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::header::HeaderProblem;
use super::{Header, Receipt, Record, Seal, SpoolError, Unopened};
use crate::durable::{FileError, Place};

/// Large enough that handing blocks to threads costs nothing beside parsing them, small enough to stay in cache.
const BLOCK_BYTES: usize = 512 * 1024;
/// A body of 2 MiB, the largest that is imported, grows at most six-fold as a JSON string, and by a third more where it is
/// encrypted. A longer line is damage.
const MAX_LINE_BYTES: usize = 24 * 1024 * 1024;

/// A segment file that is read from its start to its end.
#[derive(Debug)]
pub struct SegmentReader {
    path: Arc<Path>,
    file: File,
    /// Offset in the file of `carry`.
    offset: u64,
    /// The start of a line whose end is not read yet.
    carry: Vec<u8>,
    /// Memory for the next block.
    spare: Vec<u8>,
    at_end: bool,
    header: Option<Header>,
    /// What the seal must say of the lines that were read so far; `None` where no seal is expected.
    counted: Option<Counted>,
    seal: Option<Seal>,
    /// Returned after the last block, so that a line that is damaged by itself is named first, with its own offset.
    mismatch: Option<SpoolError>,
}

/// What was read of a segment that has a seal.
#[derive(Debug, Default)]
struct Counted {
    messages: u64,
    checksum: crc32fast::Hasher,
}

/// Some whole lines of a segment.
#[derive(Debug)]
pub struct Block {
    path: Arc<Path>,
    offset: u64,
    bytes: Vec<u8>,
}

/// One line of a segment.
#[derive(Debug)]
pub struct Line<'a> {
    /// Where in the file the line begins.
    pub offset: u64,
    /// The line as it stands in the file, without its line feed.
    pub bytes: &'a [u8],
    /// What it says.
    pub record: Record<'a>,
}

impl SegmentReader {
    /// Opens a sealed segment of any format, or a file of reject lines, which has neither header nor seal.
    pub fn open(place: &Place) -> Result<Self, SpoolError> {
        let mut reader = Self::open_unsealed(place)?;
        reader.counted = reader.header.is_some().then(Counted::default);
        if let (Some(counted), Some(header)) = (&mut reader.counted, &reader.header) {
            let mut line = Vec::new();
            header.write_line(&mut line).map_err(|error| place.failed("read")(error.into()))?;
            counted.checksum.update(&line);
        }
        Ok(reader)
    }

    /// Opens a segment that has no seal yet.
    pub(super) fn open_unsealed(place: &Place) -> Result<Self, SpoolError> {
        let mut reader = Self {
            path: place.path().into(),
            file: place.open()?,
            offset: 0,
            carry: Vec::new(),
            spare: Vec::new(),
            at_end: false,
            header: None,
            counted: None,
            seal: None,
            mismatch: None,
        };
        reader.read_header()?;
        Ok(reader)
    }

    /// The header; `None` in a segment of format 1.
    #[must_use]
    pub const fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// The seal, once the last block was read; `None` in a segment of format 1.
    #[must_use]
    pub const fn seal(&self) -> Option<Seal> {
        self.seal
    }

    /// Where the next block begins.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    fn read_header(&mut self) -> Result<(), SpoolError> {
        let mut bytes = Vec::new();
        let end = loop {
            self.fill(&mut bytes)?;
            match memchr::memchr(b'\n', &bytes) {
                Some(end) if Header::is_header(&bytes) => break end,
                None if !self.at_end && Header::is_header(&bytes) && bytes.len() <= MAX_LINE_BYTES => {}
                _ => {
                    self.carry = bytes;
                    return Ok(());
                }
            }
        };
        let header = Header::parse_line(&bytes[..end]).map_err(|problem| match problem {
            HeaderProblem::Damaged(problem) => self.damaged(problem),
            HeaderProblem::Newer { format } => SpoolError::NewerFormat { path: self.path.to_path_buf(), format },
        })?;
        self.header = Some(header);
        self.offset = end as u64 + 1;
        self.carry = bytes.split_off(end + 1);
        Ok(())
    }

    /// The next block, or `None` after the last.
    ///
    /// A file that does not end with a line feed was cut: it is damaged where its last line begins. So is one that has a
    /// header and no seal, or a seal that does not match what stands before it.
    pub fn next_block(&mut self) -> Result<Option<Block>, SpoolError> {
        if let Some(mismatch) = self.mismatch.take() {
            return Err(mismatch);
        }
        let mut bytes = std::mem::take(&mut self.spare);
        bytes.clear();
        bytes.append(&mut self.carry);
        let mut searched = 0;
        loop {
            if let Some(position) = memchr::memrchr(b'\n', &bytes[searched..]) {
                let end = searched + position + 1;
                self.carry.extend_from_slice(&bytes[end..]);
                bytes.truncate(end);
                return self.block(bytes);
            }
            searched = bytes.len();
            if searched > MAX_LINE_BYTES {
                return Err(self.damaged("a line has no end"));
            }
            if self.at_end {
                break;
            }
            self.fill(&mut bytes)?;
        }
        if !bytes.is_empty() {
            return Err(self.damaged("the last line is cut off"));
        }
        if self.counted.is_some() && self.seal.is_none() {
            return Err(self.damaged("the seal is missing"));
        }
        Ok(None)
    }

    /// Reads the next block into the memory of one that is done: new memory would have to be mapped, page by page.
    pub fn reuse(&mut self, done: Block) {
        self.spare = done.bytes;
    }

    /// A block of whole lines, without the seal if that is the last of them.
    fn block(&mut self, mut bytes: Vec<u8>) -> Result<Option<Block>, SpoolError> {
        let offset = self.offset;
        if let Some(counted) = &mut self.counted {
            if self.seal.is_some() {
                return Err(self.damaged("something stands after the seal"));
            }
            let content = &bytes[..bytes.len() - 1];
            let last = memchr::memrchr(b'\n', content).map_or(0, |position| position + 1);
            let sealed = Seal::is_seal(&content[last..]).then(|| Seal::parse_line(&content[last..]));
            let messages_end = if sealed.is_some() { last } else { bytes.len() };
            let messages = &bytes[..messages_end];
            counted.messages += memchr::memchr_iter(b'\n', messages).count() as u64;
            counted.checksum.update(messages);
            if let Some(seal) = sealed {
                let found = Seal {
                    messages: counted.messages,
                    bytes: offset + messages_end as u64,
                    checksum: counted.checksum.clone().finalize(),
                };
                self.offset += messages_end as u64;
                if seal.map_err(|problem| self.damaged(problem))? != found {
                    self.mismatch = Some(self.damaged("the seal does not match what stands before it"));
                }
                self.seal = Some(found);
                bytes.truncate(messages_end);
                self.offset = offset;
            }
        }
        self.offset += bytes.len() as u64;
        if bytes.is_empty() {
            return self.next_block();
        }
        Ok(Some(Block { path: Arc::clone(&self.path), offset, bytes }))
    }

    fn fill(&mut self, bytes: &mut Vec<u8>) -> Result<(), SpoolError> {
        bytes.reserve(BLOCK_BYTES);
        let read =
            (&mut self.file).take(BLOCK_BYTES as u64).read_to_end(bytes).map_err(FileError::of("read", &self.path))?;
        self.at_end = read == 0;
        Ok(())
    }

    fn damaged(&self, problem: &'static str) -> SpoolError {
        SpoolError::Damaged { path: self.path.to_path_buf(), offset: self.offset, problem }
    }
}

impl Block {
    /// How many lines the block holds, without parsing them.
    #[must_use]
    pub fn line_feeds(&self) -> u64 {
        memchr::memchr_iter(b'\n', &self.bytes).count() as u64
    }

    /// The block's size in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Where in the file the block ends.
    pub(super) const fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }

    /// The receipts of the block's lines, and nothing else of them.
    pub fn receipts(&self) -> impl Iterator<Item = Result<Receipt<'_>, SpoolError>> {
        self.each_line(Receipt::of_line).map(|line| line.map(|(_, _, receipt)| receipt))
    }

    /// The block's lines in file order; an error names the offset of the line that is damaged.
    pub fn lines(&self) -> impl Iterator<Item = Result<Line<'_>, SpoolError>> {
        self.each_line(Record::parse_line)
            .map(|line| line.map(|(offset, bytes, record)| Line { offset, bytes, record }))
    }

    fn each_line<'a, T>(
        &'a self,
        parse: impl Fn(&'a [u8]) -> Result<T, &'static str>,
    ) -> impl Iterator<Item = Result<(u64, &'a [u8], T), SpoolError>> {
        let mut start = 0;
        // Found by memchr: a closure called for every byte took 5 % of the transform.
        memchr::memchr_iter(b'\n', &self.bytes).map(move |end| {
            let (offset, bytes) = (self.offset + start as u64, &self.bytes[start..end]);
            start = end + 1;
            parse(bytes).map(|parsed| (offset, bytes, parsed)).map_err(|problem| self.damaged(offset, problem))
        })
    }

    /// The error for a line of this block that could not be opened.
    #[must_use]
    pub fn unopened(&self, offset: u64, problem: Unopened) -> SpoolError {
        SpoolError::unopened(&self.path, offset, problem)
    }

    /// The error for a line of this block, for damage that shows only when its record is used.
    #[must_use]
    pub fn damaged(&self, offset: u64, problem: &'static str) -> SpoolError {
        SpoolError::Damaged { path: self.path.to_path_buf(), offset, problem }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{SegmentWriter, origin};
    use super::*;
    use crate::staging::Staging;

    fn read_bodies(path: &Place) -> Result<Vec<String>, SpoolError> {
        let mut reader = SegmentReader::open(path)?;
        let mut bodies = Vec::new();
        while let Some(block) = reader.next_block()? {
            for line in block.lines() {
                bodies.push(line?.record.body.text(&mut String::new()).unwrap().to_owned());
            }
        }
        Ok(bodies)
    }

    #[test]
    fn lines_of_any_length_come_back_in_order_over_many_blocks() {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::open(root.path()).unwrap();
        let bodies: Vec<String> = (0..300_usize)
            .map(|index| "\u{1f980}\n\"".repeat(index * 37 % 4001) + &"x".repeat(index % 3 * 700_000))
            .collect();
        let mut writer = SegmentWriter::create(&staging, &origin()).unwrap();
        for body in &bodies {
            writer.append(&Record::with_body(body)).unwrap();
        }
        let sealed = writer.seal().unwrap();
        let path = staging.spool(sealed.id);
        assert_eq!(sealed.messages, 300);
        assert_eq!(fs::metadata(&path).unwrap().len(), sealed.bytes);
        assert!(read_bodies(&path).unwrap() == bodies);
    }

    /// A segment with two messages, and where its second line of a message begins.
    fn two_messages(staging: &Staging) -> (Place, u64) {
        let mut writer = SegmentWriter::create(staging, &origin()).unwrap();
        writer.append(&Record::with_body("first")).unwrap();
        let second = writer.bytes();
        writer.append(&Record::with_body("second")).unwrap();
        (staging.spool(writer.seal().unwrap().id), second)
    }

    #[test]
    fn a_segment_says_what_it_is() {
        let root = tempfile::tempdir().unwrap();
        let (path, _) = two_messages(&Staging::open(root.path()).unwrap());
        let mut reader = SegmentReader::open(&path).unwrap();
        assert_eq!(reader.header().unwrap().pipeline, origin().pipeline);
        while reader.next_block().unwrap().is_some() {}
        assert_eq!(reader.seal().unwrap().messages, 2);
        assert_eq!(Seal::at_end_of(&path).unwrap(), reader.seal());
    }

    #[test]
    fn damage_is_reported_with_the_offset_of_its_line() {
        let root = tempfile::tempdir().unwrap();
        let (path, second) = two_messages(&Staging::open(root.path()).unwrap());
        let mut bytes = fs::read(&path).unwrap();
        bytes[usize::try_from(second).unwrap() + 40] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let damage = read_bodies(&path).unwrap_err();
        assert!(matches!(damage, SpoolError::Damaged { offset, .. } if offset == second), "{damage}");
        // A reader that parses no line finds that the seal does not match.
        let mut reader = SegmentReader::open(&path).unwrap();
        reader.next_block().unwrap();
        assert!(matches!(reader.next_block().unwrap_err(), SpoolError::Damaged { .. }));
        bytes.truncate(bytes.len() - 1);
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(read_bodies(&path).unwrap_err(), SpoolError::Damaged { .. }));
    }

    /// A line that is whole and right by itself, but gone, moved or there twice, is found by the seal.
    #[test]
    fn lines_that_are_missing_moved_or_repeated_are_damage() {
        let root = tempfile::tempdir().unwrap();
        let (path, _) = two_messages(&Staging::open(root.path()).unwrap());
        let text = fs::read_to_string(&path).unwrap();
        let [header, first, second, seal] = text.lines().collect::<Vec<_>>()[..] else { panic!() };
        for lines in [
            vec![header, first, seal],
            vec![header, seal],
            vec![header, second, first, seal],
            vec![header, first, first, second, seal],
            vec![header, first, second],
            vec![header],
            vec![header, first, second, seal, second],
            vec![header, first, second, seal, seal],
        ] {
            fs::write(&path, lines.join("\n") + "\n").unwrap();
            assert!(matches!(read_bodies(&path), Err(SpoolError::Damaged { .. })), "{lines:?}");
        }
        fs::write(&path, format!("{first}\n{second}\n")).unwrap();
        assert_eq!(read_bodies(&path).unwrap().len(), 2, "format 1 has neither");
    }

    #[test]
    fn a_newer_format_is_refused_by_name_and_keys_that_are_not_known_are_ignored() {
        let root = tempfile::tempdir().unwrap();
        let (path, _) = two_messages(&Staging::open(root.path()).unwrap());
        let text = fs::read_to_string(&path).unwrap();
        let header = text.lines().next().unwrap();
        let with = |from: &str, to: &str| {
            let fields = header.split(",\"crc32\"").next().unwrap().replace(from, to);
            let line = format!("{fields},\"crc32\":\"{:08x}\"}}", crc32fast::hash(fields.as_bytes()));
            fs::write(&path, text.replacen(header, &line, 1)).unwrap();
            SegmentReader::open(&path)
        };
        let newer = with("\"format\":2", "\"format\":4,\"new\":{}").unwrap_err();
        assert!(matches!(newer, SpoolError::NewerFormat { format: 4, .. }), "{newer}");
        let extended = with("\"created_at\"", "\"host\":\"h\",\"created_at\"").unwrap();
        assert_eq!(extended.header().unwrap().pipeline, origin().pipeline);
    }
}
