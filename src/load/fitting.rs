//! Whether a column of the table keeps what a mapping writes into it as it is.
//!
//! A value that the column refuses becomes a reject, which is told. A column that changes a value in silence tells
//! nobody. So such a column is refused before the first message, with the way out:
//!
//! | column of the table          | mapped as             | what it does                     | way out                    |
//! |------------------------------|-----------------------|----------------------------------|----------------------------|
//! | `varchar(n)`                 | text, not masked      | cuts blanks at the end           | `max_length` of n at most  |
//! | `varchar(n)`                 | text, masked          | refuses every value, if n is small | a wider column           |
//! | `char(n)`                    | all but n characters  | adds blanks, or takes them away  | `varchar(n)`               |
//! | `name`, `"char"`             | text                  | cuts at 63 bytes, at one         | `text`                     |
//! | `numeric(p,s)`               | numeric               | rounds to s digits               | `scale` of s at most       |
//! | `numeric(p,s)`, s below 0    | any number            | rounds to tens and more          | `numeric`                  |
//! | `real`                       | any number            | keeps 6 digits                   | `numeric`                  |
//! | `double precision`           | bigint, numeric       | keeps 15 digits                  | mapped as double; `numeric` |
//! | `timestamp(p)` of any kind, p below 6 | timestamptz  | rounds fractions of a second     | no precision               |
//! | `interval` with a precision  | text                  | rounds, or drops fields          | `interval`                 |
//! | `tsvector`, `tsquery`        | text                  | sorts and folds words            | `text`                     |
//! | `tsrange`, `tsmultirange`    | text                  | drop offsets                     | `tstzrange`                |
//! | a composite type             | text                  | its fields are not looked at     | a column for each field    |
//!
//! A domain is judged by the type that it is based on in the end. Types that only spell a value in another way (`inet`,
//! `jsonb`, an enum, an extension's types) are taken.

use crate::config::{Column, ColumnType, Source};
use crate::mask::masked_length;

const UUID_CHARACTERS: usize = 36;
const DATE_CHARACTERS: usize = 10;
/// Postgres keeps times in microseconds: six digits.
const TIME_DIGITS: i32 = 6;

/// The type of a table's column; of a domain, its base type.
#[derive(Debug, Clone)]
pub(super) struct TableType {
    /// As Postgres writes it: `numeric(6,2)`.
    pub(super) shown: String,
    /// Its name in `pg_catalog`; empty for types that Postgres does not bring.
    pub(super) name: String,
    pub(super) category: String,
    /// `pg_attribute.atttypmod`, or `pg_type.typtypmod` of a domain: -1 where there is none.
    pub(super) modifier: i32,
}

/// What speaks against writing a mapped column into a column of this type; reads after the column's name.
pub(super) fn misfit(column: &Column, found: &TableType) -> Option<String> {
    if !takes(column.kind, found) {
        return Some(format!("is of type {}, which does not take {}", found.shown, column.kind.name()));
    }
    let changes = |does: &str, way_out: &str| Some(format!("is of type {}, which {does}: {way_out}", found.shown));
    match found.name.as_str() {
        "varchar" => misfit_of_length(column, found),
        "bpchar" if found.length().is_some() && found.length() == characters(column.kind) => None,
        "bpchar" => changes("adds or drops blanks in silence", "make it varchar or text"),
        "name" => changes("cuts what is longer than 63 bytes in silence", "make it text"),
        "char" => changes("keeps one byte in silence", "make it text"),
        "numeric" => misfit_of_scale(column, found),
        "float4" => changes("rounds to 6 digits in silence", "make it numeric"),
        "float8" if matches!(column.kind, ColumnType::Bigint | ColumnType::Numeric) => changes(
            "rounds to 15 digits in silence",
            "map it with type = \"double\", which rejects what would be rounded, or make it numeric",
        ),
        "timestamptz" if (0..TIME_DIGITS).contains(&found.modifier) => {
            changes("rounds in silence", "make it timestamptz without a precision")
        }
        "interval" if found.modifier >= 0 => changes("rounds in silence", "make it interval without a precision"),
        "tsvector" | "tsquery" => changes("sorts and folds words in silence", "make it text"),
        "tsrange" | "tsmultirange" => changes("drops offsets in silence", "make it tstzrange or text"),
        _ if found.category == "C" => changes("may change its fields in silence", "give each field a column"),
        _ => None,
    }
}

