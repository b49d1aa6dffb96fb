//! No column is written with a key that nobody meant: what the ledger knows of keys, and who is refused.

use std::fs;
use std::process::Command;

use crate::logins::login;
use crate::testenv::{FIXED_IV, KEY, Outcome, Server, TestEnv};

const USAGE: i32 = 2;
const OTHER_KEY: &str = "000102030405060708090a0b0c0d0e0f";
/// What `siv` texts of these keys begin with.
const ID: &str = "76b0f3af";
const OTHER_ID: &str = "20cebe10";

fn env_with_a_row() -> TestEnv {
    let env = TestEnv::new(Server::Embedded);
    send(&env, "first");
    env.run().succeeds();
    env
}

fn send(env: &TestEnv, user: &str) {
    env.queue.send(&[login(user).to_string()]);
}

/// How many columns know each key, by its id.
fn known(env: &TestEnv) -> Vec<(String, String)> {
    let rows =
        env.database.rows("select key_id, count(*) from pgsluice.masking group by 1 order by min(first_used_at)");
    rows.into_iter().map(|row| (row[0].clone().unwrap(), row[1].clone().unwrap())).collect()
}

/// The users whose address was masked with this key.
fn users(env: &TestEnv, id: &str) -> Vec<String> {
    env.database.texts(&format!("select user_id from user_logins where masked_ip like '{id}:%' order by 1"))
}

fn refused(outcome: Outcome) -> Outcome {
    outcome.fails(
        USAGE,
        &format!("column masked_ip of table public.user_logins has been written with key {ID} (siv)"),
        "--new-key",
    )
}

/// It was accepted in silence: joins broke, and the only copy of the key was in a shell.
#[test]
fn a_run_with_another_key_is_refused_before_it_receives_anything_and_names_both() {
    let mut env = env_with_a_row();
    assert_eq!(known(&env), [(ID.to_owned(), "2".to_owned())]);
    send(&env, "second");
    env.set("PGSLUICE_KEY", OTHER_KEY);
    let outcome = refused(env.run());
    assert!(outcome.stderr.contains(&format!("this key is {OTHER_ID} (siv)")), "{outcome}");
    refused(env.job(&["replay"]));
    refused(env.job(&["rejects", "retry"]));
    env.queue.assert_untouched(1);
    assert_eq!(known(&env), [(ID.to_owned(), "2".to_owned())]);
}

#[test]
fn a_new_key_that_is_meant_is_taken_and_known_from_then_on() {
    let mut env = env_with_a_row();
    env.set("PGSLUICE_KEY", OTHER_KEY);
    send(&env, "second");
    env.job(&["run", "--new-key"]).succeeds();
    send(&env, "third");
    env.run().succeeds();
    env.set("PGSLUICE_KEY", KEY);
    send(&env, "fourth");
    env.run().succeeds();
    assert_eq!(users(&env, OTHER_ID), ["second", "third"]);
    assert_eq!(users(&env, ID), ["first", "fourth"]);
    assert_eq!(known(&env), [ID, OTHER_ID].map(|id| (id.to_owned(), "2".to_owned())));
}

/// Each host has a copy of the keyring; a step reaches one host after the other, while both load.
#[test]
fn a_key_rotates_in_two_steps_while_two_hosts_load() {
    let mut env = TestEnv::new(Server::Embedded);
    env.unset("PGSLUICE_KEY");
    let [first, second] = ["first.toml", "second.toml"];
    let copy = |env: &TestEnv| assert!(fs::copy(env.path(first), env.path(second)).unwrap() > 0);
    let load = |env: &TestEnv, user: &str, ring: &str| {
        send(env, user);
        let staging = ring.trim_end_matches(".toml");
        env.job(&["run", "--key-file", ring, "--staging-dir", staging]).succeeds();
    };
    env.pgsluice(&["keygen", "--out", first]).succeeds();
    copy(&env);
    load(&env, "a1", first);
    load(&env, "b1", second);

    env.pgsluice(&["keygen", "--add", "--key-file", first]).succeeds();
    load(&env, "a2", first);
    load(&env, "b2", second);
    copy(&env);
    let added: toml::Table = fs::read_to_string(env.path(first)).unwrap().parse().unwrap();
    let [old, new] = [0, 1].map(|index| added["key"][index]["id"].as_str().unwrap().to_owned());

    env.pgsluice(&["keygen", "--promote", &new, "--key-file", first]).succeeds();
    load(&env, "a3", first);
    load(&env, "b3", second);
    copy(&env);
    load(&env, "b4", second);

    assert_eq!(
        (users(&env, &old), users(&env, &new)),
        (["a1", "a2", "b1", "b2", "b3"].map(str::to_owned).to_vec(), ["a3", "b4"].map(str::to_owned).to_vec(),)
    );
    assert_eq!(known(&env), [old, new].map(|id| (id, "2".to_owned())));
    let masked = env.database.texts("select masked_ip from user_logins").join("\n");
    for ring in [first, second] {
        let revealed = env.pgsluice_with_input(&["reveal", "--key-file", ring], &masked).succeeds();
        assert_eq!(revealed.stdout, "199.172.111.135\n".repeat(7));
    }
}

