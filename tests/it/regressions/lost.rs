//! Messages that ended as neither row nor kept reject, and were not in the queue any more.

use std::fs;

use super::{OTHER_HOST, STAGING, copy_to_other_host, files_in, kept_bodies, users};
use crate::logins::login;
use crate::reject_policy::{logins, mend, misfit};
use crate::testenv::{Counts, Database, Server, TestEnv};

/// A table that refuses the user `bad`.
fn with_a_check() -> TestEnv {
    let env = TestEnv::new(Server::Embedded);
    env.database.execute("alter table user_logins add constraint known check (user_id <> 'bad')");
    env.queue.send(&[logins(3), vec![login("bad").to_string()]].concat());
    env
}

fn drop_the_check(env: &TestEnv) {
    env.database.execute("alter table user_logins drop constraint known");
}

/// A second `transform` removed the reject file of a segment that was loaded. It held the only copy of what a CHECK had
/// refused, and `ack` deleted the message from the queue.
#[test]
fn a_refused_row_is_kept_whatever_stage_runs_once_more() {
    let env = with_a_check();
    for stage in ["drain", "transform", "load", "transform", "load", "ack", "transform", "load"] {
        env.job(&[stage]).succeeds();
    }
    assert!(env.queue.is_empty());
    assert_eq!(users(&env).len(), 3);
    assert_eq!(kept_bodies(&env, STAGING), [login("bad").to_string()]);
    drop_the_check(&env);
    assert_eq!(env.job(&["rejects", "retry"]).succeeds().counts().loaded, 1);
    assert_eq!(users(&env).len(), 4);
}

/// `replay --again` wrote the reject file anew before its load committed. Killed in between, it left the ledger with a
/// reject that had no body.
#[cfg(feature = "crash-points")]
#[test]
fn a_replay_that_dies_takes_no_body_of_a_reject_along() {
    for point in ["transform", "copy-ids", "copy-rows", "before-commit", "commit"] {
        let mut env = with_a_check();
        env.run().succeeds();
        env.database.execute("truncate user_logins");
        env.set("PGSLUICE_CRASH_POINT", point);
        env.job(&["replay", "--again"]).dies();
        env.unset("PGSLUICE_CRASH_POINT");
        assert_eq!(kept_bodies(&env, STAGING), [login("bad").to_string()], "{point}");

        env.job(&["replay", "--again"]).succeeds();
        assert_eq!(users(&env).len(), 3, "{point}");
        assert_eq!(env.database.count("pgsluice.reject"), 1, "{point}");
        drop_the_check(&env);
        env.job(&["rejects", "retry"]).succeeds();
        assert_eq!(users(&env).len(), 4, "{point}");
        assert_eq!(kept_bodies(&env, STAGING), Vec::<String>::new(), "{point}");
    }
}

/// `load` counted as received what the files that happened to be there held. Chunks that were copied without their
/// rejects loaded with a smaller count, and `ack` deleted every message of the segment.
#[test]
fn a_chunk_that_was_copied_in_part_is_refused_and_nothing_is_deleted() {
    for missing in [".rejects.ndjson", ".ids.csv", ".csv"] {
        let env = TestEnv::new(Server::Embedded);
        env.queue.send(&[logins(3), vec![misfit("bad")]].concat());
        env.job(&["drain"]).succeeds();
        env.job(&["transform"]).succeeds();
        let is_missing = |name: &str| name.split_once('.').unwrap().1 == missing.trim_start_matches('.');
        copy_to_other_host(&env, "chunks", |name| !is_missing(name));
        let outcome = env.start_as(OTHER_HOST, &["load"]).wait().ends_with(3);
        assert!(outcome.stderr.contains("are not those of its manifest"), "{missing}: {outcome}");
        env.job(&["ack"]).succeeds();
        assert_eq!((env.queue.counts().in_flight, users(&env).len()), (4, 0), "{missing}");

        copy_to_other_host(&env, "chunks", |_| true);
        env.start_as(OTHER_HOST, &["load"]).wait().succeeds();
        assert_eq!((users(&env).len(), kept_bodies(&env, OTHER_HOST)), (3, vec![misfit("bad")]), "{missing}");
        assert_eq!(env.job(&["ack"]).succeeds().counts().acknowledged, 4, "{missing}");
    }
}

/// The same with a chunk that has no manifest: it is none.
#[test]
fn a_chunk_without_its_manifest_is_no_chunk() {
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&logins(3));
    env.job(&["drain"]).succeeds();
    env.job(&["transform"]).succeeds();
    copy_to_other_host(&env, "chunks", |name| name.contains(".csv") || name.contains(".rejects"));
    let load = env.start_as(OTHER_HOST, &["load"]).wait().succeeds();
    assert_eq!(load.counts(), Counts::default());
    assert!(load.stderr.contains("rows without their manifest are no chunk"), "{load}");
    env.job(&["ack"]).succeeds();
    assert_eq!((env.queue.counts().in_flight, users(&env).len()), (3, 0));
}

