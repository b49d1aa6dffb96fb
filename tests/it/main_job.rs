//! The main job, on the queue server inside the program and on a third party's: everything below runs on both, as a role
//! that may load and no more.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::logins::{PLAIN_COLUMNS, expected_rows, generated, logins_of, sample};
use crate::testenv::{Counts, FIXED_IV, KEY, Server, TestEnv};

const ALL_ROWS: &str = "select * from user_logins order by user_id";
const GENERATED: usize = 500;

const FIXED_MASK: &str = r#"
[[column]]
name = "user_id"
required = true
max_length = 128
[[column]]
name = "masked_ip"
from = "/ip"
required = true
mask = "fixed"
[[column]]
name = "masked_device_id"
from = "/device_id"
required = true
mask = "fixed"
"#;

/// The sample: 99 rows, 29 of them without locale, one reject, an empty queue.
fn real_messages_become_rows(server: Server) {
    let Some(bodies) = sample() else { return };
    let env = TestEnv::for_loader(server);
    env.queue.send(&bodies);
    let first_day = today(&env);
    let outcome = env.run().succeeds();

    let expected = Counts { received: 100, loaded: 99, rejected: 1, acknowledged: 100, ..Counts::default() };
    assert_eq!(outcome.counts(), expected);
    assert_eq!(outcome.report().queue_empty, Some(true));
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
    assert_eq!(env.database.count("user_logins"), 99);
    assert_eq!(env.database.number("select count(*) from user_logins where locale is null"), 29);
    assert_eq!(env.database.count("pgsluice.reject"), 1);
    assert_eq!(plain_rows(&env), expected_rows(&bodies));
    let days = env.database.texts("select distinct create_date from user_logins");
    assert!(days.iter().all(|day| [&first_day, &today(&env)].contains(&day)), "{days:?}");
}

fn generated_messages_become_rows(server: Server) {
    let bodies = generated(GENERATED);
    let (logins, all) = (logins_of(&bodies).len() as u64, bodies.len() as u64);
    assert!(logins < all, "some messages are of another kind");
    let env = TestEnv::for_loader(server);
    env.queue.send(&bodies);
    let outcome = env.run().succeeds();

    let expected =
        Counts { received: all, loaded: logins, rejected: all - logins, acknowledged: all, ..Counts::default() };
    assert_eq!(outcome.counts(), expected);
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
    assert_eq!(plain_rows(&env), expected_rows(&bodies));
    assert_eq!(env.staged_objects("rejects").len() as u64, all - logins);
}

fn a_second_run_changes_nothing(server: Server) {
    let env = TestEnv::for_loader(server);
    env.queue.send(&generated(50));
    env.run().succeeds();
    let rows = env.database.rows(ALL_ROWS);

    let second = env.run().succeeds();
    assert_eq!(second.counts(), Counts::default());
    assert_eq!(second.report().queue_empty, Some(true));
    assert_eq!(env.database.rows(ALL_ROWS), rows);
}

fn a_replay_into_the_same_database_changes_nothing(server: Server) {
    let env = TestEnv::for_loader(server);
    env.queue.send(&generated(50));
    env.run().succeeds();
    let rows = env.database.rows(ALL_ROWS);

    let replay = env.job(&["replay"]).succeeds();
    assert_eq!(replay.counts(), Counts { received: 50, duplicates: 50, ..Counts::default() });
    assert_eq!(env.database.rows(ALL_ROWS), rows);
}

fn a_replay_into_an_empty_database_gives_the_same_rows(server: Server) {
    let mut env = TestEnv::for_loader(server);
    env.queue.send(&generated(50));
    let loaded = env.run().succeeds().counts().loaded;
    let rows = env.database.rows(ALL_ROWS);

    env.change_database();
    env.grant("loader");
    env.log_in_as("loader");
    env.unset("AWS_ENDPOINT_URL");
    env.unset("AWS_REGION");
    let replay = env.job(&["replay"]).succeeds();
    assert_eq!(replay.counts(), Counts { received: 50, loaded, rejected: 50 - loaded, ..Counts::default() });
    assert_eq!(env.database.rows(ALL_ROWS), rows);
}

