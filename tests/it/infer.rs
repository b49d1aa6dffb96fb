//! `infer`: the draft of a mapping, which must pass `check` on the sample that it was made of.

use std::fs;

use serde_json::Value;

use crate::logins::{generated, sample};
use crate::testenv::{Server, TestEnv};

const ORDERS: [&str; 4] = [
    r#"{"Order-Id": 9007199254740993, "total": 12.50, "paid": true, "placed": "2026-01-02T03:04:05Z", "day": "2026-01-02",
        "customer": {"id": "67e55044-10b1-426f-9247-bb680e5fe0c8", "emails": ["a@example.com"]}, "zip": "01099"}"#,
    r#"{"Order-Id": 7, "total": 3, "paid": null, "placed": "2026-01-02T03:04:05.5+02:00", "day": "2026-12-31",
        "customer": {"id": "67e55044-10b1-426f-9247-bb680e5fe0c9", "emails": []}, "zip": "10115", "note": "é, \"q\""}"#,
    r#"{"Order-Id": 8, "mixed": 1}"#,
    r#"{"Order-Id": 9, "mixed": "one"}"#,
];

/// The draft, its table, and a check of the sample against both.
fn assert_passes_check(env: &TestEnv, file: &str, messages: usize) -> String {
    let draft = env.pgsluice(&["infer", file]).succeeds().stdout;
    let sql = env.pgsluice(&["infer", file, "--sql"]).succeeds().stdout;
    for line in sql.lines() {
        assert!(draft.contains(&format!("\n# {line}\n")), "the draft has the table as comments: {draft}");
    }
    env.database.execute(&sql);
    env.configure(&draft);
    let outcome = env.pgsluice(&["check", "--json", "--sample", file]).succeeds();
    let checked: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!([&checked["sample"]["rows"], &checked["sample"]["messages"]], [messages, messages], "{checked}");
    assert_eq!(checked["sample"]["fields_not_taken"], serde_json::json!({}));
    draft
}

#[test]
fn a_draft_passes_the_check_on_its_own_sample_and_loads_it() {
    let env = TestEnv::new(Server::Embedded);
    fs::write(env.path("orders.ndjson"), ORDERS.map(|order| order.replace('\n', "")).join("\n")).unwrap();
    let draft = assert_passes_check(&env, "orders.ndjson", ORDERS.len());
    for part in [
        "table = \"public.orders\"",
        "name = \"order_id\"\nfrom = \"/Order-Id\"\ntype = \"bigint\"",
        "name = \"total\"\ntype = \"numeric\"",
        "name = \"placed\"\ntype = \"timestamptz\"",
        "name = \"customer_id\"\nfrom = \"/customer/id\"\ntype = \"uuid\"",
        "name = \"customer_emails\"\nfrom = \"/customer/emails\"\ntype = \"jsonb\"",
        "# 2 values, 2 distinct; 0 null, 2 missing; text of 5 characters\n[[column]]\nname = \"zip\"\n\n",
        "name = \"mixed\"\ntype = \"jsonb\"",
    ] {
        assert!(draft.contains(part), "no {part:?} in {draft}");
    }
    env.pgsluice(&["import", "orders.ndjson"]).succeeds();
    assert_eq!(env.job(&["replay"]).succeeds().counts().loaded, 4);
    assert_eq!(env.database.texts("select zip from orders where order_id = 9007199254740993"), ["01099"]);
}

#[test]
fn a_draft_of_real_messages_passes_the_check() {
    let Some(bodies) = sample() else { return };
    let env = TestEnv::new(Server::Embedded);
    fs::write(env.path("real.ndjson"), bodies.join("\n")).unwrap();
    assert_passes_check(&env, "real.ndjson", bodies.len());
}

#[test]
fn a_draft_of_a_queue_gives_its_messages_back() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&generated(20));
    let outcome = env.pgsluice(&["infer", "--peek", "15"]).succeeds();
    assert!(outcome.stdout.starts_with("# Drafted from 15 messages of queue test-"), "{outcome}");
    assert!(outcome.stderr.contains("counts as a receive of each"), "{outcome}");
    assert_eq!(env.queue.counts().visible, 20);
    env.pgsluice(&["infer"]).ends_with(2);
}