/// Damage in the rejects of a segment moved the segment itself to damaged/, although it was whole; and `ack`, which could
/// not go on with it, said 0.
#[test]
fn damage_in_a_reject_file_stops_its_segment_where_it_is_until_the_file_is_mended() {
    let env = TestEnv::new(Server::Embedded);
    let bodies = [logins(3), vec![misfit("bad")]].concat();
    env.queue.send(&bodies);
    env.job(&["drain"]).succeeds();
    env.job(&["transform"]).succeeds();
    let [manifest] = &env
        .staged_files("chunks")
        .into_iter()
        .filter(|path| path.extension().is_some_and(|is| is == "json"))
        .collect::<Vec<_>>()[..]
    else {
        panic!("one chunk")
    };
    let rejects = env.path("staging/rejects").join(manifest.with_extension("ndjson").file_name().unwrap());
    fs::write(&rejects, "{\"message_id\":\"cut").unwrap();
    let load = env.job(&["load"]).ends_with(3);
    assert!(load.stderr.contains("is damaged at byte 0: not a reject line; this segment stays where it is"), "{load}");
    assert_eq!(env.staged_files("damaged").len(), 0);

    fs::remove_file(&rejects).unwrap();
    env.job(&["load"]).succeeds();
    env.job(&["ack"]).succeeds();
    assert_eq!((users(&env).len(), kept_bodies(&env, STAGING)), (3, vec![misfit("bad")]));
    assert!(env.queue.is_empty());
}

/// `rejects retry` removed every body that it did not find in the ledger: under a renamed pipeline, with the wrong
/// `--config`, and after rows of the ledger were removed.
#[test]
fn a_retry_removes_no_body_that_it_did_not_load() {
    type Disturbance = fn(&TestEnv);
    let disturbances: [(&str, Disturbance); 5] = [
        ("the pipeline is renamed", |env| mend(env, "name = \"renamed\"")),
        ("the configuration is another pipeline's", |env| {
            env.database.execute("create table other (like user_logins)");
            mend(env, "name = \"other\"\ntable = \"other\"");
        }),
        ("the rejects are removed from the ledger", |env| env.database.execute("delete from pgsluice.reject")),
        ("one reject is removed from the ledger", |env| {
            env.database.execute("delete from pgsluice.reject where field is null");
        }),
        ("the segment is removed from the ledger", |env| env.database.execute("delete from pgsluice.segment")),
    ];
    for (what, disturb) in disturbances {
        let env = TestEnv::new(Server::Embedded);
        env.queue.send(&[logins(2), vec![misfit("bad"), "not json".to_owned()]].concat());
        env.run().succeeds();
        let kept = kept_bodies(&env, STAGING);
        assert_eq!(kept.len(), 2);
        disturb(&env);
        env.job(&["rejects", "retry"]).succeeds();
        assert_eq!(kept_bodies(&env, STAGING), kept, "{what}");
    }
}

/// A file of the same name in another directory was taken for the same file, as every layout of Spark and Hive has them:
/// its lines were "duplicates".
#[test]
fn files_of_one_name_are_imported_each() {
    let env = TestEnv::new(Server::Embedded);
    for directory in ["a", "b"] {
        fs::create_dir(env.path(directory)).unwrap();
        let lines = (0..5).map(|number| login(&format!("{directory}{number}")).to_string());
        fs::write(env.path(directory).join("part-0.ndjson"), lines.collect::<Vec<_>>().join("\n")).unwrap();
    }
    let files = ["a/part-0.ndjson", "b/part-0.ndjson"];
    for _ in 0..2 {
        env.job(&["import", "--sent-at", "2026-07-01T00:00:00Z", files[0], files[1]]).succeeds();
        env.job(&["replay"]).succeeds();
        assert_eq!(users(&env), ["a0", "a1", "a2", "a3", "a4", "b0", "b1", "b2", "b3", "b4"]);
    }
}

/// The ledger's key of a reject lacked what told two imports apart. Both had a bad first line, one record was kept, and
/// `rejects retry` dropped the body that had none.
#[test]
fn each_import_keeps_its_own_rejects() {
    let env = TestEnv::new(Server::Embedded);
    for directory in ["a", "b"] {
        fs::create_dir(env.path(directory)).unwrap();
        fs::write(env.path(directory).join("part-0.ndjson"), misfit(directory) + "\n").unwrap();
    }
    for (file, sent_at) in [("a/part-0.ndjson", "2026-07-01T00:00:00Z"), ("b/part-0.ndjson", "2026-07-02T00:00:00Z")] {
        env.job(&["import", "--sent-at", sent_at, file]).succeeds();
    }
    assert_eq!(env.job(&["replay"]).succeeds().counts().rejected, 2);
    assert_eq!(env.database.count("pgsluice.reject"), 2);
    mend(&env, "");
    assert_eq!(env.job(&["rejects", "retry"]).succeeds().counts().loaded, 2);
    assert_eq!(users(&env), ["a", "b"]);
}

