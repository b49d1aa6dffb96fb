//! What must be true after any fault: every message sent is loaded once or rejected once, with the right values, and
//! nothing was deleted from the queue before its transaction committed.

use std::collections::BTreeMap;

use crate::logins::{PLAIN_COLUMNS, expected_rows, logins_of};
use crate::testenv::TestEnv;

/// The places of the messages that were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// In the ledger, so loaded or rejected.
    pub(crate) committed: u64,
    /// Not in the queue any more.
    pub(crate) deleted: u64,
}

/// The places of the messages while no process runs, or just died. Nothing may be deleted that is not committed.
pub(crate) fn standing(env: &TestEnv, sent: usize) -> Standing {
    let counts = env.queue.counts();
    let deleted = (sent - counts.visible - counts.in_flight) as u64;
    let standing = Standing { committed: committed(env), deleted };
    assert!(deleted <= standing.committed, "deleted before they were committed: {standing:?}");
    standing
}

/// All is done: each body became one row or one reject, and neither the queue nor the stages hold anything more.
pub(crate) fn assert_balanced(env: &TestEnv, sent: &[String]) {
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
    let rows = env.database.rows(&format!("select {PLAIN_COLUMNS} from user_logins"));
    assert_eq!(rows.len(), logins_of(sent).len(), "a row for each login, and none twice");
    assert_eq!(rows.into_iter().collect::<std::collections::BTreeSet<_>>(), expected_rows(sent));
    assert_masked_values(env, sent);
    assert_eq!(env.database.count("pgsluice.reject"), (sent.len() - logins_of(sent).len()) as u64);
    assert_eq!(committed(env), sent.len() as u64);
    for part in ["spool", "chunks"] {
        assert!(env.staged_files(part).is_empty(), "{part}: {:?}", env.staged_files(part));
    }
    let unfinished = |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "tmp");
    assert!(!env.staged_files("rejects").iter().any(unfinished), "{:?}", env.staged_files("rejects"));
}

/// Each login's row holds its own addresses, when they are revealed.
fn assert_masked_values(env: &TestEnv, sent: &[String]) {
    let rows = env.database.rows("select user_id, masked_ip, masked_device_id from user_logins order by user_id");
    let masked: Vec<String> = rows.iter().flat_map(|row| row[1..].iter().flatten().cloned()).collect();
    let revealed = env.pgsluice_with_input(&["reveal"], &(masked.join("\n") + "\n")).succeeds().stdout;
    let text = |login: &serde_json::Value, field: &str| login[field].as_str().unwrap().to_owned();
    let logins: BTreeMap<String, _> =
        logins_of(sent).into_iter().map(|login| (text(&login, "user_id"), login)).collect();
    let expected = logins.values().flat_map(|login| [text(login, "ip"), text(login, "device_id")]);
    assert!(revealed.lines().map(str::to_owned).eq(expected), "masked values differ from what was sent");
}

fn committed(env: &TestEnv) -> u64 {
    env.database.count("pgsluice.message")
}
