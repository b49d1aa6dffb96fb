//! The spool, encrypted at rest: what messages say stands nowhere in the staging directory, and only what reads bodies
//! needs the key.

use std::collections::BTreeMap;
use std::fs;

use memchr::memmem::find;
use serde_json::Value;

use crate::books::assert_balanced;
#[cfg(feature = "crash-points")]
use crate::books::standing;
use crate::logins::{generated_and_another, login, logins_of};
use crate::reject_policy::{mend, misfit};
use crate::testenv::{Queue, QueueKind, Server, TestEnv, files_below};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const WORK_LEFT: i32 = 3;
const LOGINS: usize = 39;
const ENCRYPTED: &str = "[spool]\nencryption = true\nsegment_max_messages = 12\n";

/// Encryption is switched on, and the keyring has a key for it. Gives that key's id.
fn env_with_key(mut env: TestEnv) -> (TestEnv, String) {
    env.make_keyring();
    env.pgsluice(&["keygen", "--add", "--algorithm", "spool"]).succeeds();
    env.configure(ENCRYPTED);
    let id = env.key_ids("spool").remove(0);
    (env, id)
}

/// Texts that nobody may find: fields of the logins, and the other message.
fn secrets(bodies: &[String], fields: &[&str]) -> Vec<String> {
    let text = |login: &Value, field: &&str| login[field].as_str().unwrap().to_owned();
    let logins = logins_of(bodies);
    let mut secrets: Vec<_> = logins.iter().flat_map(|login| fields.iter().map(|field| text(login, field))).collect();
    secrets.push("oops_wrong_msg_type".to_owned());
    secrets
}

fn assert_nowhere(env: &TestEnv, secrets: &[String]) {
    for path in files_below(&env.path("staging")) {
        let bytes = fs::read(&path).unwrap();
        for secret in secrets {
            assert!(find(&bytes, secret.as_bytes()).is_none(), "{secret} in {}", path.display());
        }
    }
}

/// What was encrypted under each nonce, in all files.
fn collect_nonces(env: &TestEnv, seen: &mut BTreeMap<String, String>) {
    for part in ["spool", "committed", "archive", "rejects"] {
        for path in env.staged_files(part) {
            // The last line of an open segment may be torn.
            for line in String::from_utf8_lossy(&fs::read(path).unwrap()).lines() {
                let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
                let Some((nonce, text)) = line["enc"].as_str().and_then(|enc| enc.rsplit_once('.')) else { continue };
                let earlier = seen.insert(nonce.to_owned(), text.to_owned());
                assert!(earlier.is_none_or(|earlier| earlier == text), "{nonce} was used twice");
            }
        }
    }
}

#[test]
fn no_stage_leaves_plaintext_and_load_and_acknowledgement_need_no_key() {
    let (mut env, id) = env_with_key(TestEnv::new(Server::Embedded));
    let bodies = generated_and_another(LOGINS);
    env.queue.send(&bodies);
    let all = secrets(&bodies, &["user_id", "ip", "device_id"]);

    env.job(&["drain"]).succeeds();
    assert_eq!(env.staged_objects("spool").len(), bodies.len());
    for message in env.staged_objects("spool") {
        assert!(message["enc"].as_str().unwrap().starts_with(&format!("{id}.")), "{message}");
        assert!(message.get("body").is_none());
    }
    assert_nowhere(&env, &all);
    env.job(&["transform"]).succeeds();
    // A chunk is what COPY gets: columns that are not masked stand in it until it is loaded.
    assert_nowhere(&env, &secrets(&bodies, &["ip", "device_id"]));

    env.unset("PGSLUICE_KEY_FILE");
    env.job(&["load"]).succeeds();
    assert_nowhere(&env, &all);
    env.job(&["ack"]).succeeds();
    assert_nowhere(&env, &all);
    env.set("PGSLUICE_KEY_FILE", "keys.toml");
    assert_balanced(&env, &bodies);
    assert_eq!(env.staged_objects("rejects").len(), bodies.len() - logins_of(&bodies).len());
    assert_eq!(env.staged_objects("archive").len(), bodies.len());
}