/// The owner of a message was the transaction that wrote its row. A restored ledger was written by another one, so
/// `replay --again` forgot nothing, loaded nothing and ended with 0.
#[test]
fn a_restored_ledger_still_knows_the_owner_of_each_message() {
    let mut env = with_a_check();
    env.configure("[spool]\nsegment_max_messages = 2\n");
    env.run().succeeds();
    if !restore_elsewhere(&mut env) {
        eprintln!("skipped: pg_dump or psql is missing beside the server's own binaries");
        return;
    }
    assert_eq!(users(&env).len(), 3);
    assert_eq!(env.job(&["replay"]).succeeds().counts().loaded, 0);

    env.database.execute("truncate user_logins");
    let counts = env.job(&["replay", "--again"]).succeeds().counts();
    assert_eq!((counts.received, counts.loaded, counts.rejected), (4, 3, 1));
    assert_eq!((users(&env).len(), env.database.count("pgsluice.reject")), (3, 1));
    env.queue.send(&[login("later").to_string()]);
    assert_eq!(env.run().succeeds().counts().loaded, 1);
}

/// After segments were deleted from the ledger by hand, their messages had no owner: an emptied table stayed empty.
#[test]
fn messages_whose_segment_was_deleted_from_the_ledger_are_loaded_again() {
    let env = with_a_check();
    env.run().succeeds();
    env.database.execute("truncate user_logins; delete from pgsluice.segment");
    let counts = env.job(&["replay", "--again"]).succeeds().counts();
    assert_eq!((counts.loaded, counts.rejected, users(&env).len()), (3, 1, 3));
}

/// Dumps the database and goes on with what is restored from the dump. `false`: this machine lacks the programs.
fn restore_elsewhere(env: &mut TestEnv) -> bool {
    let binaries = env.database.texts("select setting from pg_config where name = 'BINDIR'").remove(0);
    let [dump, restore] = ["pg_dump", "psql"].map(|program| format!("{binaries}/{program}"));
    if [&dump, &restore].into_iter().any(|program| !fs::exists(program).unwrap()) {
        return false;
    }
    let file = env.path("dump.sql").display().to_string();
    let run = |program: &str, arguments: &[&str]| {
        let mut command = env.command(program);
        command.args(arguments);
        env.run_to_end(command).succeeds();
    };
    run(&dump, &["--dbname", &env.database.url(), "--file", &file]);
    let restored = Database::create();
    run(&restore, &["--dbname", &restored.url(), "--quiet", "--set", "ON_ERROR_STOP=1", "--file", &file]);
    env.set("DATABASE_URL", restored.url());
    env.database = restored;
    true
}

/// The directories of a new staging directory were not flushed into the one above them: a power loss could take
/// `rejects/` along, with bodies that the queue did not have any more.
#[test]
fn each_directory_that_is_made_is_flushed_into_the_one_above() {
    let env = TestEnv::new(Server::Embedded);
    let trace = env.path("trace").display().to_string();
    let mut command = env.command("strace");
    command.args(["-f", "-y", "-o", &trace, "-e", "trace=mkdir,mkdirat,fsync"]);
    command.args([env!("CARGO_BIN_EXE_pgsluice"), "transform", "--staging-dir", "volume/data/staging"]);
    let Ok(output) = command.output() else {
        eprintln!("skipped: strace is not installed");
        return;
    };
    if !output.status.success() {
        eprintln!("skipped: this system lets no process trace another");
        return;
    }
    let trace = fs::read_to_string(&trace).unwrap();
    let flushed = |after: usize, directory: &str| {
        let descriptor = format!("<{}>", fs::canonicalize(env.path(directory)).unwrap().display());
        trace.lines().skip(after).any(|line| line.contains("fsync(") && line.contains(&descriptor))
    };
    let made = ["volume", "volume/data", "volume/data/staging", "volume/data/staging/rejects"];
    for directory in made {
        let (above, name) = directory.rsplit_once('/').unwrap_or(("", directory));
        // By its path, or by its name in a directory that is open.
        let calls = [format!("\"{directory}\""), format!("\"{name}\"")];
        let makes = |line: &str| line.contains("mkdir") && calls.iter().any(|call| line.contains(call));
        let line = trace.lines().position(|line| makes(line) && line.ends_with("= 0"));
        let line = line.unwrap_or_else(|| panic!("{directory} is not made:\n{trace}"));
        assert!(flushed(line, above), "{directory}:\n{trace}");
    }
    assert_eq!(files_in(&env, "volume/data/staging").len(), 7, "six parts and the lock");
}