/// `load` has no key: the manifest says which one its chunk was made with.
#[test]
fn a_load_refuses_a_chunk_of_another_key_and_takes_one_of_a_rotation() {
    let mut env = env_with_a_row();
    send(&env, "second");
    env.job(&["drain"]).succeeds();
    env.set("PGSLUICE_KEY", OTHER_KEY);
    env.job(&["transform"]).succeeds();
    env.unset("PGSLUICE_KEY");
    refused(env.job(&["load"]));
    assert_eq!(env.database.count("user_logins"), 1);

    // The other key in front of the known one.
    let key = |id: &str, key: &str| {
        format!("[[key]]\nid = \"{id}\"\nalgorithm = \"siv\"\ncreated = \"2026-01-02T03:04:05Z\"\nkey = \"{key}\"\n")
    };
    fs::write(env.path("keys.toml"), key(OTHER_ID, OTHER_KEY) + &key(ID, KEY)).unwrap();
    fs::set_permissions(env.path("keys.toml"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::remove_dir_all(env.path("staging/chunks")).unwrap();
    env.job(&["transform", "--key-file", "keys.toml"]).succeeds();
    env.job(&["load"]).succeeds();
    assert_eq!((users(&env, ID), users(&env, OTHER_ID)), (vec!["first".to_owned()], vec!["second".to_owned()]));
}

/// A text of `fixed` names no key, so that only the ledger can tell.
#[test]
fn another_key_or_iv_of_fixed_is_refused() {
    let mut env = TestEnv::new(Server::Embedded);
    let mapping = fs::read_to_string(crate::testenv::project_path("pgsluice.toml")).unwrap();
    env.configure(&mapping.replace("mask       = \"siv\"", "mask       = \"fixed\""));
    env.set("PGSLUICE_FIXED_IV", FIXED_IV);
    send(&env, "first");
    env.run().succeeds();
    send(&env, "second");
    env.set("PGSLUICE_FIXED_IV", OTHER_KEY);
    env.run().fails(USAGE, "column masked_ip of table public.user_logins has been written with key", "--new-key");
    env.set("PGSLUICE_FIXED_IV", FIXED_IV);
    env.set("PGSLUICE_KEY", OTHER_KEY);
    env.run().fails(USAGE, "(fixed)", "--new-key");
    env.queue.assert_untouched(1);
}

/// The ledger is younger than the table: an upgrade, or a restored ledger. `siv` texts name their key.
#[test]
fn keys_that_the_ledger_does_not_have_are_found_in_the_table() {
    let mut env = env_with_a_row();
    send(&env, "second");
    env.database.execute("delete from pgsluice.masking");
    env.set("PGSLUICE_KEY", OTHER_KEY);
    refused(env.run());
    env.queue.assert_untouched(1);
    assert!(known(&env).is_empty());
    env.set("PGSLUICE_KEY", KEY);
    env.run().succeeds();
    assert_eq!(known(&env), [(ID.to_owned(), "2".to_owned())]);
}

/// A table that nobody has written to has no key, and the first one counts: of two hosts, only one can be first.
#[test]
fn of_two_first_runs_with_different_keys_one_is_refused() {
    for isolation in ["read committed", "repeatable read", "serializable"] {
        let env = TestEnv::new(Server::Embedded);
        let database = env.database.texts("select quote_ident(current_database())").remove(0);
        env.database.execute(&format!("alter database {database} set default_transaction_isolation = '{isolation}'"));
        env.queue.send(&(0..20).map(|user| login(&user.to_string()).to_string()).collect::<Vec<_>>());
        let start = |name: &str, key: &str| {
            let mut command: Command = env.command(env!("CARGO_BIN_EXE_pgsluice"));
            let report = format!("{name}.json");
            command.args(["run", "--idle", "1s", "--staging-dir", name, "--report", &report]).env("PGSLUICE_KEY", key);
            env.start_prepared(command, &report)
        };
        let hosts = [start("a", KEY), start("b", OTHER_KEY)];
        let codes = hosts.map(|host| host.ended().code.unwrap());
        assert_eq!(codes.iter().filter(|code| **code == USAGE).count(), 1, "{codes:?}");
        let written = env.database.texts("select distinct left(masked_ip, 8) from user_logins");
        assert_eq!(known(&env).len(), 1);
        assert_eq!(written, [known(&env)[0].0.clone()]);
    }
}

/// The rows of a column are bound to its name. `mask_name` keeps the one that they were masked under.
#[test]
fn a_renamed_column_stays_readable_joins_and_knows_its_keys() {
    let mut env = env_with_a_row();
    env.database.execute("alter table user_logins rename masked_ip to address");
    let mapping = fs::read_to_string(crate::testenv::project_path("pgsluice.toml")).unwrap();
    let renamed = mapping.replace("name       = \"masked_ip\"", "name       = \"address\"");
    env.configure(&renamed.replace("from       = \"/ip\"", "from       = \"/ip\"\nmask_name  = \"masked_ip\""));
    send(&env, "second");
    env.run().succeeds();
    let texts = env.database.texts("select distinct address from user_logins");
    assert_eq!(texts.len(), 1, "equal values have equal texts before and after");
    assert_eq!(env.pgsluice(&["reveal", &texts[0]]).succeeds().stdout, "199.172.111.135\n");
    env.set("PGSLUICE_KEY", OTHER_KEY);
    refused_as_renamed(env.run());

    env.configure(&renamed);
    env.set("PGSLUICE_KEY", KEY);
    env.pgsluice(&["reveal", &texts[0]]).fails(1, "not masked for a column of", "mask_name");
}

fn refused_as_renamed(outcome: Outcome) {
    outcome.fails(USAGE, "column masked_ip of table public.user_logins has been written", "--new-key");
}
