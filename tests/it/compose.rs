//! `docker-compose.yml`, as far as its steps can be done without Docker: the same script fills a queue, and the same
//! commands with the same key empty it.

use std::fs;

use crate::testenv::{Server, TestEnv, project_path};

const MESSAGES: u64 = 200;

#[test]
fn the_queue_that_compose_fills_becomes_rows() {
    let compose = fs::read_to_string(project_path("docker-compose.yml")).unwrap();
    let env = TestEnv::without_tables(Server::LocalStack);
    let mut fill = env.command("sh");
    fill.args(["-ec", &fill_script(&compose)]);
    fill.env("QUEUE_URL", env.queue.url()).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    env.run_to_end(fill).succeeds();

    env.pgsluice(&["init"]).succeeds();
    let counts = env.run().succeeds().counts();
    assert_eq!((counts.received, counts.loaded), (MESSAGES, MESSAGES));
}

/// The script of the service `fill`: the block after its `- |`, in which Compose writes `$` twice.
fn fill_script(compose: &str) -> String {
    let (_, service) = compose.split_once("\n  fill:\n").expect("a service `fill`");
    let (_, block) = service.split_once("- |\n").expect("a script in a block");
    let indent = block.find(|c: char| c != ' ').expect("a line");
    let lines = block.lines().take_while(|line| line.len() > indent && line[..indent].trim().is_empty());
    lines.map(|line| &line[indent..]).collect::<Vec<_>>().join("\n").replace("$$", "$")
}
