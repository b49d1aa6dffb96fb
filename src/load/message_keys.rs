//! The identities of a segment's messages, in the order in which the ledger takes them.
//!
//! Always true: keys come out sorted by time and id, so that two loaders that hold the same messages wait for each
//! other and never deadlock; and no more than [`RUN_KEYS`] are in memory, beyond which a segment's keys are
//! sorted run by run (two such segments can deadlock; Postgres then ends one transaction, which is tried again).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::LoadError;
use crate::blocking::blocking;
use crate::chunk::{ChunkError, IdReader, Manifest};
use crate::durable::Place;
use crate::segment::SegmentId;
use crate::spool::{Rejects, message_uuid, read_rejects};
use crate::staging::Staging;

/// 8 MB of keys. A loader holds the first run, and the next one twice while it is read and sorted; so a segment of 1 GiB
/// takes 24 MB a connection. A segment of the default size is one run.
const RUN_KEYS: usize = 250_000;
const DAY_US: i64 = 86_400_000_000;
/// 2100-01-01: a time from here on, or before 1970, is odd. It only has to stay the same, not to be right.
const END_MS: i64 = 4_102_444_800_000;

/// One message of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MessageKey {
    /// Microseconds since 1970-01-01 UTC.
    pub(super) sent_at_us: i64,
    pub(super) message_id: Uuid,
    /// The row's number in the chunk; rejects follow the last row.
    pub(super) position: usize,
}

impl MessageKey {
    /// `milliseconds`: the time in the message's identity.
    pub(super) fn new(milliseconds: i64, message_id: &str, position: usize) -> Self {
        let sent_at_us = if (0..END_MS).contains(&milliseconds) { milliseconds * 1000 } else { 0 };
        Self { sent_at_us, message_id: message_uuid(message_id), position }
    }

    /// The time as a parameter of a statement.
    pub(super) fn sent_at(&self) -> SystemTime {
        system_time(self.sent_at_us)
    }
}

fn system_time(microseconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(microseconds.unsigned_abs())
}

/// The keys of a segment, and what a pass over them told.
#[derive(Debug)]
pub(super) struct SegmentKeys {
    files: KeyFiles,
    /// Rows of the chunk.
    pub(super) rows: usize,
    /// Messages that `transform` rejected.
    pub(super) rejects: usize,
    /// First and last time of sending in milliseconds, if there is any message.
    sent_between: Option<(i64, i64)>,
    /// UTC days of the times in the messages' identities, counted from 1970-01-01.
    pub(super) days: BTreeSet<i32>,
    first_run: Arc<[MessageKey]>,
}

#[derive(Debug, Clone)]
struct KeyFiles {
    segment: SegmentId,
    ids: Place,
    rejects: Place,
}

impl SegmentKeys {
    /// Reads a staged segment's ids and rejects, which must be as many as its manifest says. Blocks.
    pub(super) fn read(staging: &Staging, manifest: &Manifest) -> Result<Self, LoadError> {
        Self::read_in_runs_of(RUN_KEYS, staging, manifest)
    }

    fn read_in_runs_of(run_keys: usize, staging: &Staging, manifest: &Manifest) -> Result<Self, LoadError> {
        let segment = manifest.segment;
        let files = KeyFiles { segment, ids: staging.ids(segment), rejects: staging.chunk_rejects(segment) };
        let mut reader = KeyReader::open(&files)?;
        let mut run = Vec::new();
        let mut days = BTreeSet::new();
        while let Some(key) = reader.next()? {
            days.extend(i32::try_from(key.sent_at_us.div_euclid(DAY_US)));
            if run.len() < run_keys {
                run.push(key);
            }
        }
        run.sort_unstable();
        let (rows, rejects) = (reader.rows, reader.position - reader.rows);
        if (rows as u64, rejects as u64) != (manifest.rows(), manifest.rejects) {
            let problem = "it has other counts than its manifest";
            return Err(ChunkError::Inconsistent { segment, problem }.into());
        }
        let sent_between = manifest.first_sent_at.zip(manifest.last_sent_at);
        Ok(Self { files, rows, rejects, sent_between, days, first_run: run.into() })
    }

    /// All messages of the segment.
    pub(super) const fn total(&self) -> usize {
        self.rows + self.rejects
    }

    /// How many of the messages are there a second time, at most: those of the first run that are, and all of other runs.
    pub(super) fn repeats_at_most(&self) -> usize {
        let is_repeat =
            |pair: &&[MessageKey]| (pair[0].sent_at_us, pair[0].message_id) == (pair[1].sent_at_us, pair[1].message_id);
        self.first_run.windows(2).filter(is_repeat).count() + self.total() - self.first_run.len()
    }

    /// The first time of sending, and the last, as parameters of a statement.
    pub(super) fn sent_between(&self) -> (Option<SystemTime>, Option<SystemTime>) {
        let time = |milliseconds: i64| system_time(milliseconds.clamp(0, END_MS) * 1000);
        (self.sent_between.map(|(first, _)| time(first)), self.sent_between.map(|(_, last)| time(last)))
    }

