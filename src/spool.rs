//! The spool: messages as they were received, durable on local disk before anything else happens to them.
//!
//! Always true:
//! - a sealed segment never changes; its boundary, so what one COPY transaction holds, was fixed when it was sealed;
//! - every line that pgsluice wrote ends with a checksum of itself, so damage is found where it is;
//! - nothing here deletes a message from SQS, so what an open segment loses in a crash is still in the queue.
//!
//! Format: one JSON object a line, see [`Record`]. A line's last field is `crc32`, the CRC-32 (IEEE) in eight
//! lowercase hex digits of all bytes of the line before `,"crc32":`. A line without it (written by hand) is taken
//! as it is. The body is the message's body byte for byte, as a JSON string.
//!
//! Life of a segment: [`SegmentWriter`] appends to `S.ndjson.open`; [`SegmentWriter::seal`] flushes it to disk,
//! renames it to `S.ndjson` and flushes the directory; [`SegmentReader`] reads it in blocks of whole lines.
//! What a crash leaves is an `.open` file whose last line may be torn: [`recover`] cuts that line and seals the rest.

mod body;
mod error;
mod reader;
mod receipts;
mod record;
mod recovery;
mod rejects;
mod writer;

pub use body::Body;
pub use error::SpoolError;
pub use reader::{Block, Line, SegmentReader};
pub use receipts::Receipts;
use record::line_fields;
pub use record::{Receipt, Record, message_uuid};
pub use recovery::{recover, sealed_segment};
pub use rejects::{RejectEntry, Rejects, push_reject, read_rejects};
pub use writer::SegmentWriter;

use crate::segment::SegmentId;

/// A segment whose boundary is fixed and whose messages are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedSegment {
    /// Its name in every stage.
    pub id: SegmentId,
    /// How many messages it holds.
    pub messages: u64,
    /// Its size.
    pub bytes: u64,
}