#[test]
fn what_stands_around_a_body_is_encrypted_too_and_a_row_can_be_made_of_it() {
    let (env, _) = env_with_key(TestEnv::with_fifo_queue(Server::Embedded));
    env.database.execute("create table grouped (user_id text, tenant text)");
    env.configure(&format!(
        "{ENCRYPTED}[pipeline]\nname = \"grouped\"\ntable = \"grouped\"\n[[column]]\nname = \"user_id\"\n\
         [[column]]\nname = \"tenant\"\nvalue = \"group_id\"\n"
    ));
    for index in 0..30 {
        env.queue.send_to_group(&format!("tenant-{}", index % 2), &login(&format!("person {index}")).to_string());
    }
    // The others of each group wait for the deletes of its first.
    env.job(&["drain"]).ends_with(WORK_LEFT);
    assert!(!env.staged_objects("spool").is_empty());
    assert_nowhere(&env, &["tenant-0".to_owned(), "tenant-1".to_owned(), "person 3".to_owned()]);
    env.run().succeeds();
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
    let expected: Vec<_> = (0..30).map(|index| format!("person {index} tenant-{}", index % 2)).collect();
    let found = env.database.texts("select user_id || ' ' || tenant from grouped order by substr(user_id, 8)::int");
    assert_eq!(found, expected);
    assert_nowhere(&env, &["tenant-0".to_owned(), "tenant-1".to_owned(), "person 3".to_owned()]);
}

#[test]
fn without_a_key_to_encrypt_with_nothing_is_received() {
    let mut env = TestEnv::new(Server::Embedded);
    env.set("PGSLUICE_SPOOL_ENCRYPTION", "true");
    env.queue.send(&[login("a").to_string()]);
    fs::write(env.path("logins.ndjson"), login("b").to_string()).unwrap();
    for command in [&["run"][..], &["drain"], &["import", "logins.ndjson"], &["check"]] {
        env.pgsluice(command).fails(USAGE, "no key of algorithm spool", "keygen --add --algorithm spool");
    }
    assert_eq!(env.queue.counts().visible, 1);
    assert!(env.staged_files("spool").is_empty());
}

/// Deleting the key erases; putting it back brings everything back.
#[test]
fn a_segment_whose_key_is_gone_names_it_and_stays_until_the_key_is_back() {
    let (env, id) = env_with_key(TestEnv::new(Server::Embedded));
    let bodies = generated_and_another(LOGINS);
    env.queue.send(&bodies);
    env.job(&["drain"]).succeeds();
    let spooled = env.staged_files("spool");

    let ring = fs::read_to_string(env.path("keys.toml")).unwrap();
    let without = ring.find("[[key]]").and_then(|first| ring[first + 1..].find("[[key]]").map(|at| first + 1 + at));
    fs::write(env.path("keys.toml"), &ring[..without.unwrap()]).unwrap();
    env.configure("");
    let missing = format!("is encrypted with spool key {id}, which is not among the keys of this command");
    for command in ["transform", "run"] {
        let outcome = env.job(&[command]).ends_with(WORK_LEFT);
        assert!(outcome.stderr.contains(&missing), "{outcome}");
    }
    assert_eq!(env.staged_files("spool"), spooled);
    assert!(env.staged_files("damaged").is_empty());
    assert_eq!(env.database.count("user_logins"), 0);

    fs::write(env.path("keys.toml"), ring).unwrap();
    env.run().succeeds();
    assert_balanced(&env, &bodies);
}

/// Switched on, the key rotated, switched off: what lies there is loaded all the same.
#[test]
fn segments_in_clear_and_of_several_keys_are_loaded_side_by_side() {
    let (env, first) = env_with_key(TestEnv::new(Server::Embedded));
    let bodies = generated_and_another(LOGINS);
    env.queue.send(&bodies[..15]);
    env.job(&["drain"]).succeeds();
    env.pgsluice(&["keygen", "--add", "--algorithm", "spool"]).succeeds();
    let second = env.key_ids("spool").remove(1);
    env.pgsluice(&["keygen", "--promote", &second]).succeeds();
    env.queue.send(&bodies[15..30]);
    env.job(&["drain"]).succeeds();
    env.configure("[spool]\nencryption = false\n");
    env.queue.send(&bodies[30..]);
    env.job(&["drain"]).succeeds();

    let mut by_key: BTreeMap<String, usize> = BTreeMap::new();
    for message in env.staged_objects("spool") {
        let key = message["enc"].as_str().map_or("clear", |enc| enc.split('.').next().unwrap()).to_owned();
        *by_key.entry(key).or_default() += 1;
    }
    assert_eq!(by_key, BTreeMap::from([(first, 15), (second, 15), ("clear".to_owned(), bodies.len() - 30)]));
    env.run().succeeds();
    assert_balanced(&env, &bodies);
}

