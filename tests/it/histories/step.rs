//! The kinds of steps, and how a history is drawn from its seed.
//!
//! A history is planned before it begins: the plan depends on the seed alone, never on what happens. Each step has a
//! seed of its own, so a history without one of its steps does the others as before.

use std::fmt;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::pipelines::{PLACES, Place};

/// What a person does, or what happens to him. Those of weight 0 are no steps but circumstances of a whole history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Messages are sent: good ones, bad ones, and the same body twice.
    Send,
    /// A file of its own name is imported.
    Import,
    /// A file of another directory is imported whose name was imported before, its time and lines apart from it.
    ImportSameName,
    /// A file is imported once more, as it is.
    ImportAgain,
    /// A file is imported once more after its modification time has moved by days.
    ImportMoved,
    /// `run`
    Run,
    /// `run --max-messages`
    RunLimited,
    /// `run` on both hosts at the same time.
    RunBoth,
    /// `drain`, `transform`, `load` and `ack`, forward most of the time, now and then back.
    Stages,
    /// `replay`, of everything or of one segment.
    Replay,
    /// `rejects retry`
    Retry,
    /// `rejects drop` of one reason: a person gives those messages up.
    Drop,
    /// `status`, `init`, `rejects list`: commands that change nothing.
    Look,
    /// `prune`
    Prune,
    /// Circumstance: commands are killed at random moments.
    Kill,
    /// Circumstance: commands get SIGTERM at random moments.
    Terminate,
    /// Circumstance: commands die at crash points.
    CrashPoint,
    /// A command with the other pipeline's configuration.
    OtherPipeline,
    /// A command with another queue's URL.
    OtherQueue,
    /// A command with a configuration in which the pipeline has another name.
    Renamed,
    /// A command with another masking key.
    OtherKey,
    /// The mapping declares its columns in another order from now on.
    EditMapping,
    /// A staging directory is copied to the other host.
    CopyDirectory,
    /// `chunks/` alone is copied to the other host, with all files of each chunk or without one of them.
    CopyChunks,
    /// Some sealed segments are copied to the other host.
    CopySegments,
    /// The archive is copied to the other host, to be replayed there, or into its spool.
    CopyArchive,
    /// The modification times of archived and sealed segments move by days.
    MoveTimes,
    /// A CHECK that some good messages violate is added to the table, or a trigger that raises for them; or both go.
    Check,
    /// A cron job runs again and again over a table without a partition for its rows, or with an exhausted sequence.
    BrokenTable,
    /// The table is truncated, and `replay --again` fills it.
    Truncate,
    /// `replay --again` although the table was not emptied.
    AgainOnRows,
    /// The database is dumped, and restored under another name.
    DumpRestore,
    /// The database is dumped for later, or replaced by its last dump.
    RestoreOld,
    /// The server restarts while a run loads. The history has a server of its own.
    Restart,
    /// What dead processes hold becomes visible again.
    Wait,
    /// Another consumer fails until messages move to the dead-letter queue.
    Redrive,
    /// `run` on the dead-letter queue.
    RunDeadLetters,
    /// Messages that are nowhere else are sent by hand from the dead-letter queue to their queue.
    Resend,
    /// Circumstance: the first pipeline leaves rejects to its queue's redrive policy.
    Leave,
    /// Circumstance: the queue of the first pipeline is a FIFO queue.
    Fifo,
    /// Circumstance: messages are delivered twice although nothing failed.
    Redeliveries,
}

/// Without these nothing happens.
const ALWAYS: [Kind; 3] = [Kind::Send, Kind::Run, Kind::Stages];
/// A history has about this number of the kinds that are switched on: with fewer kinds, each happens more often, and a
/// history goes deeper.
const KINDS_OF_A_HISTORY: usize = 14;
/// A server of its own takes seconds to start.
const SHARE_OF_RESTARTS: f64 = 0.1;
/// How likely a step is at the place that the history prefers.
const SHARE_OF_PREFERRED_PLACE: f64 = 0.6;