    /// The keys again, each run sorted.
    pub(super) fn runs(self: &Arc<Self>) -> Runs {
        Runs { keys: Arc::clone(self), started: false, rest: None }
    }

    /// The keys at some positions, which must ascend, in that order. Blocks.
    pub(super) fn at(&self, positions: impl IntoIterator<Item = usize>) -> Result<Vec<MessageKey>, LoadError> {
        let mut reader = KeyReader::open(&self.files)?;
        let mut keys = Vec::new();
        for wanted in positions {
            while let Some(key) = reader.next()? {
                if key.position == wanted {
                    keys.push(key);
                    break;
                }
            }
        }
        Ok(keys)
    }
}

/// See [`SegmentKeys::runs`].
#[derive(Debug)]
pub(super) struct Runs {
    keys: Arc<SegmentKeys>,
    started: bool,
    rest: Option<KeyReader>,
}

impl Runs {
    /// The next run and what is left, or `None` after the last.
    pub(super) async fn advance(mut self) -> Result<Option<(Arc<[MessageKey]>, Self)>, LoadError> {
        if self.started {
            blocking(move || Ok(self.next()?.map(|run| (run, self)))).await
        } else {
            Ok(self.next()?.map(|run| (run, self)))
        }
    }

    /// The next run, or `None` after the last. Blocks beyond the first run.
    pub(super) fn next(&mut self) -> Result<Option<Arc<[MessageKey]>>, LoadError> {
        let run_keys = self.keys.first_run.len();
        if !self.started {
            self.started = true;
            return Ok((run_keys > 0).then(|| Arc::clone(&self.keys.first_run)));
        }
        if run_keys == self.keys.total() {
            return Ok(None);
        }
        let mut reader = match self.rest.take() {
            Some(reader) => reader,
            None => KeyReader::open_after(&self.keys.files, run_keys)?,
        };
        let mut run = Vec::new();
        while run.len() < run_keys {
            let Some(key) = reader.next()? else { break };
            run.push(key);
        }
        self.rest = Some(reader);
        run.sort_unstable();
        Ok((!run.is_empty()).then(|| run.into()))
    }
}

/// Reads the ids of the rows, then those of the transform's rejects.
#[derive(Debug)]
struct KeyReader {
    ids: IdReader,
    rejects: Rejects,
    rows: usize,
    position: usize,
}

impl KeyReader {
    fn open(files: &KeyFiles) -> Result<Self, LoadError> {
        let ids = IdReader::open(&files.ids, files.segment)?;
        Ok(Self { ids, rejects: read_rejects(&files.rejects)?, rows: 0, position: 0 })
    }

    fn open_after(files: &KeyFiles, keys: usize) -> Result<Self, LoadError> {
        let mut reader = Self::open(files)?;
        for _ in 0..keys {
            reader.next()?;
        }
        Ok(reader)
    }

    fn next(&mut self) -> Result<Option<MessageKey>, LoadError> {
        let key = if let Some(id) = self.ids.next_id()? {
            self.rows += 1;
            MessageKey::new(id.sent_at_ms, id.message_id, self.position)
        } else if let Some(entry) = self.rejects.next().transpose()? {
            MessageKey::new(entry.identity_time_ms(), &entry.message_id, self.position)
        } else {
            return Ok(None);
        };
        self.position += 1;
        Ok(Some(key))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::chunk::{Description, Part};

    #[test]
    fn a_segment_larger_than_a_run_gives_all_its_keys_in_sorted_runs() {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::open(root.path()).unwrap();
        let segment = SegmentId::now();
        let ids = (0..7).map(|index| format!("2026-07-0{}T00:00:00.123Z,m{index}\n", 7 - index));
        fs::write(staging.ids(segment), ids.collect::<Vec<_>>().concat()).unwrap();
        let none = Part { bytes: 0, checksum: 0 };
        let description = Description {
            segment,
            pipeline: "p".to_owned(),
            seal: None,
            mapping: String::new(),
            keys: Vec::new(),
            ring: Vec::new(),
            table: "t".to_owned(),
            rows: 7,
            rejects: 0,
            sent_between: None,
        };
        let manifest = Manifest::new(description, none, none, none);
        let keys = Arc::new(SegmentKeys::read_in_runs_of(3, &staging, &manifest).unwrap());
        assert_eq!((keys.rows, keys.rejects, keys.days.len()), (7, 0, 7));

        for _ in 0..2 {
            let mut runs = keys.runs();
            let mut positions = Vec::new();
            while let Some(run) = runs.next().unwrap() {
                positions.push(run.iter().map(|key| key.position).collect::<Vec<_>>());
            }
            assert_eq!(positions, [vec![2, 1, 0], vec![5, 4, 3], vec![6]]);
        }
        let ids = keys.at([0, 5]).unwrap().into_iter().map(|key| key.message_id);
        assert_eq!(ids.collect::<Vec<_>>(), [message_uuid("m0"), message_uuid("m5")]);
    }
}
