//! Several pgsluice processes on one queue and one database, while messages that one holds are delivered to another.

use pgsluice::local::Faults;

use crate::books::assert_balanced;
use crate::logins::{login, logins_of};
use crate::testenv::{Counts, Server, TestEnv};

const MESSAGES: usize = 2000;
const REDELIVER_EVERY: u32 = 3;
/// Messages of another kind: rejects can be redelivered, too.
const ODD_EVERY: usize = 50;

/// Small segments, so that loads of different processes meet often.
const SMALL_SEGMENTS: &str = "[queue]\npollers = 8\n[spool]\nsegment_max_messages = 60\n";

#[test]
fn two_processes_on_one_queue_load_each_message_once() {
    load_each_message_once(2, "");
}

#[test]
fn four_processes_on_one_queue_load_each_message_once() {
    load_each_message_once(4, "");
}

/// A unique index of the table's owner is filled in no order, so loads do deadlock in it, and then are tried again.
#[test]
fn processes_that_meet_in_a_unique_index_of_the_table_load_each_message_once() {
    load_each_message_once(3, "create unique index on user_logins (reverse(user_id))");
}

fn load_each_message_once(processes: usize, setup: &str) {
    let env = TestEnv::new(Server::Faulty(Faults { redeliver_every: Some(REDELIVER_EVERY) }));
    env.configure(SMALL_SEGMENTS);
    env.database.execute(setup);
    let body = |number: usize| match number % ODD_EVERY {
        0 => format!(r#"{{"another kind":{number}}}"#),
        _ => login(&format!("user {number}")).to_string(),
    };
    let sent: Vec<String> = (0..MESSAGES).map(body).collect();
    env.queue.send(&sent);

    let running: Vec<_> = (0..processes).map(|index| env.start_as(&format!("process-{index}"), &["run"])).collect();
    let outcomes: Vec<_> = running.into_iter().map(|process| process.wait().succeeds()).collect();

    let mut total = Counts::default();
    for outcome in &outcomes {
        let counts = outcome.counts();
        assert_eq!(counts.pending, 0, "{outcome}");
        total.loaded += counts.loaded;
        total.rejected += counts.rejected;
        total.duplicates += counts.duplicates;
        total.received += counts.received;
    }
    let rows = logins_of(&sent).len() as u64;
    let rejects = sent.len() as u64 - rows;
    let sums = (total.loaded, total.rejected, total.received);
    assert_eq!(sums, (rows, rejects, rows + rejects + total.duplicates));
    assert!(total.duplicates > 0, "nothing was delivered twice");
    assert_balanced(&env, &sent);
}
