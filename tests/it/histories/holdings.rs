//! Who holds what between two steps: rows of the tables, rejects of the ledger, messages in the files of all hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Verdict;
use super::expected::Messages;
use super::pipelines::{PIPELINES, PLACES, PLAIN_COLUMNS, Pipeline, Place};
use crate::testenv::{Database, TestEnv};

/// The parts of a staging directory that hold messages. One that a version does not have holds nothing.
pub(super) const PARTS: [&str; 6] = ["spool", "chunks", "committed", "rejects", "archive", "damaged"];
/// The parts that hold segments.
const SEGMENTS: [&str; 3] = ["spool", "committed", "archive"];
/// Parts in which a segment waits for another stage.
const UNFINISHED: [&str; 2] = ["spool", "committed"];

/// A file that holds messages.
#[derive(Debug)]
pub(super) struct StagedFile {
    pub(super) place: Place,
    pub(super) part: &'static str,
    /// The segment's name.
    pub(super) segment: String,
    /// Not sealed.
    pub(super) is_open: bool,
    /// Ids and bodies.
    pub(super) messages: Vec<(String, String)>,
}

/// All files of all hosts.
#[derive(Debug)]
pub(super) struct Files(pub(super) Vec<StagedFile>);

impl Files {
    pub(super) fn of(env: &TestEnv) -> Self {
        let mut files = Vec::new();
        for place in PLACES {
            for part in PARTS {
                let directory = env.path(&place.directory()).join(part);
                files.extend(files_in(&directory).filter_map(|path| StagedFile::read(place, part, &path)));
            }
        }
        Self(files)
    }

    /// The files at a place in which a segment of this pipeline waits for another stage, or one that nothing is known of.
    pub(super) fn unfinished(
        &self,
        place: Place,
        pipeline: Pipeline,
        messages: &Messages,
    ) -> impl Iterator<Item = &StagedFile> {
        let waits = move |file: &&StagedFile| file.place == place && UNFINISHED.contains(&file.part);
        self.0.iter().filter(waits).filter(move |file| file.pipeline(messages).is_none_or(|found| found == pipeline))
    }

    /// Sealed segments, wherever they are.
    pub(super) fn replayable(&self) -> impl Iterator<Item = &StagedFile> {
        self.0.iter().filter(|file| !file.is_open && SEGMENTS.contains(&file.part))
    }

    /// The bodies in a sealed segment.
    pub(super) fn bodies_of(&self, segment: &str) -> BTreeSet<&String> {
        let files = self.replayable().filter(|file| file.segment == segment);
        files.flat_map(|file| &file.messages).map(|(_, body)| body).collect()
    }

    /// The sealed segments that hold a body.
    pub(super) fn segments_with(&self, body: &str) -> impl Iterator<Item = &String> {
        self.replayable().filter(move |file| file.holds(body)).map(|file| &file.segment)
    }

    /// Where a body lies, in these parts and not in an open segment.
    pub(super) fn holders<'a>(&'a self, body: &'a str, parts: &'a [&str]) -> impl Iterator<Item = &'a StagedFile> {
        self.0.iter().filter(move |file| !file.is_open && parts.contains(&file.part) && file.holds(body))
    }
}

impl StagedFile {
    fn read(place: Place, part: &'static str, path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let is_open = name.ends_with(".ndjson.open");
        if !is_open && !name.ends_with(".ndjson") {
            return None;
        }
        let segment = name.split('.').next()?.to_owned();
        let text = String::from_utf8_lossy(&fs::read(path).ok()?).into_owned();
        Some(Self { place, part, segment, is_open, messages: text.lines().filter_map(message).collect() })
    }

    /// Whether a message with this body is in it.
    pub(super) fn holds(&self, body: &str) -> bool {
        self.messages.iter().any(|(_, held)| held == body)
    }

    /// The file, and the ids under which it holds a body.
    pub(super) fn with_ids_of(&self, body: &str) -> String {
        let ids = self.messages.iter().filter(|(_, held)| held == body).map(|(id, _)| id.as_str());
        format!("{self}: {}", ids.collect::<Vec<_>>().join(" "))
    }

    /// Whose messages it holds.
    pub(super) fn pipeline(&self, messages: &Messages) -> Option<Pipeline> {
        self.messages.iter().find_map(|(_, body)| messages.of_body(body)).map(|message| message.pipeline)
    }
}

impl fmt::Display for StagedFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, part, segment, is_open, .. } = self;
        write!(formatter, "{place}/{part}/{segment}{}", if *is_open { " (open)" } else { "" })
    }
}

/// The files in a directory, by name; none where it does not exist.
pub(super) fn files_in(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths.into_iter()
}

/// Id and body of a line that is a message; a header, a seal and a torn line are none.
fn message(line: &str) -> Option<(String, String)> {
    let line: Value = serde_json::from_str(line).ok()?;
    Some((line["message_id"].as_str()?.to_owned(), line["body"].as_str()?.to_owned()))
}

/// What the database holds.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    /// For each body of a row, how many rows there are.
    rows: BTreeMap<String, usize>,
    /// The ids of the messages that the ledger has as rejects.
    pub(super) rejects: BTreeSet<String>,
}

impl Recorded {
    /// Reads tables and ledger. Each row must be that of a message of its pipeline, with the right values.
    pub(super) fn read(database: &Database, messages: &Messages) -> Verdict<Self> {
        let mut recorded = Self::default();
        for pipeline in PIPELINES {
            for row in database.rows(&format!("select {PLAIN_COLUMNS} from {}", pipeline.name())) {
                let token = row[0].clone().unwrap_or_default();
                let message = messages.of_token(pipeline, &token).filter(|message| message.fits);
                let Some(message) = message.filter(|message| pipeline.row(message.number) == row) else {
                    return Err(format!("a wrong row in {}: {row:?}", pipeline.name()));
                };
                *recorded.rows.entry(message.body.clone()).or_default() += 1;
            }
        }
        recorded.rejects = reject_ids(database);
        Ok(recorded)
    }

    /// How many rows a body has.
    pub(super) fn rows(&self, body: &str) -> usize {
        self.rows.get(body).copied().unwrap_or_default()
    }
}

/// The ids of the messages that the ledger has as rejects.
pub(super) fn reject_ids(database: &Database) -> BTreeSet<String> {
    database.texts("select message_id::text from pgsluice.reject").into_iter().collect()
}
