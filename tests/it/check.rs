//! `check`: what it finds before anything moves, and that it moves nothing.

use std::fs;

use pgsluice::local::{Fault, Faults, Operation, Rule, When};
use serde_json::Value;

use crate::logins::{generated, login};
use crate::reject_policy::{logins, misfit};
use crate::testenv::{KEY, QueueKind, Server, TestEnv};

const FAILED: i32 = 1;
const USAGE: i32 = 2;

/// The checks that came out so, as `name: what was seen → what to do`.
fn checks(checked: &Value, outcome: &str) -> Vec<String> {
    let all = checked["checks"].as_array().unwrap().iter();
    let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    all.filter(|check| check["outcome"] == outcome)
        .map(|check| format!("{}: {} → {}", text(check, "name"), text(check, "seen"), text(check, "advice")))
        .collect()
}

/// Runs it, and expects exactly one failure, which holds these texts.
fn fails_with(env: &TestEnv, arguments: &[&str], texts: &[&str]) {
    let outcome = env.pgsluice(&[&["check", "--json"], arguments].concat()).ends_with(FAILED);
    let failures = checks(&outcome.json(), "failure");
    assert_eq!(failures.len(), 1, "{failures:?}");
    for text in texts {
        assert!(failures[0].contains(text), "no {text:?} in {failures:?}");
    }
}

fn warns_with(env: &TestEnv, arguments: &[&str], texts: &[&str]) {
    let outcome = env.pgsluice(&[&["check", "--json"], arguments].concat()).succeeds();
    let warnings = checks(&outcome.json(), "warning");
    assert!(warnings.iter().any(|warning| texts.iter().all(|text| warning.contains(text))), "{texts:?}: {warnings:?}");
}

/// A role that may do what the guide says that a loader needs, and no more.
fn loader(env: &mut TestEnv) -> String {
    let role = format!("loader_{}", uuid::Uuid::now_v7().simple());
    env.database.execute(&format!(
        "create role {role} login password 'loader'; grant usage on schema pgsluice to {role};
         grant select on all tables in schema pgsluice to {role};
         grant insert on pgsluice.pipeline, pgsluice.segment, pgsluice.message, pgsluice.reject, pgsluice.masking to {role};
         grant usage on sequence pgsluice.segment_no to {role};
         grant execute on function pgsluice.ensure_message_partitions(integer[]), pgsluice.prune() to {role};
         grant insert on public.user_logins to {role};"
    ));
    let url = env.database.url();
    let (_, address) = url.split_once("://").unwrap();
    let address = address.split_once('@').map_or(address, |(_, address)| address);
    env.set("DATABASE_URL", format!("postgres://{role}:loader@{address}"));
    role
}

#[test]
fn a_set_up_that_works_has_no_failure_and_nothing_is_moved() {
    let mut env = TestEnv::new(Server::Embedded);
    loader(&mut env);
    env.queue.send(&logins(10));
    let before = env.queue.counts();
    let checked = env.pgsluice(&["check", "--json"]).succeeds().json();
    assert_eq!((checked["outcome"].as_str(), checks(&checked, "warning").len()), (Some("ok"), 0), "{checked}");
    assert_eq!(env.queue.counts(), before);
    assert!(!env.path("staging").exists(), "it creates nothing");
    assert_eq!(env.database.count("pgsluice.pipeline"), 1, "of init alone");
    assert_eq!(checked["estimate"]["messages"], 10);
    env.run().succeeds();
}

#[test]
fn a_dry_run_says_what_the_mapping_makes_of_messages() {
    let env = TestEnv::new(Server::Embedded);
    let mut other = login("a");
    other["referrer"] = "x".into();
    other["locale"] = Value::Null;
    let bodies = [login("b").to_string(), other.to_string(), misfit("c"), "not json".to_owned(), "not json".to_owned()];
    fs::write(env.path("sample.ndjson"), bodies.join("\n")).unwrap();
    let outcome = env.pgsluice(&["check", "--json", "--sample", "sample.ndjson"]).succeeds();
    let checked = outcome.json();
    assert_eq!(checked["outcome"], "warning");
    let sample = &checked["sample"];
    assert_eq!([&sample["messages"], &sample["rows"]], [5, 2], "{sample}");
    let column = |name: &str| {
        sample["columns"].as_array().unwrap().iter().find(|column| column["name"] == name).unwrap().clone()
    };
    assert_eq!([&column("locale")["nulls"], &column("locale")["longest"]], [1, 2]);
    assert_eq!(column("masked_ip")["source"], "body/ip");
    assert_eq!(column("create_date")["source"], "sent_date");
    // A masked value is shown masked, any other by its shape.
    assert!(column("masked_ip")["preview"].as_str().unwrap().contains(':'), "{sample}");
    assert_eq!(column("device_type")["preview"], "aaaaaaa");
    assert!(!outcome.stdout.contains("199.172") && !outcome.stdout.contains("android"), "{outcome}");
    assert_eq!(sample["fields_not_taken"], serde_json::json!({ "/referrer": 1 }));
    let counts: Vec<_> = sample["rejects"].as_array().unwrap().iter().map(|reject| reject["count"].clone()).collect();
    assert_eq!(counts.iter().filter_map(Value::as_u64).sum::<u64>(), 3);
    assert_eq!(env.database.count("user_logins"), 0, "the COPY was rolled back");
    assert_eq!(env.database.count("pgsluice.segment"), 0);
    let text = env.pgsluice(&["check", "--sample", "sample.ndjson"]).succeeds().stdout;
    assert!(text.contains("no column takes /referrer, which 1 messages have"), "{text}");
}

