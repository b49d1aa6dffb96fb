//! Messages that cannot become rows: each is kept with its reason, acknowledged, and costs its neighbours nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::logins::login;
use crate::testenv::{Counts, Outcome, Server, TestEnv};

/// A hostile body: its name, the field that its reject must name, a part of the reason, and the body.
pub(crate) type Hostile = (&'static str, Option<&'static str>, &'static str, String);

pub(crate) fn hostile_bodies() -> Vec<Hostile> {
    let with = |field: &str, value: Value| {
        let mut body = login("hostile");
        body[field] = value;
        body.to_string()
    };
    let without = |field: &str| {
        let mut body = login("hostile");
        body.as_object_mut().unwrap().remove(field);
        body.to_string()
    };
    let spelled = |spelling: &str| login("SPELLING").to_string().replace("SPELLING", spelling);
    let nested = |depth| format!(r#"{{"user_id":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
    vec![
        ("text", None, "JSON", "hello".to_owned()),
        ("cut off", None, "JSON", login("hostile").to_string()[..40].to_owned()),
        ("two objects", None, "JSON", format!("{0}{0}", login("hostile"))),
        ("an array", None, "object", "[1, 2]".to_owned()),
        ("a number", None, "object", "42".to_owned()),
        ("null", None, "object", "null".to_owned()),
        ("blank", None, "empty", "   ".to_owned()),
        ("another kind", Some("user_id"), "", json!({"foo": "oops_wrong_msg_type", "bar": "123"}).to_string()),
        ("no ip", Some("ip"), "", without("ip")),
        ("ip null", Some("ip"), "", with("ip", Value::Null)),
        ("ip a number", Some("ip"), "", with("ip", json!(5))),
        ("ip an object", Some("ip"), "", with("ip", json!({"v4": "1.2.3.4"}))),
        ("user_id too long", Some("user_id"), "128", with("user_id", json!("ü".repeat(129)))),
        ("locale too long", Some("locale"), "32", with("locale", json!("x".repeat(33)))),
        ("version overflows", Some("app_version"), "", with("app_version", json!("99999.99999.99999"))),
        ("version not digits", Some("app_version"), "", with("app_version", json!("2.3-beta"))),
        ("version empty", Some("app_version"), "", with("app_version", json!(""))),
        ("version dots alone", Some("app_version"), "", with("app_version", json!(".."))),
        ("NUL", Some("user_id"), "", spelled(r"a\u0000b")),
        ("lone surrogate", Some("user_id"), "", spelled(r"a\ud800b")),
        ("deep", None, "nest", nested(500)),
    ]
}

#[test]
fn each_hostile_message_is_one_reject_with_its_reason_and_its_neighbours_load() {
    let hostile = hostile_bodies();
    let env = TestEnv::new(Server::Embedded);
    let bodies: Vec<String> = hostile
        .iter()
        .enumerate()
        .flat_map(|(index, (.., body))| [body.clone(), login(&format!("neighbour {index}")).to_string()])
        .collect();
    env.queue.send(&bodies);
    let outcome = env.run().succeeds();

    let (all, bad) = (bodies.len() as u64, hostile.len() as u64);
    let expected = Counts { received: all, loaded: all - bad, rejected: bad, acknowledged: all, ..Counts::default() };
    assert_eq!(outcome.counts(), expected);
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
    let neighbours = env.database.number("select count(distinct user_id) from user_logins");
    assert_eq!(neighbours, bad);

    let by_body: BTreeMap<String, Value> = env
        .staged_objects("rejects")
        .into_iter()
        .map(|line| (line["body"].as_str().unwrap().to_owned(), line))
        .collect();
    assert_eq!(by_body.len(), hostile.len());
    for (name, field, reason, body) in &hostile {
        let reject = by_body.get(body).unwrap_or_else(|| panic!("no reject for {name}"));
        assert_eq!(reject["stage"], "transform", "{name}: {reject}");
        assert_eq!(reject["field"].as_str(), *field, "{name}: {reject}");
        let said = reject["reason"].as_str().unwrap();
        assert!(!said.is_empty() && said.contains(reason), "{name}: {said}");
    }
    assert_eq!(rejects_in_the_ledger(&env), rejects_in_files(&env));
    assert_eq!(rejects_in_the_report(&outcome), counted(rejects_in_files(&env)));
}

#[test]
fn of_two_equal_keys_the_last_one_counts() {
    let env = TestEnv::new(Server::Embedded);
    let body = login("LAST").to_string().replacen('{', r#"{"user_id":"first","#, 1);
    env.queue.send(&[body]);
    assert_eq!(env.run().succeeds().counts().loaded, 1);
    assert_eq!(env.database.texts("select user_id from user_logins"), ["LAST"]);
}

#[test]
fn a_length_is_counted_in_characters_as_postgres_does() {
    let env = TestEnv::new(Server::Embedded);
    let longest = "\u{1f980}".repeat(128);
    env.queue.send(&[login(&longest).to_string()]);
    assert_eq!(env.run().succeeds().counts().loaded, 1);
    assert_eq!(env.database.texts("select user_id from user_logins"), [longest]);
}

#[test]
fn values_that_a_csv_file_confuses_easily_arrive_as_they_are() {
    let env = TestEnv::new(Server::Embedded);
    let values =
        [r"\N", r"\.", "", "\"", "a,b", "line\nfeed", "carriage\rreturn", "\t", " padded ", "NULL", "ü\u{1f980}"];
    let body = |value: &&str| {
        let mut body = login(value);
        body["locale"] = json!(value);
        body.to_string()
    };
    env.queue.send(&values.iter().map(body).collect::<Vec<_>>());
    assert_eq!(env.run().succeeds().counts().loaded, values.len() as u64);
    let mut expected = values.map(str::to_owned);
    expected.sort();
    assert_eq!(env.database.texts("select user_id from user_logins order by user_id collate \"C\""), expected);
    assert_eq!(env.database.number("select count(*) from user_logins where locale = user_id"), expected.len() as u64);
}

#[test]
fn a_row_that_violates_a_check_constraint_is_rejected_alone() {
    let env = TestEnv::new(Server::Embedded);
    env.database.execute("alter table user_logins add constraint known_device check (device_type <> 'toaster')");
    let refused = refused_by_postgres(&env, "toaster");
    assert_eq!(refused["stage"], "load");
    assert!(refused["reason"].as_str().unwrap().contains("23514"), "{refused}");
}

#[test]
fn a_row_that_a_trigger_refuses_is_rejected_alone() {
    let env = TestEnv::new(Server::Embedded);
    env.database.execute(
        "create function refuse() returns trigger language plpgsql as
             $$ begin raise exception 'no toasters like %', new.user_id; end $$;
         create trigger no_toasters before insert on user_logins
             for each row when (new.device_type = 'toaster') execute function refuse()",
    );
    let refused = refused_by_postgres(&env, "toaster");
    assert_eq!(refused["stage"], "load");
    assert!(refused["reason"].as_str().unwrap().contains("P0001"), "{refused}");
    assert!(!refused["reason"].as_str().unwrap().contains("neighbour"), "Postgres' text quotes a value: {refused}");
}

/// 20,000 of 20,000 messages were rejected and deleted from the queue, with exit code 0, because nobody had created the
/// partition of the day; and so with a sequence that had no number left.
#[test]
fn a_fault_of_the_table_stops_the_run_before_anything_is_rejected_or_deleted() {
    for (breaks, mends, error, hint) in [
        (
            "drop table user_logins;
             create table user_logins (user_id varchar(128), device_type varchar(32), masked_ip varchar(256),
                 masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date)
                 partition by range (create_date);
             create table of_2020 partition of user_logins for values from ('2020-01-01') to ('2021-01-01')",
            "create table of_other_days partition of user_logins default",
            "no partition",
            "create the partition",
        ),
        (
            "create sequence numbers maxvalue 30;
             alter table user_logins add number bigint not null default nextval('numbers')",
            "alter sequence numbers maxvalue 1000000",
            "2200H",
            "ALTER SEQUENCE",
        ),
        (
            "alter table user_logins add constraint known check (device_type = 'toaster')",
            "alter table user_logins drop constraint known",
            "23514), known",
            "one cause for all rows",
        ),
    ] {
        let env = TestEnv::new(Server::Embedded);
        env.database.execute(breaks);
        let bodies: Vec<String> = (0..40).map(|index| login(&format!("user {index}")).to_string()).collect();
        env.queue.send(&bodies);
        let outcome = env.run().fails(1, error, hint);
        let expected = Counts { received: 40, pending: 40, ..Counts::default() };
        assert_eq!(outcome.counts(), expected, "{outcome}");
        let decided = ["user_logins", "pgsluice.message", "pgsluice.reject"].map(|table| env.database.count(table));
        assert_eq!(decided, [0, 0, 0], "{outcome}");
        assert!(env.staged_files("rejects").is_empty());

        env.database.execute(mends);
        assert_eq!(env.run().succeeds().counts().loaded, 40);
        assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
    }
}

/// A `CASE` without a branch for the value raises 20000, which no rule knew as a row's fault: each run stopped at it.
#[test]
fn a_row_on_which_a_trigger_fails_is_rejected_alone() {
    let env = TestEnv::new(Server::Embedded);
    env.database.execute(
        "create function classify() returns trigger language plpgsql as
             $$ begin case new.device_type when 'android' then null; end case; return new; end $$;
         create trigger classify before insert on user_logins for each row execute function classify()",
    );
    let refused = refused_by_postgres(&env, "toaster");
    assert!(refused["reason"].as_str().unwrap().contains("20000"), "{refused}");
}

#[test]
fn rejects_that_are_refused_again_stay_rejects_however_many_they_are() {
    let env = TestEnv::new(Server::Embedded);
    env.database.execute("alter table user_logins add constraint known check (user_id not like 'bad%')");
    // Some of others in each receive, so that the table is known to take rows.
    let body = |index: usize| login(&format!("{} {index}", if index.is_multiple_of(3) { "good" } else { "bad" }));
    env.queue.send(&(0..60).map(|index| body(index).to_string()).collect::<Vec<_>>());
    assert_eq!(env.run().succeeds().counts().rejected, 40);
    env.pgsluice(&["rejects", "retry"]).succeeds();
    assert_eq!(env.database.count("pgsluice.reject"), 40);
}

/// Sends three messages of this device type among others; they must be the rejects. Returns one of them.
fn refused_by_postgres(env: &TestEnv, device_type: &str) -> Value {
    let body = |index: usize| {
        let mut body = login(&format!("neighbour {index}"));
        if [0, 7, 19].contains(&index) {
            body["device_type"] = json!(device_type);
        }
        body.to_string()
    };
    env.queue.send(&(0..20).map(body).collect::<Vec<_>>());
    let outcome = env.run().succeeds();
    let expected = Counts { received: 20, loaded: 17, rejected: 3, acknowledged: 20, ..Counts::default() };
    assert_eq!(outcome.counts(), expected);
    assert_eq!(rejects_in_the_report(&outcome), counted(rejects_in_files(env)));
    assert_eq!(env.database.count("user_logins"), 17);
    assert_eq!(rejects_in_the_ledger(env), rejects_in_files(env));
    env.staged_objects("rejects").remove(0)
}

/// Stage, field and reason.
type Why = (String, Option<String>, String);
type RejectSet = BTreeMap<String, Why>;

fn counted(rejects: RejectSet) -> BTreeMap<Why, u64> {
    let mut counts = BTreeMap::new();
    for why in rejects.into_values() {
        *counts.entry(why).or_default() += 1;
    }
    counts
}

fn rejects_in_the_report(outcome: &Outcome) -> BTreeMap<Why, u64> {
    let counts = outcome.report().rejects_by_reason.into_iter();
    counts.map(|rejects| ((rejects.stage, rejects.field, rejects.reason), rejects.count)).collect()
}

fn rejects_in_files(env: &TestEnv) -> RejectSet {
    let entry = |line: Value| {
        let text = |name: &str| line[name].as_str().map(str::to_owned);
        (text("message_id").unwrap(), (text("stage").unwrap(), text("field"), text("reason").unwrap()))
    };
    env.staged_objects("rejects").into_iter().map(entry).collect()
}

fn rejects_in_the_ledger(env: &TestEnv) -> RejectSet {
    let rows = env.database.rows("select message_id, stage, field, reason from pgsluice.reject");
    let entry = |row: Vec<Option<String>>| match &row[..] {
        [Some(message_id), Some(stage), field, Some(reason)] => {
            (message_id.clone(), (stage.clone(), field.clone(), reason.clone()))
        }
        _ => panic!("{row:?}"),
    };
    rows.into_iter().map(entry).collect()
}

/// `numeric(6,2)` took 1.24 for 1.239, and `varchar(32)` a text without its last blanks; the run ended with 0.
#[test]
fn a_column_that_would_change_values_in_silence_stops_the_run_until_the_mapping_says_what_fits() {
    let env = TestEnv::new(Server::Embedded);
    env.database.execute("create table prices (item varchar(32), price numeric(6,2), paid timestamptz)");
    let mapping = |item: &str, price: &str| {
        format!(
            "[pipeline]\nname = \"prices\"\ntable = \"prices\"\n[[column]]\nname = \"item\"\n{item}\n\
             [[column]]\nname = \"price\"\ntype = \"numeric\"\n{price}\n[[column]]\nname = \"paid\"\ntype = \"timestamptz\"\n"
        )
    };
    let bodies = [
        json!({"item": "pear", "price": 1.23, "paid": "2026-01-02T03:04:05.123456000Z"}),
        json!({"item": "apple", "price": 1.239, "paid": null}),
        json!({"item": format!("fig{}", " ".repeat(40)), "price": 1, "paid": null}),
        json!({"item": "plum", "price": "2.50", "paid": "2026-01-02T03:04:05.1234567Z"}),
    ];
    env.queue.send(&bodies.map(|body| body.to_string()));
    env.configure(&mapping("", ""));
    let outcome = env.run().fails(2, "add max_length = 32", "[[column]]");
    assert!(outcome.stderr.contains("add scale = 2"), "one error names all: {outcome}");
    assert_eq!(env.queue.counts().visible, 4, "nothing was received");

    env.configure(&mapping("max_length = 32", "scale = 2"));
    let counts = env.run().succeeds().counts();
    assert_eq!((counts.loaded, counts.rejected), (1, 3));
    let kept = env.database.texts("select concat_ws(' ', item, price, extract(microseconds from paid)) from prices");
    assert_eq!(kept, ["pear 1.23 5123456"]);
    let reasons: BTreeSet<String> = rejects_in_files(&env).into_values().map(|(.., reason)| reason).collect();
    let expected = [
        "item is longer than 32 characters",
        "paid has a fraction of a microsecond, which Postgres would round",
        "price has more than 2 decimal digits",
    ];
    assert_eq!(reasons.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

/// Every message was rejected by the table, since none fitted, and the run ended with 0.
#[test]
fn a_masked_column_that_is_too_narrow_for_any_value_stops_the_run_before_the_first_receive() {
    let env = TestEnv::new(Server::Embedded);
    env.database.execute("alter table user_logins alter masked_ip type varchar(64)");
    env.configure("[[column]]\nname = \"masked_ip\"\nfrom = \"/ip\"\nmask = \"siv\"\n");
    env.queue.send(&[login("a user").to_string()]);
    env.run().fails(2, "column masked_ip holds 64 characters, and a masked value has 73 or more", "");
    env.configure("[[column]]\nname = \"masked_ip\"\nfrom = \"/ip\"\nmask = \"siv\"\nmax_length = 64\n");
    env.run().fails(2, "a masked value has 73 characters or more, and max_length is 64", "");
    assert_eq!(env.queue.counts().visible, 1);
}
