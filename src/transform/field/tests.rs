//! Each column type: what it takes, what it makes of it, and what it refuses.

use super::*;
use ColumnType::{
    Bigint, Boolean, Date, Double, Integer, Jsonb, Numeric, PackedVersion, Text, Timestamptz, Uuid, Version,
};

const UUID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

fn text_of(kind: ColumnType, json: &str) -> Result<String, Problem> {
    from_json(kind, json, &mut Buffers::default()).map(str::to_owned)
}

#[track_caller]
fn takes(kind: ColumnType, cases: &[(&str, &str)]) {
    for &(json, expected) in cases {
        assert_eq!(text_of(kind, json).as_deref(), Ok(expected), "{kind:?}: {json}");
    }
}

#[track_caller]
fn refuses(kind: ColumnType, problem: Problem, cases: &[&str]) {
    for &json in cases {
        assert_eq!(text_of(kind, json), Err(problem), "{kind:?}: {json}");
    }
}

#[test]
fn text_takes_strings_alone() {
    takes(
        Text,
        &[(r#""a""#, "a"), (r#""""#, ""), (r#""\"\\\n\u00fc \ud83e\udd80""#, "\"\\\nü 🦀"), (r#""\\N""#, "\\N")],
    );
    refuses(Text, Problem::Not("a string"), &["1", "true", "{}", "[]"]);
    refuses(Text, Problem::Nul, &[r#""\u0000""#, r#""a\u0000b""#]);
    refuses(Text, Problem::LoneSurrogate, &[r#""\ud800""#, r#""\udc00\ud800""#]);
}

#[test]
fn integers_are_whole_and_in_range() {
    takes(Integer, &[("0", "0"), ("-2147483648", "-2147483648"), ("2147483647", "2147483647")]);
    refuses(Integer, Problem::OutOfRange(Integer), &["2147483648", "-2147483649", "99999999999999999999999"]);
    refuses(Integer, Problem::Not("an integer"), &["1.0", "1e3", "\"1\"", "true", "[]", "{}", "-0.5"]);
    takes(Bigint, &[("9223372036854775807", "9223372036854775807"), ("-9223372036854775808", "-9223372036854775808")]);
    refuses(Bigint, Problem::OutOfRange(Bigint), &["9223372036854775808", "-9223372036854775809"]);
}

#[test]
fn numeric_keeps_every_digit() {
    takes(
        Numeric,
        &[
            ("1.50", "1.50"),
            ("\"1.50\"", "1.50"),
            ("-1e-7", "-1e-7"),
            ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
        ],
    );
    refuses(Numeric, Problem::Not("a number"), &["\"\"", "\"NaN\"", "\"1,5\"", "true", "[1]"]);
    refuses(Numeric, Problem::OutOfRange(Numeric), &["1e200000", "\"1e-99999999999999999999\""]);
}

#[test]
fn a_double_takes_what_it_keeps() {
    takes(Double, &[("1.50", "1.50"), ("\"0.1\"", "0.1"), ("-1e-7", "-1e-7"), ("16777217", "16777217")]);
    refuses(Double, Problem::Not("a number"), &["\"\"", "\"NaN\"", "\"Infinity\"", "true", "[1]"]);
    refuses(Double, Problem::OutOfRange(Double), &["1e309", "\"1e-400\""]);
    refuses(Double, Problem::TooPrecise, &["9007199254740993", "0.1000000000000000055511151231257827"]);
}

#[test]
fn boolean_takes_true_and_false_alone() {
    takes(Boolean, &[("true", "true"), ("false", "false")]);
    refuses(Boolean, Problem::Not("true or false"), &["1", "0", "\"true\"", "{}"]);
}

#[test]
fn date_times_need_their_offset_and_stay_as_they_are() {
    for time in [
        "2026-01-02T03:04:05Z",
        "2026-01-02t03:04:05.123456000z",
        "2026-01-02T03:04:05.123456Z",
        "2026-01-02 03:04:05+05:30",
        "0001-01-01T00:00:00-15:59",
        "9999-12-31T23:59:59.999Z",
        "2024-02-29T00:00:00+00:00",
        "2016-12-31T23:59:60Z",
    ] {
        takes(Timestamptz, &[(&format!("\"{time}\""), time)]);
    }
    let not = Problem::Not("an RFC 3339 date-time with an offset");
    for text in [
        "",
        "Z",
        "2026-01-02",
        "2026-01-02T03:04:05",
        "2026-01-02T03:04Z",
        "2026-02-30T00:00:00Z",
        "2026-01-02T24:00:00Z",
        "2026-01-02T03:04:05+0530",
        "2026-01-02T03:04:05+05",
        "2026-01-02T03:04:05+16:00",
        "2026-01-02T03:04:05+05:60",
        "2026-01-02T03:04:05Z[UTC]",
        "+002026-01-02T03:04:05Z",
        "2026-01-02T03:04:05.Z",
        "2026-01-02T03:04:05 Z",
        "2026-01-02X03:04:05Z",
        "now",
        "ü2026-01-02T03:04:05Z",
        "2026-01-02T03:04:05ü",
        "２026-01-02T03:04:05Z",
        "-+0:00",
        "2026-01-02T03:04:05.1234567890Z",
    ] {
        refuses(Timestamptz, not, &[&format!("\"{text}\"")]);
    }
    refuses(Timestamptz, not, &["\"2026-01-02T03:04:05+🦀\""]);
    refuses(Timestamptz, Problem::Not("a string"), &["1767323045"]);
    let finer = ["\"2026-01-02T03:04:05.123456789Z\"", "\"2026-01-02T03:04:05.0000001+01:00\""];
    refuses(Timestamptz, Problem::BelowMicroseconds, &finer);
    let beyond = ["\"0000-01-01T00:00:00Z\"", "\"2016-12-31T23:59:60.5Z\""];
    refuses(Timestamptz, Problem::OutOfRange(Timestamptz), &beyond);
}

#[test]
fn dates_are_of_the_calendar() {
    takes(
        Date,
        &[("\"2024-02-29\"", "2024-02-29"), ("\"0001-01-01\"", "0001-01-01"), ("\"9999-12-31\"", "9999-12-31")],
    );
    let not = Problem::Not("a date (YYYY-MM-DD)");
    refuses(
        Date,
        not,
        &[
            "\"2023-02-29\"",
            "\"2024-2-29\"",
            "\"20240229\"",
            "\"2024-02-29T00:00:00Z\"",
            "\"\"",
            "\"today\"",
            "\"2024-02-2ü\"",
        ],
    );
    refuses(Date, Problem::OutOfRange(Date), &["\"0000-01-01\""]);
}

#[test]
fn uuids_come_out_in_one_spelling() {
    for spelling in
        [UUID.to_owned(), UUID.to_uppercase(), UUID.replace('-', ""), format!("{{{UUID}}}"), format!("urn:uuid:{UUID}")]
    {
        takes(Uuid, &[(&format!("\"{spelling}\""), UUID)]);
    }
    refuses(Uuid, Problem::Not("a UUID"), &["\"\"", "\"01890a5d\"", "\"g1890a5d-ac96-774b-bcce-b302099a8057\""]);
    refuses(Uuid, Problem::Not("a string"), &["1"]);
}

#[test]
fn jsonb_keeps_any_value_that_postgres_can_hold() {
    for json in [r#"{"a": [1.50, null]}"#, r#""\u00fc""#, "true", "[]", r#""\\u0000""#] {
        takes(Jsonb, &[(json, json)]);
    }
    refuses(Jsonb, Problem::Nul, &[r#"{"a":"\u0000"}"#, r#"{"\u0000":1}"#]);
    refuses(Jsonb, Problem::LoneSurrogate, &[r#"["\ud800"]"#]);
    refuses(Jsonb, Problem::OutOfRange(Jsonb), &["[1e999999]"]);
}

#[test]
fn versions_lose_their_dots() {
    takes(
        Version,
        &[
            ("\"2.3.0\"", "230"),
            ("\"0.96\"", "96"),
            ("\"2.00\"", "200"),
            ("\"7\"", "7"),
            ("\"0000000000000.1\"", "1"),
            ("\"21.4748.3647\"", "2147483647"),
        ],
    );
    let not = Problem::Not("dotted digits");
    refuses(
        Version,
        not,
        &[
            "\"\"",
            "\".\"",
            "\"1.\"",
            "\".1\"",
            "\"1..2\"",
            "\"v1\"",
            "\"1.0-beta\"",
            "\" 1\"",
            "\"-1\"",
            "\"+1\"",
            "\"99999999999.x\"",
            "\"١.٢\"",
        ],
    );
    refuses(Version, Problem::OutOfRange(Version), &["\"2147483648\"", "\"1.2.3.4.5.6.7.8.9.10.11\""]);
    refuses(Version, Problem::Not("a string"), &["2.3", "230"]);
}

#[test]
fn packed_versions_sort() {
    takes(
        PackedVersion,
        &[("\"2.3.0\"", "2003000"), ("\"2.3\"", "2003000"), ("\"0.96\"", "96000"), ("\"2147.483.647\"", "2147483647")],
    );
    refuses(
        PackedVersion,
        Problem::OutOfRange(PackedVersion),
        &["\"1.1000\"", "\"1.2.3.4\"", "\"2147.483.648\"", "\"2148.0.0\"", "\"99999999999\""],
    );
    refuses(PackedVersion, Problem::Not("dotted digits"), &["\"1.x\"", "\"\"", "\"1.+2\""]);
}

#[test]
fn length_counts_characters() {
    assert!(!is_longer_than(3, "äß🦀".as_bytes()));
    assert!(is_longer_than(2, "äß🦀".as_bytes()));
    assert!(is_longer_than(0, b"a"));
    assert!(!is_longer_than(0, b""));
}

/// A column type with a wildcard for its conversion would let any text through.
#[test]
fn every_type_checks_a_text_that_comes_from_beside_the_body() {
    let from_text = |kind, text| super::from_text(kind, text, &mut Buffers::default()).map(str::to_owned);
    for kind in [Integer, Bigint, Numeric, Double, Boolean, Timestamptz, Date, Uuid, Jsonb, Version, PackedVersion] {
        assert!(matches!(from_text(kind, "any text"), Err(Problem::Not(_))), "{kind:?}");
    }
    assert_eq!(from_text(Text, "any text").as_deref(), Ok("any text"));
    assert_eq!(from_text(Text, "a\0b"), Err(Problem::Nul));
}
