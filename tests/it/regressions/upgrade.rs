//! A ledger and files of version 1, as that version left them, under this one: nothing is lost, doubled or forgotten.
//!
//! The ledger had no version: a program beside one of another version failed with an SQLSTATE and "see the server's log".

use std::fs;

use serde_json::Value;

use super::{STAGING, files_in, kept_bodies, users};
use crate::logins::login;
use crate::reject_policy::{mend, misfit};
use crate::testenv::{Counts, Queue, QueueKind, Running, Server, TestEnv, project_path, wait_until};

/// Messages in a segment.
const SIZE: usize = 3;

/// A segment of format 1: its name, and its lines, which are all of messages.
struct Segment {
    id: String,
    lines: Vec<String>,
}

impl Segment {
    fn messages(&self) -> impl Iterator<Item = Value> {
        self.lines.iter().map(|line| serde_json::from_str(line).unwrap())
    }

    /// The one of a scene that is staged and not loaded.
    fn staged(env: &TestEnv) -> Self {
        let is_ids = |file: &std::path::PathBuf| file.to_string_lossy().ends_with(".ids.csv");
        let chunk = env.staged_files("chunks").into_iter().find(|file| !is_ids(file)).unwrap();
        let id = chunk.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(env.path(&format!("{STAGING}/spool/{id}.ndjson"))).unwrap();
        Self { id, lines: text.split_inclusive('\n').map(str::to_owned).collect() }
    }

    fn write(&self, env: &TestEnv, part: &str) {
        let directory = env.path(STAGING).join(part);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("{}.ndjson", self.id)), self.lines.concat()).unwrap();
    }
}

/// Receives all that a queue holds, into segments of format 1.
fn received_from(env: &mut TestEnv, queue_url: &str) -> Vec<Segment> {
    let own = env.queue.url().to_owned();
    env.set("PGSLUICE_QUEUE_URL", queue_url);
    env.configure(&format!("[queue]\npollers = 1\n[spool]\nsegment_max_messages = {SIZE}\n"));
    let directory = format!("received-from-{}", queue_url.len() + usize::from(own == queue_url));
    env.start_as(&directory, &["drain"]).wait().succeeds();
    env.set("PGSLUICE_QUEUE_URL", own);
    env.configure("");
    let segment = |file: std::path::PathBuf| {
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
        let id = file.file_stem().unwrap().to_str().unwrap().to_owned();
        Segment { id, lines: lines[1..lines.len() - 1].to_vec() }
    };
    files_in(env, &format!("{directory}/spool")).into_iter().map(segment).collect()
}

/// Loads a segment as version 1 did: in one transaction, which is what told it the owner of a message.
fn load_as_version_1(env: &TestEnv, segment: &Segment) {
    env.database.execute(&format!("begin; {}; commit", load_statements(segment).join("; ")));
}

/// In the order of version 1: it asks for the segment, records messages and rejects, and the segment last.
fn load_statements(segment: &Segment) -> [String; 3] {
    let (mut rejects, mut statements) = (0, Vec::new());
    for message in segment.messages() {
        let (id, sent_at) = (message["message_id"].as_str().unwrap(), message["sent_at"].as_i64().unwrap());
        let body: Value = serde_json::from_str(message["body"].as_str().unwrap()).unwrap();
        statements.push(format!(
            "insert into pgsluice.message values ('user_logins', to_timestamp({sent_at} / 1000.0::numeric), '{id}');"
        ));
        if body.get("device_type").is_some() {
            let user = body["user_id"].as_str().unwrap();
            statements.push(format!("insert into user_logins (user_id) values ('{user}');"));
            continue;
        }
        rejects += 1;
        statements.push(format!(
            "insert into pgsluice.reject (pipeline, message_id, segment, stage, field, reason)
             values ('user_logins', '{id}', '{}', 'transform', 'device_type', 'device_type is missing');",
            segment.id
        ));
    }
    let (received, loaded) = (segment.lines.len(), segment.lines.len() - rejects);
    let id = &segment.id;
    [
        format!("select from pgsluice.segment where id = '{id}'"),
        statements.concat(),
        format!(
            "insert into pgsluice.segment
             (id, pipeline, received, loaded, duplicates, rejected, host, first_sent_at, last_sent_at)
             values ('{id}', 'user_logins', {received}, {loaded}, 0, {rejects}, 'old-host', now(), now())"
        ),
    ]
}

/// As a restored dump has them: the messages of a segment were written by another transaction than it says.
fn restore(env: &TestEnv, segment: &Segment) {
    let ids: Vec<String> =
        segment.messages().map(|message| format!("'{}'", message["message_id"].as_str().unwrap())).collect();
    env.database.execute(&format!(
        "create temp table restored as select * from pgsluice.message where message_id in ({ids});
         delete from pgsluice.message where message_id in ({ids});
         insert into pgsluice.message select * from restored; drop table restored",
        ids = ids.join(", ")
    ));
}

