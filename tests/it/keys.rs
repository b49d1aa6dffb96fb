//! Keys: the keyring and its commands, the sources that keys come from, and who may read them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::logins::login;
use crate::testenv::{FIXED_IV, KEY, Server, TestEnv, wait_until};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const IP: &str = "199.172.111.135";

/// The id of the key of the tests for `siv`, and with its IV for `fixed`.
const SIV_ID: &str = "76b0f3af";

fn keyring(env: &TestEnv) -> toml::Table {
    fs::read_to_string(env.path("keys.toml")).unwrap().parse().unwrap()
}

/// Id and algorithm of each key, in their order.
fn keys(env: &TestEnv) -> Vec<(String, String)> {
    let text = |key: &toml::Value, name: &str| key[name].as_str().unwrap().to_owned();
    keyring(env)["key"].as_array().unwrap().iter().map(|key| (text(key, "id"), text(key, "algorithm"))).collect()
}

fn ids(env: &TestEnv) -> Vec<String> {
    keys(env).into_iter().map(|(id, _)| id).collect()
}

fn set_mode(env: &TestEnv, name: &str, mode: u32) {
    fs::set_permissions(env.path(name), PermissionsExt::from_mode(mode)).unwrap();
}

/// A program in the test's directory.
fn write_script(env: &TestEnv, name: &str, text: &str) {
    fs::write(env.path(name), format!("#!/bin/sh\n{text}\n")).unwrap();
    set_mode(env, name, 0o700);
}

/// Loads one login, and gives back the text of its masked address.
fn load_one(env: &TestEnv, user: &str) -> String {
    env.queue.send(&[login(user).to_string()]);
    env.run().succeeds();
    env.database.texts(&format!("select masked_ip from user_logins where user_id = '{user}'")).remove(0)
}

#[test]
fn keygen_makes_a_private_keyring_that_masks_and_never_overwrites_one() {
    let env = TestEnv::with_keyring();
    assert_eq!(fs::metadata(env.path("keys.toml")).unwrap().permissions().mode() & 0o777, 0o600);
    let masked = load_one(&env, "a");
    assert_eq!(masked[..8], ids(&env)[0]);
    assert_eq!(env.pgsluice(&["reveal", &masked]).succeeds().stdout, format!("{IP}\n"));

    let before = keyring(&env);
    env.pgsluice(&["keygen", "--out", "keys.toml"]).fails(USAGE, "keys.toml", "never overwritten");
    assert_eq!(keyring(&env), before);
}

/// The id of a key follows from it, so the same key is the same one in every source.
#[test]
fn a_value_that_was_masked_with_the_environments_key_stays_readable_from_a_keyring() {
    let mut env = TestEnv::new(Server::Embedded);
    let masked = load_one(&env, "a");
    assert_eq!(masked[..8], *SIV_ID);
    env.unset("PGSLUICE_KEY");
    let created = "2026-01-02T03:04:05Z";
    let ring = format!("[[key]]\nid = \"{SIV_ID}\"\nalgorithm = \"siv\"\ncreated = \"{created}\"\nkey = \"{KEY}\"\n");
    fs::write(env.path("keys.toml"), &ring).unwrap();
    set_mode(&env, "keys.toml", 0o600);
    let reveal = ["reveal", "--key-file", "keys.toml", &masked];
    assert_eq!(env.pgsluice(&reveal).succeeds().stdout, format!("{IP}\n"));

    fs::write(env.path("keys.toml"), ring.replace(SIV_ID, "00000000")).unwrap();
    let outcome = env.pgsluice(&reveal).fails(USAGE, "line 1: the id that follows from this key is 76b0f3af", "keygen");
    assert!(!outcome.stderr.contains(KEY), "{outcome}");
}

#[test]
fn a_key_is_added_behind_the_others_and_encrypts_once_it_is_promoted() {
    let env = TestEnv::with_keyring();
    let first = load_one(&env, "a");
    env.pgsluice(&["keygen", "--add"]).succeeds();
    let [old, new] = ids(&env).try_into().unwrap();
    assert_eq!((&first[..8], &load_one(&env, "b")[..8]), (old.as_str(), old.as_str()));

    env.pgsluice(&["keygen", "--promote", "00000000"]).fails(USAGE, "no key 00000000", "one of these");
    env.pgsluice(&["keygen", "--promote", &new]).succeeds();
    assert_eq!(ids(&env), [new.clone(), old]);
    let second = load_one(&env, "c");
    assert_eq!(second[..8], new);
    assert_eq!(env.pgsluice(&["reveal", &first, &second]).succeeds().stdout, format!("{IP}\n{IP}\n"));
    assert_eq!(fs::metadata(env.path("keys.toml")).unwrap().permissions().mode() & 0o777, 0o600);
}

