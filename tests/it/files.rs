//! Files and directories that somebody else put there, or may: links, pipes, other owners, other modes.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use pgsluice::segment::SegmentId;
use pgsluice::staging::Staging;
use rustix::fs::{Mode, OFlags};
use serde_json::Value;

use crate::reject_policy::logins;
use crate::testenv::{Outcome, Server, TestEnv, make_fifo};

const PGSLUICE: &str = env!("CARGO_BIN_EXE_pgsluice");
const PARTS: [&str; 6] = ["spool", "chunks", "rejects", "committed", "archive", "damaged"];
const MESSAGES: usize = 5;
const PRECIOUS: &str = "another file of this user\n";
const STRANGER: u32 = 4711;

/// Puts something under a path.
type Plant = fn(&TestEnv, &Path);

/// Messages in the queue, one of which can be no row.
fn env_with_messages() -> TestEnv {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&logins(MESSAGES));
    env.queue.send(&["{\"foo\":\"oops_wrong_msg_type\"}".to_owned()]);
    fs::write(env.path("precious"), PRECIOUS).unwrap();
    env
}

fn assert_all_is_loaded(env: &TestEnv) {
    assert!(env.queue.is_empty());
    assert_eq!(env.database.count("user_logins"), MESSAGES as u64);
    assert_eq!(env.database.count("pgsluice.reject"), 1);
    assert_eq!(env.staged_objects("rejects").len(), 1);
    assert_eq!(fs::read_to_string(env.path("precious")).unwrap(), PRECIOUS);
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Whether this process may give files away, which the tests of other owners need.
fn may_give_away(env: &TestEnv) -> bool {
    let is_root = fs::metadata(env.path("")).unwrap().uid() == 0;
    if !is_root {
        eprintln!("skipped: only root can give a file to another user");
    }
    is_root
}

/// A link in the place of a directory once sent all files to where it pointed, readable by whoever owned that.
#[test]
fn a_part_of_the_staging_directory_that_is_a_link_is_refused() {
    let env = env_with_messages();
    let elsewhere = env.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::create_dir(env.path("staging")).unwrap();
    for part in PARTS {
        let link = env.path("staging").join(part);
        _ = fs::remove_dir(&link);
        symlink(&elsewhere, &link).unwrap();
        env.job(&["run"]).fails(1, "it is a symbolic link", "see who put");
        env.pgsluice(&["status"]).fails(1, "it is a symbolic link", "see who put");
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "{part}");
        fs::remove_file(&link).unwrap();
    }
    symlink(env.path("precious"), env.path("staging/lock")).unwrap();
    env.job(&["run"]).fails(1, "staging/lock: it is a symbolic link", "see who put");
    fs::remove_file(env.path("staging/lock")).unwrap();
    env.run().succeeds();
    assert_all_is_loaded(&env);
}

/// `*.tmp` was opened and cut, whatever it was: through a link it emptied another file of this user.
#[test]
fn what_is_planted_under_the_names_of_new_files_is_removed() {
    let plants: [(&str, Plant); 3] = [
        ("link", |env, path| symlink(env.path("precious"), path).unwrap()),
        ("hard link", |env, path| fs::hard_link(env.path("precious"), path).unwrap()),
        ("pipe", |_, path| make_fifo(path)),
    ];
    for (what, plant) in plants {
        let env = env_with_messages();
        env.job(&["drain"]).succeeds();
        let segment = env.staged_files("spool").remove(0);
        let id = segment.file_stem().unwrap().to_str().unwrap();
        for name in [
            format!("chunks/{id}.csv"),
            format!("chunks/{id}.ids.csv"),
            format!("chunks/{id}.rejects.ndjson"),
            format!("chunks/{id}.json"),
            format!("chunks/{id}.json.tmp"),
            format!("rejects/{id}.ndjson.tmp"),
            // Where a retry works, which removes it.
            "retry".to_owned(),
        ] {
            plant(&env, &env.path("staging").join(name));
        }
        let outcome = env.run();
        assert_eq!(outcome.code, Some(0), "{what}: {outcome}");
        env.job(&["rejects", "retry"]).succeeds();
        assert_all_is_loaded(&env);
        assert!(!env.path("staging/retry").exists(), "{what}");
    }
}

