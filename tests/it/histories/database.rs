//! What a person does to the database: constraints, broken tables, truncation, dumps, restarts.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use pgsluice::local::Shutdown;
use rand::RngExt;
use rand::rngs::StdRng;

use super::Verdict;
use super::acts::RUN;
use super::calls::Call;
use super::holdings::{Files, reject_ids};
use super::imports::send;
use super::pipelines::{KINDS, PIPELINES, PLACES, Pipeline, Place};
use super::step::{Kind, Step};
use super::world::{REDELIVER_EVERY, World};
use crate::testenv::{Database, postgres};

/// Tells `replay --again` that the rows in the table are of other segments: of those that the other host loaded again.
const ROWS_MAY_STAY: &[&str] = &["--keep-rows"];
/// How often a cron job meets a broken table.
const CRON_RUNS: usize = 3;
/// Replays that fill a table again, at most.
const REPLAYS: usize = 6;

/// What a trigger raises for a row that it does not want.
const RAISED: [&str; 4] = ["20000", "21000", "22P02", "P0001"];

/// Some good messages are refused from now on, by a CHECK or by a trigger; or no longer.
pub(super) fn check(world: &mut World, step: Step, random: &mut StdRng) {
    let pipeline = step.place.pipeline;
    if world.has_check[pipeline as usize] {
        drop_check(world, pipeline);
        return;
    }
    let table = pipeline.name();
    let unwanted = format!("'kind-{}'", random.random_range(0..KINDS));
    let sqlstate = RAISED[random.random_range(0..RAISED.len())];
    let sql = if random.random() {
        format!("alter table {table} add constraint known_kind check (kind <> {unwanted}) not valid")
    } else {
        format!(
            "create or replace function refuse_{table}() returns trigger language plpgsql as
             $$ begin raise exception using errcode = '{sqlstate}'; end $$;
             create trigger known_kind before insert on {table} for each row when (new.kind = {unwanted})
             execute function refuse_{table}()"
        )
    };
    world.execute(&sql);
    world.has_check[pipeline as usize] = true;
}

pub(super) fn drop_check(world: &mut World, pipeline: Pipeline) {
    let table = pipeline.name();
    let sql = format!(
        "alter table {table} drop constraint if exists known_kind; drop trigger if exists known_kind on {table}"
    );
    world.execute(&sql);
    world.has_check[pipeline as usize] = false;
}

/// The table's owner forgot the partition, or the sequence is exhausted, and a cron job does not know it. That is no
/// fault of the messages: none may be rejected, and none may be received again and again, which would move it to the
/// dead-letter queue.
pub(super) fn broken_table(world: &mut World, step: Step, random: &mut StdRng) -> Verdict {
    let pipeline = step.place.pipeline;
    send(world, step, random);
    let table = pipeline.name();
    let (breaks, mends) = if random.random() {
        (
            format!("alter table {table} detach partition {table}_rows"),
            format!("alter table {table} attach partition {table}_rows default"),
        )
    } else {
        (
            format!(
                "create sequence tiny maxvalue 2; select setval('tiny', 2);
                 alter table {table} add column serial bigint;
                 alter table {table} alter column serial set default nextval('tiny')"
            ),
            format!("alter table {table} drop column serial; drop sequence tiny"),
        )
    };
    world.execute(&breaks);
    let rejects_before = reject_ids(&world.env.database);
    let counts = world.source(pipeline).queue.counts();
    let mut received = 0;
    for _ in 0..CRON_RUNS {
        let report = world.call(Call::right(step.place, &RUN))?.find_report();
        received += report.map_or(0, |report| report.stages.drain.items);
    }
    let rejects = reject_ids(&world.env.database);
    world.execute(&mends);
    let books = world.books()?;
    let new: BTreeSet<String> = rejects.difference(&rejects_before).cloned().collect();
    let fitting = world.messages.iter().filter(|message| message.fits);
    let rejected: Vec<_> = fitting.filter(|message| world.messages.ids_among(message, &new) > 0).collect();
    if let Some(message) = rejected.first() {
        return Err(format!("rejected for what the table refuses of all: {}", world.standing(&books, message)));
    }
    let there = (counts.visible + counts.in_flight) as u64;
    let twice = if world.plan.has(Kind::Redeliveries) { there / u64::from(REDELIVER_EVERY) + 1 } else { 0 };
    if received > there + twice {
        return Err(format!("{received} messages received of {counts:?}, and none can be loaded"));
    }
    Ok(())
}

/// The table is truncated, and the archives of both hosts fill it again. A replay that is killed is repeated.
///
/// Not where a segment that was loaded is on no host any more: its rows could not come back.
pub(super) fn truncate(world: &mut World, step: Step, random: &mut StdRng) -> Verdict {
    if !all_segments_are_here(world) {
        return Ok(());
    }
    let pipeline = step.place.pipeline;
    world.execute(&format!("truncate {}", pipeline.name()));
    world.lost_rows = true;
    let again = Call::right(step.place, &["replay", "--again"]);
    if world.call(again.clone().maybe_disturbed(world, random))?.code != Some(0) {
        world.call(again)?;
    }
    world.call(Call::right(step.place, &["replay"]))?;
    reload(world, pipeline)
}

