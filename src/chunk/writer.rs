//! Writes the parts of a chunk, and then its manifest.

use std::fs::File;
use std::io::{BufWriter, Write};

use super::{Description, Manifest, Part};
use crate::crash_point::CrashPoint;
use crate::durable::{FileError, Place, remove_if_present};
use crate::segment::SegmentId;
use crate::staging::Staging;

const BUFFER_BYTES: usize = 256 * 1024;

/// The parts of one chunk. Dropped unfinished, it leaves none of them.
#[derive(Debug)]
pub struct ChunkWriter {
    staging: Staging,
    segment: SegmentId,
    rows: PartWriter,
    ids: PartWriter,
    rejects: PartWriter,
    is_finished: bool,
}

impl ChunkWriter {
    /// Starts a chunk. One that an earlier transform left is removed first: made with another mapping, its parts would
    /// not match the new ones.
    pub fn create(staging: &Staging, segment: SegmentId) -> Result<Self, FileError> {
        staging.remove_chunk(segment)?;
        Ok(Self {
            rows: PartWriter::create(staging.chunk(segment))?,
            ids: PartWriter::create(staging.ids(segment))?,
            rejects: PartWriter::create(staging.chunk_rejects(segment))?,
            staging: staging.clone(),
            segment,
            is_finished: false,
        })
    }

    /// Appends whole lines to each part.
    pub fn write(&mut self, rows: &[u8], ids: &[u8], rejects: &[u8]) -> Result<(), FileError> {
        self.rows.write(rows)?;
        self.ids.write(ids)?;
        self.rejects.write(rejects)
    }

    /// Writes the manifest. Until then there is no chunk.
    pub fn finish(mut self, description: Description) -> Result<Manifest, FileError> {
        let (rows, ids, rejects) = (self.rows.end()?, self.ids.end()?, self.rejects.end()?);
        CrashPoint::WriteChunk.pass();
        let manifest = Manifest::new(description, rows, ids, rejects);
        manifest.write(&self.staging)?;
        self.is_finished = true;
        Ok(manifest)
    }
}

impl Drop for ChunkWriter {
    fn drop(&mut self) {
        if !self.is_finished {
            _ = self.staging.remove_chunk(self.segment);
        }
    }
}

#[derive(Debug)]
struct PartWriter {
    place: Place,
    file: BufWriter<File>,
    bytes: u64,
    checksum: crc32fast::Hasher,
}

impl PartWriter {
    fn create(place: Place) -> Result<Self, FileError> {
        remove_if_present(&place)?;
        let file = BufWriter::with_capacity(BUFFER_BYTES, place.create_new()?);
        Ok(Self { place, file, bytes: 0, checksum: crc32fast::Hasher::new() })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.bytes += bytes.len() as u64;
        self.checksum.update(bytes);
        self.file.write_all(bytes).map_err(self.place.failed("write"))
    }

    fn end(&mut self) -> Result<Part, FileError> {
        self.file.flush().map_err(self.place.failed("write"))?;
        Ok(Part { bytes: self.bytes, checksum: self.checksum.clone().finalize() })
    }
}