/// The bodies of rejects are kept before COMMIT, so a file that cannot be used leaves the segment as it is.
#[test]
fn a_reject_file_that_is_a_link_or_a_pipe_stops_its_segment_alone() {
    let plants: [Plant; 2] = [|env, path| symlink(env.path("precious"), path).unwrap(), |_, path| make_fifo(path)];
    for plant in plants {
        let env = env_with_messages();
        env.job(&["drain"]).succeeds();
        let segment = env.staged_files("spool").remove(0);
        let rejects = env.path("staging/rejects").join(segment.file_name().unwrap());
        plant(&env, &rejects);
        let outcome = env.run().ends_with(3);
        assert!(outcome.stderr.contains("this segment stays where it is"), "{outcome}");
        assert_eq!(env.database.count("user_logins"), 0);
        fs::remove_file(&rejects).unwrap();
        env.run().succeeds();
        assert_all_is_loaded(&env);
    }
}

#[test]
fn a_segment_that_is_a_link_or_a_pipe_is_not_loaded() {
    let plants: [Plant; 2] = [|env, path| symlink(env.path("aside"), path).unwrap(), |_, path| make_fifo(path)];
    for plant in plants {
        let env = env_with_messages();
        env.job(&["drain"]).succeeds();
        let replace = |part: &str| {
            let segment = env.staged_files(part).remove(0);
            fs::rename(&segment, env.path("aside")).unwrap();
            plant(&env, &segment);
            segment
        };
        let sealed = replace("spool");
        env.job(&["transform"]).ends_with(3);
        env.job(&["replay"]).ends_with(3);
        assert_eq!((env.staged_files("chunks").len(), env.database.count("user_logins")), (0, 0));
        fs::rename(env.path("aside"), &sealed).unwrap();
        env.job(&["transform"]).succeeds();
        env.job(&["load"]).succeeds();
        let committed = replace("committed");
        assert_eq!(env.job(&["ack"]).ends_with(3).counts().acknowledged, 0);
        fs::rename(env.path("aside"), &committed).unwrap();
        env.job(&["ack"]).succeeds();
        assert_all_is_loaded(&env);
    }
}

#[test]
fn an_open_segment_that_is_a_link_or_a_pipe_stays_and_holds_nothing_up() {
    let env = env_with_messages();
    env.job(&["drain"]).succeeds();
    let open = || env.path("staging/spool").join(format!("{}.ndjson.open", SegmentId::now()));
    let (link, pipe) = (open(), open());
    symlink(env.path("precious"), &link).unwrap();
    make_fifo(&pipe);
    let outcome = env.run().succeeds();
    for problem in ["it is a symbolic link", "it is not a regular file"] {
        assert!(outcome.stderr.contains(problem), "{outcome}");
    }
    assert!([link, pipe].iter().all(|path| path.symlink_metadata().is_ok()));
    assert_all_is_loaded(&env);
}

/// Whoever else could write into the spool could have any row loaded.
#[test]
fn a_segment_of_another_user_is_not_loaded() {
    let env = env_with_messages();
    if !may_give_away(&env) {
        return;
    }
    env.job(&["drain"]).succeeds();
    let foreign = env.staged_files("spool").remove(0);
    chown(&foreign, Some(STRANGER), None).unwrap();
    env.queue.send(&logins(1));
    let outcome = env.run().ends_with(3);
    assert!(outcome.stderr.contains("it belongs to the user with the id 4711"), "{outcome}");
    assert_eq!(env.database.count("user_logins"), 1, "that of the other segment");
    assert_eq!(env.staged_files("spool"), std::slice::from_ref(&foreign));
    env.job(&["replay"]).ends_with(3);
    assert_eq!(env.database.count("user_logins"), 1);
    chown(&foreign, Some(0), None).unwrap();
    env.run().succeeds();
    assert_eq!(env.database.count("user_logins"), MESSAGES as u64 + 1);
}