impl Kind {
    pub(super) const ALL: [Self; 41] = [
        Self::Send,
        Self::Import,
        Self::ImportSameName,
        Self::ImportAgain,
        Self::ImportMoved,
        Self::Run,
        Self::RunLimited,
        Self::RunBoth,
        Self::Stages,
        Self::Replay,
        Self::Retry,
        Self::Drop,
        Self::Look,
        Self::Prune,
        Self::Kill,
        Self::Terminate,
        Self::CrashPoint,
        Self::OtherPipeline,
        Self::OtherQueue,
        Self::Renamed,
        Self::OtherKey,
        Self::EditMapping,
        Self::CopyDirectory,
        Self::CopyChunks,
        Self::CopySegments,
        Self::CopyArchive,
        Self::MoveTimes,
        Self::Check,
        Self::BrokenTable,
        Self::Truncate,
        Self::AgainOnRows,
        Self::DumpRestore,
        Self::RestoreOld,
        Self::Restart,
        Self::Wait,
        Self::Redrive,
        Self::RunDeadLetters,
        Self::Resend,
        Self::Leave,
        Self::Fifo,
        Self::Redeliveries,
    ];

    /// How often it is drawn, beside the others of its history.
    const fn weight(self) -> u32 {
        match self {
            Self::Kill | Self::Terminate | Self::CrashPoint | Self::Leave | Self::Fifo | Self::Redeliveries => 0,
            Self::Look | Self::Prune | Self::BrokenTable | Self::RestoreOld | Self::Drop | Self::Wait => 1,
            Self::Run | Self::Check => 4,
            Self::Stages | Self::Send => 8,
            _ => 2,
        }
    }

    /// The kind of this name.
    fn named(name: &str) -> Self {
        let found = Self::ALL.into_iter().find(|kind| format!("{kind:?}") == name);
        found.unwrap_or_else(|| panic!("no kind of step is called {name}"))
    }

    /// Names with commas between them; `all` means all, and a name after a minus is left out again.
    pub(super) fn list(text: &str) -> Vec<Self> {
        let mut kinds = Vec::new();
        for word in text.split(',') {
            match word.strip_prefix('-') {
                _ if word == "all" => kinds.extend(Self::ALL),
                Some(name) => kinds.retain(|kind| *kind != Self::named(name)),
                None => kinds.push(Self::named(word)),
            }
        }
        kinds
    }
}

/// One step of a plan.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// From 1.
    pub(super) number: usize,
    pub(super) kind: Kind,
    pub(super) place: Place,
    /// What else there is to draw.
    pub(super) seed: u64,
}

impl Step {
    pub(super) fn random(self) -> StdRng {
        StdRng::seed_from_u64(self.seed)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:>2} {:?} at {}", self.number, self.kind, self.place)
    }
}

/// What a seed stands for.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) seed: u64,
    /// The kinds that this history has.
    pub(super) kinds: Vec<Kind>,
    pub(super) steps: Vec<Step>,
}

impl Plan {
    /// Draws a history of `steps` steps from its seed.
    pub(super) fn draw(seed: u64, enabled: &[Kind], steps: usize) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut kinds = Vec::new();
        for &kind in enabled {
            let is_drawn = match kind {
                Kind::Restart => random.random_bool(SHARE_OF_RESTARTS),
                _ => random.random_range(0..enabled.len()) < KINDS_OF_A_HISTORY,
            };
            if is_drawn || ALWAYS.contains(&kind) {
                kinds.push(kind);
            }
        }
        let preferred = PLACES[random.random_range(0..PLACES.len())];
        let steps = (1..=steps).map(|number| {
            let anywhere = PLACES[random.random_range(0..PLACES.len())];
            let place = if random.random_bool(SHARE_OF_PREFERRED_PLACE) { preferred } else { anywhere };
            let kind = draw_kind(&mut random, &kinds);
            Step { number, kind: if number == 1 { Kind::Send } else { kind }, place, seed: random.random() }
        });
        Self { seed, steps: steps.collect(), kinds }
    }

    pub(super) fn has(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }

    /// The same history with these of its steps alone.
    pub(super) fn only(&self, numbers: &[usize]) -> Self {
        let steps = self.steps.iter().copied().filter(|step| numbers.contains(&step.number)).collect();
        Self { steps, ..self.clone() }
    }
}

fn draw_kind(random: &mut StdRng, kinds: &[Kind]) -> Kind {
    let mut drawn = random.random_range(0..kinds.iter().map(|kind| kind.weight()).sum::<u32>());
    for &kind in kinds {
        match drawn.checked_sub(kind.weight()) {
            Some(rest) => drawn = rest,
            None => return kind,
        }
    }
    unreachable!("fewer than the sum of the weights")
}
