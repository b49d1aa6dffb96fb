//! Progress on a real terminal, which `script` of util-linux gives, and as log lines elsewhere.

use std::fs;

use crate::testenv::{Running, Server, TestEnv, wait_until};

const COLUMNS: usize = 40;
const TYPESCRIPT: &str = "typescript";
const PGSLUICE: &str = env!("CARGO_BIN_EXE_pgsluice");

/// Runs this with a shell on a terminal of 40 columns.
fn start_on_a_terminal(env: &TestEnv, script: &str) -> Running {
    let script = format!("stty cols {COLUMNS} rows 10; {script}");
    let mut command = env.command("script");
    command.args(["--quiet", "--return", "--flush", "--command", &script, TYPESCRIPT]);
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("TERM", "xterm");
    env.start_prepared(command, "no-report.json")
}

/// What the terminal was sent so far.
fn sent(env: &TestEnv) -> String {
    String::from_utf8_lossy(&fs::read(env.path(TYPESCRIPT)).unwrap_or_default()).into_owned()
}

/// What the terminal was sent while this ran.
pub(crate) fn on_a_terminal(env: &TestEnv, script: &str) -> String {
    start_on_a_terminal(env, script).ended().succeeds();
    sent(env)
}

/// Text without the sequences that move the cursor.
fn plain(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| {
        all + part.trim_start_matches(|c: char| !c.is_ascii_alphabetic()).get(1..).unwrap_or("")
    })
}

/// The lines of progress that were drawn: each begins with the time.
pub(crate) fn drawn(sent: &str) -> Vec<String> {
    let lines = sent.split(['\r', '\n']).map(plain);
    lines.map(|line| line.trim_end().to_owned()).filter(|line| line.contains("00:00:")).collect()
}

#[test]
fn the_line_says_how_much_is_done_fits_the_terminal_and_is_wiped_at_the_end() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&crate::logins::generated(20));
    let sent = on_a_terminal(&env, &format!("exec {PGSLUICE} run --idle 2s"));
    let lines = drawn(&sent);
    assert!(lines.iter().any(|line| line.contains(" of ~20 (")), "{sent:?}");
    assert!(lines.iter().all(|line| line.chars().count() <= COLUMNS), "{lines:?}");
    // Wiped, and then the summary.
    let (_, after) = sent.rsplit_once("00:00:").unwrap();
    let wiped = after.find("\u{1b}[2K").unwrap_or_else(|| panic!("not wiped: {after:?}"));
    assert!(after[wiped..].contains("received"), "{after:?}");
    assert_eq!(
        sent.matches("\u{1b}[?25l").count(),
        sent.matches("\u{1b}[?25h").count(),
        "the cursor is shown: {sent:?}"
    );
}

#[test]
fn a_signal_leaves_no_line_behind() {
    let env = TestEnv::new(Server::Embedded);
    // Stopped once its line was drawn, which is seen in what the terminal was sent.
    let script = format!(
        "{PGSLUICE} run --follow & until grep -q '00:00:' typescript; do sleep 0.1; done; \
         kill -TERM $!; wait $!; echo ended with $?"
    );
    let sent = on_a_terminal(&env, &script);
    let (_, after) = sent.rsplit_once("00:00:").unwrap();
    assert!(after.contains("\u{1b}[2K") && after.contains("ended with 0"), "{after:?}");
    // The log line about the signal stands in a line of its own.
    let said = sent.split(['\r', '\n']).map(plain).find(|line| line.contains("stopping: ")).unwrap();
    assert!(!said.contains("/s"), "{said}");
}

#[test]
fn a_replay_knows_its_total() {
    let env = TestEnv::new(Server::Embedded);
    fs::write(env.path("bodies.ndjson"), crate::logins::generated(30).join("\n")).unwrap();
    env.pgsluice(&["import", "bodies.ndjson"]).succeeds();
    // The load waits until the line was seen.
    env.database.execute("begin; lock table user_logins in share mode");
    let replay = start_on_a_terminal(&env, &format!("exec {PGSLUICE} replay"));
    wait_until(|| drawn(&sent(&env)).iter().any(|line| line.contains(" 0 of 30 (0 %)")));
    env.database.execute("commit");
    replay.ended().succeeds();
    assert!(env.database.count("user_logins") > 0);
}

/// A load that waits for a lock looked as if it did nothing.
#[test]
fn a_load_that_waits_for_a_lock_says_which_one_and_who_holds_it() {
    let mut env = TestEnv::new(Server::Embedded);
    env.queue.send(&crate::logins::generated(20));
    let holder = env.database.again();
    holder.execute("set application_name = 'a migration'; begin; lock table user_logins");
    let held =
        format!("for a lock on user_logins held by pid {} (a migration)", holder.number("select pg_backend_pid()"));
    // A look each second.
    env.set("DATABASE_URL", env.database.url() + "?keepalives_idle=1");
    let run = env.start(&["run"]);
    run.until_stderr_contains(&held);
    holder.execute("commit");
    run.wait().succeeds();
}
