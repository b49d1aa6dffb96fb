//! Messages come: through the queue, and in files whose names are those of Spark and Hive.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use rand::RngExt;
use rand::rngs::StdRng;

use super::Verdict;
use super::calls::Call;
use super::pipelines::{Pipeline, Place};
use super::step::{Kind, Step};
use super::world::World;

const MOST_SENT: usize = 12;
const MOST_LINES: usize = 8;
/// How many of a hundred bodies are sent twice.
const TWICE_SHARE: f64 = 0.1;
const DAY: Duration = Duration::from_hours(24);
/// The days that a modification time moves by, at most: with more, rejects would expire.
const MOST_DAYS: u32 = 80;
/// When messages were sent, as an import is told: all at the same time.
const SENT_AT: &str = "2026-01-02T03:04:05Z";

/// A file that was imported once.
#[derive(Debug, Clone)]
pub(super) struct ImportedFile {
    pipeline: Pipeline,
    path: String,
    /// As it was first.
    has_sent_at: bool,
    messages: Vec<usize>,
}

/// Messages are sent to the pipeline's queue.
pub(super) fn send(world: &mut World, step: Step, random: &mut StdRng) {
    let pipeline = step.place.pipeline;
    let count = random.random_range(1..=MOST_SENT);
    for _ in 0..count {
        let index = world.messages.invent(pipeline, random);
        let copies = if random.random_bool(TWICE_SHARE) { 2 } else { 1 };
        world.messages.at(index).copies = copies;
        for _ in 0..copies {
            let body = world.messages.at(index).body.clone();
            let id = world.source(pipeline).queue.send_one(&body);
            world.messages.sent(index, id);
        }
    }
    world.note(format!("     {count} bodies sent"));
}

/// A file is imported, for the first time or once more.
pub(super) fn import(world: &mut World, step: Step, random: &mut StdRng) -> Verdict {
    let known: Vec<_> = world.imported.iter().filter(|file| file.pipeline == step.place.pipeline).cloned().collect();
    let known = if known.is_empty() { None } else { Some(known[random.random_range(0..known.len())].clone()) };
    let file = match (step.kind, known) {
        (Kind::ImportAgain, Some(known)) => known,
        (Kind::ImportMoved, Some(known)) => {
            move_time(&File::open(world.env.path(&known.path)).unwrap(), random);
            known
        }
        (Kind::ImportSameName, Some(known)) => {
            let name = known.path.rsplit('/').next().unwrap();
            let path = format!("inbox/{}/{name}", step.number);
            write(world, step.place, path, known.has_sent_at, random)
        }
        _ => write(world, step.place, format!("inbox/part-{}.ndjson", step.number), random.random(), random),
    };
    take(world, step.place, &file, random)
}

/// A new file, with lines that nobody has seen yet.
fn write(world: &mut World, place: Place, path: String, has_sent_at: bool, random: &mut StdRng) -> ImportedFile {
    let lines = random.random_range(1..=MOST_LINES);
    let messages: Vec<usize> = (0..lines).map(|_| world.messages.invent(place.pipeline, random)).collect();
    let text: String = messages.iter().map(|&index| world.messages.at(index).body.clone() + "\n").collect();
    let full = world.env.path(&path);
    fs::create_dir_all(full.parent().unwrap()).unwrap();
    fs::write(&full, text).unwrap();
    ImportedFile { pipeline: place.pipeline, path, has_sent_at, messages }
}

fn take(world: &mut World, place: Place, file: &ImportedFile, random: &mut StdRng) -> Verdict {
    if world.imported.iter().all(|known| known.path != file.path) {
        world.imported.push(file.clone());
    }
    let mut words = vec!["import", &file.path];
    if file.has_sent_at {
        words.extend(["--sent-at", SENT_AT]);
    }
    let call = Call::right(place, &words).maybe_disturbed(world, random);
    if world.call(call)?.code == Some(0) {
        for &index in &file.messages {
            world.messages.at(index).promised = true;
        }
    }
    Ok(())
}

/// Moves a modification time by days, back or forth.
pub(super) fn move_time(file: &File, random: &mut StdRng) {
    let days = DAY * random.random_range(1..=MOST_DAYS);
    let now = SystemTime::now();
    file.set_modified(if random.random_bool(0.8) { now - days } else { now + days }).unwrap();
}
