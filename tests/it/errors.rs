//! The errors a person will meet: one line that says what and where, one that says what to do, the documented exit
//! code, and nothing lost.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use pgsluice::staging::Staging;

use crate::logins::{generated, logins_of};
use crate::testenv::{FIXED_IV, Outcome, Server, TestEnv, postgres};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const MESSAGES: usize = 40;
const NOBODY: u32 = 65_534;

/// An environment whose queue holds messages that no failure may cost.
fn env_with_messages() -> TestEnv {
    with_messages(TestEnv::new(Server::Embedded))
}

fn with_messages(env: TestEnv) -> TestEnv {
    env.queue.send(&generated(MESSAGES));
    env
}

/// A port on which no program listens.
fn closed_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

#[test]
fn postgres_is_unreachable() {
    let mut env = env_with_messages();
    let address = format!("127.0.0.1:{}", closed_port());
    env.set("DATABASE_URL", format!("postgres://loader:a-password@{address}/app"));
    let outcome = env.run().fails(FAILED, &format!("cannot connect to Postgres at {address}"), "DATABASE_URL");
    assert!(!outcome.stderr.contains("a-password"));
    env.queue.assert_untouched(MESSAGES);
}

#[test]
fn the_password_is_wrong() {
    let mut env = env_with_messages();
    env.set("DATABASE_URL", format!("postgres://postgres:a-password@127.0.0.1:{}/postgres", postgres().port()));
    let outcome = env.run().fails(FAILED, "28P01", "password");
    assert!(!outcome.stderr.contains("a-password"));
    env.queue.assert_untouched(MESSAGES);
}

#[test]
fn a_token_for_rds_cannot_be_made_or_would_cross_a_network_in_clear() {
    let mut env = env_with_messages();
    env.configure("[database]\npassword_source = \"rds-iam\"");
    let address = format!("localhost:{}", closed_port());
    let mut refused = |parameters: &str, code: i32, problem: &str, hint: &str| {
        env.set("DATABASE_URL", format!("postgres://{parameters}"));
        env.pgsluice(&["prune"]).fails(code, problem, hint)
    };
    refused(&format!("u@{address}/d"), USAGE, "it must have an sslmode from require on", "--help");
    refused(&format!("u:a-password@{address}/d?sslmode=require"), USAGE, "it must have no password", "--help");
    let reached = format!("u@{address}/d?sslmode=require");
    refused(&reached, FAILED, &format!("cannot connect to Postgres at {address}"), "DATABASE_URL");
    env.unset("AWS_ACCESS_KEY_ID");
    env.unset("AWS_SECRET_ACCESS_KEY");
    env.pgsluice(&["prune"]).fails(FAILED, &format!("cannot make a token for {address}"), "AWS credentials");
}

#[test]
fn the_database_does_not_exist() {
    let mut env = env_with_messages();
    env.set("DATABASE_URL", postgres().url("no_such_database"));
    env.run().fails(FAILED, "3D000", "DATABASE_URL");
    env.queue.assert_untouched(MESSAGES);
}

#[test]
fn the_database_is_not_configured() {
    let mut env = env_with_messages();
    env.unset("DATABASE_URL");
    env.run().fails(USAGE, "database", "DATABASE_URL");
    env.queue.assert_untouched(MESSAGES);
}

#[test]
fn init_was_not_run() {
    let env = with_messages(TestEnv::without_tables(Server::Embedded));
    env.run().fails(FAILED, "does not exist", "pgsluice init");
    env.queue.assert_untouched(MESSAGES);
}

#[test]
fn the_table_is_missing() {
    let env = env_with_messages();
    env.database.execute("drop table user_logins");
    env.run().fails(FAILED, "table public.user_logins does not exist", "pgsluice init");
    env.queue.assert_untouched(MESSAGES);
}

#[test]
fn the_queue_does_not_exist() {
    let mut env = env_with_messages();
    let url = format!("{}-missing", env.queue.url());
    env.set("PGSLUICE_QUEUE_URL", &url);
    env.run().fails(FAILED, &format!("queue {url} does not exist"), "--queue-url");
}

#[test]
fn the_queue_is_not_configured() {
    let mut env = env_with_messages();
    env.unset("PGSLUICE_QUEUE_URL");
    env.run().fails(USAGE, "queue", "--queue-url");
}

