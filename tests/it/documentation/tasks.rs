//! The page of tasks, pasted and run from its top to its end.

use std::fmt::Write as _;
use std::fs;

use serde_json::json;

use super::markdown::blocks;
use super::page;
use crate::testenv::{Server, TestEnv, project_path};

const TASKS: &str = "docs/tasks.md";
const MESSAGES: usize = 50;

/// One shell runs all blocks, as one person would. A block that fails is named.
#[test]
fn the_tasks_run_from_the_top_of_the_page_to_its_end() {
    let page = page(TASKS);
    let scripts: Vec<&str> = blocks(&page).filter(|block| block.language == "sh").map(|block| block.text).collect();
    assert!(scripts.len() > 15, "{scripts:?}");
    let mut env = TestEnv::without_tables(Server::Embedded);
    env.unset("PGSLUICE_KEY");
    env.queue.send(&crate::logins::generated(MESSAGES));
    // What the page corrects.
    let mut long = crate::logins::login("too-long");
    long["device_type"] = json!("x".repeat(40));
    env.queue.send(&[long.to_string()]);

    let mut script = "set -eu\n".to_owned();
    for (index, block) in scripts.iter().enumerate() {
        _ = write!(script, "echo '# block {index}' >&2\n{block}");
    }
    fs::write(env.path("tasks.sh"), script).unwrap();
    let mut command = env.command("sh");
    command.arg("tasks.sh").env("PATH", path());
    let ran = env.run_to_end(command).succeeds();

    assert!(ran.stderr.contains(&format!("# block {}", scripts.len() - 1)), "{ran}");
    // The rows of the replay, with the one that the correction let in.
    let rows = |sql: &str| env.database.number(sql);
    assert!(rows("select count(*) from user_logins") > 0, "{ran}");
    assert_eq!(rows("select count(*) from user_logins where length(device_type) = 40"), 1, "{ran}");
    assert_eq!(rows("select count(*) from orders"), 2, "{ran}");
    assert!(env.path("report.html").exists(), "{ran}");
}

/// The CronJob is a file of its own, which `make lint` reads, and the page shows that file.
#[test]
fn the_cron_job_of_the_page_is_the_one_that_is_deployed() {
    let page = page(TASKS);
    let shown = blocks(&page).find(|block| block.language == "yaml").expect("a CronJob").text;
    assert_eq!(shown, fs::read_to_string(project_path("deploy/cronjob.yml")).unwrap());
}

/// The binary that is tested, and psql beside the server.
fn path() -> String {
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_pgsluice")).parent().unwrap();
    let inherited = std::env::var("PATH").unwrap_or_default();
    format!("{}:{inherited}", binary.display())
}
