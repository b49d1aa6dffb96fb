//! Several pgsluice processes on one queue and one database, while messages that one holds are delivered to another.

use std::collections::BTreeSet;
use std::thread;

use pgsluice::local::Faults;

use crate::logins::{PLAIN_COLUMNS, expected_rows, login};
use crate::testenv::{Counts, Server, TestEnv};

const MESSAGES: usize = 2000;
const REDELIVER_EVERY: u32 = 3;
/// Of another kind: rejects can be delivered twice, too.
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

    let outcomes: Vec<_> = thread::scope(|scope| {
        let env = &env;
        let running: Vec<_> =
            (0..processes).map(|index| scope.spawn(move || env.run_as(&format!("process-{index}")))).collect();
        running.into_iter().map(|process| process.join().unwrap().succeeds()).collect()
    });

    let mut total = Counts::default();
    for outcome in &outcomes {
        assert!(outcome.report().sum_holds(), "{outcome}");
        let counts = outcome.counts();
        assert_eq!(counts.pending, 0, "{outcome}");
        total.loaded += counts.loaded;
        total.rejected += counts.rejected;
        total.duplicates += counts.duplicates;
        total.received += counts.received;
    }
    let expected = expected_rows(&sent);
    let (rows, rejects) = (expected.len() as u64, (sent.len() - expected.len()) as u64);
    let sums = (total.loaded, total.rejected, total.received);
    assert_eq!(sums, (rows, rejects, rows + rejects + total.duplicates));
    assert!(total.duplicates > 0, "nothing was delivered twice");
    let loaded = env.database.rows(&format!("select {PLAIN_COLUMNS} from user_logins"));
    assert_eq!(loaded.len() as u64, rows);
    assert_eq!(loaded.into_iter().collect::<BTreeSet<_>>(), expected);
    assert_eq!(env.database.count("pgsluice.reject"), rejects);
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
}