#[test]
fn there_are_no_credentials() {
    let mut env = env_with_messages();
    env.unset("AWS_ACCESS_KEY_ID");
    env.unset("AWS_SECRET_ACCESS_KEY");
    env.run().fails(USAGE, "no AWS credentials", "AWS_PROFILE");
    env.queue.assert_untouched(MESSAGES);
}

#[test]
fn there_is_no_region() {
    let mut env = env_with_messages();
    env.unset("AWS_REGION");
    env.run().fails(USAGE, "no AWS region", "AWS_REGION");
    env.queue.assert_untouched(MESSAGES);
}

#[test]
fn the_endpoint_refuses_connections() {
    let mut env = env_with_messages();
    let endpoint = format!("http://127.0.0.1:{}", closed_port());
    env.set("AWS_ENDPOINT_URL", &endpoint);
    env.run().fails(FAILED, &endpoint, "AWS_ENDPOINT_URL");
    env.queue.assert_untouched(MESSAGES);
}

#[test]
fn the_key_is_missing() {
    let mut env = env_with_messages();
    env.unset("PGSLUICE_KEY");
    env.run().fails(USAGE, "PGSLUICE_KEY", "keygen");
    env.queue.assert_untouched(MESSAGES);
}

#[test]
fn the_key_has_a_wrong_length_or_is_not_hexadecimal() {
    for wrong in ["5369787465656e2062797465206b65", "5369787465656e2062797465206b65zz"] {
        let mut env = env_with_messages();
        env.set("PGSLUICE_KEY", wrong);
        let outcome = env.run().fails(USAGE, "PGSLUICE_KEY", "");
        assert!(!outcome.stderr.contains(wrong), "a key is a secret also where it is wrong: {outcome}");
        env.queue.assert_untouched(MESSAGES);
    }
}

#[test]
fn the_fixed_iv_is_missing_or_wrong() {
    let mut env = env_with_messages();
    env.configure("[[column]]\nname = \"masked_ip\"\nfrom = \"/ip\"\nmask = \"fixed\"\n");
    env.run().fails(USAGE, "PGSLUICE_FIXED_IV", "32 hex digits");
    env.set("PGSLUICE_FIXED_IV", &FIXED_IV[2..]);
    env.run().fails(USAGE, "PGSLUICE_FIXED_IV", "");
    env.queue.assert_untouched(MESSAGES);
}

#[test]
fn another_process_works_in_the_staging_directory() {
    let env = env_with_messages();
    let staging = Staging::open(&env.path("staging")).unwrap();
    let lock = staging.lock().unwrap();
    env.run().fails(FAILED, "in use by another process", "--staging-dir");
    env.queue.assert_untouched(MESSAGES);

    drop(lock);
    env.run().succeeds();
}

#[test]
fn the_staging_directory_lies_in_a_file_or_has_no_path() {
    let mut env = env_with_messages();
    fs::write(env.path("file"), "").unwrap();
    env.set("PGSLUICE_STAGING_DIR", env.path("file/staging").display().to_string());
    env.run().fails(FAILED, "file/staging", "--staging-dir");
    env.queue.assert_untouched(MESSAGES);
    env.set("PGSLUICE_STAGING_DIR", env.path("file").display().to_string());
    env.run().fails(FAILED, "/file: ", "--staging-dir");
    env.queue.assert_untouched(MESSAGES);
    env.unset("PGSLUICE_STAGING_DIR");
    env.configure("staging_dir = \"\"\n");
    env.run().fails(USAGE, "staging_dir", "correct the setting");
    env.queue.assert_untouched(MESSAGES);
}

/// A report that cannot be written was once found at the end of the run alone.
#[test]
fn the_report_or_the_log_file_cannot_be_written() {
    let env = env_with_messages();
    fs::create_dir(env.path("directory")).unwrap();
    for path in ["directory", "missing/file"] {
        for flag in ["--report", "--log-file"] {
            env.pgsluice(&["run", flag, path]).fails(USAGE, path, flag);
            env.queue.assert_untouched(MESSAGES);
        }
    }
    env.pgsluice(&["run", "--report", "report.json", "--database-url", "postgres://127.0.0.1:1/app"]).ends_with(FAILED);
    let report = fs::read_to_string(env.path("report.json")).unwrap();
    assert!(report.contains("\"ended_by\": \"error\""), "a run that did nothing says why: {report}");
}

