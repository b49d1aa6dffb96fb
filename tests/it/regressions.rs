//! What was once seen to go wrong, from outside: messages that were lost, doubled or loaded wrong, and commands that said
//! the wrong word at their end. The doc comment of each test is the story of its bug.

mod doubled;
mod end;
mod kept;
mod lost;
mod upgrade;
mod wrong;

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::testenv::TestEnv;

const STAGING: &str = "staging";
/// The staging directory of another host.
const OTHER_HOST: &str = "other-host";

/// The files in a directory of the environment, sorted; none where it does not exist.
fn files_in(env: &TestEnv, directory: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(env.path(directory)).into_iter().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Copies the files of one part of a staging directory to another host, as far as `is_copied` says of their names.
fn copy_to_other_host(env: &TestEnv, part: &str, is_copied: impl Fn(&str) -> bool) {
    let target = env.path(OTHER_HOST).join(part);
    fs::create_dir_all(&target).unwrap();
    for file in files_in(env, &format!("{STAGING}/{part}")) {
        let name = file.file_name().unwrap().to_str().unwrap();
        if is_copied(name) {
            fs::copy(&file, target.join(name)).unwrap();
        }
    }
}

/// The bodies of the messages that a host keeps as rejects, sorted.
fn kept_bodies(env: &TestEnv, host: &str) -> Vec<String> {
    let lines = files_in(env, &format!("{host}/rejects")).into_iter().map(|file| fs::read_to_string(file).unwrap());
    let lines: Vec<String> = lines.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let body = |line: &String| serde_json::from_str::<Value>(line).unwrap()["body"].as_str().unwrap().to_owned();
    let mut bodies: Vec<String> = lines.iter().map(body).collect();
    bodies.sort();
    bodies
}

/// The rows of `user_logins`, by their user, sorted.
fn users(env: &TestEnv) -> Vec<String> {
    env.database.texts("select user_id from user_logins order by user_id")
}

/// Lets what a host holds unacknowledged be received once more.
fn redeliver(env: &TestEnv, host: &str) {
    for part in ["spool", "committed"] {
        for file in files_in(env, &format!("{host}/{part}")) {
            let text = fs::read_to_string(file).unwrap();
            let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            for handle in lines.filter_map(|line| line["receipt_handle"].as_str().map(str::to_owned)) {
                env.queue.release(&handle);
            }
        }
    }
}
