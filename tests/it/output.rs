//! Output that cannot be written: a reader that closes its pipe, a full disk, a stream that is closed from the start.
//! It changes nothing of what happens to messages, and no command panics.

use std::fs::File;
use std::io::{Write, pipe};
use std::path::Path;
use std::process::{Output, Stdio};
use std::thread;

use crate::reject_policy::{logins, misfit};
use crate::testenv::{Outcome, Server, TestEnv};

const PGSLUICE: &str = env!("CARGO_BIN_EXE_pgsluice");
const LOGINS: usize = 30;
const MASKED: &str = "76b0f3af:c0208208de77d351e9e8d66e26172bd8f070284970fb31be87e1b51bac6af4f9";
/// Every command that prints data.
const PRINTING: [&[&str]; 13] = [
    &["reveal"],
    &["reveal", MASKED],
    &["keygen"],
    &["init", "--print"],
    &["config", "example"],
    &["status"],
    &["status", "--json"],
    &["check"],
    &["find", "00000000-0000-4000-8000-000000000000", "--quiet"],
    &["report"],
    &["rejects", "list"],
    &["rejects", "list", "--entries"],
    &["rejects", "show", "--quiet", ID_OF_A_REJECT],
];
/// Stands for the id of a reject of the environment.
const ID_OF_A_REJECT: &str = "ID";

fn env_with_messages() -> TestEnv {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&[logins(LOGINS), vec![misfit("misfit"), "not json".to_owned()]].concat());
    env
}

/// An environment in which each of [`PRINTING`] has something to print.
fn env_with_rejects() -> TestEnv {
    let env = env_with_messages();
    env.run().succeeds();
    env
}

/// Runs a command with these streams; its input is more masked values than a pipe holds.
fn run_with(env: &TestEnv, arguments: &[&str], stdout: Stdio, stderr: Stdio) -> Output {
    let mut command = env.command(PGSLUICE);
    let mut child =
        command.args(with_ids(env, arguments)).stdin(Stdio::piped()).stdout(stdout).stderr(stderr).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that ends before it has read all closes the pipe.
    thread::spawn(move || stdin.write_all(format!("{MASKED}\n").repeat(2000).as_bytes()));
    child.wait_with_output().unwrap()
}

/// The arguments with the id of a reject that is there.
fn with_ids(env: &TestEnv, arguments: &[&str]) -> Vec<String> {
    let id = || env.database.texts("select min(message_id::text) from pgsluice.reject").remove(0);
    arguments.iter().map(|&word| if word == ID_OF_A_REJECT { id() } else { word.to_owned() }).collect()
}

/// A pipe whose reader is gone.
fn closed_pipe() -> Stdio {
    let (_, writer) = pipe().unwrap();
    writer.into()
}

/// Linux has a device that stands for a full disk.
const FULL_DISK: &str = "/dev/full";

/// Those of these redirections that this system can make.
fn possible<'a>(redirections: &[&'a str]) -> Vec<&'a str> {
    let exists = Path::new(FULL_DISK).exists();
    redirections.iter().filter(|to| exists || !to.contains(FULL_DISK)).copied().collect()
}

/// Runs a command with a shell's redirection, such as `2>&-`.
fn run_redirected(env: &TestEnv, arguments: &[&str], redirection: &str) -> Outcome {
    let mut command = env.command("sh");
    command.args(["-c", &format!("exec \"$0\" \"$@\" {redirection}"), PGSLUICE]).args(with_ids(env, arguments));
    env.run_to_end(command)
}

/// `reveal < values | head -1` once ended with exit code 1 and a hint about the staging directory.
#[test]
fn a_reader_that_closes_its_pipe_ends_the_output_quietly() {
    let env = env_with_rejects();
    for arguments in PRINTING {
        let output = run_with(&env, arguments, closed_pipe(), Stdio::piped());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn data_that_the_disk_has_no_room_for_is_an_error() {
    let Ok(full_disk) = File::options().write(true).open(FULL_DISK) else {
        eprintln!("skipped: this system has no {FULL_DISK}");
        return;
    };
    let env = env_with_rejects();
    for arguments in PRINTING {
        let output = run_with(&env, arguments, full_disk.try_clone().unwrap().into(), Stdio::piped());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        let [error, hint] = stderr.lines().collect::<Vec<_>>()[..] else { panic!("{arguments:?}: {stderr}") };
        assert!(error.starts_with("error: cannot write to stdout"), "{arguments:?}: {error}");
        assert!(hint.starts_with("hint: ") && hint.contains("stdout"), "{arguments:?}: {hint}");
    }
}

#[test]
fn a_command_that_cannot_write_to_stderr_prints_its_data() {
    let env = env_with_rejects();
    for arguments in PRINTING {
        for redirection in possible(&["2>&-", "2>/dev/full"]) {
            let outcome = run_redirected(&env, arguments, redirection).succeeds();
            // Without input, `reveal` has nothing to say.
            assert!(arguments == ["reveal"] || !outcome.stdout.is_empty(), "{outcome}");
        }
    }
}

#[test]
fn streams_that_are_closed_from_the_start_make_no_command_panic() {
    let env = env_with_rejects();
    let others: [&[&str]; 4] = [&["--help"], &["run", "--help"], &["--version"], &["demo", "--help"]];
    for arguments in PRINTING.into_iter().chain(others) {
        for redirection in [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"] {
            run_redirected(&env, arguments, redirection).succeeds();
        }
    }
    assert_eq!(run_with(&env, &["--help"], closed_pipe(), closed_pipe()).status.code(), Some(0));
    for redirection in possible(&[">/dev/full", "2>/dev/full", ">&- 2>&-"]) {
        run_redirected(&env, &["--help"], redirection).succeeds();
        run_redirected(&env, &["no-such-command"], redirection).ends_with(2);
        run_redirected(&env, &["run", "--max-messages", "none"], redirection).ends_with(2);
    }
    for redirection in possible(&["2>/dev/full", "2>&-"]) {
        run_redirected(&env, &["run", "--config", "missing.toml"], redirection).ends_with(2);
        run_redirected(&env, &["reveal", "nonsense"], redirection).ends_with(1);
    }
}

#[test]
fn a_run_whose_output_cannot_be_written_loads_everything() {
    let assert_loads_everything = |run: &dyn Fn(&TestEnv) -> Option<i32>| {
        let env = env_with_messages();
        assert_eq!(run(&env), Some(0));
        assert!(env.queue.is_empty());
        assert_eq!(env.database.count("user_logins"), LOGINS as u64);
        assert_eq!(env.database.count("pgsluice.reject"), 2);
    };
    let quiet: &[&str] = &["run"];
    let talkative: &[&str] = &["run", "-vv", "--log-format", "json", "--progress", "always"];
    for redirection in possible(&["2>/dev/full", "2>&-", ">&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"]) {
        for arguments in [quiet, talkative] {
            assert_loads_everything(&|env| run_redirected(env, arguments, redirection).code);
        }
    }
    assert_loads_everything(&|env| run_with(env, talkative, closed_pipe(), closed_pipe()).status.code());
    if Path::new(FULL_DISK).exists() {
        assert_loads_everything(&|env| env.pgsluice(&["run", "-vv", "--log-file", FULL_DISK]).code);
    }
}
