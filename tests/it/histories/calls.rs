//! One call of the binary: with which configuration, how it ends, and what its end claims.

use std::time::{Duration, Instant};

use pgsluice::local::QueueCounts;
use rand::RngExt;
use rand::rngs::StdRng;

use super::Verdict;
use super::acts::RUN;
use super::holdings::{Files, Recorded};
use super::pipelines::Place;
use super::step::Kind;
use super::world::{World, keeping, renamed};
use crate::testenv::{Outcome, Running};

/// A key that nothing was masked with.
const OTHER_KEY: &str = "000102030405060708090a0b0c0d0e0f";
const DONE: i32 = 0;
/// Failed, wrong usage, more rejects than allowed: each says why, in one line.
const REFUSALS: [i32; 3] = [1, 2, 4];
const WORK_LEFT: i32 = 3;
/// Longer than most runs take, and longer than any other command takes.
const LIFETIMES_MS: [u64; 2] = [1200, 80];

/// Where a command may die, and how often it passes there at most.
type CrashPoints = &'static [(&'static str, u64)];
const IN_FILES: CrashPoints = &[("rename", 8), ("directory-sync", 8)];
const IN_DRAIN: CrashPoints = &[("receive", 2), ("append", 8), ("fsync", 2), ("rename", 2), ("directory-sync", 2)];
const IN_TRANSFORM: CrashPoints = &[("rename", 8), ("directory-sync", 8), ("transform", 2)];
const IN_LOAD: CrashPoints =
    &[("copy-ids", 2), ("copy-rows", 2), ("before-commit", 2), ("commit", 2), ("remove-chunk", 2), ("rename", 2)];
const IN_ACK: CrashPoints = &[("send-dead-letters", 1), ("delete", 2), ("archive", 2), ("rename", 2)];

/// With which configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setup {
    Right,
    OtherPipeline,
    OtherQueue,
    Renamed,
    OtherKey,
    /// As the right one, and rejects are kept.
    Keeping,
}

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Itself,
    Killed(Duration),
    Terminated(Duration),
    /// The name of a crash point, and which passing.
    Dies(&'static str, u64),
}

/// A call that is to be made.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) place: Place,
    pub(super) words: Vec<String>,
    pub(super) setup: Setup,
    /// Another queue than the configuration's.
    pub(super) queue_url: Option<String>,
    pub(super) ending: Ending,
}

/// A call that is under way.
pub(super) struct Started {
    running: Running,
    call: Call,
    at: Instant,
}

impl Call {
    /// With the right configuration, and nobody disturbs it.
    pub(super) fn right(place: Place, words: &[&str]) -> Self {
        let words = words.iter().map(|&word| word.to_owned()).collect();
        Self { place, words, setup: Setup::Right, queue_url: None, ending: Ending::Itself }
    }

    pub(super) fn with(self, setup: Setup) -> Self {
        Self { setup, ..self }
    }

    /// On the dead-letter queue of this URL, which has no redrive policy of its own.
    pub(super) fn on_dead_letters(self, url: &str) -> Self {
        Self { setup: Setup::Keeping, queue_url: Some(url.to_owned()), ..self }
    }

    /// May end otherwise than by itself, if the history has such ends.
    pub(super) fn maybe_disturbed(self, world: &World, random: &mut StdRng) -> Self {
        let ending = draw_ending(world, &self.words[0], random);
        Self { ending, ..self }
    }

    /// Other commands have nothing to report.
    fn moves_messages(&self) -> bool {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        words.starts_with(&["rejects", "retry"]) || !["rejects", "status", "init", "prune"].contains(&words[0])
    }

    fn is(&self, words: &[&str]) -> bool {
        self.words.iter().map(String::as_str).eq(words.iter().copied())
    }
}