#[test]
fn rejects_stay_encrypted_and_can_be_shown_retried_and_replayed() {
    let (mut env, id) = env_with_key(TestEnv::new(Server::Embedded));
    env.queue.send(&[login("good").to_string(), misfit("late 1"), misfit("late 2"), "not json".to_owned()]);
    assert_eq!(env.run().succeeds().counts().rejected, 3);
    assert_nowhere(&env, &["late 1".to_owned(), "late 2".to_owned(), "not json".to_owned()]);
    let moved = |part| -> Vec<_> {
        let lines = env.staged_objects(part).into_iter();
        lines.map(|line| (line["message_id"].to_string(), line["enc"].to_string())).collect()
    };
    let archived: BTreeMap<_, _> = moved("archive").into_iter().collect();
    assert_eq!(moved("rejects").len(), 3);
    for (message, enc) in moved("rejects") {
        assert_eq!(archived[&message], enc, "a line moves as it is");
    }

    let message = "select message_id::text from pgsluice.reject where field is null";
    let message = env.database.texts(message).remove(0);
    assert_eq!(env.pgsluice(&["rejects", "show", &message]).succeeds().stdout, "not json");
    let (ring, empty) = (env.path("keys.toml"), env.path("elsewhere.toml"));
    fs::rename(&ring, &empty).unwrap();
    env.unset("PGSLUICE_KEY_FILE");
    let missing = format!("spool key {id}");
    env.pgsluice(&["rejects", "show", &message]).fails(FAILED, &missing, "--key-file");
    fs::rename(&empty, &ring).unwrap();
    env.set("PGSLUICE_KEY_FILE", "keys.toml");

    mend(&env, "");
    assert_eq!(env.job(&["rejects", "retry"]).succeeds().counts().loaded, 2);
    assert_eq!(env.database.count("user_logins where user_id like 'late %'"), 2);
    assert_eq!(env.staged_objects("rejects").len(), 1);
    assert_nowhere(&env, &["late 1".to_owned(), "late 2".to_owned(), "not json".to_owned()]);

    env.configure(ENCRYPTED);
    env.change_database();
    env.job(&["replay"]).succeeds();
    assert_eq!((env.database.count("user_logins"), env.database.count("pgsluice.reject")), (1, 3));
    let found = env.pgsluice(&["find", &message]).succeeds().stdout;
    assert!(found.starts_with("reject"), "{found}");
}

/// A dead letter is the message itself, so this is the one acknowledgement that needs the key.
#[test]
fn a_dead_letter_is_opened_before_it_is_sent() {
    let (mut env, id) = env_with_key(TestEnv::new(Server::Embedded));
    let dead_letters = Queue::create(Server::Embedded, QueueKind::Standard);
    env.configure(&format!("{ENCRYPTED}[pipeline]\non_reject = \"dlq\"\ndlq_url = \"{}\"\n", dead_letters.url()));
    env.queue.send(&[login("good").to_string()]);
    env.queue.send_with_attributes(&misfit("bad"), ("trace", "t-4711"), ("digest", &[0, 255]));
    for stage in ["drain", "transform", "load"] {
        env.job(&[stage]).succeeds();
        assert_nowhere(&env, &["t-4711".to_owned()]);
    }
    env.unset("PGSLUICE_KEY_FILE");
    let outcome = env.job(&["ack"]).ends_with(WORK_LEFT);
    assert!(outcome.stderr.contains(&format!("is encrypted with spool key {id}")), "{outcome}");
    assert!(dead_letters.is_empty());
    assert_eq!(env.queue.counts().in_flight, 2, "nothing of the segment is deleted");

    env.set("PGSLUICE_KEY_FILE", "keys.toml");
    env.job(&["ack"]).succeeds();
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
    let letters = dead_letters.receive_all();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].body(), Some(&*misfit("bad")));
    let attributes = letters[0].message_attributes().unwrap();
    assert_eq!(attributes["trace"].string_value(), Some("t-4711"));
    assert_eq!(attributes["digest"].binary_value().unwrap().as_ref(), [0, 255]);
}

