//! Writes one segment: the header, messages, then the seal.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

use jiff::Timestamp;

use super::encryption::Sealer;
use super::header::{ENCRYPTED_FORMAT, FORMAT};
use super::{Header, Origin, Record, Seal, SealedSegment};
use crate::crash_point::CrashPoint;
use crate::durable::{FileError, Place, remove_if_present, rename_durably};
use crate::keyring::Key;
use crate::segment::SegmentId;
use crate::staging::Staging;

const BUFFER_BYTES: usize = 256 * 1024;
/// More than a seal takes. On a full disk it is written over lines that are given up.
const SEAL_ROOM_BYTES: usize = 256;

/// An open segment. Dropped unsealed, it leaves an `.open` file for [`super::recover`].
#[derive(Debug)]
pub struct SegmentWriter {
    id: SegmentId,
    sealer: Option<Sealer>,
    file: File,
    open: Place,
    sealed: Place,
    /// Lines that are not wholly in the file yet; the first may be there in part.
    buffer: Vec<u8>,
    /// How much of the buffer is in the file.
    written: usize,
    messages: u64,
    bytes: u64,
    /// Of the bytes that have left the buffer.
    checksum: crc32fast::Hasher,
}

impl SegmentWriter {
    /// Starts a segment in clear under a new name.
    pub fn create(staging: &Staging, origin: &Origin) -> Result<Self, FileError> {
        Self::create_as(SegmentId::now(), staging, origin, None)
    }

    /// Starts a segment under this name, encrypted where there is a key.
    pub fn create_as(id: SegmentId, staging: &Staging, origin: &Origin, key: Option<&Key>) -> Result<Self, FileError> {
        let open = staging.open_segment(id);
        let sealer = key.map(Sealer::new).transpose().map_err(open.failed("encrypt"))?;
        let file = open.create_new()?;
        let mut buffer = Vec::with_capacity(BUFFER_BYTES * 2);
        let header = Header {
            format: if sealer.is_some() { ENCRYPTED_FORMAT } else { FORMAT },
            id,
            pipeline: origin.pipeline.clone(),
            source: origin.source.clone(),
            created_at: Timestamp::now().as_millisecond(),
        };
        header.write_line(&mut buffer).map_err(io::Error::from).map_err(open.failed("write"))?;
        Ok(Self {
            id,
            sealer,
            file,
            open,
            sealed: staging.spool(id),
            bytes: buffer.len() as u64,
            buffer,
            written: 0,
            messages: 0,
            checksum: crc32fast::Hasher::new(),
        })
    }

    /// Appends a message. It is durable only once the segment is sealed.
    ///
    /// After an error the segment still holds the message, and may be sealed all the same: what could not be written
    /// is tried again.
    pub fn append(&mut self, record: &Record<'_>) -> Result<(), FileError> {
        let before = self.buffer.len();
        let written = match &mut self.sealer {
            Some(sealer) => sealer.write_line(record, &mut self.buffer),
            None => record.write_line(&mut self.buffer).map_err(io::Error::from),
        };
        written.map_err(self.open.failed("write"))?;
        self.messages += 1;
        self.bytes += (self.buffer.len() - before) as u64;
        let flushed = if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) };
        CrashPoint::Append.pass();
        flushed
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
    #[tracing::instrument(skip_all, fields(segment = %self.id, messages = self.messages.cast_signed()))]
    pub fn seal(mut self) -> Result<SealedSegment, FileError> {
        let mut checksum = self.checksum.clone();
        checksum.update(&self.buffer);
        let seal = Seal { messages: self.messages, bytes: self.bytes, checksum: checksum.finalize() };
        let before = self.buffer.len();
        seal.write_line(&mut self.buffer).map_err(io::Error::from).map_err(self.open.failed("write"))?;
        let bytes = self.bytes + (self.buffer.len() - before) as u64;
        self.flush()?;
        self.file.sync_all().map_err(self.open.failed("flush"))?;
        CrashPoint::Fsync.pass();
        rename_durably(&self.open, &self.sealed)?;
        Ok(SealedSegment { id: self.id, messages: self.messages, bytes, seal: Some(seal) })
    }

    /// Seals what the disk has room for: if the rest cannot be written, the segment is cut after its last whole line.
    ///
    /// `None` where not one line fits; then no file is left.
    pub fn seal_what_fits(mut self) -> Result<Option<SealedSegment>, FileError> {
        match self.flush() {
            Err(error) if error.is_disk_full() => self.cut()?,
            flushed => flushed?,
        }
        if self.messages == 0 {
            return remove_if_present(&self.open).map(|()| None);
        }
        self.seal().map(Some)
    }

    /// Writes the buffer. What an earlier attempt wrote of it is not written again.
    fn flush(&mut self) -> Result<(), FileError> {
        while self.written < self.buffer.len() {
            match self.file.write(&self.buffer[self.written..]) {
                Ok(0) => return Err(self.open.failed("write")(io::ErrorKind::WriteZero.into())),
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.open.failed("write")(error)),
            }
        }
        self.checksum.update(&self.buffer);
        self.buffer.clear();
        self.written = 0;
        Ok(())
    }

    /// Gives up the lines that are not wholly in the file, and those whose room the seal needs.
    fn cut(&mut self) -> Result<(), FileError> {
        let kept = self.written.saturating_sub(SEAL_ROOM_BYTES);
        let whole = memchr::memrchr(b'\n', &self.buffer[..kept]).map_or(0, |position| position + 1);
        let given_up = &self.buffer[whole..];
        let lines = memchr::memchr_iter(b'\n', given_up).count() as u64;
        // The header may be among them: then no message is in the file either.
        self.messages -= lines.min(self.messages);
        self.bytes -= given_up.len() as u64;
        self.checksum.update(&self.buffer[..whole]);
        self.buffer.clear();
        self.written = 0;
        self.file.set_len(self.bytes).map_err(self.open.failed("cut"))?;
        self.file.seek(SeekFrom::End(0)).map(|_| ()).map_err(self.open.failed("cut"))
    }
}