impl TableType {
    /// The n of `varchar(n)`.
    pub(super) fn character_limit(&self) -> Option<usize> {
        if self.name == "varchar" { self.length() } else { None }
    }

    /// The n of `varchar(n)` and `char(n)`. The modifier counts a header of four bytes.
    fn length(&self) -> Option<usize> {
        usize::try_from(self.modifier.checked_sub(4)?).ok()
    }

    /// The s of `numeric(p,s)`: the lower eleven bits of the modifier after its header, signed since Postgres 15.
    fn scale(&self) -> Option<i32> {
        (self.modifier >= 4).then(|| (((self.modifier - 4) & 0x7ff) ^ 0x400) - 0x400)
    }
}

fn misfit_of_length(column: &Column, found: &TableType) -> Option<String> {
    let limit = found.length()?;
    if let Some(mask) = column.mask
        && limit < masked_length(mask, 1)
    {
        return Some(format!("holds {limit} characters, and a masked value has {} or more", masked_length(mask, 1)));
    }
    match column.max_length {
        Some(declared) if declared > limit => Some(format!("holds {limit} characters, and max_length is {declared}")),
        // Other values have no blanks at their end.
        None if column.kind == ColumnType::Text && column.mask.is_none() && is_of_body(column) => Some(format!(
            "is of type {}, which cuts blanks at the end in silence: add max_length = {limit}, or make it text",
            found.shown
        )),
        _ => None,
    }
}

fn misfit_of_scale(column: &Column, found: &TableType) -> Option<String> {
    let scale = found.scale()?;
    let Ok(limit) = u16::try_from(scale) else {
        return Some(format!("is of type {}, which rounds in silence: make it numeric", found.shown));
    };
    match column.scale {
        Some(declared) if declared > limit => Some(format!("is of type {}, and scale is {declared}", found.shown)),
        // Other numbers are whole.
        None if column.kind == ColumnType::Numeric && is_of_body(column) => Some(format!(
            "is of type {}, which rounds in silence: add scale = {limit}, or make it numeric",
            found.shown
        )),
        _ => None,
    }
}

const fn is_of_body(column: &Column) -> bool {
    matches!(column.source, Source::Body(_))
}

/// The length of every value of the type, where it is the same for all.
const fn characters(kind: ColumnType) -> Option<usize> {
    match kind {
        ColumnType::Uuid => Some(UUID_CHARACTERS),
        ColumnType::Date => Some(DATE_CHARACTERS),
        _ => None,
    }
}

/// Whether the column reads the text that is written for a type as a value of the same meaning.
fn takes(kind: ColumnType, column: &TableType) -> bool {
    let any_text = column.category == "S";
    let accepted: &[&str] = match kind {
        // What has no type of its own in a mapping (an enum, inet, …) is mapped as text and checked by Postgres.
        ColumnType::Text => {
            let has_own_type = matches!(column.name.as_str(), "uuid" | "json" | "jsonb" | "bytea");
            return !has_own_type && !matches!(column.category.as_str(), "N" | "B" | "D" | "A");
        }
        ColumnType::Integer | ColumnType::Version | ColumnType::PackedVersion => {
            &["int2", "int4", "int8", "numeric", "float4", "float8"]
        }
        ColumnType::Bigint => &["int8", "numeric", "float4", "float8"],
        ColumnType::Numeric => &["numeric", "float4", "float8"],
        ColumnType::Double => &["float8"],
        ColumnType::Boolean => &["bool"],
        // Not `timestamp`, which drops the offset in silence.
        ColumnType::Timestamptz => &["timestamptz"],
        ColumnType::Date => &["date", "timestamp"],
        ColumnType::Uuid => &["uuid"],
        ColumnType::Jsonb => &["jsonb", "json"],
    };
    any_text || accepted.contains(&column.name.as_str())
}
