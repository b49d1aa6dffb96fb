//! Writes one segment: append, then seal.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use super::{Record, SealedSegment};
use crate::error::StagingError;
use crate::staging::{SegmentId, Staging, private_options, rename_durably};

const BUFFER_BYTES: usize = 256 * 1024;

/// An open segment. Dropped unsealed, it leaves an `.open` file for [`super::recover`].
#[derive(Debug)]
pub struct SegmentWriter {
    id: SegmentId,
    file: File,
    open_path: PathBuf,
    sealed_path: PathBuf,
    buffer: Vec<u8>,
    messages: u64,
    bytes: u64,
}

impl SegmentWriter {
    /// Starts a segment under a new name.
    pub fn create(staging: &Staging) -> Result<Self, StagingError> {
        let id = SegmentId::now();
        let open_path = staging.open_segment(id);
        let file = private_options()
            .write(true)
            .create_new(true)
            .open(&open_path)
            .map_err(StagingError::io("create", &open_path))?;
        Ok(Self {
            id,
            file,
            open_path,
            sealed_path: staging.spool(id),
            buffer: Vec::with_capacity(BUFFER_BYTES * 2),
            messages: 0,
            bytes: 0,
        })
    }

    /// Appends a message. It is durable only once the segment is sealed.
    pub fn append(&mut self, record: &Record<'_>) -> Result<(), StagingError> {
        let before = self.buffer.len();
        let written = record.write_line(&mut self.buffer).map_err(io::Error::from);
        written.map_err(StagingError::io("write", &self.open_path))?;
        self.messages += 1;
        self.bytes += (self.buffer.len() - before) as u64;
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    /// Messages appended so far.
    #[must_use]
    pub const fn messages(&self) -> u64 {
        self.messages
    }

    /// Bytes appended so far.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes the segment durable and fixes its boundary. Takes as long as the disk needs.
    pub fn seal(mut self) -> Result<SealedSegment, StagingError> {
        self.flush()?;
        self.file.sync_all().map_err(StagingError::io("flush", &self.open_path))?;
        rename_durably(&self.open_path, &self.sealed_path)?;
        Ok(SealedSegment { id: self.id, messages: self.messages, bytes: self.bytes })
    }

    fn flush(&mut self) -> Result<(), StagingError> {
        self.file.write_all(&self.buffer).map_err(StagingError::io("write", &self.open_path))?;
        self.buffer.clear();
        Ok(())
    }
}
