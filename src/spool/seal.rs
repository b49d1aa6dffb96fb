//! The last line of a sealed segment: what stands before it, so that a segment that lost or gained lines is found out.

use std::io::{Read, Seek, SeekFrom};

use serde::{Deserialize, Serialize};

use super::checksum::{push_checksum, verified};
use crate::durable::{FileError, Place};

const START: &[u8] = b"{\"seal\":";
/// Longer than any seal.
const TAIL_BYTES: u64 = 512;

/// What stands before the last line of a sealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Its messages.
    pub messages: u64,
    /// Its size, from the header's first byte to the last message's line feed.
    pub bytes: u64,
    /// CRC-32 (IEEE) of these bytes, in eight lowercase hexadecimal digits.
    #[serde(with = "hex_digits")]
    pub checksum: u32,
}

#[derive(Serialize, Deserialize)]
struct Line {
    seal: Seal,
}

impl Seal {
    pub(super) fn is_seal(line: &[u8]) -> bool {
        line.starts_with(START)
    }

    /// Appends the seal as a line.
    pub(super) fn write_line(self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let start = out.len();
        serde_json::to_writer(&mut *out, &Line { seal: self })?;
        push_checksum(out, start);
        Ok(())
    }

    /// Reads a line without its line feed.
    pub(super) fn parse_line(line: &[u8]) -> Result<Self, &'static str> {
        verified(line)?;
        serde_json::from_slice(line).map(|Line { seal }| seal).map_err(|_| "the seal cannot be read")
    }

    /// The seal at the end of a file, without reading what stands before it. `None`: there is none.
    pub(super) fn at_end_of(place: &Place) -> Result<Option<Self>, FileError> {
        let mut tail = Vec::new();
        let mut file = place.open()?;
        let length = file.metadata().map_err(place.failed("inspect"))?.len();
        let tail_start = SeekFrom::Start(length.saturating_sub(TAIL_BYTES));
        file.seek(tail_start).and_then(|_| file.read_to_end(&mut tail)).map_err(place.failed("read"))?;
        let Some(tail) = tail.strip_suffix(b"\n") else { return Ok(None) };
        let start = memchr::memrchr(b'\n', tail).map_or(0, |position| position + 1);
        let line = &tail[start..];
        Ok(Self::is_seal(line).then(|| Self::parse_line(line).ok()).flatten())
    }
}

pub(crate) mod hex_digits {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(crate) fn serialize<S: Serializer>(checksum: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{checksum:08x}"))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        let digits = String::deserialize(deserializer)?;
        u32::from_str_radix(&digits, 16).map_err(|_| D::Error::custom("expected eight hexadecimal digits"))
    }
}
