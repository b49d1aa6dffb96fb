//! A model of the commands: seeded random histories of everything that a person can do, with the real binary.
//!
//! Two pipelines, each on two hosts, and between them whatever happens between stages: another configuration, another
//! host, another order of commands, another day, a restored database, a process that dies. The model knows conservation
//! and nothing else: each good message is one right row, each bad body is kept, nothing is deleted before that, exit code
//! 0 says that nothing is left, and every report adds up. A command that refuses is right where it cannot be safe, if it
//! changed nothing for the worse.
//!
//! Without a variable the same few histories are done each time, so that a change is judged by itself. `make soak` draws
//! new ones. PGSLUICE_HISTORY_SEED=N repeats one history, as far as a race does. PGSLUICE_HISTORY_ROUNDS is the number
//! of histories from that seed on, PGSLUICE_HISTORY_LENGTH the steps of each, PGSLUICE_HISTORY_STEPS which kinds (names, or `all,-Name`).
//! PGSLUICE_HISTORY_ONLY=1,4,7 does these steps of a history alone. PGSLUICE_HISTORY_SHRINK=1 looks for the steps that
//! a failure needs. PGSLUICE_HISTORY_SHOW=1 prints also what passes.

mod acts;
mod calls;
mod copies;
mod database;
mod expected;
mod holdings;
mod imports;
mod judge;
mod pipelines;
mod redrives;
mod rest;
mod step;
mod world;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use rand::rngs::StdRng;

use step::{Kind, Plan, Step};
use world::World;

/// The first of the histories that `make test` does. Among them is one that once found a segment counted twice.
const SEED: u64 = 1_529_991_406;
/// Histories that `make test` does.
const ROUNDS: u64 = 6;
/// Steps of a history.
const LENGTH: usize = 15;
/// Histories at a time: most of one is waiting for long polls.
const WORKERS: usize = 4;

/// What is wrong, where something is.
type Verdict<T = ()> = Result<T, String>;

#[test]
fn no_order_of_commands_hosts_configurations_and_days_loses_or_doubles_a_message() {
    let named = number("PGSLUICE_HISTORY_SEED");
    let rounds = number("PGSLUICE_HISTORY_ROUNDS").unwrap_or(if named.is_some() { 1 } else { ROUNDS });
    let first = named.unwrap_or(SEED);
    eprintln!("histories: PGSLUICE_HISTORY_SEED={first} PGSLUICE_HISTORY_ROUNDS={rounds}");
    let (next, failures) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= rounds {
                        return;
                    }
                    if let Err(failure) = history(first + index) {
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(failures.is_empty(), "{} of {rounds} histories failed\n{}", failures.len(), failures.join("\n"));
}

/// One history from its seed to its judgement; the error is its story.
fn history(seed: u64) -> Verdict {
    let enabled = env::var("PGSLUICE_HISTORY_STEPS").map_or_else(|_| Kind::ALL.to_vec(), |text| Kind::list(&text));
    let length = number("PGSLUICE_HISTORY_LENGTH").map_or(LENGTH, |length| usize::try_from(length).unwrap());
    let mut plan = Plan::draw(seed, &enabled, length);
    if let Ok(text) = env::var("PGSLUICE_HISTORY_ONLY") {
        plan = plan.only(&text.split(',').map(|number| number.parse().unwrap()).collect::<Vec<_>>());
    }
    let outcome = live(&plan);
    if outcome.is_err() && env::var_os("PGSLUICE_HISTORY_SHRINK").is_some() {
        return shrink(plan, outcome);
    }
    outcome
}

/// Does all steps, rests, and judges.
fn live(plan: &Plan) -> Verdict {
    let began = Instant::now();
    let mut world = World::new(plan.clone());
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        for &step in &plan.steps {
            world.note(step.to_string());
            take(&mut world, step)?;
            world.judge_step()?;
        }
        rest::rest(&mut world)
    }));
    let verdict = outcome.unwrap_or_else(|panic| Err(format!("panicked: {}", text_of(&*panic))));
    if env::var_os("PGSLUICE_HISTORY_SHOW").is_some() {
        eprintln!("{}", world.log());
    }
    let seconds = began.elapsed().as_secs();
    eprintln!("histories: {} took {seconds} s, {}", plan.seed, if verdict.is_ok() { "passed" } else { "FAILED" });
    verdict.map_err(|problem| {
        let Plan { seed, kinds, .. } = plan;
        format!("\nPGSLUICE_HISTORY_SEED={seed} with {kinds:?}\n{}\n{problem}\n", world.log())
    })
}

/// Does a step.
fn take(world: &mut World, step: Step) -> Verdict {
    let random = &mut step.random();
    match step.kind {
        Kind::Import | Kind::ImportSameName | Kind::ImportAgain | Kind::ImportMoved => {
            imports::import(world, step, random)
        }
        Kind::Run | Kind::RunLimited | Kind::Replay | Kind::Retry | Kind::Look | Kind::Prune => {
            acts::one(world, step, random)
        }
        Kind::RunBoth => acts::both(world, step, random),
        Kind::Stages => acts::stages(world, step, random),
        Kind::Drop => acts::drop_rejects(world, step, random),
        Kind::OtherPipeline | Kind::OtherQueue | Kind::Renamed | Kind::OtherKey => acts::wrong(world, step, random),
        Kind::CopyChunks => copies::copy_chunks(world, step, random),
        Kind::CopySegments => copies::copy_segments(world, step, random),
        Kind::CopyArchive => copies::copy_archive(world, step, random),
        Kind::BrokenTable => database::broken_table(world, step, random),
        Kind::Truncate => database::truncate(world, step, random),
        Kind::AgainOnRows => database::again_on_rows(world, step, random),
        Kind::Restart => database::restart(world, step, random),
        Kind::RunDeadLetters => redrives::run_dead_letters(world, step, random),
        Kind::Resend => redrives::resend(world, step),
        _ => {
            change(world, step, random);
            Ok(())
        }
    }
}

/// A step in which no command is called.
fn change(world: &mut World, step: Step, random: &mut StdRng) {
    match step.kind {
        Kind::Send => imports::send(world, step, random),
        Kind::EditMapping => acts::edit_mapping(world, step.place),
        Kind::CopyDirectory => copies::copy_directory(world, step),
        Kind::MoveTimes => copies::move_times(world, step, random),
        Kind::Check => database::check(world, step, random),
        Kind::DumpRestore => database::dump_and_restore(world),
        Kind::RestoreOld => database::restore_old(world),
        Kind::Wait => acts::wait(world, step),
        Kind::Redrive => redrives::redrive(world, step),
        other => unreachable!("{other:?} is a circumstance, or a step with commands"),
    }
}

/// Leaves steps out, from the last to the first, as long as the history still fails.
fn shrink(mut plan: Plan, mut outcome: Verdict) -> Verdict {
    for number in plan.steps.iter().map(|step| step.number).rev().collect::<Vec<_>>() {
        let rest: Vec<usize> = plan.steps.iter().map(|step| step.number).filter(|&kept| kept != number).collect();
        let smaller = plan.only(&rest);
        let failure = live(&smaller);
        if failure.is_err() {
            (plan, outcome) = (smaller, failure);
        }
    }
    let kept: Vec<String> = plan.steps.iter().map(|step| step.number.to_string()).collect();
    outcome.map_err(|story| format!("{story}PGSLUICE_HISTORY_ONLY={}\n", kept.join(",")))
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default()
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}
