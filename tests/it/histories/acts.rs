//! Commands with the right configuration, in any order.

use std::collections::BTreeSet;

use rand::RngExt;
use rand::rngs::StdRng;

use super::Verdict;
use super::calls::{Call, Setup};
use super::holdings::{Files, StagedFile, reject_ids};
use super::imports::send;
use super::pipelines::Place;
use super::step::{Kind, Step};
use super::world::World;
use crate::testenv::wait_until;

pub(super) const RUN: [&str; 3] = ["run", "--idle", "1s"];
const STAGES: [&str; 4] = ["drain", "transform", "load", "ack"];
/// How likely a run finds segments that a drain left.
const SHARE_OF_BACKLOGS: f64 = 0.3;
/// Commands that change nothing.
const LOOKS: [&[&str]; 4] = [&["status"], &["init"], &["rejects", "list"], &["rejects", "list", "--entries"]];

/// `run`, `replay`, `rejects retry`, `prune`: one command.
pub(super) fn one(world: &mut World, step: Step, random: &mut StdRng) -> Verdict {
    if step.kind == Kind::Run && random.random_bool(SHARE_OF_BACKLOGS) {
        world.stage_some(step, random, false)?;
    }
    let limit = random.random_range(1..20_u32).to_string();
    let segment = world.any_segment(step.place, random);
    let words: Vec<&str> = match step.kind {
        Kind::Run => RUN.to_vec(),
        Kind::RunLimited => [&RUN[..], &["--max-messages", &limit]].concat(),
        Kind::Replay => ["replay"].into_iter().chain(segment.as_deref().filter(|_| random.random())).collect(),
        Kind::Retry => vec!["rejects", "retry"],
        Kind::Prune => vec!["prune"],
        Kind::Look => LOOKS[random.random_range(0..LOOKS.len())].to_vec(),
        other => unreachable!("{other:?} is not one command"),
    };
    let call = Call::right(step.place, &words);
    let call = if step.kind == Kind::Look { call } else { call.maybe_disturbed(world, random) };
    world.call(call).map(|_| ())
}

/// Both hosts empty the queue at the same time.
pub(super) fn both(world: &mut World, step: Step, random: &mut StdRng) -> Verdict {
    let places = [step.place, step.place.twin()];
    let calls = places.map(|place| Call::right(place, &RUN).maybe_disturbed(world, random));
    let [first, second] = calls.clone().map(|call| world.start(call));
    let ended = [world.end(first, false)?, world.end(second, false)?];
    if ended.iter().all(|ended| ended.code == Some(0)) {
        calls.iter().try_for_each(|call| world.judge_claim(call))?;
    }
    Ok(())
}

/// A person does the stages by hand: forward most of the time, now and then the same or the one before once more.
pub(super) fn stages(world: &mut World, step: Step, random: &mut StdRng) -> Verdict {
    let mut stage = 0_usize;
    for _ in 0..random.random_range(3..=7) {
        let name = STAGES[stage];
        let visible = world.source(step.place.pipeline).queue.counts().visible.max(1).to_string();
        // With this limit it needs no empty long poll to end.
        let words = if name == "drain" { vec![name, "--idle", "1s", "--max-messages", &visible] } else { vec![name] };
        let call = Call::right(step.place, &words).maybe_disturbed(world, random);
        world.call(call)?;
        stage = match random.random_range(0..10) {
            0..2 => stage.saturating_sub(1),
            2 => stage,
            _ => (stage + 1) % STAGES.len(),
        };
        if world.plan.has(Kind::EditMapping) && random.random_bool(0.1) {
            edit_mapping(world, step.place);
        }
    }
    Ok(())
}

/// The columns are declared in another order from now on; the rows stay what they are.
pub(super) fn edit_mapping(world: &mut World, place: Place) {
    let swapped = &mut world.swapped[place.pipeline as usize];
    *swapped = !*swapped;
    world.note(format!("     mapping of {} edited", place.pipeline.name()));
    world.write_configuration(place.pipeline);
}

/// A person gives up the rejects of one reason.
pub(super) fn drop_rejects(world: &mut World, step: Step, random: &mut StdRng) -> Verdict {
    let before = reject_ids(&world.env.database);
    let reason = world.env.database.texts("select reason from pgsluice.reject order by message_id limit 1").pop();
    let Some(reason) = reason else { return Ok(()) };
    let call = Call::right(step.place, &["rejects", "drop", "--reason", &reason]).maybe_disturbed(world, random);
    world.call(call)?;
    let gone = before.difference(&reject_ids(&world.env.database)).cloned().collect();
    world.messages.give_up(&gone);
    Ok(())
}