#[test]
fn a_part_of_another_user_is_refused() {
    let env = env_with_messages();
    if !may_give_away(&env) {
        return;
    }
    env.job(&["transform"]).succeeds();
    for part in PARTS {
        let path = env.path("staging").join(part);
        chown(&path, Some(STRANGER), None).unwrap();
        env.job(&["run"]).fails(1, "it belongs to the user with the id 4711", "chown");
        chown(&path, Some(0), None).unwrap();
    }
    env.run().succeeds();
    assert_all_is_loaded(&env);
}

#[test]
fn parts_that_others_may_use_are_closed() {
    let env = env_with_messages();
    for (part, mode) in PARTS.into_iter().zip([0o755, 0o777, 0o750, 0o1777, 0o2770, 0o701]) {
        let path = env.path("staging").join(part);
        fs::create_dir_all(&path).unwrap();
        set_mode(&path, mode);
    }
    let own = mode(&env.path("staging"));
    env.run().succeeds();
    for part in PARTS {
        assert_eq!(mode(&env.path("staging").join(part)) & 0o777, 0o700, "{part}");
    }
    assert_eq!(mode(&env.path("staging")), own, "the directory itself is its owner's");
    assert_all_is_loaded(&env);
}

/// Kubernetes mounts a volume with an fsGroup as root:GROUP with mode 2775.
#[test]
fn a_staging_directory_that_everybody_may_write_to_is_refused_and_a_volume_of_a_group_is_not() {
    let env = env_with_messages();
    let staging = env.path("staging");
    fs::create_dir(&staging).unwrap();
    for mode in [0o777, 0o2777, 0o703] {
        set_mode(&staging, mode);
        env.job(&["run"]).fails(1, "everybody may write to it", "chmod o-w");
    }
    assert_eq!(fs::read_dir(&staging).unwrap().count(), 0);
    if may_give_away(&env) {
        chown(&staging, Some(STRANGER), Some(STRANGER)).unwrap();
    }
    for mode in [0o2775, 0o1777] {
        set_mode(&staging, mode);
        env.job(&["transform"]).succeeds();
    }
    env.run().succeeds();
    assert_all_is_loaded(&env);
}

#[test]
fn files_that_a_killed_process_left_unfinished_go_once_the_lock_is_held() {
    let env = env_with_messages();
    let staging = Staging::open(&env.path("staging")).unwrap();
    let lock = staging.lock().unwrap();
    let unfinished = ["chunks", "rejects"].map(|part| {
        let path = env.path("staging").join(part).join(format!("{}.ndjson.tmp", SegmentId::now()));
        fs::write(&path, "").unwrap();
        path
    });
    let foreign = env.path("staging/rejects/notes.tmp");
    fs::write(&foreign, "").unwrap();
    env.job(&["run"]).fails(1, "in use by another process", "");
    assert!(unfinished.iter().all(|path| path.exists()), "they may be that process's");
    drop(lock);
    env.job(&["run"]).succeeds();
    assert!(!unfinished.iter().any(|path| path.exists()));
    assert!(foreign.exists());
}

