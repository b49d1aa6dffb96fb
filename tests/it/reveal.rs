//! `mask` and `reveal` as filters beside psql.

use std::fs;

use crate::logins::login;
use crate::testenv::{KEY, Server, TestEnv, project_path};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const IP: &str = "199.172.111.135";

/// A column that may be null, beside `masked_ip`; and two rows: one of each, with and without a device.
fn env_with_rows() -> TestEnv {
    let env = TestEnv::new(Server::Embedded);
    let mapping = fs::read_to_string(project_path("pgsluice.toml")).unwrap();
    let device = "name       = \"masked_device_id\"\nfrom       = \"/device_id\"\nrequired   = true";
    env.configure(&mapping.replace(device, &device.replace("true", "false")));
    let mut without = login("b, \"the second\"\nof two");
    without["device_id"] = serde_json::Value::Null;
    env.queue.send(&[login("a").to_string(), without.to_string()]);
    env.run().succeeds();
    env
}

/// As psql and COPY print it: null is an empty field, the empty string is `""`.
fn csv(env: &TestEnv) -> String {
    let row = |row: Vec<Option<String>>| {
        let quoted = |text: String| format!("\"{}\"", text.replace('"', "\"\""));
        row.into_iter().map(|field| field.map(quoted).unwrap_or_default()).collect::<Vec<_>>().join(",")
    };
    let sql = "select user_id, masked_device_id, '', masked_ip, null from user_logins order by user_id";
    let rows: Vec<String> = env.database.rows(sql).into_iter().map(row).collect();
    format!("user_id,masked_device_id,empty,masked_ip,nothing\n{}\n", rows.join("\n"))
}

#[test]
fn columns_of_csv_are_revealed_and_all_else_is_copied_byte_for_byte() {
    let env = env_with_rows();
    let reveal = ["reveal", "--csv", "--columns", "masked_ip,masked_device_id"];
    let outcome = env.pgsluice_with_input(&reveal, &csv(&env)).succeeds();
    let device = login("a")["device_id"].as_str().unwrap().to_owned();
    let expected = format!(
        "user_id,masked_device_id,empty,masked_ip,nothing\n\"a\",{device},\"\",{IP},\n\
         \"b, \"\"the second\"\"\nof two\",,\"\",{IP},\n"
    );
    assert_eq!(outcome.stdout, expected);
    assert_eq!(env.pgsluice_with_input(&reveal, "").succeeds().stdout, "");

    let input = csv(&env).replace("masked_ip", "ip");
    env.pgsluice_with_input(&reveal, &input).fails(USAGE, "the header of the CSV has no column masked_ip", "");
    let unmasked = ["reveal", "--csv", "--columns", "user_id"];
    env.pgsluice_with_input(&unmasked, &input).fails(USAGE, "column user_id: the mapping does not mask", "");
    env.pgsluice_with_input(&reveal, "masked_ip,masked_device_id\n\"a,b\n").fails(FAILED, "quote in line 2", "");
}

/// One bad value once ended everything.
#[test]
fn a_record_that_cannot_be_revealed_is_named_by_its_line_and_the_others_are_revealed() {
    let env = env_with_rows();
    let [ip, device] = ["masked_ip", "masked_device_id"]
        .map(|column| env.database.texts(&format!("select {column} from user_logins where user_id = 'a'")).remove(0));
    let lines = format!("{ip}\n\n00000000{}\nnonsense\n{device}\n", &ip[8..]);
    let outcome = env.pgsluice_with_input(&["reveal"], &lines).ends_with(FAILED);
    let shown: Vec<&str> = outcome.stdout.split('\n').collect();
    assert_eq!(shown[..2], [IP, ""]);
    assert_eq!(shown[3..], ["nonsense", login("a")["device_id"].as_str().unwrap(), ""]);
    let told: Vec<&str> = outcome.stderr.lines().collect();
    assert!(told[0].starts_with("error: cannot reveal line 3: masked with key 00000000"), "{told:?}");
    assert!(told[1].starts_with("error: cannot reveal line 4: not a masked value"), "{told:?}");
    assert!(told[2].starts_with("hint: ") && told.len() == 3, "{told:?}");

    // The address in the column of the device: a value that was moved is found out.
    let moved = format!("masked_device_id,masked_ip\n{ip},{ip}\n{device},{device}\n");
    let reveal = ["reveal", "--csv", "--columns", "masked_device_id,masked_ip"];
    let outcome = env.pgsluice_with_input(&reveal, &moved).ends_with(FAILED);
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(lines[1], format!("{ip},{IP}"));
    let told: Vec<&str> = outcome.stderr.lines().collect();
    assert!(told[0].contains("column masked_device_id of line 2: the value was changed, or was not masked for column"));
    assert!(told[1].contains("column masked_ip of line 3"), "{told:?}");
}

