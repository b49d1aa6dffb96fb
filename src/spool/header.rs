//! The first line of a segment: what it is, whose it is, where its messages came from.

use std::io::{BufRead, BufReader, Read};

use serde::{Deserialize, Serialize};

use super::SpoolError;
use super::checksum::{push_checksum, verified};
use crate::durable::Place;
use crate::segment::SegmentId;

/// The format of a segment in clear. Format 1 has neither header nor seal, and is still read.
pub(super) const FORMAT: u32 = 2;
/// The format of a segment whose messages are encrypted. What knows format 2 alone would take them for damage.
pub(super) const ENCRYPTED_FORMAT: u32 = 3;
const START: &[u8] = b"{\"format\":";
const MAX_HEADER_BYTES: u64 = 64 * 1024;

/// The first line of a segment. Keys that this version does not know are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the segment's format.
    pub format: u32,
    /// The segment's name, which is also its file's.
    pub id: SegmentId,
    /// The pipeline that it was spooled for.
    pub pipeline: String,
    /// Where its messages came from.
    pub source: Source,
    /// When it was begun, in milliseconds since the epoch.
    pub created_at: i64,
}

/// Where the messages of a segment came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The URL of the queue that they were received from, and are deleted from.
    QueueUrl(String),
    /// A file; no queue holds its messages.
    Import {
        /// Its name, without the directory.
        file: String,
        /// SHA-256 of its content, in hexadecimal digits.
        sha256: String,
    },
}

/// Whose messages a new segment holds, and where they come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The pipeline's name.
    pub pipeline: String,
    /// The queue or the file.
    pub source: Source,
}

impl Origin {
    /// Messages that a pipeline receives from the queue of this URL.
    #[must_use]
    pub fn of_queue(pipeline: &str, queue_url: &str) -> Self {
        Self { pipeline: pipeline.to_owned(), source: Source::QueueUrl(queue_url.to_owned()) }
    }
}

impl Source {
    /// The name of the queue: the last part of its URL.
    #[must_use]
    pub fn queue_name(&self) -> Option<&str> {
        match self {
            Self::QueueUrl(url) => url.rsplit('/').next().filter(|name| !name.is_empty()),
            Self::Import { .. } => None,
        }
    }
}

impl Header {
    /// Whether a file whose first line this is has a header. A segment of format 1 begins with a message.
    pub(super) fn is_header(line: &[u8]) -> bool {
        line.starts_with(START)
    }

    /// The header of a segment file. `None`: it is of format 1.
    pub fn of_file(place: &Place) -> Result<Option<Self>, SpoolError> {
        let mut line = Vec::new();
        let mut start = BufReader::with_capacity(4096, place.open()?).take(MAX_HEADER_BYTES);
        start.read_until(b'\n', &mut line).map_err(place.failed("read"))?;
        if !Self::is_header(&line) {
            return Ok(None);
        }
        let damaged = |problem| SpoolError::Damaged { path: place.path().to_owned(), offset: 0, problem };
        let line = line.strip_suffix(b"\n").ok_or_else(|| damaged("the header is cut off"))?;
        Self::parse_line(line).map(Some).map_err(|problem| match problem {
            HeaderProblem::Damaged(problem) => damaged(problem),
            HeaderProblem::Newer { format } => SpoolError::NewerFormat { path: place.path().to_owned(), format },
        })
    }

    /// Appends the header as a line.
    pub(super) fn write_line(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let start = out.len();
        serde_json::to_writer(&mut *out, self)?;
        push_checksum(out, start);
        Ok(())
    }

    /// Reads a line without its line feed.
    pub(super) fn parse_line(line: &[u8]) -> Result<Self, HeaderProblem> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let damaged = |_| HeaderProblem::Damaged("the header cannot be read");
        verified(line).map_err(HeaderProblem::Damaged)?;
        // The format first: a newer header may have other keys.
        let Format { format } = serde_json::from_slice(line).map_err(damaged)?;
        if format > ENCRYPTED_FORMAT {
            return Err(HeaderProblem::Newer { format });
        }
        serde_json::from_slice(line).map_err(damaged)
    }
}

/// Why a header cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderProblem {
    Damaged(&'static str),
    Newer { format: u32 },
}
