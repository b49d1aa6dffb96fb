//! The segments of a staging directory, state by state.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use crate::durable::{FileError, Place};
use crate::error::Error;
use crate::report::LastRun;
use crate::segment::SegmentId;
use crate::spool::{Header, sealed_segment_at};
use crate::staging::Staging;

/// A state of segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Being written, or left by a process that died.
    Open,
    /// In the spool.
    Sealed,
    /// Sealed, and its chunk is made.
    Staged,
    /// Sealed, and the ledger has it.
    Loaded,
    /// Loaded, and not yet deleted from the queue.
    Committed,
    /// Done; kept for replay.
    Acknowledged,
    /// Cannot be read to its end.
    Damaged,
}

/// The segments in one state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StateStatus {
    /// The state.
    pub state: State,
    /// Its segments.
    pub segments: u64,
    /// Their messages, as far as the files tell.
    pub messages: u64,
    /// The size of their files.
    pub bytes: u64,
    /// When the oldest of them was begun.
    pub oldest_at: Option<Timestamp>,
}

/// A segment that cannot be read to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DamagedSegment {
    /// Its name.
    pub segment: SegmentId,
    /// Its file.
    pub file: PathBuf,
}

/// What lies in a staging directory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StagingStatus {
    /// The directory.
    pub directory: PathBuf,
    /// Each state with its segments. [`State::Loaded`] is there only where the ledger was asked.
    pub states: Vec<StateStatus>,
    /// The damaged segments.
    pub damaged: Vec<DamagedSegment>,
    /// The last run.
    pub last_run: Option<LastRun>,
    /// The last run that ended with exit code 0.
    pub last_done: Option<LastRun>,
}

impl StagingStatus {
    /// Looks at the directory. `loaded`: the sealed segments that the ledger has, where it was asked. Blocks.
    pub fn of(staging: &Staging, loaded: Option<&HashSet<SegmentId>>) -> Result<Self, Error> {
        let sealed = staging.sealed_segments()?;
        let staged = staging.staged_segments()?;
        let damaged = staging.damaged_segments()?;
        let in_spool = |segment: SegmentId| staging.spool(segment);
        let mut states = vec![
            look(State::Open, staging.open_segments()?, |segment| staging.open_segment(segment))?,
            look(State::Sealed, sealed.clone(), in_spool)?,
            look(State::Staged, sealed.iter().filter(|id| staged.contains(id)).copied().collect(), in_spool)?,
        ];
        if let Some(loaded) = loaded {
            let known = sealed.iter().filter(|id| loaded.contains(id)).copied().collect();
            states.push(look(State::Loaded, known, in_spool)?);
        }
        states.push(look(State::Committed, staging.committed_segments()?, |segment| staging.committed(segment))?);
        states.push(look(State::Acknowledged, staging.archived_segments()?, |segment| staging.archive(segment))?);
        states.push(look(State::Damaged, damaged.clone(), |segment| staging.damaged(segment))?);
        Ok(Self {
            directory: staging.root().to_owned(),
            states,
            damaged: damaged
                .into_iter()
                .map(|segment| DamagedSegment { segment, file: staging.damaged(segment).path().to_owned() })
                .collect(),
            last_run: LastRun::read(staging)?,
            last_done: LastRun::read_done(staging)?,
        })
    }

    /// When the oldest segment was begun that waits for something: for its load, for its deletes, or for a person.
    #[must_use]
    pub fn oldest_waiting(&self) -> Option<(State, Timestamp)> {
        let waits = |state| matches!(state, State::Open | State::Sealed | State::Committed | State::Damaged);
        let waiting = self.states.iter().filter(|status| waits(status.state));
        waiting.filter_map(|status| Some((status.state, status.oldest_at?))).min_by_key(|(_, at)| *at)
    }
}

impl State {
    /// Its name, as the documentation has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Sealed => "sealed",
            Self::Staged => "staged",
            Self::Loaded => "loaded",
            Self::Committed => "committed",
            Self::Acknowledged => "acknowledged",
            Self::Damaged => "damaged",
        }
    }
}

fn look(
    state: State,
    segments: Vec<SegmentId>,
    place_of: impl Fn(SegmentId) -> Place,
) -> Result<StateStatus, FileError> {
    let mut status = StateStatus { state, segments: 0, messages: 0, bytes: 0, oldest_at: None };
    for segment in segments {
        let place = place_of(segment);
        let metadata = match place.open() {
            // A run has moved it on.
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => continue,
            file => file?.metadata().map_err(place.failed("inspect"))?,
        };
        status.segments += 1;
        status.bytes += metadata.len();
        status.messages += messages_of(state, &place, segment);
        let begun = begun_at(&place).or_else(|| metadata.modified().ok()?.try_into().ok());
        status.oldest_at = [status.oldest_at, begun].into_iter().flatten().min();
    }
    Ok(status)
}

/// The number of messages that a file tells; 0 where it cannot be read, which is for the stages to say.
fn messages_of(state: State, place: &Place, segment: SegmentId) -> u64 {
    match state {
        // Its first line is the header.
        State::Open => lines(place).map_or(0, |lines| lines.saturating_sub(1)),
        _ => sealed_segment_at(place, segment).map_or(0, |segment| segment.messages),
    }
}

fn lines(place: &Place) -> Result<u64, FileError> {
    let mut file = BufReader::new(place.open()?);
    let mut lines = 0;
    loop {
        let bytes = file.fill_buf().map_err(place.failed("read"))?;
        if bytes.is_empty() {
            return Ok(lines);
        }
        lines += memchr::memchr_iter(b'\n', bytes).count() as u64;
        let read = bytes.len();
        file.consume(read);
    }
}

/// A segment of format 1 does not say when it was begun.
fn begun_at(place: &Place) -> Option<Timestamp> {
    Timestamp::from_millisecond(Header::of_file(place).ok()??.created_at).ok()
}