/// Every value must equal what another implementation of AES-CBC makes of it.
fn fixed_masks_equal_those_of_openssl(server: Server) {
    let bodies = sample().unwrap_or_else(|| generated(100));
    let mut env = TestEnv::for_loader(server);
    env.set("PGSLUICE_FIXED_IV", FIXED_IV);
    env.configure(FIXED_MASK);
    env.queue.send(&bodies);
    env.run().succeeds();

    let rows = env.database.rows("select user_id, masked_ip, masked_device_id from user_logins");
    let text = |login: &Value, field: &str| login[field].as_str().unwrap().to_owned();
    let logins: BTreeMap<String, Value> =
        logins_of(&bodies).into_iter().map(|login| (text(&login, "user_id"), login)).collect();
    assert_eq!(rows.len(), logins.len());
    for row in rows {
        let [Some(user_id), Some(ip), Some(device_id)] = &row[..] else { panic!("a null in {row:?}") };
        let login = &logins[user_id];
        let Some(expected) = masked_by_openssl(&text(login, "ip")) else { return };
        assert_eq!(*ip, expected);
        assert_eq!(Some(device_id), masked_by_openssl(&text(login, "device_id")).as_ref());
    }
}

/// The default mask: `reveal` gives back what was masked.
fn revealed_values_are_those_that_were_sent(server: Server) {
    let bodies = generated(50);
    let env = TestEnv::for_loader(server);
    env.queue.send(&bodies);
    env.run().succeeds();

    for (column, field) in [("masked_ip", "ip"), ("masked_device_id", "device_id")] {
        let masked = env.database.texts(&format!("select {column} from user_logins"));
        let sent: BTreeSet<String> =
            logins_of(&bodies).iter().map(|login| login[field].as_str().unwrap().to_owned()).collect();
        assert!(masked.iter().all(|value| !sent.contains(value)));
        let revealed = env.pgsluice_with_input(&["reveal"], &(masked.join("\n") + "\n")).succeeds();
        assert_eq!(revealed.stdout.lines().map(str::to_owned).collect::<BTreeSet<_>>(), sent);
    }
}

fn versions_become_numbers(server: Server) {
    let env = TestEnv::for_loader(server);
    let versions = [("2.3.0", 230), ("0.96", 96), ("2.00", 200)];
    let body = |version: &str| {
        let mut login = crate::logins::login(version);
        login["app_version"] = version.into();
        login.to_string()
    };
    env.queue.send(&versions.map(|(version, _)| body(version)));
    env.run().succeeds();
    for (version, number) in versions {
        let sql = format!("select app_version from user_logins where user_id = '{version}'");
        assert_eq!(env.database.number(&sql), number);
    }
}

fn plain_rows(env: &TestEnv) -> BTreeSet<Vec<Option<String>>> {
    env.database.rows(&format!("select {PLAIN_COLUMNS} from user_logins")).into_iter().collect()
}

/// The day on which a message sent now was sent, in UTC.
fn today(env: &TestEnv) -> String {
    env.database.texts("select (now() at time zone 'UTC')::date").remove(0)
}

/// `None` where there is no openssl; its result for one value is a constant below.
fn masked_by_openssl(value: &str) -> Option<String> {
    let mut openssl = Command::new("openssl")
        .args(["enc", "-aes-128-cbc", "-K", KEY, "-iv", FIXED_IV])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .inspect_err(|error| eprintln!("not compared with openssl: {error}"))
        .ok()?;
    openssl.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
    let output = openssl.wait_with_output().unwrap();
    assert!(output.status.success());
    Some(hex::encode(output.stdout))
}

/// Computed by `openssl enc -aes-128-cbc`, and the same by Python's cryptography.
#[test]
fn the_fixed_mask_of_a_known_ip_is_the_known_value() {
    let mut env = TestEnv::for_loader(Server::Embedded);
    env.set("PGSLUICE_FIXED_IV", FIXED_IV);
    env.configure(FIXED_MASK);
    env.queue.send(&[crate::logins::login("known").to_string()]);
    env.run().succeeds();
    assert_eq!(env.database.texts("select masked_ip from user_logins"), ["0ca98bdb16538050f135562323eb6072"]);
    assert_eq!(env.database.texts("select masked_device_id from user_logins"), ["78c9fc7d238685d8e81691c33a1b0c15"]);
}

on_each_server!(
    real_messages_become_rows,
    generated_messages_become_rows,
    a_second_run_changes_nothing,
    a_replay_into_the_same_database_changes_nothing,
    a_replay_into_an_empty_database_gives_the_same_rows,
    fixed_masks_equal_those_of_openssl,
    revealed_values_are_those_that_were_sent,
    versions_become_numbers,
);
