//! Messages that were loaded into the wrong table, with wrong values, or deleted from the wrong queue: the staging
//! directory did not know whose its files were.

use std::fs;

use super::{STAGING, kept_bodies, users};
use crate::logins::login;
use crate::reject_policy::{logins, misfit};
use crate::testenv::{Queue, QueueKind, Server, TestEnv};

/// Another pipeline into a table of its own, in which every login fits.
const OTHER_PIPELINE: &str = r#"
    [pipeline]
    name = "others"
    table = "others"
    [[column]]
    name = "user_id"
    [[column]]
    name = "device_type"
    [[column]]
    name = "queue"
    value = "queue"
"#;

fn with_the_other_table(server: Server) -> TestEnv {
    let env = TestEnv::new(server);
    env.database.execute("create table others (user_id text, device_type text, queue text)");
    env
}

/// Pipeline B over the unfinished segments of A filled B's table with what A's messages have in B's columns, mostly NULL,
/// and deleted at A's receipt handles.
#[test]
fn a_pipeline_refuses_the_files_of_another() {
    let stages = ["drain", "transform", "load"];
    for unfinished in 1..=stages.len() {
        let env = with_the_other_table(Server::Embedded);
        env.queue.send(&logins(3));
        stages[..unfinished].iter().for_each(|stage| _ = env.job(&[stage]).succeeds());

        env.configure(OTHER_PIPELINE);
        for command in ["run", "drain", "transform", "load", "ack", "replay"] {
            let outcome = env.job(&[command]).fails(2, "belongs to pipeline user_logins", "--staging-dir");
            assert!(outcome.stderr.contains("this configuration is of pipeline others"), "{outcome}");
        }
        env.pgsluice(&["status"]).succeeds();
        assert_eq!((env.queue.counts().in_flight, env.database.count("others")), (3, 0));

        env.configure("");
        env.run().succeeds();
        assert_eq!(users(&env).len(), 3);
        assert!(env.queue.is_empty());
    }
}

/// With another queue's URL the same pipeline asked that queue to delete at the first one's receipt handles.
#[test]
fn a_segment_of_one_queue_is_not_deleted_from_another() {
    let server = Server::Embedded;
    let mut env = TestEnv::new(server);
    env.queue.send(&logins(3));
    for stage in ["drain", "transform", "load"] {
        env.job(&[stage]).succeeds();
    }
    let other = Queue::create(server, QueueKind::Standard);
    other.send(&logins(2));
    let first = env.queue.url().to_owned();
    env.set("PGSLUICE_QUEUE_URL", other.url());
    for command in ["run", "drain", "ack"] {
        let outcome = env.job(&[command]).fails(2, &first, "--queue-url");
        assert!(outcome.stderr.contains(other.url()), "{outcome}");
    }
    assert_eq!((other.counts().visible, env.queue.counts().in_flight), (2, 3));
    env.set("PGSLUICE_QUEUE_URL", first);
    env.run().succeeds();
    assert!(env.queue.is_empty());
}

/// Two columns of the same type.
fn columns(first: &str, second: &str, more: &str) -> String {
    format!(
        "[[column]]\nname = \"{first}\"\nfrom = \"/user_id\"\nmax_length = 128\n\
         [[column]]\nname = \"{second}\"\nfrom = \"/ip\"\nmax_length = 128\n{more}"
    )
}

/// A chunk knew nothing of its mapping. One that was edited between `transform` and `load` swapped two columns in
/// silence, and a column that became a masked one got its values in clear.
#[test]
fn a_chunk_of_another_mapping_is_not_loaded() {
    let edits = [
        ("the columns change places", columns("masked_ip", "user_id", ""), "199.172.111.135"),
        ("a column becomes a masked one", columns("user_id", "masked_ip", "mask = \"siv\"\n"), "user 0"),
    ];
    for (edit, edited, user) in edits {
        let env = TestEnv::new(Server::Embedded);
        env.configure(&columns("user_id", "masked_ip", ""));
        env.queue.send(&logins(1));
        env.job(&["drain"]).succeeds();
        env.job(&["transform"]).succeeds();
        env.configure(&edited);
        env.job(&["load"]).fails(1, "was made with another mapping than today's", "transform");
        assert_eq!(env.database.count("user_logins"), 0, "{edit}");

        env.run().succeeds();
        assert_eq!(users(&env), [user], "{edit}");
        let in_clear = "select count(*) from user_logins where masked_ip = '199.172.111.135'";
        assert_eq!(env.database.number(in_clear), 0, "{edit}");
    }
}

/// A replay into a second pipeline said "duplicates" and loaded nothing, because the ledger asked for the segment alone.
#[test]
fn an_archive_is_replayed_into_a_second_pipeline() {
    let env = with_the_other_table(Server::Embedded);
    env.queue.send(&logins(3));
    env.run().succeeds();
    env.configure(OTHER_PIPELINE);
    env.job(&["replay"]).fails(2, "belongs to pipeline user_logins", "--from PIPELINE");
    assert_eq!(env.job(&["replay", "--from", "user_logins"]).succeeds().counts().loaded, 3);
    assert_eq!(env.job(&["replay", "--from", "user_logins"]).succeeds().counts().duplicates, 3);
    assert_eq!((env.database.count("others"), users(&env).len()), (3, 3));
}

