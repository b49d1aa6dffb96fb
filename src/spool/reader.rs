//! Reads a sealed segment in blocks of whole lines, so that no stage holds a whole segment in memory and several
//! threads can parse one segment.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::{Receipt, Record, SpoolError};
use crate::durable::FileError;

/// Large enough that handing blocks to threads costs nothing beside parsing them, small enough to stay in cache.
const BLOCK_BYTES: usize = 512 * 1024;
/// A body of 1 MiB, SQS's largest, grows at most six-fold as a JSON string. A longer line is damage.
const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

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
    /// Opens a segment file.
    pub fn open(path: &Path) -> Result<Self, SpoolError> {
        let file = File::open(path).map_err(FileError::of("open", path))?;
        Ok(Self { path: path.into(), file, offset: 0, carry: Vec::new(), spare: Vec::new(), at_end: false })
    }

    /// The next block, or `None` after the last.
    ///
    /// A file that does not end with a line feed was cut: it is damaged where its last line begins.
    pub fn next_block(&mut self) -> Result<Option<Block>, SpoolError> {
        let mut bytes = std::mem::take(&mut self.spare);
        bytes.clear();
        bytes.append(&mut self.carry);
        let mut searched = 0;
        while !self.at_end {
            self.fill(&mut bytes)?;
            if let Some(position) = memchr::memrchr(b'\n', &bytes[searched..]) {
                let end = searched + position + 1;
                self.carry.extend_from_slice(&bytes[end..]);
                bytes.truncate(end);
                let offset = self.offset;
                self.offset += end as u64;
                return Ok(Some(Block { path: Arc::clone(&self.path), offset, bytes }));
            }
            searched = bytes.len();
            if searched > MAX_LINE_BYTES {
                return Err(self.damaged("a line has no end"));
            }
        }
        if bytes.is_empty() { Ok(None) } else { Err(self.damaged("the last line is cut off")) }
    }

    /// Reads the next block into the memory of one that is done: new memory would have to be mapped, page by page.
    pub fn reuse(&mut self, done: Block) {
        self.spare = done.bytes;
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

    /// The error for a line of this block, for damage that shows only to who reads the record.
    #[must_use]
    pub fn damaged(&self, offset: u64, problem: &'static str) -> SpoolError {
        SpoolError::Damaged { path: self.path.to_path_buf(), offset, problem }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::SegmentWriter;
    use super::*;
    use crate::staging::Staging;

    fn read_bodies(path: &Path) -> Result<Vec<String>, SpoolError> {
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
        let mut writer = SegmentWriter::create(&staging).unwrap();
        for body in &bodies {
            writer.append(&Record::with_body(body)).unwrap();
        }
        let sealed = writer.seal().unwrap();
        let path = staging.spool(sealed.id);
        assert_eq!(sealed.messages, 300);
        assert_eq!(fs::metadata(&path).unwrap().len(), sealed.bytes);
        assert!(read_bodies(&path).unwrap() == bodies);
    }

    #[test]
    fn damage_is_reported_with_the_offset_of_its_line() {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::open(root.path()).unwrap();
        let mut writer = SegmentWriter::create(&staging).unwrap();
        writer.append(&Record::with_body("first")).unwrap();
        let second = writer.bytes();
        writer.append(&Record::with_body("second")).unwrap();
        let path = staging.spool(writer.seal().unwrap().id);

        let mut bytes = fs::read(&path).unwrap();
        let position = bytes.len() - 40;
        bytes[position] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let damage = read_bodies(&path).unwrap_err();
        assert!(matches!(damage, SpoolError::Damaged { offset, .. } if offset == second), "{damage}");

        bytes.truncate(bytes.len() - 1);
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(read_bodies(&path).unwrap_err(), SpoolError::Damaged { .. }));
    }
}
