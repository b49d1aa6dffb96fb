//! One field: from a JSON value to the text that a column of its type gets.
//!
//! Types are strict, so that a producer's mistake becomes a reject and not a surprise in the table: a text column
//! takes a JSON string and nothing else, an integer column a JSON integer.

use std::fmt::{self, Write};

use jiff::civil::{Date, DateTime};
use uuid::Uuid;

use super::numeric::{self, NumberProblem};
use crate::config::ColumnType;
use crate::unescape::{LoneSurrogate, unescape};

/// What is wrong with a field. The text follows the field's name, and never holds a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Problem {
    Missing,
    Null,
    Not(&'static str),
    OutOfRange(ColumnType),
    TooLong { max_length: usize },
    TooManyDecimals { scale: u16 },
    TooPrecise,
    BelowMicroseconds,
    Nul,
    LoneSurrogate,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => formatter.write_str("is missing"),
            Self::Null => formatter.write_str("is null"),
            Self::Not(expected) => write!(formatter, "is not {expected}"),
            Self::OutOfRange(kind) => write!(formatter, "is out of range for {}", kind.range()),
            Self::TooLong { max_length } => write!(formatter, "is longer than {max_length} characters"),
            Self::TooManyDecimals { scale } => write!(formatter, "has more than {scale} decimal digits"),
            Self::TooPrecise => formatter.write_str("has more digits than a double keeps"),
            Self::BelowMicroseconds => {
                formatter.write_str("has a fraction of a microsecond, which Postgres would round")
            }
            Self::Nul => formatter.write_str("holds \\u0000, which Postgres cannot store"),
            Self::LoneSurrogate => formatter.write_str("holds half of a surrogate pair, which is no Unicode text"),
        }
    }
}

impl From<LoneSurrogate> for Problem {
    fn from(LoneSurrogate: LoneSurrogate) -> Self {
        Self::LoneSurrogate
    }
}

/// Memory that conversions reuse from field to field.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    unescaped: String,
    converted: String,
}

impl Buffers {
    /// Writes a value as text.
    pub(super) fn keep(&mut self, value: impl fmt::Display) -> &str {
        write_text(value, &mut self.converted)
    }
}

/// The column's text for a JSON value, which is valid JSON without surrounding white space and not `null`.
pub(super) fn from_json<'a>(kind: ColumnType, json: &'a str, buffers: &'a mut Buffers) -> Result<&'a str, Problem> {
    let text = match kind {
        ColumnType::Jsonb => return jsonb(json),
        // JSON writes these as Postgres reads them.
        ColumnType::Integer | ColumnType::Bigint | ColumnType::Boolean => json,
        ColumnType::Numeric | ColumnType::Double if !json.starts_with('"') => json,
        ColumnType::Text
        | ColumnType::Numeric
        | ColumnType::Double
        | ColumnType::Timestamptz
        | ColumnType::Date
        | ColumnType::Uuid
        | ColumnType::Version
        | ColumnType::PackedVersion => string(json, &mut buffers.unescaped)?,
    };
    convert(kind, text, &mut buffers.converted)
}

/// The column's text for a value that is a string already.
pub(super) fn from_text<'a>(kind: ColumnType, text: &'a str, buffers: &'a mut Buffers) -> Result<&'a str, Problem> {
    if text.contains('\0') {
        return Err(Problem::Nul);
    }
    convert(kind, text, &mut buffers.converted)
}