/// Most commands end by themselves.
fn draw_ending(world: &World, command: &str, random: &mut StdRng) -> Ending {
    let lifetime_ms = LIFETIMES_MS[usize::from(!["run", "drain"].contains(&command) || random.random())];
    let after = Duration::from_millis(random.random_range(0..lifetime_ms));
    let stages = match command {
        "drain" | "import" => &[IN_DRAIN][..],
        "transform" => &[IN_TRANSFORM],
        "load" => &[IN_LOAD],
        "ack" => &[IN_ACK],
        "run" => &[IN_DRAIN, IN_TRANSFORM, IN_LOAD, IN_ACK],
        "replay" | "rejects" => &[IN_TRANSFORM, IN_LOAD],
        _ => &[IN_FILES],
    };
    let points = stages[random.random_range(0..stages.len())];
    let (point, passings) = points[random.random_range(0..points.len())];
    let passing = random.random_range(1..=passings);
    let has_crash_points = cfg!(feature = "crash-points") && world.plan.has(Kind::CrashPoint);
    match random.random_range(0..10) {
        0..2 if world.plan.has(Kind::Kill) => Ending::Killed(after),
        2 if world.plan.has(Kind::Terminate) => Ending::Terminated(after),
        3..6 if has_crash_points => Ending::Dies(point, passing),
        _ => Ending::Itself,
    }
}

impl World {
    /// Makes a call, waits for its end and judges it.
    pub(super) fn call(&mut self, call: Call) -> Verdict<Outcome> {
        let started = self.start(call);
        self.end(started, true)
    }

    pub(super) fn start(&mut self, call: Call) -> Started {
        let Call { place, words, setup, queue_url, ending } = &call;
        let pipeline = if *setup == Setup::OtherPipeline { place.pipeline.other() } else { place.pipeline };
        let configuration = match setup {
            Setup::Renamed => renamed(pipeline),
            Setup::Keeping => keeping(pipeline),
            _ => pipeline.name().to_owned(),
        } + ".toml";
        let own_queue = match setup {
            Setup::OtherQueue => self.env.queue.url(),
            _ => self.source(pipeline).queue.url(),
        };
        let queue_url = queue_url.clone().unwrap_or_else(|| own_queue.to_owned());
        let report = report_of(*place);
        let mut command = self.env.command(env!("CARGO_BIN_EXE_pgsluice"));
        command.args(words).args(["--config", &configuration, "--queue-url", &queue_url]);
        command.args(["--staging-dir", &place.directory()]);
        if call.moves_messages() {
            command.args(["--report", &report]);
        }
        command.env("HOSTNAME", format!("host-{}", place.host));
        if *setup == Setup::OtherKey {
            command.env("PGSLUICE_KEY", OTHER_KEY);
        }
        if let Ending::Dies(point, passing) = ending {
            command.env("PGSLUICE_CRASH_POINT", format!("{point}:{passing}"));
        }
        Started { running: self.env.start_prepared(command, &report), call, at: Instant::now() }
    }

    /// Waits for the end of a call and judges it; `alone` says that no other call was under way.
    pub(super) fn end(&mut self, started: Started, alone: bool) -> Verdict<Outcome> {
        let Started { running, call, at } = started;
        match call.ending {
            Ending::Killed(after) if !running.ends_within(after) => running.strike(),
            Ending::Terminated(after) if !running.ends_within(after) => running.terminate(),
            _ => {}
        }
        let outcome = running.ended();
        let says = |line: &&str| line.starts_with("error: ") || line.starts_with("hint: ");
        let said: Vec<&str> = [""].into_iter().chain(outcome.stderr.lines().filter(says)).collect();
        let said = said.join("\n       ");
        let ended = outcome.code.map_or_else(|| "killed".to_owned(), |code| format!("exit {code}"));
        let Call { place, words, setup, queue_url, ending } = &call;
        let (setup, queue) = (differs(setup, &Setup::Right), queue_url.as_ref().map_or("", |_| ", dead letters"));
        let ending = differs(ending, &Ending::Itself);
        self.note(format!(
            "     {} at {place}{setup}{queue}{ending}: {ended} after {} ms{said}",
            words.join(" "),
            at.elapsed().as_millis()
        ));
        judge_end(&call, &outcome).map_err(|problem| format!("{problem}\n{outcome}"))?;
        if alone && outcome.code == Some(DONE) {
            self.judge_claim(&call).map_err(|problem| format!("{problem}\n{outcome}"))?;
        }
        Ok(outcome)
    }