/// Tables that were masked by `fixed` before: their key and IV come in from where they were.
#[test]
fn the_key_and_iv_of_existing_tables_enter_a_keyring_from_the_environment() {
    let mut env = TestEnv::with_keyring();
    env.set("PGSLUICE_KEY", KEY);
    env.set("PGSLUICE_FIXED_IV", FIXED_IV);
    env.pgsluice(&["keygen", "--add", "--algorithm", "fixed"]).succeeds();
    env.unset("PGSLUICE_KEY");
    env.unset("PGSLUICE_FIXED_IV");
    assert_eq!(keys(&env)[1].1, "fixed");
    // Computed by openssl.
    let masked = "0ca98bdb16538050f135562323eb6072";
    assert_eq!(env.pgsluice(&["reveal", masked]).succeeds().stdout, format!("{IP}\n"));
    env.pgsluice(&["keygen", "--add", "--algorithm", "spool"]).succeeds();
    assert_eq!(keys(&env)[2].1, "spool");
}

/// What `fixed` leaks of a value would be known of the values of `siv` too.
#[test]
fn one_key_for_two_methods_is_refused() {
    let mut env = TestEnv::new(Server::Embedded);
    env.set("PGSLUICE_FIXED_IV", FIXED_IV);
    env.configure(
        "[pipeline]\nname = \"two\"\ntable = \"two\"\n[[column]]\nname = \"ip\"\nmask = \"siv\"\n\
         [[column]]\nname = \"device_id\"\nmask = \"fixed\"\n",
    );
    env.database.execute("create table two (ip text, device_id text)");
    env.queue.send(&[login("a").to_string()]);
    env.run().fails(USAGE, "by siv and by fixed, with one key", "key of its own");
    assert_eq!(env.queue.counts().visible, 1);

    env.unset("PGSLUICE_FIXED_IV");
    env.make_keyring();
    env.pgsluice(&["keygen", "--add", "--algorithm", "fixed"]).succeeds();
    env.run().succeeds();
    let key = keyring(&env)["key"][0]["key"].as_str().unwrap().to_owned();
    env.set("PGSLUICE_KEY", &key);
    env.set("PGSLUICE_FIXED_IV", FIXED_IV);
    env.pgsluice(&["keygen", "--add", "--algorithm", "fixed"]).fails(USAGE, "is the same as key", "key of its own");
}

#[test]
fn two_sources_of_keys_are_refused_and_named() {
    let mut env = TestEnv::with_keyring();
    env.configure("key_command = [\"cat\", \"keys.toml\"]\n");
    env.pgsluice(&["reveal", "x"]).fails(USAGE, "--key-file or PGSLUICE_KEY_FILE, and key_command", "unset one");
    env.unset("PGSLUICE_KEY_FILE");
    env.set("PGSLUICE_KEY", KEY);
    env.pgsluice(&["reveal", "x"]).fails(USAGE, "key_command, and PGSLUICE_KEY", "unset one");
    env.configure("");
    env.set("PGSLUICE_KEY_FILE", "keys.toml");
    env.run().fails(USAGE, "--key-file or PGSLUICE_KEY_FILE, and PGSLUICE_KEY", "unset one");
}

/// Kubernetes shows a secret through two symbolic links; what counts is the file behind them.
#[test]
fn a_keyring_that_others_may_touch_is_refused_behind_links_too() {
    let mut env = TestEnv::with_keyring();
    let masked = load_one(&env, "a");
    fs::create_dir(env.path("..data")).unwrap();
    fs::rename(env.path("keys.toml"), env.path("..data/keys.toml")).unwrap();
    symlink("..data/keys.toml", env.path("keys.toml")).unwrap();
    env.set("PGSLUICE_KEY_FILE", env.path("keys.toml").display().to_string());
    for (mode, problem) in [
        (0o600, None),
        (0o440, None),
        (0o644, Some("may be read by every user")),
        (0o444, Some("may be read by every user")),
        (0o620, Some("may be written by others")),
        (0o666, Some("may be written by others")),
    ] {
        set_mode(&env, "..data/keys.toml", mode);
        let outcome = env.pgsluice(&["reveal", &masked]);
        match problem {
            None => assert_eq!(outcome.succeeds().stdout, format!("{IP}\n")),
            Some(problem) => drop(outcome.fails(USAGE, problem, "chmod 600")),
        }
    }
}