/// A command with a configuration that is not this staging directory's. It may refuse, and must do no harm.
///
/// No command is called of which no tool could know that its configuration is wrong: one that receives into an empty
/// staging directory, and one with another key before anything was masked.
pub(super) fn wrong(world: &mut World, step: Step, random: &mut StdRng) -> Verdict {
    let (setup, commands): (_, &[&[&str]]) = match step.kind {
        Kind::OtherPipeline => (
            Setup::OtherPipeline,
            &[&RUN, &["drain"], &["transform"], &["load"], &["ack"], &["replay"], &["rejects", "retry"]],
        ),
        Kind::OtherQueue => (Setup::OtherQueue, &[&RUN, &["ack"]]),
        Kind::Renamed => {
            (Setup::Renamed, &[&RUN, &["transform"], &["load"], &["ack"], &["replay"], &["rejects", "retry"]])
        }
        _ => (Setup::OtherKey, &[&RUN, &["transform"], &["load"], &["replay"], &["rejects", "retry"]]),
    };
    let words = commands[random.random_range(0..commands.len())];
    let (place, pipeline) = (step.place, step.place.pipeline);
    if random.random() {
        let is_transformed = random.random();
        world.stage_some(step, random, is_transformed)?;
    }
    let books = world.books()?;
    let receives = ["run", "drain"].contains(&words[0]);
    let is_known = match setup {
        Setup::OtherKey => world.has_loaded[pipeline as usize],
        _ => !receives || books.files.unfinished(place, pipeline, &world.messages).next().is_some(),
    };
    if !is_known {
        return Ok(());
    }
    let before = world.acknowledged_at(place);
    let ended = world.call(Call::right(place, words).with(setup))?;
    let acknowledged = ended.find_report().map_or(0, |report| report.counts.acknowledged);
    if setup == Setup::OtherQueue && (acknowledged > 0 || world.acknowledged_at(place) > before) {
        return Err(format!("acknowledged on a queue that the messages are not from\n{ended}"));
    }
    Ok(())
}

/// What dead processes hold is visible again.
pub(super) fn wait(world: &World, step: Step) {
    let source = world.source(step.place.pipeline);
    wait_until(|| source.queue.counts().in_flight == 0);
}

impl World {
    /// A segment of this place that can be replayed.
    fn any_segment(&self, place: Place, random: &mut StdRng) -> Option<String> {
        let segments = self.segments_at(place);
        if segments.is_empty() { None } else { Some(segments[random.random_range(0..segments.len())].clone()) }
    }

    /// The pipeline's segments at this place that can be replayed, oldest first.
    pub(super) fn segments_at(&self, place: Place) -> Vec<String> {
        let files = Files::of(&self.env);
        let is_here = |file: &&StagedFile| file.place == place && file.pipeline(&self.messages) == Some(place.pipeline);
        let segments: BTreeSet<_> = files.replayable().filter(is_here).map(|file| file.segment.clone()).collect();
        segments.into_iter().collect()
    }

    /// The number of archived segments at a place whose messages are from a queue.
    fn acknowledged_at(&self, place: Place) -> usize {
        let from_queue = |file: &&StagedFile| {
            let mut messages = file.messages.iter().filter_map(|(_, body)| self.messages.of_body(body));
            messages.any(|message| !message.queue_ids.is_empty())
        };
        let is_archived = |file: &&StagedFile| file.place == place && file.part == "archive";
        Files::of(&self.env).0.iter().filter(is_archived).filter(from_queue).count()
    }

    /// Messages are sent and drained, and on request transformed, so that there is something at the place.
    pub(super) fn stage_some(&mut self, step: Step, random: &mut StdRng, is_transformed: bool) -> Verdict {
        send(self, step, random);
        let visible = self.source(step.place.pipeline).queue.counts().visible.max(1).to_string();
        self.call(Call::right(step.place, &["drain", "--idle", "1s", "--max-messages", &visible]))?;
        if is_transformed {
            self.call(Call::right(step.place, &["transform"]))?;
        }
        Ok(())
    }
}
