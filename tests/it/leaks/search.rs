//! The values that must stand nowhere, and the search for them.

use std::fs;
use std::path::Path;

use crate::testenv::{Outcome, TestEnv, files_below};

/// Stands in each masked field, and in all fields of what never comes to Postgres.
pub(super) const PERSONAL: &str = "P3RS0NAL";
/// Stands in a column that is not masked of rows that Postgres refuses. A chunk holds it, as COPY gets it.
pub(super) const REFUSED: &str = "R3FUSED";
/// Stands in each password, token and secret key that is no hexadecimal number.
pub(super) const SECRET: &str = "S3CR3T";
pub(super) const KEY: &str = "c0ffee11deadbeef5ec4e7a11ce5ca1e";
pub(super) const OTHER_KEY: &str = "facade5ca1ab1ec0debabedeadfa11ed";
/// What follows from the keys, and is no secret.
pub(super) const IDS: [&str; 2] = ["267c18c0", "c264b822"];
pub(super) const FIXED_IV: &str = "0ddba11fee1900d5a1ad5ca1ab1e5eed";

/// What must stand nowhere: the above, and what the other hostile messages say.
const NOWHERE: [&str; 16] = [
    REFUSED,
    PERSONAL,
    "50335253304e414c", // the same in hexadecimal
    SECRET,
    KEY,
    OTHER_KEY,
    FIXED_IV,
    "p4ssw0rd", // of the address that is told
    "T0KEN",
    "hook-path",
    "199.172.111.135",
    "593-47-5928",
    "1.2.3.4",
    "oops_wrong_msg_type",
    "99999.99999.99999",
    "2.3-beta",
];

/// The parts of the staging directory that hold bodies.
const HOLDS_BODIES: [&str; 5] = ["spool", "committed", "archive", "rejects", "damaged"];
/// The test's own input.
pub(super) const SAMPLE: &str = "sample.ndjson";
pub(super) const KEYRING: &str = "keys.toml";

pub(super) fn assert_clean(place: &str, text: &str) {
    assert_without(&NOWHERE, place, text);
}

fn assert_without(values: &[&str], place: &str, text: &str) {
    for line in text.lines() {
        let searched = line.to_lowercase();
        for value in values {
            assert!(!searched.contains(&value.to_lowercase()), "{value} is in {place}: {line}");
        }
    }
}

pub(super) fn assert_outcome_clean(outcome: &Outcome) {
    assert_clean("stdout", &outcome.stdout);
    assert_clean("stderr", &outcome.stderr);
}

/// All files except those that hold bodies: reports, logs, metrics, pages, chunks, and the staging directory's own.
pub(super) fn assert_files_clean(env: &TestEnv) {
    let staging = env.path("staging");
    let holds_bodies = |path: &Path| {
        let is_reject_file = path.to_string_lossy().ends_with(".rejects.ndjson"); // beside its chunk at first
        is_reject_file || HOLDS_BODIES.iter().any(|part| path.starts_with(staging.join(part)))
    };
    let is_input = |path: &Path| [SAMPLE, KEYRING].iter().any(|name| path == env.path(name));
    for path in files_below(&env.path("")) {
        if !holds_bodies(&path) && !is_input(&path) {
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            let is_chunk = path.starts_with(staging.join("chunks"));
            let values = if is_chunk { NOWHERE.split_first().unwrap().1 } else { &NOWHERE };
            assert_without(values, &path.display().to_string(), &text);
        }
    }
}

/// Each row of each table that is not Postgres' own.
pub(super) fn assert_database_clean(env: &TestEnv) {
    let tables = env.database.texts(
        "select format('%I.%I', schemaname, tablename) from pg_tables
         where schemaname not in ('pg_catalog', 'information_schema')",
    );
    assert!(tables.len() >= 4, "{tables:?}");
    for table in tables {
        let rows = env.database.texts(&format!("select to_jsonb(t)::text from {table} t"));
        assert_clean(&table, &rows.join("\n"));
    }
}

/// Runs a command, and searches what it printed and all that lies there afterwards.
pub(super) fn searched(env: &TestEnv, arguments: &[&str]) -> Outcome {
    let outcome = env.pgsluice(arguments);
    assert_outcome_clean(&outcome);
    assert_files_clean(env);
    assert_database_clean(env);
    outcome
}