/// sops, age and clients of Vault are configured by the environment, and need nothing of what pgsluice has there.
#[test]
fn a_key_command_gets_no_settings_of_pgsluice_and_keeps_the_rest_of_the_environment() {
    let mut env = TestEnv::with_keyring();
    env.unset("PGSLUICE_KEY_FILE");
    env.set("PGPASSWORD", "hidden");
    env.set("VAULT_ADDR", "https://vault.example.com");
    write_script(&env, "print-keys", "env > environment\necho 'asking for keys' >&2\ncat \"$1\"");
    env.configure("key_command = [\"./print-keys\", \"keys.toml\"]\n");
    let masked = load_one(&env, "a");
    let outcome = env.pgsluice(&["reveal", &masked]).succeeds();
    assert_eq!((outcome.stdout, outcome.stderr), (format!("{IP}\n"), "asking for keys\n".to_owned()));

    let seen = fs::read_to_string(env.path("environment")).unwrap();
    let names: Vec<&str> = seen.lines().filter_map(|line| line.split('=').next()).collect();
    let is_ours = |name: &&&str| name.starts_with("PG") || **name == "DATABASE_URL";
    assert_eq!(names.iter().find(is_ours), None, "{names:?}");
    for kept in ["VAULT_ADDR", "HOME", "AWS_REGION"] {
        assert!(names.contains(&kept), "{kept}: {names:?}");
    }
}

#[test]
fn a_key_command_that_gives_no_keyring_ends_the_run_before_anything_is_received() {
    let mut env = TestEnv::new(Server::Embedded);
    env.unset("PGSLUICE_KEY");
    env.queue.send(&[login("a").to_string()]);
    write_script(&env, "fail", "echo 'no such key' >&2\nexit 3");
    write_script(&env, "talk", "echo secret-that-is-no-keyring");
    for (command, code, error) in [
        ("[\"./fail\"]", FAILED, "key_command failed: exit status: 3"),
        ("[\"./talk\"]", USAGE, "the keyring of key_command is not valid: line 1"),
        ("[\"./missing\"]", USAGE, "key_command cannot be run: ./missing"),
        ("[]", USAGE, "expected a list of a program and its arguments"),
        ("[\"yes\"]", FAILED, "key_command prints more than"),
    ] {
        env.configure(&format!("key_command = {command}\n"));
        let outcome = env.run().fails(code, error, "");
        assert!(!outcome.stderr.contains("secret-that-is-no-keyring"), "{outcome}");
        assert_eq!(env.queue.counts().visible, 1);
    }
}

/// Each stage that neither masks nor reveals runs without a key, so that its host need not have one.
#[test]
fn only_the_transform_needs_a_key() {
    let mut env = TestEnv::new(Server::Embedded);
    env.unset("PGSLUICE_KEY");
    env.queue.send(&[login("a").to_string()]);
    env.job(&["drain"]).succeeds();
    env.job(&["transform"]).fails(USAGE, "PGSLUICE_KEY", "keygen");
    env.set("PGSLUICE_KEY", KEY);
    env.job(&["transform"]).succeeds();
    env.unset("PGSLUICE_KEY");
    env.job(&["load"]).succeeds();
    env.job(&["ack"]).succeeds();
    assert_eq!(env.database.texts("select user_id from user_logins"), ["a"]);
}

/// The AWS SDK runs `credential_process` with the environment of this process.
#[test]
fn a_credential_process_inherits_no_key() {
    let mut env = TestEnv::new(Server::Embedded);
    env.unset("AWS_ACCESS_KEY_ID");
    env.unset("AWS_SECRET_ACCESS_KEY");
    env.set("PGSLUICE_FIXED_IV", FIXED_IV);
    let credentials = r#"{"Version":1,"AccessKeyId":"test","SecretAccessKey":"test-secret"}"#;
    write_script(
        &env,
        "credentials",
        &format!("env > environment\ncat \"$PGSLUICE_KEY_PIPE\" > pipe\necho '{credentials}'"),
    );
    let program = env.path("credentials").display().to_string();
    fs::write(env.path("aws.ini"), format!("[default]\ncredential_process = {program}\n")).unwrap();
    env.set("AWS_CONFIG_FILE", env.path("aws.ini").display().to_string());
    let masked = load_one(&env, "a");
    assert_eq!(masked[..8], *SIV_ID, "the key is known all the same");

    let seen = fs::read_to_string(env.path("environment")).unwrap();
    assert!(seen.contains("PGSLUICE_QUEUE_URL="), "{seen}");
    assert!(!seen.contains(KEY) && !seen.contains(FIXED_IV), "{seen}");
    assert_eq!(fs::read_to_string(env.path("pipe")).unwrap(), "", "the pipe is read to its end");
}

