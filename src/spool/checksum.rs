//! The checksum at the end of each line: `,"crc32":"…"}`, the CRC-32 (IEEE) of all bytes of the line before it.

const PREFIX: &[u8] = b",\"crc32\":\"";
const DIGITS: usize = 8;
const SUFFIX: &[u8] = b"\"}";
const BYTES: usize = PREFIX.len() + DIGITS + SUFFIX.len();

/// Replaces the closing brace of the JSON object that begins at `start` by the checksum, and ends the line.
pub(super) fn push_checksum(out: &mut Vec<u8>, start: usize) {
    out.pop();
    let checksum = crc32fast::hash(&out[start..]);
    out.extend_from_slice(PREFIX);
    out.extend_from_slice(format!("{checksum:08x}").as_bytes());
    out.extend_from_slice(SUFFIX);
    out.push(b'\n');
}

/// A line without its checksum, and the checksum's digits; `None` where it has none.
pub(super) fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (content, checksum) = line.split_at_checked(line.len().checked_sub(BYTES)?)?;
    let digits = checksum.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    Some((content, digits))
}

/// Whether these are the digits of the content's checksum.
pub(super) fn matches(content: &[u8], digits: &[u8]) -> bool {
    let written = std::str::from_utf8(digits).ok().and_then(|digits| u32::from_str_radix(digits, 16).ok());
    written == Some(crc32fast::hash(content))
}

/// The line has a checksum, and it is right.
pub(super) fn verified(line: &[u8]) -> Result<(), &'static str> {
    match split(line) {
        Some((content, digits)) if matches(content, digits) => Ok(()),
        Some(_) => Err("the checksum does not match"),
        None => Err("a checksum is missing"),
    }
}
