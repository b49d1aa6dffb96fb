//! The spool: messages as they were received, durable on local disk before anything else happens to them.
//!
//! Always true:
//! - a sealed segment never changes; its boundary, so what one COPY transaction holds, was fixed when it was sealed;
//! - a segment says what it is: whose, and from where, in its first line; and what it holds, in its last;
//! - every line that pgsluice wrote ends with a checksum of itself, so damage is found where it is, also without a key;
//! - nothing here deletes a message from SQS, so what an open segment loses in a crash is still in the queue.
//!
//! Format 2: one JSON object a line. The first is the [`Header`], the last the [`Seal`], each line between them a
//! [`Record`]. A line's last field is `crc32`, the CRC-32 (IEEE) in eight lowercase hex digits of all bytes of the line
//! before `,"crc32":`. A message's line without it (written by hand) is taken as it is. The body is the message's body
//! byte for byte, as a JSON string. Format 3 is the same with messages that are encrypted (`encryption`). Format 1, which has
//! neither header nor seal, is still read.
//!
//! Life of a segment: [`SegmentWriter`] appends to `S.ndjson.open`; [`SegmentWriter::seal`] ends it with the seal,
//! flushes it to disk, renames it to `S.ndjson` and flushes the directory; [`SegmentReader`] reads it in blocks of whole
//! lines. A crash leaves an `.open` file whose last line may be torn: [`recover`] cuts that line and seals the rest.

mod body;
mod checksum;
mod encryption;
mod error;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
mod header;
mod reader;
mod receipts;
mod record;
mod recovery;
mod rejects;
mod seal;
mod writer;

pub use body::Body;
pub use encryption::{Opener, SpoolKeys, Unopened};
pub use error::SpoolError;
pub use header::{Header, Origin, Source};
pub use reader::{Block, Line, SegmentReader};
pub use receipts::Receipts;
use record::line_fields;
pub use record::{Receipt, Record, identity_time_ms, message_uuid};
pub use recovery::{recover, sealed_segment, sealed_segment_at};
pub use rejects::{RejectEntry, Rejects, push_reject, read_rejects};
pub use seal::Seal;
pub(crate) use seal::hex_digits;
pub use writer::SegmentWriter;

use crate::segment::SegmentId;

/// A segment whose boundary is fixed and whose messages are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedSegment {
    /// Its name in every stage.
    pub id: SegmentId,
    /// Its messages.
    pub messages: u64,
    /// The size of its file.
    pub bytes: u64,
    /// Its last line; `None` in a segment of format 1.
    pub seal: Option<Seal>,
}

#[cfg(test)]
impl SealedSegment {
    /// A segment that was sealed just now, without a file.
    pub(crate) fn of_messages(messages: u64) -> Self {
        Self { id: SegmentId::now(), messages, bytes: 0, seal: None }
    }
}

/// Where the messages of tests come from.
#[cfg(test)]
pub(crate) fn origin() -> Origin {
    Origin::of_queue("user_logins", "http://localhost/000000000000/login-queue")
}