#[test]
fn an_import_is_encrypted_and_known_when_it_comes_again() {
    let (env, _) = env_with_key(TestEnv::new(Server::Embedded));
    let bodies = generated_and_another(LOGINS);
    fs::write(env.path("logins.ndjson"), bodies.join("\n")).unwrap();
    for _ in 0..2 {
        env.pgsluice(&["import", "logins.ndjson"]).succeeds();
        assert_eq!(env.staged_objects("spool").len(), bodies.len());
        assert_nowhere(&env, &secrets(&bodies, &["user_id", "ip", "device_id"]));
    }
    env.job(&["replay"]).succeeds();
    assert_balanced(&env, &bodies);
}

/// The segment has the same name again, and its messages another time: under a key that followed from the name, the same
/// nonces would encrypt something else.
#[cfg(feature = "crash-points")]
#[test]
fn an_import_that_was_killed_and_comes_again_uses_no_nonce_twice() {
    let (mut env, _) = env_with_key(TestEnv::new(Server::Embedded));
    let bodies = generated_and_another(LOGINS);
    fs::write(env.path("logins.ndjson"), bodies.join("\n")).unwrap();
    let import = |day: &str| ["import".to_owned(), "logins.ndjson".to_owned(), format!("--sent-at={day}T00:00:00Z")];
    let mut nonces = BTreeMap::new();
    env.set("PGSLUICE_CRASH_POINT", "fsync");
    env.job(&import("2026-01-01").each_ref().map(String::as_str)).dies();
    let open = env.staged_files("spool").remove(0);
    collect_nonces(&env, &mut nonces);
    env.unset("PGSLUICE_CRASH_POINT");
    env.job(&import("2026-01-02").each_ref().map(String::as_str)).succeeds();
    assert_eq!(env.staged_files("spool"), [open.with_extension("")], "it has its name again");
    collect_nonces(&env, &mut nonces);
    assert_eq!(nonces.len(), 2 * bodies.len());
}

/// Killed at a point, and in the run after that at the same one: no plaintext at any time, no nonce twice.
#[cfg(feature = "crash-points")]
fn dies_and_another_run_finishes(point: &str) {
    let (mut env, _) = env_with_key(TestEnv::new(Server::Embedded));
    let bodies = generated_and_another(LOGINS);
    env.configure(&format!("{ENCRYPTED}[queue]\nvisibility_seconds = 3\n"));
    env.queue.send(&bodies);
    let (masked, all) = (secrets(&bodies, &["ip", "device_id"]), secrets(&bodies, &["user_id", "ip", "device_id"]));
    let mut nonces = BTreeMap::new();
    env.set("PGSLUICE_CRASH_POINT", point);
    for _ in 0..2 {
        env.job(&["run"]).dies();
        standing(&env, bodies.len());
        assert_nowhere(&env, &masked);
        collect_nonces(&env, &mut nonces);
    }
    env.unset("PGSLUICE_CRASH_POINT");
    env.run().succeeds();
    assert_balanced(&env, &bodies);
    assert_nowhere(&env, &all);
    collect_nonces(&env, &mut nonces);
    assert!(nonces.len() >= bodies.len());
}

#[cfg(feature = "crash-points")]
macro_rules! dies_after {
    ($($step:ident: $point:literal),* $(,)?) => {
        mod dies_after {
            $(#[test] fn $step() { super::dies_and_another_run_finishes($point); })*
        }
    };
}

#[cfg(feature = "crash-points")]
dies_after!(
    an_append: "append:7",
    the_flush_of_a_segment: "fsync",
    a_segment_is_renamed: "rename:2",
    the_parts_of_a_chunk_are_written: "write-chunk",
    a_transform: "transform",
    the_copy_of_rows: "copy-rows",
    everything_but_commit: "before-commit",
    a_commit: "commit",
    a_delete: "delete",
    the_archive_step: "archive",
);