#[test]
fn report_and_log_are_private_and_go_through_no_link() {
    let env = env_with_messages();
    symlink(env.path("precious"), env.path("link")).unwrap();
    for flag in ["--report", "--log-file"] {
        env.pgsluice(&["run", flag, "link"]).fails(2, "it is a symbolic link", flag);
    }
    assert!(!env.path("staging").exists(), "nothing moved before");
    env.pgsluice(&["run", "--report", "new.json", "--log-file", "new.log"]).succeeds();
    for name in ["new.json", "new.log"] {
        assert_eq!(mode(&env.path(name)), 0o600, "{name}");
    }
    assert_all_is_loaded(&env);
    // Who else may read them is their owner's to say.
    set_mode(&env.path("new.json"), 0o640);
    env.pgsluice(&["run", "--report", "new.json"]).succeeds();
    assert_eq!(mode(&env.path("new.json")), 0o640);
    if may_give_away(&env) {
        chown(env.path("new.json"), Some(STRANGER), None).unwrap();
        env.pgsluice(&["run", "--report", "new.json"]).fails(2, "it belongs to the user with the id 4711", "--report");
    }
}

/// Runs a command with a shell's redirection.
fn run_redirected(env: &TestEnv, arguments: &str, redirection: &str) -> Outcome {
    let mut command = env.command("sh");
    command.args(["-c", &format!("exec {PGSLUICE} {arguments} {redirection}")]);
    env.run_to_end(command)
}

#[test]
fn report_and_log_may_be_a_stream_of_the_process() {
    let env = env_with_messages();
    let is_report = |text: &str| {
        let (start, end) = (text.find('{').unwrap(), text.rfind('}').unwrap());
        serde_json::from_str::<Value>(&text[start..=end]).unwrap()["exit_code"] == 0
    };
    let logged = "run --log-format json -v --progress never";
    let to_stderr = env.pgsluice(&["run", "-q", "--report", "/dev/stderr"]).succeeds();
    assert!(is_report(&to_stderr.stderr), "{to_stderr}");
    let to_stdout = env.pgsluice(&["run", "--report", "/dev/stdout"]).succeeds();
    assert!(is_report(&to_stdout.stdout), "{to_stdout}");
    for (stream, redirection) in [("/dev/stdout", "> out"), ("/dev/stderr", "2> out"), ("/dev/fd/3", "3> out")] {
        // One report, behind what was there: by its name the file would be written from its first byte on.
        let earlier = format!("echo before {}; exec", redirection.replace("2>", ">").replace("3>", ">"));
        let appended = redirection.replace('>', ">>");
        let mut command = env.command("sh");
        command.args(["-c", &format!("{earlier} {PGSLUICE} run -q --report {stream} {appended}")]);
        env.run_to_end(command).succeeds();
        let out = fs::read_to_string(env.path("out")).unwrap();
        assert!(out.starts_with("before\n{") && is_report(&out), "{stream}: {out}");
        env.queue.send(&logins(1));
        run_redirected(&env, &format!("{logged} --log-file {stream}"), redirection).succeeds();
        let out = fs::read_to_string(env.path("out")).unwrap();
        assert!(out.contains("\"level\":\"DEBUG\""), "{stream}: {out}");
    }
    assert!(env.queue.is_empty());
    assert_eq!(env.database.count("user_logins"), MESSAGES as u64 + 3);
}

#[test]
fn a_report_or_a_log_that_is_a_pipe_needs_a_reader_and_waits_for_none() {
    let env = env_with_messages();
    make_fifo(&env.path("pipe"));
    env.pgsluice(&["run", "--log-file", "pipe"]).fails(2, "nothing reads from the pipe", "--log-file");
    let reader =
        rustix::fs::open(env.path("pipe"), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).unwrap();
    env.pgsluice(&["run", "-q", "--report", "pipe"]).succeeds();
    assert_eq!(serde_json::from_reader::<_, Value>(File::from(reader)).unwrap()["exit_code"], 0);
    assert_all_is_loaded(&env);
    // What the run did to messages does not depend on it.
    env.pgsluice(&["run", "-q", "--report", "pipe"]).fails(1, "nothing reads from the pipe", "--report");
}

#[test]
fn a_pipe_is_not_imported() {
    let env = TestEnv::new(Server::Embedded);
    make_fifo(&env.path("pipe"));
    env.pgsluice(&["import", "pipe"]).fails(1, "it is not a regular file", "");
}