#[test]
fn what_postgres_refuses_of_a_sample_is_a_reject_with_its_reason() {
    let env = TestEnv::new(Server::Embedded);
    env.database.execute("alter table user_logins add constraint no_b check (user_id <> 'b')");
    fs::write(env.path("sample.ndjson"), [login("a"), login("b"), login("c")].map(|body| body.to_string()).join("\n"))
        .unwrap();
    let checked = env.pgsluice(&["check", "--json", "--sample", "sample.ndjson"]).succeeds().json();
    assert_eq!(checked["sample"]["rows"], 2);
    assert_eq!(checked["sample"]["rejects"][0]["field"], "no_b", "{checked}");
    assert_eq!(checked["sample"]["rejects"][0]["stage"], "load");
    assert_eq!(env.database.count("user_logins"), 0);
}

#[test]
fn messages_that_are_peeked_at_are_there_again_at_once() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&logins(25));
    let checked = env.pgsluice(&["check", "--json", "--peek", "12"]).succeeds().json();
    assert_eq!(checked["sample"]["messages"], 12);
    assert_eq!((env.queue.counts().visible, env.queue.counts().in_flight), (25, 0));
    let warnings = checks(&checked, "warning");
    assert!(warnings.iter().any(|warning| warning.contains("counts as a receive")), "{warnings:?}");
    assert_eq!(env.run().succeeds().counts().loaded, 25);

    let env = TestEnv::with_fifo_queue(Server::Embedded);
    env.queue.send_one(&login("a").to_string());
    warns_with(&env, &["--peek", "1"], &["1 messages were received", "their groups stood still"]);
}

#[test]
fn a_table_that_does_not_fit_is_told_with_the_sql_that_mends_it() {
    let env = TestEnv::new(Server::Embedded);
    env.database.execute("alter table user_logins drop column locale");
    let add = "alter table \"public\".\"user_logins\" add column \"locale\" text;";
    fails_with(&env, &[], &["mapping: there is no column locale", add]);
    env.database.execute(add);
    env.pgsluice(&["check"]).succeeds();

    env.database.execute("alter table user_logins alter column app_version type real");
    let change = "alter table \"public\".\"user_logins\" alter column \"app_version\" type integer \
                  using \"app_version\"::integer;";
    fails_with(&env, &[], &["mapping: column app_version is of type real", change]);
    env.database.execute(change);
    env.pgsluice(&["check"]).succeeds();

    env.database.execute("drop table user_logins");
    let outcome = env.pgsluice(&["check", "--json"]).ends_with(FAILED);
    let missing = outcome.json()["checks"].as_array().unwrap().clone();
    let missing = missing.iter().find(|check| check["name"] == "table").unwrap().clone();
    env.database.execute(missing["advice"].as_str().unwrap());
    env.pgsluice(&["check"]).succeeds();
    env.queue.send(&logins(5));
    env.run().succeeds();
}

#[test]
fn each_right_that_is_missing_is_told_as_its_grant() {
    let mut env = TestEnv::new(Server::Embedded);
    let role = loader(&mut env);
    env.database.execute(&format!(
        "revoke insert on pgsluice.reject from {role}; revoke execute on function pgsluice.prune() from {role}"
    ));
    let grants = [
        format!("grant execute on function pgsluice.prune() to \"{role}\";"),
        format!("grant insert on table pgsluice.reject to \"{role}\";"),
    ];
    fails_with(&env, &[], &["ledger: the role lacks 2 rights", &grants.join(" ")]);
    env.database.execute(&grants.concat());
    env.pgsluice(&["check"]).succeeds();
    env.database.execute(&format!("revoke insert on user_logins from {role}"));
    let failures = checks(&env.pgsluice(&["check", "--json"]).ends_with(FAILED).json(), "failure");
    assert!(failures.iter().any(|failure| failure.starts_with("mapping: column user_id")), "{failures:?}");
}

#[test]
fn what_hinders_a_copy_or_changes_its_rows_is_told() {
    let mut env = TestEnv::new(Server::Embedded);
    env.database.execute(
        "create function skip() returns trigger language plpgsql as 'begin return null; end';
         create trigger skip before insert on user_logins for each row execute function skip()",
    );
    fs::write(env.path("sample.ndjson"), login("a").to_string()).unwrap();
    warns_with(&env, &[], &["triggers: skip fire for each insert"]);
    fails_with(&env, &["--sample", "sample.ndjson"], &["trial COPY: the table took 0 of 1 rows"]);
    env.database
        .execute("drop trigger skip on user_logins; create rule quiet as on insert to user_logins do also nothing");
    warns_with(&env, &[], &["rules: COPY ignores the rules quiet"]);
    env.database.execute("drop rule quiet on user_logins; alter table user_logins enable row level security");
    loader(&mut env);
    fails_with(&env, &[], &["row security: policies of public.user_logins hold for this role"]);
}