/// A load into the second table took the segment out of the first one's spool, whose run then ended with 0 and without it.
#[test]
fn what_a_pipeline_has_not_loaded_yet_is_left_to_it_by_another() {
    let env = with_the_other_table(Server::Embedded);
    std::fs::write(env.path("bodies.ndjson"), logins(3).join("\n")).unwrap();
    env.job(&["import", "bodies.ndjson"]).succeeds();
    env.configure(OTHER_PIPELINE);
    let replay = env.job(&["replay", "--from", "user_logins"]).succeeds();
    assert!(replay.stderr.contains("left alone until that pipeline has loaded"), "{replay}");
    assert_eq!((replay.counts().received, env.database.count("others")), (0, 0));
    env.configure("");
    env.run().succeeds();
    assert_eq!(users(&env).len(), 3);
    env.configure(OTHER_PIPELINE);
    assert_eq!(env.job(&["replay", "--from", "user_logins"]).succeeds().counts().loaded, 3);
}

/// Both pipelines keep their rejects in one file. What one of them could load took the other's only body along.
#[test]
fn what_a_second_pipeline_loads_is_still_a_reject_of_the_first() {
    let env = with_the_other_table(Server::Embedded);
    env.database.execute("alter table others add constraint known check (device_type <> 'fridge')");
    let fridge = |user: &str| {
        let mut body = login(user);
        body["device_type"] = "fridge".into();
        body.to_string()
    };
    env.database.execute("alter table user_logins add constraint known check (device_type <> 'fridge')");
    env.queue.send(&[logins(2), vec![misfit("fits the other"), fridge("fits neither")]].concat());
    assert_eq!(env.run().succeeds().counts().rejected, 2);
    env.configure(OTHER_PIPELINE);
    let counts = env.job(&["replay", "--from", "user_logins"]).succeeds().counts();
    assert_eq!((counts.loaded, counts.rejected), (3, 1));
    let both = [fridge("fits neither"), misfit("fits the other")];
    assert!(both.iter().all(|body| kept_bodies(&env, STAGING).contains(body)));

    env.database.execute("alter table others drop constraint known");
    assert_eq!(env.job(&["rejects", "retry"]).succeeds().counts().loaded, 1);
    assert_eq!(kept_bodies(&env, STAGING), both, "the first pipeline's");
    env.configure("");
    env.database.execute("alter table user_logins drop constraint known");
    assert_eq!(env.job(&["rejects", "retry"]).succeeds().counts().loaded, 1);
    assert_eq!(kept_bodies(&env, STAGING), [misfit("fits the other")]);
    assert_eq!((env.database.count("others"), users(&env).len()), (4, 3));
}

/// The name of the queue that the messages of this pipeline's rows came from.
fn queues_of(env: &TestEnv) -> Vec<String> {
    env.database.texts("select distinct coalesce(queue, 'null') from others")
}

const TODAY: &str = "http://localhost/000000000000/today";

/// `value = "queue"` was the name of the queue that was configured on the day of the load, not of the one that the
/// message came from.
#[test]
fn the_queue_of_a_message_is_the_one_that_it_was_received_from() {
    let mut env = with_the_other_table(Server::Embedded);
    env.configure(OTHER_PIPELINE);
    env.queue.send(&logins(1));
    env.job(&["drain"]).succeeds();
    let name = vec![env.queue.url().rsplit_once('/').unwrap().1.to_owned()];
    env.set("PGSLUICE_QUEUE_URL", TODAY);
    env.job(&["transform"]).succeeds();
    env.job(&["load"]).succeeds();
    assert_eq!(queues_of(&env), name);

    env.database.execute("truncate others");
    env.job(&["replay", "--again"]).succeeds();
    assert_eq!(queues_of(&env), name);
    env.unset("PGSLUICE_QUEUE_URL");
    env.database.execute("truncate others");
    env.job(&["replay", "--again"]).succeeds();
    assert_eq!(queues_of(&env), name);
}

/// An imported message came from none.
#[test]
fn an_imported_message_comes_from_no_queue() {
    let mut env = with_the_other_table(Server::Embedded);
    env.configure(OTHER_PIPELINE);
    fs::write(env.path("imported.ndjson"), login("imported").to_string()).unwrap();
    env.set("PGSLUICE_QUEUE_URL", TODAY);
    env.job(&["import", "imported.ndjson"]).succeeds();
    env.job(&["replay"]).succeeds();
    assert_eq!(queues_of(&env), ["null"]);
}

/// A retry looked the queue up in the segment. Once the archive had expired, it wrote NULL.
#[test]
fn a_reject_still_knows_its_queue_when_its_segment_is_gone() {
    let mut env = with_the_other_table(Server::Embedded);
    env.database.execute("alter table others add constraint known check (user_id <> 'refused')");
    env.configure(&OTHER_PIPELINE.replace("name = \"device_type\"", "name = \"device_type\"\nrequired = true"));
    env.queue.send(&[misfit("unfit"), login("refused").to_string()]);
    assert_eq!(env.run().succeeds().counts().rejected, 2);
    let name = vec![env.queue.url().rsplit_once('/').unwrap().1.to_owned()];
    env.staged_files("archive").into_iter().for_each(|segment| fs::remove_file(segment).unwrap());

    env.set("PGSLUICE_QUEUE_URL", TODAY);
    env.configure(OTHER_PIPELINE);
    assert_eq!(env.job(&["rejects", "retry"]).succeeds().counts().loaded, 1);
    env.database.execute("alter table others drop constraint known");
    assert_eq!(env.job(&["rejects", "retry"]).succeeds().counts().loaded, 1);
    assert_eq!((queues_of(&env), env.database.count("others")), (name, 2));
}