#[test]
fn the_staging_directory_is_not_writable() {
    let env = env_with_messages();
    let directory = env.path("read-only");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o500)).unwrap();
    let mut command = env.command(env!("CARGO_BIN_EXE_pgsluice"));
    command.args(["run", "--staging-dir"]).arg(directory.join("staging"));
    if is_root() {
        // Permissions do not bind root.
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
        if !nobody_may_run_the_binary() {
            eprintln!("skipped: only root can reach the binary, and no permission binds root");
            return;
        }
    }
    env.run_to_end(command).fails(FAILED, "ermission denied", "--staging-dir");
    env.queue.assert_untouched(MESSAGES);
}

#[test]
fn the_mapping_names_a_column_that_the_table_does_not_have() {
    let env = env_with_messages();
    env.configure("[[column]]\nname = \"nickname\"\n");
    env.run().fails(USAGE, "nickname", "[[column]]");
    env.queue.assert_untouched(MESSAGES);
}

#[test]
fn the_mapping_has_a_type_that_the_table_does_not_have() {
    let env = env_with_messages();
    env.configure("[[column]]\nname = \"create_date\"\nfrom = \"/user_id\"\ntype = \"integer\"\n");
    env.run().fails(USAGE, "create_date", "[[column]]");
    env.queue.assert_untouched(MESSAGES);
}

#[test]
fn the_configuration_file_is_not_valid() {
    let env = env_with_messages();
    env.configure("staging_dir = \"staging\"\n[queue]\npolers = 3\n");
    env.run().fails(USAGE, "pgsluice.toml line 3", "pgsluice.toml");
    env.job(&["run", "--config", "other.toml"]).fails(USAGE, "other.toml", "--config");
    env.queue.assert_untouched(MESSAGES);
}

#[test]
fn a_flag_is_unknown() {
    let env = TestEnv::without_tables(Server::Embedded);
    env.pgsluice(&["run", "--no-such-flag"]).ends_with(USAGE);
    env.pgsluice(&["no-such-command"]).ends_with(USAGE);
}

#[test]
fn a_segment_to_replay_does_not_exist() {
    let env = TestEnv::new(Server::Embedded);
    let segment = "0190b5d6-7c1e-7000-8000-000000000000";
    env.job(&["replay", segment]).fails(FAILED, segment, "archive/");
    env.job(&["rejects", "retry", segment]).fails(FAILED, segment, "archive/");
    for arguments in [&["replay", "logins"][..], &["rejects", "list", "--segment", "logins"]] {
        let outcome = env.pgsluice(arguments).ends_with(USAGE);
        assert!(outcome.stderr.contains("expected a segment's name"), "{outcome}");
    }
}

#[test]
fn a_file_to_import_is_missing_or_is_no_file() {
    let env = TestEnv::new(Server::Embedded);
    fs::create_dir(env.path("directory")).unwrap();
    for path in ["directory", "missing.ndjson"] {
        env.pgsluice(&["import", path]).fails(FAILED, path, "is a file");
    }
    fs::write(env.path("latin1.ndjson"), b"fine\nna\xefve\n").unwrap();
    env.pgsluice(&["import", "latin1.ndjson"]).fails(FAILED, "the line at byte 5 of latin1.ndjson", "correct it");
    let outcome = env.pgsluice(&["import", "latin1.ndjson", "--sent-at", "yesterday"]).ends_with(USAGE);
    assert!(outcome.stderr.contains("2026-01-02T03:04:05Z"), "{outcome}");
}

#[test]
fn the_queues_url_names_no_queue() {
    let env = env_with_messages();
    for url in [
        "login queue",
        "arn:aws:sns:eu-west-1:123456789012:topic",
        "https://sqs.eu-west-1.amazonaws.com",
        "ftp://host/0/login-queue",
    ] {
        env.job(&["run", "--queue-url", url]).fails(USAGE, "expected a URL such as", "");
    }
    env.queue.assert_untouched(MESSAGES);
}

#[test]
fn a_value_to_reveal_was_masked_with_another_key() {
    let mut env = env_with_messages();
    env.run().succeeds();
    let masked = env.database.texts("select masked_ip from user_logins limit 1").remove(0);
    env.set("PGSLUICE_KEY", "00".repeat(16));
    let outcome: Outcome = env.pgsluice(&["reveal", &masked]).fails(FAILED, "masked with key", "PGSLUICE_KEY");
    assert_eq!(outcome.stdout, format!("{masked}\n"), "it stays as it is");
}