    /// Exit code 0 says that nothing is left of what was asked.
    pub(super) fn judge_claim(&mut self, call: &Call) -> Verdict {
        match call.setup {
            Setup::Right if call.is(&RUN) => self.judge_empty(call.place),
            Setup::Right if call.is(&["replay"]) && !self.lost_rows => self.judge_replayed(call.place),
            _ => Ok(()),
        }
    }

    /// The queue is empty, and no segment waits at the place.
    fn judge_empty(&self, place: Place) -> Verdict {
        let counts = self.source(place.pipeline).queue.counts();
        if counts != QueueCounts::default() {
            return Err(format!("exit code 0, and the queue holds {counts:?}"));
        }
        match Files::of(&self.env).unfinished(place, place.pipeline, &self.messages).next() {
            Some(left) => Err(format!("exit code 0, and there is {left}")),
            None => Ok(()),
        }
    }

    /// Each message of the place's segments is a row or a reject. One that is left to the queue is neither.
    fn judge_replayed(&mut self, place: Place) -> Verdict {
        let files = Files::of(&self.env);
        self.learn_ids(&files);
        let recorded = Recorded::read(&self.env.database, &self.messages)?;
        let bodies = files.replayable().filter(|file| file.place == place).flat_map(|file| &file.messages);
        for message in bodies.filter_map(|(_, body)| self.messages.of_body(body)) {
            let settled = recorded.rows(&message.body) + self.messages.ids_among(message, &recorded.rejects);
            let is_left = !message.fits && self.leaves(place.pipeline);
            if message.pipeline == place.pipeline && settled == 0 && !message.given_up && !is_left {
                return Err(format!("exit code 0, and neither a row nor a reject: {}", message.body));
            }
        }
        Ok(())
    }
}

/// What every end must be, whatever was called.
fn judge_end(call: &Call, outcome: &Outcome) -> Verdict {
    let Some(code) = outcome.code else {
        let expected = match call.ending {
            Ending::Killed(_) | Ending::Dies(..) => outcome.was_killed(),
            // It came before the process listened.
            Ending::Terminated(_) => !outcome.was_killed(),
            Ending::Itself => false,
        };
        return if expected { Ok(()) } else { Err("ended by a signal that nobody sent".to_owned()) };
    };
    if REFUSALS.contains(&code) {
        for prefix in ["error: ", "hint: "] {
            if outcome.stderr.lines().filter(|line| line.starts_with(prefix)).count() != 1 {
                return Err(format!("exit code {code} without one line `{prefix}…`"));
            }
        }
    } else if ![DONE, WORK_LEFT].contains(&code) {
        return Err(format!("exit code {code}"));
    }
    let Some(report) = outcome.find_report() else { return Ok(()) };
    if !report.sum_holds() {
        return Err(format!("the sum does not hold: {report:?}"));
    }
    if report.exit_code != Some(code) {
        return Err(format!("exit code {code}, and {:?} in the report", report.exit_code));
    }
    if report.ack_failed > 0 {
        return Err(format!("deletes failed, and no queue refused one: {report:?}"));
    }
    Ok(())
}

fn report_of(place: Place) -> String {
    format!("{}-{}.json", place.pipeline.name(), place.host)
}

fn differs<T: std::fmt::Debug + PartialEq>(value: &T, usual: &T) -> String {
    if value == usual { String::new() } else { format!(", {value:?}") }
}
