//! The manifest of a chunk: what makes its parts one thing, and tells whether it is today's.
//!
//! Always true: the manifest is written last and removed first, so where it is, all parts were written. It names the size
//! and the checksum of each part, so a part that was lost, cut, or copied from elsewhere is found out before it is loaded,
//! and the parts need not be flushed to disk: the segment can produce them again.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use super::ChunkError;
use crate::durable::{AtomicFile, FileError, Place};
use crate::segment::SegmentId;
use crate::spool::{Seal, hex_digits};
use crate::staging::Staging;

/// The format that this version writes.
const FORMAT: u32 = 1;
const BUFFER_BYTES: usize = 256 * 1024;

/// What a chunk is: messages = rows + rejects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the chunk's format.
    format: u32,
    /// The segment's name.
    pub segment: SegmentId,
    /// The pipeline that it was made for.
    pub pipeline: String,
    /// The segment's last line; null for a segment of format 1.
    pub seal: Option<Seal>,
    /// The fingerprint of the mapping that it was made with.
    pub mapping: String,
    /// The ids of the keys that its columns were masked with.
    pub keys: Vec<ColumnKey>,
    /// The ids of all masking keys that were at hand: whether a key that a column does not know is a rotation.
    #[serde(default)]
    pub ring: Vec<String>,
    /// Messages in the segment.
    pub messages: u64,
    /// Messages that the transform refused.
    pub rejects: u64,
    /// When the first message was sent, in milliseconds since the epoch.
    pub first_sent_at: Option<i64>,
    /// When the last one was.
    pub last_sent_at: Option<i64>,
    /// The rows, by table.
    pub tables: Vec<TablePart>,
    /// The identities of the rows.
    pub ids: Part,
    /// The messages that the transform refused.
    pub reject_lines: Part,
}

/// A masked column, and the key that it was masked with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ColumnKey {
    /// The column's name, or what it was called when it was masked first.
    pub column: String,
    /// `siv` or `fixed`.
    pub method: String,
    /// The key's id.
    pub key: String,
}

/// The rows of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablePart {
    /// The table as the mapping names it.
    pub table: String,
    /// Its rows.
    pub rows: u64,
    /// The file that holds them.
    #[serde(flatten)]
    pub part: Part,
}

/// A file of a chunk, as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its size.
    pub bytes: u64,
    /// The CRC-32 (IEEE) of its content, in eight lowercase hexadecimal digits.
    #[serde(with = "hex_digits")]
    pub checksum: u32,
}

/// What a manifest says of its chunk, except the files.
#[derive(Debug, Clone)]
pub struct Description {
    /// See [`Manifest::segment`].
    pub segment: SegmentId,
    /// See [`Manifest::pipeline`].
    pub pipeline: String,
    /// See [`Manifest::seal`].
    pub seal: Option<Seal>,
    /// See [`Manifest::mapping`].
    pub mapping: String,
    /// See [`Manifest::keys`].
    pub keys: Vec<ColumnKey>,
    /// See [`Manifest::ring`].
    pub ring: Vec<String>,
    /// See [`TablePart::table`].
    pub table: String,
    /// See [`TablePart::rows`].
    pub rows: u64,
    /// See [`Manifest::rejects`].
    pub rejects: u64,
    /// First and last time of sending.
    pub sent_between: Option<(i64, i64)>,
}

impl Manifest {
    /// The manifest of a chunk with these parts.
    #[must_use]
    pub fn new(description: Description, rows: Part, ids: Part, reject_lines: Part) -> Self {
        let Description { segment, pipeline, seal, mapping, keys, ring, table, rejects, sent_between, .. } =
            description;
        Self {
            format: FORMAT,
            segment,
            pipeline,
            seal,
            mapping,
            keys,
            ring,
            messages: description.rows + rejects,
            rejects,
            first_sent_at: sent_between.map(|(first, _)| first),
            last_sent_at: sent_between.map(|(_, last)| last),
            tables: vec![TablePart { table, rows: description.rows, part: rows }],
            ids,
            reject_lines,
        }
    }

    /// The manifest of a staged segment.
    pub fn read(staging: &Staging, segment: SegmentId) -> Result<Self, ChunkError> {
        let place = staging.manifest(segment);
        let mut text = Vec::new();
        place.open()?.read_to_end(&mut text).map_err(place.failed("read"))?;
        let manifest = Self::parse(&text).map_err(|problem| match problem {
            Problem::Unreadable => ChunkError::Inconsistent { segment, problem: "its manifest cannot be read" },
            Problem::Newer { format } => ChunkError::NewerFormat { path: place.path().to_owned(), format },
        })?;
        if manifest.segment != segment || manifest.tables.len() != 1 {
            return Err(ChunkError::Inconsistent { segment, problem: "its manifest is of another segment" });
        }
        Ok(manifest)
    }

    pub(super) fn parse(text: &[u8]) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        // The format first: a newer manifest may have other keys.
        let Format { format } = serde_json::from_slice(text).map_err(|_| Problem::Unreadable)?;
        if format > FORMAT {
            return Err(Problem::Newer { format });
        }
        serde_json::from_slice(text).map_err(|_| Problem::Unreadable)
    }

    /// Writes the manifest, which makes the segment a staged one.
    pub fn write(&self, staging: &Staging) -> Result<(), FileError> {
        let place = staging.manifest(self.segment);
        let mut file = AtomicFile::create(&place)?;
        let text = serde_json::to_vec(self).map_err(io::Error::from).map_err(place.failed("write"))?;
        file.write(&text)?;
        file.write(b"\n")?;
        file.finish()
    }

    /// Rows in the chunk.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }

    /// The size of the rows.
    #[must_use]
    pub fn row_bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.part.bytes).sum()
    }

    /// The file of rows.
    #[must_use]
    pub fn row_part(&self) -> Option<Part> {
        self.tables.first().map(|table| table.part)
    }

    /// Checks that all parts are there as they were written. Reads them whole.
    pub fn verify(&self, staging: &Staging) -> Result<(), ChunkError> {
        let rows = self.row_part();
        let parts = [
            (rows, staging.chunk(self.segment), "its rows are not those of its manifest"),
            (Some(self.ids), staging.ids(self.segment), "its ids are not those of its manifest"),
            (Some(self.reject_lines), staging.chunk_rejects(self.segment), "its rejects are not those of its manifest"),
        ];
        for (part, place, problem) in parts {
            if part != part_of(&place)? {
                return Err(ChunkError::Inconsistent { segment: self.segment, problem });
            }
        }
        Ok(())
    }
}

/// Why a manifest cannot be used.
pub(super) enum Problem {
    Unreadable,
    Newer { format: u32 },
}

/// A part's size and checksum as they are found. `None`: there is no such file.
fn part_of(place: &Place) -> Result<Option<Part>, FileError> {
    let mut file = match place.open() {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut checksum = crc32fast::Hasher::new();
    let mut bytes = 0;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer).map_err(place.failed("read"))? {
            0 => return Ok(Some(Part { bytes, checksum: checksum.finalize() })),
            read => {
                checksum.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
}