#[test]
fn json_comes_in_objects_or_goes_out_as_strings() {
    let env = env_with_rows();
    let sql = "select row_to_json(t) from (select user_id, 1.10 as n, masked_ip, masked_device_id, 12345678901234567890 as big \
               from user_logins order by 1) t";
    let rows: Vec<String> = env.database.rows(sql).into_iter().map(|mut row| row.remove(0).unwrap()).collect();
    let reveal = ["reveal", "--json", "--columns", "masked_ip,masked_device_id"];
    let outcome = env.pgsluice_with_input(&reveal, &format!("{}\n[]\n", rows.join("\n"))).ends_with(FAILED);
    let device = login("a")["device_id"].as_str().unwrap().to_owned();
    let expected = [
        format!(
            "{{\"user_id\":\"a\",\"n\":1.10,\"masked_ip\":\"{IP}\",\"masked_device_id\":\"{device}\",\"big\":12345678901234567890}}"
        ),
        format!(
            "{{\"user_id\":\"b, \\\"the second\\\"\\nof two\",\"n\":1.10,\"masked_ip\":\"{IP}\",\"masked_device_id\":null,\"big\":12345678901234567890}}"
        ),
        "[]".to_owned(),
    ];
    assert_eq!(outcome.stdout.lines().collect::<Vec<_>>(), expected);
    assert!(outcome.stderr.starts_with("error: cannot reveal line 3: not a JSON object"), "{outcome}");

    let masked = env.pgsluice(&["mask", "--column", "masked_ip", "a\"\n\u{1b}"]).succeeds().stdout;
    let outcome = env.pgsluice_with_input(&["reveal", "--json"], &format!("{masked}\n")).succeeds();
    assert_eq!(outcome.stdout, "\"a\\\"\\n\\u001b\"\nnull\n");
}

/// A subject's request: all rows of a value, whichever key they were masked with.
#[test]
fn a_value_is_masked_under_each_key_of_the_ring() {
    let mut env = TestEnv::new(Server::Embedded);
    let [ours] = [env.pgsluice(&["mask", "--column", "masked_ip", IP]).succeeds().stdout];
    env.queue.send(&[login("a").to_string()]);
    env.run().succeeds();
    assert_eq!(env.database.texts("select masked_ip from user_logins"), [ours.trim_end()]);

    env.make_keyring();
    env.pgsluice(&["keygen", "--add"]).succeeds();
    env.pgsluice(&["keygen", "--add", "--algorithm", "fixed"]).succeeds();
    env.pgsluice(&["keygen", "--add", "--algorithm", "spool"]).succeeds();
    let values = [IP, "", "ü"];
    let outcome = env.pgsluice_with_input(&["mask", "--column", "masked_ip"], &values.join("\n")).succeeds();
    let texts: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(texts.len(), 3 * values.len(), "{outcome}");
    let revealed = env.pgsluice_with_input(&["reveal"], &outcome.stdout).succeeds();
    let expected: Vec<&str> = values.iter().flat_map(|value| [*value; 3]).collect();
    assert_eq!(revealed.stdout.lines().collect::<Vec<_>>(), expected);

    env.pgsluice(&["mask", "--column", "user_id", IP]).fails(USAGE, "the mapping does not mask", "");
    env.unset("PGSLUICE_KEY_FILE");
    env.pgsluice(&["mask", "--column", "masked_ip", IP]).fails(USAGE, "PGSLUICE_KEY_FILE", "keygen");
    env.set("PGSLUICE_KEY", KEY);
    assert_eq!(env.pgsluice(&["mask", "--column", "masked_ip", IP]).succeeds().stdout, ours);
}
