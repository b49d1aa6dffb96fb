//! What holds for any body and any version, see [`crate::fuzz`].

#![allow(clippy::expect_used, reason = "a property that does not hold is a panic")]

use std::sync::OnceLock;

use serde_json::Value;

use super::field;
use super::plan::{Plan, RowSource, Scratch};
use crate::chunk::UtcText;
use crate::config::{Column, ColumnType, Dedupe, Pipeline, RejectPolicy, Source, TableName};
use crate::fuzz::assert_quotes_nothing;
use crate::keyring::{Keyring, SecretKey};
use crate::spool::Record;

/// The column of each type, and the text column of a nested pointer.
const COLUMNS: [(&str, ColumnType); 12] = [
    ("/text", ColumnType::Text),
    ("/a/b~1c/0", ColumnType::Text),
    ("/integer", ColumnType::Integer),
    ("/bigint", ColumnType::Bigint),
    ("/numeric", ColumnType::Numeric),
    ("/boolean", ColumnType::Boolean),
    ("/timestamptz", ColumnType::Timestamptz),
    ("/date", ColumnType::Date),
    ("/uuid", ColumnType::Uuid),
    ("/jsonb", ColumnType::Jsonb),
    ("/version", ColumnType::Version),
    ("/packed", ColumnType::PackedVersion),
];

/// A body is a row of all columns or is refused without being quoted. In a row, a text is what a JSON parser reads there.
pub(crate) fn body(input: &[u8]) {
    static PLANS: OnceLock<[Plan; 2]> = OnceLock::new();
    let [types, logins] = PLANS.get_or_init(plans);
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(row) = push(types, text) {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(row.as_slice());
        let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.expect("a row")).collect();
        let [row] = rows.as_slice() else { panic!("one row, not {}", rows.len()) };
        assert_eq!(row.len(), COLUMNS.len());
        if let Ok(parsed) = serde_json::from_str::<Value>(text) {
            for ((pointer, _), field) in COLUMNS.iter().zip(row).take(2) {
                let found = parsed.pointer(pointer).and_then(Value::as_str);
                assert_eq!(field, found.unwrap_or_default(), "{pointer}");
            }
        }
    }
    push(logins, text);
}

/// The row; the rest of the properties are those of any plan.
fn push(plan: &Plan, body: &str) -> Option<Vec<u8>> {
    let record = Record::first_delivery("m", 1, body);
    let sent = UtcText::from_milliseconds(record.sent_at).expect("a time");
    let message = RowSource { record: &record, body, sent, queue: None, source: None };
    let mut rows = Vec::new();
    match plan.push_row(&message, &mut Scratch::default(), &mut rows) {
        Ok(()) => {
            assert!(rows.ends_with(b"\n") && !rows.contains(&0));
            assert!(std::str::from_utf8(&rows).is_ok());
            Some(rows)
        }
        Err(reason) => {
            assert!(rows.is_empty(), "a part of a row of a refused message");
            assert_quotes_nothing(&reason.text, body);
            None
        }
    }
}

fn plans() -> [Plan; 2] {
    let column =
        |(pointer, kind): (&str, ColumnType)| Column::of(&pointer[1..], Source::Body(pointer.to_owned()), kind);
    let types = Pipeline {
        name: "types".to_owned(),
        table: TableName { schema: None, table: "types".to_owned() },
        dedupe: Dedupe::Message,
        rejects: RejectPolicy::default(),
        columns: COLUMNS.map(column).to_vec(),
    };
    let keys = Keyring::of_one_key(SecretKey::from_hex("PGSLUICE_KEY", &"07".repeat(16)).expect("a key"), None);
    [types, Pipeline::user_logins().expect("the built-in mapping")]
        .map(|pipeline| Plan::compile(&pipeline, &keys, None).expect("a plan"))
}

/// Both forms of a version, against what their documentation says.
pub(crate) fn version(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let read = |kind| field::from_text(kind, text, &mut field::Buffers::default()).ok().map(str::to_owned);
    let parts: Vec<&str> = text.split('.').collect();
    let is_version = parts.iter().all(|part| !part.is_empty() && part.chars().all(|digit| digit.is_ascii_digit()));
    let in_range = |number: u64| (number <= 2_147_483_647).then(|| number.to_string());
    let dotless = is_version.then(|| number(&text.replace('.', ""))).and_then(in_range);
    assert_eq!(read(ColumnType::Version), dotless);
    let numbers: Vec<u64> = parts.iter().map(|part| number(part)).collect();
    let packed = match numbers[..] {
        [first, ref rest @ ..] if is_version && rest.len() < 3 && rest.iter().all(|&part| part < 1000) => {
            let at = |position: usize| rest.get(position).copied().unwrap_or(0);
            in_range(first.saturating_mul(1_000_000).saturating_add(at(0) * 1000 + at(1)))
        }
        _ => None,
    };
    assert_eq!(read(ColumnType::PackedVersion), packed);
}

/// What digits mean, or the largest number.
fn number(digits: &str) -> u64 {
    match digits.trim_start_matches('0') {
        "" => 0,
        digits => digits.parse().unwrap_or(u64::MAX),
    }
}