#[test]
fn a_view_and_a_table_without_a_partition_for_the_days_to_come_are_told() {
    let env = TestEnv::new(Server::Embedded);
    env.database.execute(
        "alter table user_logins rename to logins; create view user_logins as select * from logins;
         update pgsluice.pipeline set target = null",
    );
    fails_with(&env, &[], &["table: public.user_logins is not a table"]);
    env.database.execute(
        "drop view user_logins; create table user_logins (like logins) partition by range (create_date);
         create table past partition of user_logins for values from ('2020-01-01') to ('2020-02-01')",
    );
    warns_with(&env, &[], &["partitions: public.user_logins by RANGE (create_date) has no partition for 20"]);
    env.database.execute("create table others partition of user_logins default");
    let checked = env.pgsluice(&["check", "--json"]).succeeds().json();
    assert!(checks(&checked, "ok").iter().any(|check| check.starts_with("partitions: ")), "{checked}");
}

#[test]
fn a_key_that_the_ledger_does_not_know_is_a_failure() {
    let env = TestEnv::new(Server::Embedded);
    env.database.execute(
        "insert into pgsluice.masking (pipeline, column_name, method, key_id)
         select id, 'masked_ip', 'siv', '00000000' from pgsluice.pipeline",
    );
    fails_with(&env, &[], &["masking: masked_ip was written with key 00000000, and would be written with"]);
}

#[test]
fn the_queues_attributes_are_compared_with_the_settings() {
    let env = TestEnv::new(Server::Embedded);
    env.configure("[pipeline]\non_reject = \"leave\"\n");
    let outcome = env.pgsluice(&["check", "--json"]).ends_with(FAILED);
    let failures = checks(&outcome.json(), "failure");
    assert!(failures.iter().any(|failure| failure.starts_with("redrive policy: ")), "{failures:?}");
    env.configure("[queue]\nvisibility_seconds = 10\n");
    let dead_letters = env.queue.beside(QueueKind::Standard);
    env.queue.redrive_to(&dead_letters, 1);
    warns_with(&env, &[], &["redrive policy: after 1 receives", "set maxReceiveCount to 3"]);
    warns_with(&env, &[], &["visibility: each receive asks for 10 s"]);
    env.queue.send(&logins(1));
    env.queue.receive(30);
    warns_with(&env, &[], &["consumers: 1 messages are in flight with other consumers"]);
}

/// A right to delete that was missing ended a run after its first load.
#[test]
fn a_right_on_the_queue_that_is_missing_is_told() {
    for operation in [Operation::Delete, Operation::ChangeVisibility] {
        let env = TestEnv::new(Server::Faulty(Faults::default()));
        env.queue.send(&logins(3));
        env.pgsluice(&["check"]).succeeds();
        let fault = Fault::Refused(403, "AccessDenied");
        env.queue.inject(&[Rule { operation, when: When::Always, fault }]);
        fails_with(&env, &[], &["rights: access to queue", "sqs:ReceiveMessage, DeleteMessage"]);
        assert_eq!(env.queue.counts().visible, 3);
    }
}

#[test]
fn what_cannot_be_reached_is_a_failure_and_the_rest_is_looked_at() {
    let mut env = TestEnv::new(Server::Embedded);
    env.set("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    fails_with(&env, &[], &["queue: cannot reach SQS"]);
    let mut env = TestEnv::without_tables(Server::Embedded);
    let failures = checks(&env.pgsluice(&["check", "--json"]).ends_with(FAILED).json(), "failure");
    assert!(failures[0].contains("ledger: the ledger") && failures[0].contains("pgsluice init"), "{failures:?}");
    env.set("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nowhere");
    fails_with(&env, &[], &["database: cannot connect to Postgres"]);
}

#[test]
fn wrong_configuration_is_no_check_but_an_error() {
    let mut env = TestEnv::new(Server::Embedded);
    env.unset("PGSLUICE_KEY");
    env.pgsluice(&["check"]).fails(USAGE, "PGSLUICE_KEY", "keygen");
    env.set("PGSLUICE_KEY", KEY);
    env.pgsluice(&["check", "--sample", "missing"]).fails(USAGE, "cannot read missing", "one message body a line");
}

#[test]
fn files_of_another_pipeline_and_an_open_directory_are_told() {
    use std::os::unix::fs::PermissionsExt;
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&generated(3));
    env.pgsluice(&["drain"]).succeeds();
    env.configure("[pipeline]\nname = \"others\"\n");
    fails_with(&env, &[], &["unfinished: ", "user_logins"]);
    env.configure("");
    fs::set_permissions(env.path("staging"), fs::Permissions::from_mode(0o755)).unwrap();
    warns_with(&env, &[], &["staging: staging is open to other users", "chmod 700 staging"]);
}
