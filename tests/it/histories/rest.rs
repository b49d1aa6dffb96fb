//! Rest: what was broken is repaired, and with right configurations everything is done until nothing is left.

use super::Verdict;
use super::acts::RUN;
use super::calls::Call;
use super::copies::sort_out;
use super::database::{drop_check, reload};
use super::holdings::files_in;
use super::pipelines::{PIPELINES, PLACES, Pipeline, Place};
use super::world::World;
use crate::testenv::wait_until;

/// Rounds of runs that all must be done in.
const ROUNDS: usize = 6;

/// Repairs, finishes and judges.
pub(super) fn rest(world: &mut World) -> Verdict {
    world.note("   rest");
    for pipeline in PIPELINES {
        drop_check(world, pipeline);
    }
    for place in PLACES {
        sort_out(world, place);
    }
    finish(world, None)?;
    for pipeline in PIPELINES {
        let dead_letters = world.source(pipeline).dead_letters.as_ref();
        if let Some(url) = dead_letters.filter(|queue| !queue.is_empty()).map(|queue| queue.url().to_owned()) {
            finish(world, Some((pipeline, &url)))?;
        }
    }
    PLACES.into_iter().try_for_each(|place| clear_chunks(world, place))?;
    for place in PLACES {
        must_be_done(world, Call::right(place, &["rejects", "retry"]))?;
        must_be_done(world, Call::right(place, &["replay"]))?;
    }
    if world.lost_rows {
        PIPELINES.into_iter().try_for_each(|pipeline| reload(world, pipeline))?;
    }
    world.judge_rest()
}

/// Runs at all places until each says that it is done: at those of one host, then at those of the other.
fn finish(world: &mut World, dead_letters: Option<(Pipeline, &str)>) -> Verdict {
    let mut codes = Vec::new();
    for _ in 0..ROUNDS {
        codes.clear();
        for host in [1, 2] {
            let places = PLACES.into_iter().filter(|place| place.host == host);
            let calls: Vec<Call> = places
                .filter_map(|place| match dead_letters {
                    None => Some(Call::right(place, &RUN)),
                    Some((pipeline, url)) if pipeline == place.pipeline && host == 1 => {
                        Some(Call::right(place, &RUN).on_dead_letters(url))
                    }
                    Some(_) => None,
                })
                .collect();
            let started: Vec<_> = calls.into_iter().map(|call| world.start(call)).collect();
            for started in started {
                codes.push(world.end(started, true)?.code);
            }
        }
        if codes.iter().all(|code| *code == Some(0)) {
            return Ok(());
        }
        for pipeline in PIPELINES {
            // What a dead process held must become visible before anybody can finish it.
            let source = world.source(pipeline);
            wait_until(|| source.queue.counts().in_flight == 0);
            source.dead_letters.iter().for_each(|queue| wait_until(|| queue.counts().in_flight == 0));
        }
        world.judge_step()?;
    }
    Err(format!("not done after {ROUNDS} rounds of runs: exit codes {codes:?}"))
}

/// Chunks whose segments are on the other host, and done there: they load, or a person removes them.
fn clear_chunks(world: &mut World, place: Place) -> Verdict {
    let chunks = world.env.path(&place.directory()).join("chunks");
    if files_in(&chunks).next().is_some() {
        world.call(Call::right(place, &["load"]))?;
        for file in files_in(&chunks) {
            world.note(format!("     {} removed", file.display()));
            std::fs::remove_file(file).unwrap();
        }
    }
    Ok(())
}

fn must_be_done(world: &mut World, call: Call) -> Verdict {
    let ended = world.call(call)?;
    if ended.code == Some(0) { Ok(()) } else { Err(format!("not done at rest: {ended}")) }
}
