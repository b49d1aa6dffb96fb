//! `libpq_18.jsonl` holds, for each text, what libpq 18.6 made of it (`PQconninfoParse`, asked through psycopg 3.3.9's
//! `psycopg.pq.Conninfo.parse`): parameters with their values, or null for a text that it refuses.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::super::conninfo::Parameters;
use super::super::parameters;

#[derive(Deserialize)]
struct Case {
    text: String,
    parsed: Option<BTreeMap<String, String>>,
}

fn cases() -> Vec<Case> {
    include_str!("libpq_18.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The parameters that are set, by name.
fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    let parsed = Parameters::parse(text)?;
    let value = |name: &str| parsed.get(name).map(str::to_owned);
    Ok(parameters::all().filter_map(|known| Some((known.name.to_owned(), value(known.name)?))).collect())
}

/// Once `?` in a password, and `://` in a value of a pair, ended what was looked at for `sslmode`: the connection was
/// less safe than its string said.
#[test]
fn each_text_means_what_it_means_to_libpq() {
    let mut refused = Vec::new();
    for Case { text, parsed } in cases() {
        match (parse(&text), parsed) {
            (Ok(ours), Some(libpqs)) => assert_eq!(ours, libpqs, "{text:?}"),
            (Err(_), None) => {}
            (Ok(ours), None) => panic!("libpq refuses {text:?}, and we read {ours:?}"),
            (Err(_), Some(_)) => refused.push(text),
        }
    }
    let after_the_host = [
        "postgres://u:S3cr@tPART@h/db",
        "postgres://a@b,c@d/e",
        "postgres://u:p@@h",
        "postgres://u:a/b@h/d",
        "postgres://u:12/b@h/d",
        "postgres://h/d@e",
        "postgres://u:p@x/y@h/d",
        "postgres://u:p@h:5@6/d",
    ];
    assert_eq!(refused, after_the_host, "these alone libpq takes and we refuse");
}

/// Once `postgres://u:S3cr@tPART@h/db` printed `tPART@h` and asked the name server for it.
#[test]
fn no_complaint_quotes_what_may_be_part_of_a_password() {
    for text in [
        "postgres://u:zq@zq@h/db",
        "postgres://u:zq/zq@h/db",
        "postgres://u:12/zq?zq=zq@h/db",
        "postgres://u:zq@h?zq=zq@h/db",
        "postgres://u:zq%zq@h",
        "postgres://u:zq zq@h",
        "postgres://h?password=zq&zq=zq",
        "postgres://h?password=zq=zq",
        "postgres://h?zq-zq=1",
        "postgres://[zq",
        "postgres://[::1]zq",
        "host=h password=zq zq",
        "host=h password=zq zq=zq",
        "host=h password='zq",
        "host=h password='zq''zq'",
        "mysql://u:zq@h/db",
        "mysql://u:zq@h/db?zq=zq",
        "Postgres://u:zq@h/db?zq=zq",
        "zq",
        "user=zq\0",
    ] {
        let problem = parse(text).unwrap_err();
        assert!(!problem.contains("zq"), "{text}: {problem}");
    }
}

#[test]
fn a_misspelt_parameter_is_named() {
    for text in ["host=h sslmod=require", "postgres://u:p@h?sslmod=require", "postgres://h?user=u&sslmod=verify-full"] {
        assert_eq!(parse(text).unwrap_err(), "sslmod is none of libpq's parameters");
    }
}

fn in_quotes(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn bare(value: &str) -> String {
    let escaped = |character: char| match character {
        '\\' | '\'' | ' ' | '\t'..='\r' => format!("\\{character}"),
        other => other.to_string(),
    };
    value.chars().map(escaped).collect()
}

fn percent_encoded(value: &str) -> String {
    let encoded =
        |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    value.bytes().map(encoded).collect()
}

/// Anything but NUL, with much of what has a meaning somewhere.
fn values() -> impl Strategy<Value = String> {
    prop_oneof!["[^\0]{0,20}", "[@/?:%&=#,'\" \\\\\\[\\]\t\n+a]{0,12}"]
}

proptest! {
    #[test]
    fn a_quoted_value_is_read_as_it_was(user in values(), password in values(), database in values()) {
        // A bare value cannot be empty; what follows would be taken for it.
        let expected = [("user", user), ("password", password), ("dbname", database)];
        let expected: Vec<_> = expected.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        for quote in [in_quotes, bare] {
            let pairs: Vec<_> = expected.iter().map(|(name, value)| format!("{name}={}", quote(value))).collect();
            let text = pairs.join("\n");
            let parsed = Parameters::parse(&text).unwrap();
            for (name, value) in &expected {
                prop_assert_eq!(parsed.get(name), Some(value.as_str()));
            }
        }
    }

    #[test]
    fn an_escaped_value_is_read_as_it_was(user in values(), password in values(), database in values(), options in values()) {
        let [user_part, password_part, database_part, options_part] =
            [&user, &password, &database, &options].map(|value| percent_encoded(value));
        let text = format!("postgres://{user_part}:{password_part}@h:5/{database_part}?options={options_part}");
        let parsed = Parameters::parse(&text).unwrap();
        let expected =
            [("user", &*user), ("password", &*password), ("dbname", &*database), ("options", &*options), ("host", "h"), ("port", "5")];
        for (name, value) in expected {
            prop_assert_eq!(parsed.get(name).unwrap_or_default(), value);
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(postgres://)?.{0,40}") {
        drop(Parameters::parse(&text));
    }
}