/// Each of them once got the hint to give another key.
#[test]
fn a_value_to_reveal_is_not_masked_or_of_another_column() {
    let mut env = env_with_messages();
    env.run().succeeds();
    let masked = env.database.texts("select masked_ip from user_logins limit 1").remove(0);
    env.pgsluice(&["reveal", &masked, "199.172.111.135"]).fails(FAILED, "value 2: not a masked value", "masked column");
    let outcome = env.pgsluice_with_input(&["reveal"], &format!("{masked}\n{}\n", "00".repeat(16)));
    outcome.fails(FAILED, "line 2: there is no key for `fixed`", "key and the IV");
    env.set("PGSLUICE_FIXED_IV", FIXED_IV);
    env.pgsluice(&["reveal", &"00".repeat(16)]).fails(FAILED, "does not decrypt", "key and the IV");

    env.configure("[[column]]\nname = \"user_id\"\nmask = \"siv\"\n");
    env.pgsluice(&["reveal", &masked]).fails(FAILED, "not masked for a column of", "--config");
    env.configure("[[column]]\nname = \"user_id\"\n");
    env.pgsluice(&["reveal", &masked]).fails(FAILED, "no column with mask", "--config");
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().unwrap().stdout.trim_ascii() == b"0"
}

fn nobody_may_run_the_binary() -> bool {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgsluice"));
    command.arg("--version").uid(NOBODY).gid(NOBODY).current_dir("/").output().is_ok()
}

/// Once an error line said no more than its SQLSTATE, although the server had said what it would not do.
#[test]
fn what_postgres_says_is_shown_where_it_can_hold_no_value() {
    let env = env_with_messages();
    let database = &env.database.texts("select quote_ident(current_database())")[0];
    env.database.execute(&format!("alter database {database} set default_transaction_read_only = on"));
    env.run().fails(FAILED, "in a read-only transaction (SQLSTATE 25006", "primary");
}

/// Once a trigger's `RAISE … USING COLUMN` put a value into the error line and the ledger, which show the names of
/// columns; its text would follow, now that texts are shown.
#[test]
fn whatever_a_trigger_raises_no_value_of_a_row_is_shown() {
    for sqlstate in ["42501", "23514", "P0001"] {
        let env = env_with_messages();
        env.database.execute(&format!(
            "create function tell() returns trigger language plpgsql as $$ begin
                 raise exception using errcode = '{sqlstate}', message = new.user_id, column = new.user_id,
                     constraint = new.user_id, table = new.user_id, hint = new.user_id, detail = new.user_id;
             end $$;
             create trigger tell before insert on user_logins for each row execute function tell()"
        ));
        let outcome = env.run();
        assert!(outcome.stderr.contains(sqlstate) || outcome.code == Some(0), "{outcome}");
        let reasons = env.database.rows("select field, reason from pgsluice.reject");
        let shown = format!("{} {reasons:?} {}", outcome.stderr, fs::read_to_string(env.path("report.json")).unwrap());
        for login in logins_of(&generated(MESSAGES)) {
            let user = login["user_id"].as_str().unwrap();
            assert!(!shown.contains(user), "{user} is shown: {shown}");
        }
    }
}

/// It was ignored, and a script that read the report found that of an earlier run.
#[test]
fn a_command_that_moves_no_messages_refuses_to_report() {
    let env = TestEnv::new(Server::Embedded);
    let commands: [&[&str]; 9] = [
        &["init"],
        &["status"],
        &["rejects", "list"],
        &["rejects", "show", "id"],
        &["rejects", "drop", "--reason", "text"],
        &["prune"],
        &["reveal"],
        &["keygen"],
        &["config", "example"],
    ];
    for command in commands {
        let names: Vec<&str> = command.iter().copied().take(if command[0] == "rejects" { 2 } else { 1 }).collect();
        let outcome = env.pgsluice(&[command, &["--report", "report.json"]].concat());
        let said = format!("`pgsluice {}", names.join(" "));
        assert_eq!(outcome.fails(USAGE, &said, "leave out --report").stdout, "");
        assert!(!env.path("report.json").exists());
    }
}