/// Its reject file, as version 1's transform wrote it.
fn keep_rejects_as_version_1(env: &TestEnv, segment: &Segment) {
    let bad = segment.lines.iter().filter(|line| !line.contains("device_type"));
    let with_reason = |line: &String| {
        let fields = line.split(",\"crc32\":").next().unwrap();
        format!("{fields},\"stage\":\"transform\",\"reason\":\"device_type is missing\",\"field\":\"device_type\"}}\n")
    };
    let lines: Vec<String> = bad.map(with_reason).collect();
    fs::create_dir_all(env.path("staging/rejects")).unwrap();
    fs::write(env.path(&format!("staging/rejects/{}.ndjson", segment.id)), lines.concat()).unwrap();
}

fn user(number: usize) -> String {
    login(&format!("user {number:02}")).to_string()
}

/// What version 1 leaves that was stopped in the middle of its work: three segments are acknowledged, of which one has a
/// reject and one was restored from a dump; one is committed, one is staged, one is open.
struct Scene {
    env: TestEnv,
    all_users: Vec<String>,
}

fn version_1() -> Scene {
    let mut env = TestEnv::without_tables(Server::Embedded);
    for file in ["tests/it/fixtures/ledger_version_1.sql", "sql/004_user_logins.sql"] {
        env.database.execute(&fs::read_to_string(project_path(file)).unwrap());
    }
    let done = Queue::create(Server::Embedded, QueueKind::Standard);
    done.send(&[(0..8).map(user).collect::<Vec<_>>(), vec![misfit("late")]].concat());
    let acknowledged = received_from(&mut env, done.url());
    env.queue.set_visibility_timeout(600);
    env.queue.send(&(8..17).map(user).collect::<Vec<_>>());
    let own = env.queue.url().to_owned();
    let unfinished = received_from(&mut env, &own);
    assert_eq!((acknowledged.len(), unfinished.len()), (3, 3));

    for segment in &acknowledged {
        load_as_version_1(&env, segment);
        segment.write(&env, "archive");
        keep_rejects_as_version_1(&env, segment);
    }
    restore(&env, &acknowledged[1]);
    let [committed, staged, open] = &unfinished[..] else { unreachable!() };
    load_as_version_1(&env, committed);
    committed.write(&env, "spool");
    staged.write(&env, "spool");
    fs::create_dir_all(env.path("staging/chunks")).unwrap();
    for (name, content) in [("csv", "a chunk of another mapping\n"), ("ids.csv", "1,2\n")] {
        fs::write(env.path(&format!("staging/chunks/{}.{name}", staged.id)), content).unwrap();
    }
    let torn = open.lines.concat();
    let path = env.path(&format!("staging/spool/{}.ndjson.open", open.id));
    fs::write(path, &torn[..torn.len() - 20]).unwrap();
    env.queue.release(open.messages().last().unwrap()["receipt_handle"].as_str().unwrap());
    Scene { env, all_users: (0..17).map(|number| format!("user {number:02}")).collect() }
}

#[test]
fn a_ledger_of_another_version_is_named_with_what_to_do() {
    let commands: [&[&str]; 4] = [&["run"], &["replay"], &["rejects", "list"], &["rejects", "retry"]];
    let Scene { env, .. } = version_1();
    for command in commands {
        env.pgsluice(command).fails(1, "has version 1, which is older than this pgsluice", "run `pgsluice init`");
    }
    let status = env.pgsluice(&["status"]).succeeds().stdout;
    assert!(status.contains("has version 1, which is older"), "{status}");

    env.pgsluice(&["init"]).succeeds();
    env.database.execute("update pgsluice.ledger_version set version = 3");
    for command in commands.into_iter().chain([&["init"][..]]) {
        env.pgsluice(command).fails(1, "has version 3, which is newer than this pgsluice", "or a newer one");
    }
    assert_eq!(env.queue.counts().in_flight, 8, "nothing was received or deleted");
}

#[test]
fn what_version_1_left_is_finished_and_loaded_again_once() {
    let Scene { env, all_users } = version_1();
    for _ in 0..2 {
        env.pgsluice(&["init"]).succeeds();
        let counts = ["segment", "message", "reject"].map(|table| env.database.count(&format!("pgsluice.{table}")));
        assert_eq!(counts, [4, 12, 1]);
        assert_eq!(env.database.count("pgsluice.message where segment_no = 0"), 3, "of the restored segment");
    }

    let outcome = env.run().succeeds();
    // The segments in the spool, the whole lines of the open one, and the message that was torn off it.
    let expected = Counts { received: 9, loaded: 6, duplicates: 3, acknowledged: 9, ..Counts::default() };
    assert_eq!(outcome.counts(), expected, "{outcome}");
    assert!(env.queue.is_empty(), "{:?}", env.queue.counts());
    assert_eq!(users(&env), all_users);

    assert_eq!(env.job(&["replay"]).succeeds().counts().loaded, 0);
    env.database.execute("truncate user_logins");
    let counts = env.job(&["replay", "--again"]).succeeds().counts();
    assert_eq!((counts.loaded, counts.rejected), (17, 1));
    assert_eq!(users(&env), all_users);
    assert_eq!(env.database.count("pgsluice.message where segment_no = 0"), 0);
}

