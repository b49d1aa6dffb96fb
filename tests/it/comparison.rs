//! What `make compare` needs of today's files. It installs its peers, which is why it is not run as a whole here.

use std::fs;

use crate::logins::{generated, logins_of};
use crate::testenv::{Server, TestEnv, project_path};

/// Python that lays out the chunks below `original` for a load, and prints the ids in its spool.
const LAY_OUT: &str = "
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1:]
from dataset import Dataset
from spool_file import messages
dataset = Dataset(Path.cwd(), 1)
dataset.staging_with_chunks()
for file in dataset.spool_files(1):
    for message in messages(file):
        print(message['message_id'], len(message['body']))
";

/// Its loads laid out chunks as they were before there was a manifest, which are nothing to load, and two peers took the
/// lines around the messages for messages.
#[test]
fn its_layout_of_chunks_is_loaded_and_its_peers_find_the_messages() {
    let env = TestEnv::new(Server::Embedded);
    let bodies = generated(30);
    env.queue.send(&bodies);
    env.job(&["drain"]).succeeds();
    env.job(&["transform"]).succeeds();
    let ids = env.staged_objects("spool").len();
    fs::rename(env.path("staging"), env.path("original")).unwrap();

    let mut python = env.command("python3");
    python.args(["-B", "-c", LAY_OUT]).args(["", "peers"].map(|part| project_path("benches/compare").join(part)));
    python.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let found = env.run_to_end(python).succeeds().stdout;
    assert_eq!((found.lines().count(), ids), (bodies.len(), bodies.len()));
    env.job(&["load", "--staging-dir", "run"]).succeeds();
    assert_eq!(env.database.count("user_logins"), logins_of(&bodies).len() as u64);
}