fn convert<'a>(kind: ColumnType, text: &'a str, converted: &'a mut String) -> Result<&'a str, Problem> {
    match kind {
        ColumnType::Text => Ok(text),
        ColumnType::Integer => integer::<i32>(kind, text),
        ColumnType::Bigint => integer::<i64>(kind, text),
        ColumnType::Numeric => number(kind, text, numeric::check),
        ColumnType::Double => number(kind, text, numeric::check_double),
        ColumnType::Boolean => boolean(text),
        ColumnType::Timestamptz => timestamp(text),
        ColumnType::Date => date(text),
        ColumnType::Uuid => {
            let uuid = Uuid::try_parse(text).map_err(|_| Problem::Not("a UUID"))?;
            converted.clear();
            converted.push_str(uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
            Ok(converted)
        }
        ColumnType::Jsonb => Err(Problem::Not("a JSON value")),
        ColumnType::Version => Ok(write_text(version(text)?, converted)),
        ColumnType::PackedVersion => Ok(write_text(packed_version(text)?, converted)),
    }
}

/// Whether UTF-8 text is too long for a `varchar` of `max_length`, which counts characters, not bytes.
pub(super) fn is_longer_than(max_length: usize, text: &[u8]) -> bool {
    let starts_character = |byte: &u8| byte & 0b1100_0000 != 0b1000_0000;
    text.len() > max_length && text.iter().filter(|&byte| starts_character(byte)).count() > max_length
}

fn string<'a>(json: &'a str, unescaped: &'a mut String) -> Result<&'a str, Problem> {
    let inside = json.strip_prefix('"').and_then(|json| json.strip_suffix('"'));
    let inside = inside.ok_or(Problem::Not("a string"))?;
    if memchr::memchr(b'\\', inside.as_bytes()).is_none() {
        return Ok(inside);
    }
    unescaped.clear();
    unescape(inside, |piece| {
        unescaped.push_str(piece);
        without_nul(piece)
    })?;
    Ok(unescaped)
}

/// Checks a piece of unescaped JSON. NUL is always a piece of its own.
fn without_nul(piece: &str) -> Result<(), Problem> {
    if piece == "\0" { Err(Problem::Nul) } else { Ok(()) }
}

fn integer<T: std::str::FromStr>(kind: ColumnType, json: &str) -> Result<&str, Problem> {
    if json.parse::<T>().is_ok() {
        return Ok(json);
    }
    let digits = json.strip_prefix('-').unwrap_or(json);
    let is_integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    Err(if is_integer { Problem::OutOfRange(kind) } else { Problem::Not("an integer") })
}

fn boolean(text: &str) -> Result<&str, Problem> {
    if matches!(text, "true" | "false") { Ok(text) } else { Err(Problem::Not("true or false")) }
}

fn number(
    kind: ColumnType,
    text: &str,
    check: impl FnOnce(&str) -> Result<(), NumberProblem>,
) -> Result<&str, Problem> {
    check(text).map(|()| text).map_err(|problem| match problem {
        NumberProblem::NotANumber => Problem::Not("a number"),
        NumberProblem::OutOfRange => Problem::OutOfRange(kind),
        NumberProblem::TooPrecise => Problem::TooPrecise,
    })
}

fn jsonb(json: &str) -> Result<&str, Problem> {
    unescape(json, without_nul)?;
    if numeric::all_in_range(json) { Ok(json) } else { Err(Problem::OutOfRange(ColumnType::Jsonb)) }
}

/// Checks the text and leaves it as it is: Postgres reads every RFC 3339 date-time, its offset included.
fn timestamp(text: &str) -> Result<&str, Problem> {
    const NOT: Problem = Problem::Not("an RFC 3339 date-time with an offset");
    let offset_start = text.len() - if text.ends_with(['Z', 'z']) { 1 } else { "+00:00".len().min(text.len()) };
    let (local, offset) = text.split_at_checked(offset_start).ok_or(NOT)?;
    let has_shape = has_shape(local.as_bytes(), b"dddd-dd-ddTdd:dd:dd") && is_offset(offset);
    if !has_shape {
        return Err(NOT);
    }
    let time: DateTime = local.parse().map_err(|_| NOT)?;
    if time.subsec_nanosecond() % 1000 != 0 {
        return Err(Problem::BelowMicroseconds);
    }
    // Postgres takes a leap second, but no fraction of one.
    if local["YYYY-MM-DDTHH:MM:".len()..].starts_with("60.") {
        return Err(Problem::OutOfRange(ColumnType::Timestamptz));
    }
    if time.year() < 1 { Err(Problem::OutOfRange(ColumnType::Timestamptz)) } else { Ok(text) }
}

/// `Z`, or hours and minutes from UTC, up to the 15:59 that Postgres takes.
fn is_offset(offset: &str) -> bool {
    match offset.as_bytes() {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', hours @ .., b':', _, _] => {
            has_shape(&offset.as_bytes()[1..], b"dd:dd") && hours <= b"15".as_slice() && &offset[4..] <= "59"
        }
        _ => false,
    }
}

fn date(text: &str) -> Result<&str, Problem> {
    const NOT: Problem = Problem::Not("a date (YYYY-MM-DD)");
    if text.len() != "YYYY-MM-DD".len() || !has_shape(text.as_bytes(), b"dddd-dd-dd") {
        return Err(NOT);
    }
    let date: Date = text.parse().map_err(|_| NOT)?;
    if date.year() < 1 { Err(Problem::OutOfRange(ColumnType::Date)) } else { Ok(text) }
}

/// Whether `text` begins like `shape`, where `d` stands for a digit and `T` for what RFC 3339 lets separate a date
/// from a time. jiff alone is more lenient: it takes texts that Postgres reads as another time, or not at all.
fn has_shape(text: &[u8], shape: &[u8]) -> bool {
    text.len() >= shape.len()
        && text.iter().zip(shape).all(|(byte, expected)| match expected {
            b'd' => byte.is_ascii_digit(),
            b'T' => matches!(byte, b'T' | b't' | b' '),
            _ => byte == expected,
        })
}

const NOT_A_VERSION: Problem = Problem::Not("dotted digits");

/// The dots removed: `2.3.0` → 230.
fn version(text: &str) -> Result<i32, Problem> {
    let mut number = Some(0_i32);
    for part in text.split('.') {
        if !is_digits(part) {
            return Err(NOT_A_VERSION);
        }
        for digit in part.bytes() {
            number = number.and_then(|number| number.checked_mul(10)?.checked_add(i32::from(digit - b'0')));
        }
    }
    number.ok_or(Problem::OutOfRange(ColumnType::Version))
}

/// Three digits for each part after the first: `2.3.0` → 2003000.
fn packed_version(text: &str) -> Result<i32, Problem> {
    const PARTS: usize = 3;
    const OUT_OF_RANGE: Problem = Problem::OutOfRange(ColumnType::PackedVersion);
    if !text.split('.').all(is_digits) {
        return Err(NOT_A_VERSION);
    }
    let mut numbers = [0_i32; PARTS];
    for (position, part) in text.split('.').enumerate() {
        let number = part.parse().ok().filter(|&number| position == 0 || number < 1000);
        *numbers.get_mut(position).ok_or(OUT_OF_RANGE)? = number.ok_or(OUT_OF_RANGE)?;
    }
    let [first, second, third] = numbers;
    first.checked_mul(1_000_000).and_then(|packed| packed.checked_add(second * 1000 + third)).ok_or(OUT_OF_RANGE)
}

fn is_digits(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}

fn write_text(value: impl fmt::Display, out: &mut String) -> &str {
    out.clear();
    // Writing to a String cannot fail.
    _ = write!(out, "{value}");
    out
}

#[cfg(test)]
mod tests;