/// `ps e`, /proc/…/environ and a core dump are where keys were found.
#[cfg(target_os = "linux")]
#[test]
fn a_running_process_shows_no_key_and_dumps_no_core() {
    let env = TestEnv::new(Server::Embedded);
    let running = env.start(&["run", "--follow"]);
    env.queue.send(&[login("a").to_string()]);
    wait_until(|| env.database.count("user_logins") == 1);
    let of_process = |name: &str| fs::read(format!("/proc/{}/{name}", running.id())).unwrap();
    assert!(!String::from_utf8_lossy(&of_process("environ")).contains(KEY));
    let limits = String::from_utf8(of_process("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
    // Who may not be dumped has files in /proc that are root's.
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{}/environ", running.id())).unwrap());
    assert_eq!(owner, 0);
    running.terminate();
    running.wait();
}

/// A panic's message may hold a value.
#[cfg(feature = "crash-points")]
#[test]
fn a_panic_tells_its_place_and_nothing_else() {
    let mut env = TestEnv::new(Server::Embedded);
    env.queue.send(&[login("a").to_string()]);
    env.set("PGSLUICE_CRASH_POINT", "commit");
    env.set("PGSLUICE_CRASH_PANIC", format!("no address is {IP}"));
    let outcome = env.run().ends_with(70);
    assert!(outcome.stderr.contains("panicked at src/crash_point.rs:"), "{outcome}");
    assert!(!outcome.stderr.contains(IP), "{outcome}");
    let report = fs::read_to_string(env.path("report.json")).unwrap();
    assert!(!report.contains(IP), "{report}");
}

/// The key of docker-compose.yml is for trying out.
#[test]
fn a_public_key_is_warned_of() {
    let mut env = TestEnv::new(Server::Embedded);
    let compose = fs::read_to_string(crate::testenv::project_path("docker-compose.yml")).unwrap();
    let key = compose.split("${PGSLUICE_KEY:-").nth(1).unwrap().split('}').next().unwrap();
    env.queue.send(&[login("a").to_string()]);
    assert!(!env.run().succeeds().stderr.contains("docker-compose.yml"));
    env.set("PGSLUICE_KEY", key);
    env.queue.send(&[login("b").to_string()]);
    let outcome = env.job(&["run", "--new-key"]).succeeds();
    assert!(outcome.stderr.contains("the key of docker-compose.yml, which is public"), "{outcome}");
}

/// The secret's text is a keyring, as a file's would be.
#[cfg(feature = "aws-secretsmanager")]
#[test]
fn a_keyring_comes_from_aws_secrets_manager() {
    let mut env = TestEnv::new(Server::LocalStack);
    env.unset("PGSLUICE_KEY");
    env.pgsluice(&["keygen", "--out", "keys.toml"]).succeeds();
    let ring = fs::read_to_string(env.path("keys.toml")).unwrap();
    fs::remove_file(env.path("keys.toml")).unwrap();
    let name = create_secret(&env, &ring);
    env.configure(&format!("key_source = \"aws-secretsmanager:{name}\"\n"));
    let masked = load_one(&env, "a");
    assert!(ring.contains(&format!("\"{}\"", &masked[..8])));
    assert_eq!(env.pgsluice(&["reveal", &masked]).succeeds().stdout, format!("{IP}\n"));
    let outcome = env.pgsluice(&["-vv", "reveal", &masked]).succeeds();
    let key = ring.split("key       = \"").nth(1).unwrap().split('"').next().unwrap();
    assert!(!outcome.stderr.contains(key), "{outcome}");

    env.configure("key_source = \"aws-secretsmanager:missing\"\n");
    env.pgsluice(&["reveal", &masked]).fails(FAILED, "cannot read the secret missing", "GetSecretValue");
}

#[cfg(feature = "aws-secretsmanager")]
fn create_secret(env: &TestEnv, text: &str) -> String {
    use aws_sdk_secretsmanager::config::{BehaviorVersion, Credentials, Region};
    let config = aws_sdk_secretsmanager::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "tests"))
        .endpoint_url(env.queue.endpoint())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    let name = format!("test-{}", uuid::Uuid::now_v7());
    let create =
        aws_sdk_secretsmanager::Client::from_conf(config).create_secret().name(&name).secret_string(text).send();
    tokio::runtime::Runtime::new().unwrap().block_on(create).unwrap();
    name
}

/// A build without it says so by name.
#[cfg(not(feature = "aws-secretsmanager"))]
#[test]
fn a_key_source_that_is_not_built_in_is_refused() {
    let mut env = TestEnv::new(Server::Embedded);
    env.unset("PGSLUICE_KEY");
    env.configure("key_source = \"aws-secretsmanager:pgsluice\"\n");
    env.pgsluice(&["reveal", "x"]).fails(USAGE, "built without the feature aws-secretsmanager", "--features");
    env.configure("key_source = \"vault:pgsluice\"\n");
    env.pgsluice(&["reveal", "x"]).fails(USAGE, "key_source is not valid: expected \"aws-secretsmanager:\"", "");
}
