//! A chunk file by its rows: where each begins, and which one a line number of Postgres means.
//!
//! Always true: bytes are copied as they stand, never decoded and encoded again. A row ends at the first line feed
//! outside quotes; the csv crate is not used here because it skips empty lines, and a row whose one column is null
//! is an empty line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::ops::ControlFlow;

use super::ChunkError;
use crate::durable::{FileError, Place};
use crate::segment::SegmentId;

const BUFFER_BYTES: usize = 256 * 1024;

/// The rows of a chunk, which can be addressed.
#[derive(Debug)]
pub struct Rows {
    place: Place,
    /// Where each row begins, and the file's length.
    offsets: Vec<u64>,
}

impl Rows {
    /// Finds the rows of a chunk. Blocks.
    pub fn index(place: &Place, segment: SegmentId, rows: usize) -> Result<Self, ChunkError> {
        let mut file = open(place)?;
        let mut offsets = vec![0];
        let mut offset = 0;
        let mut quoted = false;
        loop {
            let buffer = file.fill_buf().map_err(place.failed("read"))?;
            if buffer.is_empty() {
                break;
            }
            for position in memchr::memchr2_iter(b'"', b'\n', buffer) {
                if buffer[position] == b'"' {
                    quoted = !quoted;
                } else if !quoted {
                    offsets.push(offset + position as u64 + 1);
                }
            }
            let length = buffer.len();
            offset += length as u64;
            file.consume(length);
        }
        if offsets.last() != Some(&offset) {
            return Err(ChunkError::Inconsistent { segment, problem: "its last row is cut off" });
        }
        if offsets.len() != rows + 1 {
            return Err(ChunkError::Inconsistent { segment, problem: "it has another number of rows" });
        }
        Ok(Self { place: place.clone(), offsets })
    }

    /// Gives `send` some rows, by their ascending numbers, until it takes no more. Blocks.
    pub fn send(&self, rows: &[usize], mut send: impl FnMut(&[u8]) -> bool) -> Result<(), ChunkError> {
        self.for_each(rows, |row| if send(row) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    }

    /// Which of the rows, counted within `rows`, a COPY of exactly these means by a line number. Blocks.
    ///
    /// Postgres counts the lines of the file, and names a row by its last. Within quotes it counts line feeds, but
    /// in the first row carriage returns, because it does not know yet how lines end.
    pub fn row_at_line(&self, rows: &[usize], line: u64) -> Result<Option<usize>, ChunkError> {
        let mut lines = 0;
        let mut index = 0;
        let mut found = None;
        self.for_each(rows, |row| {
            let line_end = if index == 0 { b'\r' } else { b'\n' };
            let content = row.strip_suffix(b"\n").unwrap_or(row);
            lines += memchr::memchr_iter(line_end, content).count() as u64 + 1;
            if lines >= line {
                found = Some(index);
                return ControlFlow::Break(());
            }
            index += 1;
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    fn for_each(&self, rows: &[usize], mut each: impl FnMut(&[u8]) -> ControlFlow<()>) -> Result<(), ChunkError> {
        let unreadable = || self.place.failed("read");
        let mut file = open(&self.place)?;
        let mut position = 0;
        let mut bytes = Vec::new();
        for &row in rows {
            let (start, end) = (self.offsets[row], self.offsets[row + 1]);
            // Rows lie close to each other, so most steps stay within the buffer.
            file.seek_relative((start - position).cast_signed()).map_err(unreadable())?;
            bytes.clear();
            (&mut file).take(end - start).read_to_end(&mut bytes).map_err(unreadable())?;
            position = end;
            if each(&bytes).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Gives `send` a whole chunk, piece by piece, until it takes no more. Blocks.
pub fn send_whole(place: &Place, mut send: impl FnMut(&[u8]) -> bool) -> Result<(), FileError> {
    let mut file = open(place)?;
    loop {
        let buffer = file.fill_buf().map_err(place.failed("read"))?;
        let length = buffer.len();
        if length == 0 || !send(buffer) {
            return Ok(());
        }
        file.consume(length);
    }
}

fn open(place: &Place) -> Result<BufReader<File>, FileError> {
    Ok(BufReader::with_capacity(BUFFER_BYTES, place.open()?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn chunk(directory: &tempfile::TempDir, content: &str, rows: usize) -> Result<Rows, ChunkError> {
        let place = Place::in_test(directory, "chunk.csv");
        fs::write(&place, content).unwrap();
        Rows::index(&place, SegmentId::now(), rows)
    }

    #[test]
    fn rows_end_where_a_line_ends_outside_quotes() {
        let content = "a,\"x\n\"\"\n\"\n\n\"\"\nlast\n";
        let directory = tempfile::tempdir().unwrap();
        let chunk = chunk(&directory, content, 4).unwrap();
        let mut rows = Vec::new();
        chunk
            .for_each(&[0, 1, 2, 3], |row| {
                rows.push(String::from_utf8(row.to_vec()).unwrap());
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(rows, ["a,\"x\n\"\"\n\"\n", "\n", "\"\"\n", "last\n"]);
    }

    #[test]
    fn a_chunk_of_another_length_is_inconsistent() {
        let directory = tempfile::tempdir().unwrap();
        for (content, rows) in [("a\nb\n", 1), ("a\nb\n", 3), ("a\nb", 2), ("a\n\"b\n", 2)] {
            let inconsistent = chunk(&directory, content, rows).unwrap_err();
            assert!(matches!(inconsistent, ChunkError::Inconsistent { .. }), "{content:?}");
        }
    }
}
