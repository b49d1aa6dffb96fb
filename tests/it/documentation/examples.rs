//! The examples of configurations, run as they stand.

use std::fs;

use serde_json::Value;

use super::markdown::{Block, blocks};
use super::{GUIDE, page};
use crate::testenv::{Server, TestEnv};

/// What the guide says of its examples: when their messages were sent, and which keys and queue they have.
const SENT_AT: &str = "2026-01-02T03:04:05.678Z";
const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const FIXED_IV: &str = "101112131415161718191a1b1c1d1e1f";
const QUEUE_URL: &str = "https://sqs.eu-west-1.amazonaws.com/123456789012/login-queue";
const STAGING: &str = "examples";

/// A configuration, and what it makes of bodies: pairs of a body and a field, NULL or a reject.
struct Example<'a> {
    configuration: &'a str,
    outcomes: Vec<(&'a str, &'a str)>,
}

/// Where a block of outcomes follows a configuration, they hold; any other configuration is at least a valid one.
#[test]
fn each_configuration_does_what_is_said_of_it() {
    let mut env = TestEnv::without_tables(Server::Embedded);
    for (name, value) in [("PGSLUICE_KEY", KEY), ("PGSLUICE_FIXED_IV", FIXED_IV), ("PGSLUICE_QUEUE_URL", QUEUE_URL)] {
        env.set(name, value);
    }
    let (readme, guide) = (page("README.md"), page(GUIDE));
    for said in [KEY, FIXED_IV, SENT_AT] {
        assert!(guide.contains(said), "{GUIDE} does not say that its examples have {said}");
    }
    let examples: Vec<Example<'_>> = [&readme, &guide].into_iter().flat_map(|page| examples(page)).collect();
    assert!(examples.iter().filter(|example| !example.outcomes.is_empty()).count() > 15);
    for example in examples {
        run(&env, &example);
    }
}

fn examples(page: &str) -> Vec<Example<'_>> {
    let blocks: Vec<Block<'_>> = blocks(page).collect();
    let configurations = blocks.iter().enumerate().filter(|(_, block)| block.language == "toml");
    configurations
        .map(|(index, block)| {
            let is_next = |next: &&Block<'_>| page[block.ends..next.begins].trim().is_empty();
            let lines = blocks.get(index + 1).filter(is_next).map_or("", |next| next.text).lines();
            let outcomes = lines.map(|line| {
                let (body, outcome) = line.split_once('→').unwrap_or_else(|| panic!("no arrow in {line}"));
                (body.trim(), outcome.trim())
            });
            Example { configuration: block.text, outcomes: outcomes.collect() }
        })
        .collect()
}

fn run(env: &TestEnv, example: &Example<'_>) {
    env.configure(example.configuration);
    let bodies: Vec<&str> = example.outcomes.iter().map(|(body, _)| *body).collect();
    fs::write(env.path("bodies.ndjson"), bodies.join("\n")).unwrap();
    _ = fs::remove_dir_all(env.path(STAGING));
    env.pgsluice(&["import", "--staging-dir", STAGING, "--sent-at", SENT_AT, "bodies.ndjson"]).succeeds();
    env.pgsluice(&["transform", "--staging-dir", STAGING]).succeeds();

    // Rows and rejects keep the order of the bodies, each in a file of its own.
    let (mut rows, mut reasons) = (rows(env).into_iter(), reasons(env).into_iter());
    for (body, expected) in &example.outcomes {
        let found = if expected.starts_with("reject: ") { reasons.next() } else { rows.next() };
        assert_eq!(found.as_deref(), Some(*expected), "{body} by\n{}", example.configuration);
    }
    assert_eq!((rows.next(), reasons.next()), (None, None), "by\n{}", example.configuration);
}

fn rows(env: &TestEnv) -> Vec<String> {
    lines(env, "chunks", ".csv").iter().map(|line| shown(line)).collect()
}

/// A row's fields, with a bar between them.
fn shown(line: &str) -> String {
    if line.is_empty() || line == "\"\"" {
        return if line.is_empty() { "NULL".to_owned() } else { line.to_owned() };
    }
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
    let row = reader.records().next().unwrap().unwrap();
    let fields: Vec<&str> = row.iter().map(|field| if field.is_empty() { "NULL" } else { field }).collect();
    fields.join(" | ")
}

fn reasons(env: &TestEnv) -> Vec<String> {
    let reason = |line: &String| {
        let reject: Value = serde_json::from_str(line).unwrap();
        format!("reject: {}", reject["reason"].as_str().unwrap())
    };
    lines(env, "chunks", ".rejects.ndjson").iter().map(reason).collect()
}

fn lines(env: &TestEnv, part: &str, suffix: &str) -> Vec<String> {
    let files = fs::read_dir(env.path(STAGING).join(part)).unwrap().map(|entry| entry.unwrap().path());
    let wanted = files.filter(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.ends_with(suffix) && !name.ends_with(".ids.csv")
    });
    wanted.flat_map(|path| fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}