#[test]
fn rejects_of_version_1_are_listed_and_tried_again() {
    let Scene { env, all_users } = version_1();
    env.pgsluice(&["init"]).succeeds();
    let listed = env.pgsluice(&["rejects", "list", "--entries"]).succeeds().stdout;
    let segment: Value = serde_json::from_str(&listed).unwrap();
    let file = format!("staging/archive/{}.ndjson", segment["segment"].as_str().unwrap());
    assert!(fs::read_to_string(env.path(&file)).unwrap().contains("late"), "{listed}");

    env.run().succeeds();
    assert_eq!(kept_bodies(&env, STAGING), [misfit("late")]);
    mend(&env, "");
    assert_eq!(env.job(&["rejects", "retry"]).succeeds().counts().loaded, 1);
    assert_eq!(kept_bodies(&env, STAGING), Vec::<String>::new());
    assert_eq!(users(&env), [vec!["late".to_owned()], all_users].concat());
    assert_eq!(env.job(&["replay"]).succeeds().counts().loaded, 0);
}

/// The grants that the comment in version 1's file asked for.
#[test]
fn a_role_that_could_load_with_version_1_still_can() {
    let Scene { mut env, all_users } = version_1();
    let role = format!("old_loader_{}", env.database.texts("select current_database()").remove(0));
    env.database.execute(&format!(
        "create role {role} login password 'loader';
         grant usage on schema pgsluice to {role};
         grant select, insert, delete on pgsluice.segment, pgsluice.message, pgsluice.reject to {role};
         grant execute on function pgsluice.ensure_message_partitions(date, date) to {role};
         grant update on pgsluice.segment, pgsluice.reject to {role};
         grant insert on public.user_logins to {role}"
    ));
    env.pgsluice(&["init"]).succeeds();
    let address = env.database.url().rsplit_once('@').unwrap().1.to_owned();
    env.set("DATABASE_URL", format!("postgres://{role}:loader@{address}"));
    env.run().succeeds();
    assert_eq!(users(&env), all_users);
    env.pgsluice(&["prune"]).succeeds();
    mend(&env, "");
    assert_eq!(env.job(&["rejects", "retry"]).succeeds().counts().loaded, 1);
    env.configure("");

    env.database.execute("truncate user_logins");
    // Version 1 did not look whether the table was empty.
    env.job(&["replay", "--again"]).fails(1, "42501", "`pgsluice init --role loader --print` prints");
    env.database.execute(&format!("grant select on user_logins to {role}"));
    env.job(&["replay", "--again"]).succeeds();
    assert_eq!(users(&env), all_users);
}

/// Starts `init`, and waits until it waits for a lock.
fn init_that_waits(env: &TestEnv) -> Running {
    let init = env.start_without_report(&["init"]);
    wait_until(|| env.database.sessions_waiting_for_a_lock() > 0);
    init
}

/// `init` once copied the old rows and dropped their tables while loads of version 1 were under way: what these had
/// committed by then was gone, and their messages were loaded a second time.
#[test]
fn what_version_1_commits_while_init_waits_for_it_is_taken_over() {
    let Scene { env, all_users } = version_1();
    let [asked, recorded, ended] = load_statements(&Segment::staged(&env));
    // `init` says itself which isolation it needs.
    let database = env.database.texts("select quote_ident(current_database())").remove(0);
    env.database.execute(&format!("alter database {database} set default_transaction_isolation = 'repeatable read'"));
    let loader = env.database.again();
    loader.execute(&format!("begin transaction isolation level read committed; {asked}"));
    let init = init_that_waits(&env);
    loader.execute(&recorded);
    loader.execute(&format!("{ended}; commit"));
    init.ended().succeeds();
    assert_eq!(env.database.count("pgsluice.segment"), 5);
    assert_eq!(env.database.count("pgsluice.message"), 12 + SIZE as u64);

    env.database.execute(&format!("alter database {database} reset default_transaction_isolation"));
    let counts = env.run().succeeds().counts();
    assert_eq!((counts.loaded, counts.duplicates), (6 - SIZE as u64, 3 + SIZE as u64));
    assert_eq!(users(&env), all_users);
}

/// It locks rejects first and the segment last: the other way round than a load does.
#[test]
fn a_retry_of_version_1_that_is_under_way_is_taken_over() {
    let Scene { env, .. } = version_1();
    let retry = env.database.again();
    retry.execute("begin; delete from pgsluice.reject");
    let init = init_that_waits(&env);
    retry.execute("update pgsluice.segment set loaded = loaded + rejected, rejected = 0; commit");
    init.ended().succeeds();
    assert_eq!(env.database.count("pgsluice.reject"), 0);
    assert_eq!(env.database.count("pgsluice.segment where rejected > 0"), 0);
}