/// Each host replays the segments whose rows are missing, and no others, until none is missing.
pub(super) fn reload(world: &mut World, pipeline: Pipeline) -> Verdict {
    for _ in 0..REPLAYS {
        let mut is_complete = true;
        for place in PLACES.into_iter().filter(|place| place.pipeline == pipeline) {
            let segments = segments_without_rows(world, place)?;
            if !segments.is_empty() {
                is_complete = false;
                let named: Vec<&str> = segments.iter().map(String::as_str).collect();
                world.call(Call::right(place, &[&["replay", "--again"], ROWS_MAY_STAY, &named[..]].concat()))?;
            }
        }
        if is_complete {
            break;
        }
    }
    Ok(())
}

/// The segments at a place that have messages without a row, and no row that is theirs for certain.
fn segments_without_rows(world: &mut World, place: Place) -> Verdict<Vec<String>> {
    let books = world.books()?;
    let here = world.segments_at(place);
    let is_whole = |segment: &String| {
        let bodies = books.files.bodies_of(segment);
        let fitting = || {
            let messages = bodies.iter().filter_map(|body| world.messages.of_body(body));
            messages.filter(|message| message.fits && !message.given_up).map(|message| world.standing(&books, message))
        };
        let is_elsewhere = |body: &str| books.files.segments_with(body).any(|other| other != segment);
        let is_missing = fitting().any(|standing| standing.rows + standing.kept == 0);
        is_missing && fitting().all(|standing| standing.rows == 0 || is_elsewhere(&standing.message.body))
    };
    Ok(here.into_iter().filter(is_whole).collect())
}

/// `replay --again` although nobody emptied the table.
pub(super) fn again_on_rows(world: &mut World, step: Step, random: &mut StdRng) -> Verdict {
    world.call(Call::right(step.place, &["replay", "--again"]).maybe_disturbed(world, random)).map(|_| ())
}

/// The database goes through a dump, and life goes on in the copy.
pub(super) fn dump_and_restore(world: &mut World) {
    let dump = dump(world);
    restore(world, &dump);
}

/// A dump is kept for later, or the last one is restored.
pub(super) fn restore_old(world: &mut World) {
    match world.dump.take() {
        Some(old) if all_segments_are_here(world) => {
            restore(world, &old);
            world.lost_rows = true;
            world.went_back = true;
            // The ledger knows the keys of that time.
            world.has_loaded = [false; 2];
            // Constraints are as they were then.
            for pipeline in PIPELINES {
                drop_check(world, pipeline);
            }
        }
        _ => {
            world.note("     dump kept");
            world.dump = Some(dump(world));
        }
    }
}

/// The server restarts while a run loads.
pub(super) fn restart(world: &mut World, step: Step, random: &mut StdRng) -> Verdict {
    let started = world.start(Call::right(step.place, &RUN));
    let how = if random.random() { Shutdown::Fast } else { Shutdown::Immediate };
    let after = Duration::from_millis(random.random_range(0..800));
    world.note(format!("     the server restarts ({how:?}) after {after:?}"));
    std::thread::sleep(after);
    let url = world.env.database.url();
    world.server.as_mut().expect("a server of its own").restart(how).unwrap();
    world.env.database = Database::connect(url);
    world.end(started, true).map(|_| ())
}

/// Whether each segment that was ever sealed can be replayed on some host.
fn all_segments_are_here(world: &mut World) -> bool {
    let files = Files::of(&world.env);
    world.learn_ids(&files);
    let here: BTreeSet<&String> = files.replayable().map(|file| &file.segment).collect();
    world.segments_seen.iter().all(|segment| here.contains(segment))
}

fn dump(world: &World) -> String {
    let url = world.env.database.url();
    let mut command = Command::new(program(world, "pg_dump"));
    command.args(["--no-owner", "--no-privileges"]).arg(format!("--dbname={url}"));
    let output = command.output().expect("pg_dump");
    assert!(output.status.success(), "pg_dump: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a dump in UTF-8")
}

fn restore(world: &mut World, dump: &str) {
    let database = match &world.server {
        None => Database::create(),
        Some(server) => {
            let name = format!("history_{}", uuid::Uuid::now_v7().simple());
            server.create_database(&name).unwrap();
            Database::connect(server.url(&name))
        }
    };
    let file = world.env.path("dump.sql");
    std::fs::write(&file, dump).unwrap();
    let mut command = Command::new(program(world, "psql"));
    command.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--file"]).arg(file);
    let output = command.arg(format!("--dbname={}", database.url())).output().expect("psql");
    assert!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
    world.note("     database restored from a dump");
    world.move_to(database);
}

fn program(world: &World, name: &str) -> std::path::PathBuf {
    world.server.as_ref().unwrap_or_else(|| postgres()).program(name)
}
