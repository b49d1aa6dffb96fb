//! What others may see: file modes, personal data.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::logins::{generated, login, logins_of};
use crate::testenv::{Server, TestEnv, wait_until};

const MESSAGES: usize = 60;
/// Stands in bodies where a mistake would carry it into a reason, a log line or a ledger.
const PERSONAL: &str = "P3RS0NAL";

#[test]
fn nobody_else_can_read_the_staging_directory_whatever_the_umask() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&hostile_bodies());
    for stage in ["drain", "transform", "load", "ack", "run"] {
        let mut command = env.command("sh");
        command.args(["-c", "umask 0; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_pgsluice"), stage]);
        env.run_to_end(command).succeeds();
        assert_private(&env.path("staging"));
    }
    assert!(!env.staged_files("archive").is_empty() && !env.staged_files("rejects").is_empty());
}

#[test]
fn no_personal_data_in_postgres_logs_or_report() {
    let env = TestEnv::new(Server::Embedded);
    // Postgres' own text for a violated constraint quotes the whole row.
    env.database.execute("alter table user_logins add constraint known_device check (device_type <> 'toaster')");
    let bodies = [generated(MESSAGES), hostile_bodies()].concat();
    env.queue.send(&bodies);
    let outcome = env.job(&["run", "-vv"]).succeeds();
    assert!(outcome.counts().rejected >= hostile_bodies().len() as u64);

    env.database.execute("truncate user_logins");
    let log_file = env.path("log.json");
    let arguments = ["replay", "--again", "-vv", "--log-format", "json", "--log-file", "log.json"];
    let again = env.job(&arguments).succeeds();

    let mut personal = vec![PERSONAL.to_owned()];
    for login in logins_of(&generated(MESSAGES)) {
        personal.extend(["ip", "device_id"].map(|field| login[field].as_str().unwrap().to_owned()));
    }
    let places = [
        ("stderr", outcome.stderr),
        ("stdout", outcome.stdout),
        ("stderr of the replay", again.stderr),
        ("the log file", fs::read_to_string(log_file).unwrap()),
        ("the report", fs::read_to_string(env.path("report.json")).unwrap()),
        ("the database", everything_in(&env)),
    ];
    for (place, text) in places {
        for value in &personal {
            assert!(!text.contains(value.as_str()), "{value} is in {place}");
        }
    }
}

#[test]
fn a_run_that_is_done_leaves_no_connection_and_no_unfinished_file() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&generated(MESSAGES));
    assert!(env.run().succeeds().counts().loaded > 0);
    let others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    // The server notices a moment later that a client is gone.
    wait_until(|| env.database.number(others) == 0);
    for part in ["spool", "chunks"] {
        assert!(env.staged_files(part).is_empty(), "{part}: {:?}", env.staged_files(part));
    }
}

/// Bodies that become rejects in transform and in load, with personal data in every field.
fn hostile_bodies() -> Vec<String> {
    let with = |field: &str, value: Value| {
        let mut body = login(PERSONAL);
        body["ip"] = json!(PERSONAL);
        body["device_id"] = json!(PERSONAL);
        body[field] = value;
        body.to_string()
    };
    vec![
        PERSONAL.to_owned(),
        format!("{{\"user_id\": {PERSONAL}}}"),
        format!("[\"{PERSONAL}\"]"),
        json!({ PERSONAL: PERSONAL }).to_string(),
        with("ip", json!({ PERSONAL: PERSONAL })),
        with("app_version", json!(PERSONAL)),
        with("locale", json!(PERSONAL.repeat(9))),
        with("user_id", json!(format!("{PERSONAL}\0"))),
        with("device_type", json!("toaster")),
    ]
}

/// Every row of every table that is not Postgres' own, as text, without the unmasked column `user_id`.
fn everything_in(env: &TestEnv) -> String {
    let tables = env.database.texts(
        "select format('%I.%I', schemaname, tablename) from pg_tables
         where schemaname not in ('pg_catalog', 'information_schema')",
    );
    assert!(tables.len() >= 4, "{tables:?}");
    let rows = |table: &String| env.database.texts(&format!("select (to_jsonb(t) - 'user_id')::text from {table} t"));
    tables.iter().flat_map(rows).collect::<Vec<_>>().join("\n")
}

fn assert_private(path: &Path) {
    let metadata = fs::metadata(path).unwrap();
    let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
    let mode = metadata.permissions().mode() & 0o777;
    assert_eq!(mode, expected, "{} has mode {mode:o}", path.display());
    if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            assert_private(&entry.unwrap().path());
        }
    }
}
