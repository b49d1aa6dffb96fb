//! Files move between hosts, wholly or in part, and their times move by days.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

use rand::RngExt;
use rand::rngs::StdRng;

use super::Verdict;
use super::calls::Call;
use super::holdings::{Files, PARTS, StagedFile, files_in};
use super::imports::move_time;
use super::pipelines::Place;
use super::step::Step;
use super::world::World;

/// A staging directory is copied to the other host. What is there already stays as it is.
pub(super) fn copy_directory(world: &mut World, step: Step) {
    for part in PARTS {
        copy_part(world, step.place, part, part, |_| true);
    }
}

/// Some sealed segments are copied.
pub(super) fn copy_segments(world: &mut World, step: Step, random: &mut StdRng) -> Verdict {
    world.stage_some(step, random, false)?;
    copy_part(world, step.place, "spool", "spool", |name| name.ends_with(".ndjson") && random.random());
    Ok(())
}

/// The archive is copied, and replayed there.
pub(super) fn copy_archive(world: &mut World, step: Step, random: &mut StdRng) -> Verdict {
    let part = if random.random_bool(0.7) { "archive" } else { "spool" };
    copy_part(world, step.place, "archive", part, |_| true);
    world.call(Call::right(step.place.twin(), &["replay"]).maybe_disturbed(world, random)).map(|_| ())
}

/// Chunks come to a host that has neither their segments nor their rejects, and sometimes one file is forgotten.
pub(super) fn copy_chunks(world: &mut World, step: Step, random: &mut StdRng) -> Verdict {
    world.stage_some(step, random, true)?;
    let names: Vec<_> = files_in(&world.env.path(&step.place.directory()).join("chunks")).collect();
    let forgotten = if names.is_empty() || random.random_bool(0.7) {
        None
    } else {
        Some(names[random.random_range(0..names.len())].file_name().unwrap().to_string_lossy().into_owned())
    };
    copy_part(world, step.place, "chunks", "chunks", |name| Some(name) != forgotten.as_deref());
    world.call(Call::right(step.place.twin(), &["load"]).maybe_disturbed(world, random)).map(|_| ())
}

/// Copies files to the other host.
fn copy_part(world: &mut World, from: Place, part: &str, to_part: &str, mut is_wanted: impl FnMut(&str) -> bool) {
    let to = from.twin();
    let target = world.env.path(&to.directory()).join(to_part);
    fs::create_dir_all(&target).unwrap();
    let mut copied = 0;
    for path in files_in(&world.env.path(&from.directory()).join(part)) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if is_wanted(&name) && !target.join(&name).exists() {
            fs::copy(&path, target.join(&name)).unwrap();
            copied += 1;
        }
    }
    world.note(format!("     {copied} files of {from}/{part} copied to {to}/{to_part}"));
}

/// Files come back from a backup, or a clock was wrong.
pub(super) fn move_times(world: &mut World, step: Step, random: &mut StdRng) {
    for part in ["spool", "committed", "archive"] {
        for path in files_in(&world.env.path(&step.place.directory()).join(part)) {
            move_time(&File::open(path).unwrap(), random);
        }
    }
    world.note(format!("     times of {}'s segments moved by days", step.place));
}

/// A person puts the files of segments that are at the wrong pipeline's place where they belong.
pub(super) fn sort_out(world: &mut World, place: Place) {
    let files = Files::of(&world.env);
    let is_foreign =
        |file: &&StagedFile| file.place == place && file.pipeline(&world.messages) == Some(place.pipeline.other());
    let foreign: BTreeSet<_> = files.0.iter().filter(is_foreign).map(|file| file.segment.clone()).collect();
    let home = Place { pipeline: place.pipeline.other(), ..place };
    for segment in foreign {
        world.note(format!("     segment {segment} moved from {place} to {home}"));
        for part in PARTS {
            let target = world.env.path(&home.directory()).join(part);
            for path in files_in(&world.env.path(&place.directory()).join(part)) {
                move_file(&path, &target, &segment);
            }
        }
    }
}

fn move_file(path: &Path, target: &Path, segment: &str) {
    let name = path.file_name().unwrap();
    if name.to_string_lossy().starts_with(segment) {
        fs::create_dir_all(target).unwrap();
        if target.join(name).exists() {
            fs::remove_file(path).unwrap();
        } else {
            fs::rename(path, target.join(name)).unwrap();
        }
    }
}
