//! What the mapping makes of real messages, before any is received for good.
//!
//! Always true: no value of a message is shown. Of a value that is not masked, its shape is: each letter as `a` or `A`,
//! each digit as `9`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::Check;
use crate::config::{ConfigError, Pipeline, Source, escape_pointer};
use crate::load::CopyTrial;
use crate::queue::Message;
use crate::reason::Reason;
use crate::report::{RejectCount, grouped};
use crate::spool::Record;
use crate::transform::Plan;

/// More messages tell no more.
const MOST_MESSAGES: usize = 10_000;
const PREVIEW_CHARACTERS: usize = 40;

/// What became of the messages of a sample.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trial {
    /// The messages.
    pub messages: u64,
    /// Those that became rows.
    pub rows: u64,
    /// Mean size of a body, in bytes.
    pub body_bytes: f64,
    /// Mean size of a row, in bytes of CSV.
    pub row_bytes: f64,
    /// The columns of the mapping.
    pub columns: Vec<ColumnTrial>,
    /// Why messages could not become rows, and how many.
    pub rejects: Vec<RejectCount>,
    /// Fields of bodies that no column takes, as JSON pointers, with the number of messages that have them.
    pub fields_not_taken: BTreeMap<String, u64>,
    /// The rows, as lines of a chunk.
    #[serde(skip)]
    pub lines: Vec<Vec<u8>>,
}

/// What one column got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ColumnTrial {
    /// Its name.
    pub name: String,
    /// Where its values come from: a JSON pointer, or what the message has beside its body.
    pub source: String,
    /// How it is masked, if it is.
    pub mask: Option<&'static str>,
    /// Rows in which it is null.
    pub nulls: u64,
    /// Characters of the shortest value.
    pub shortest: Option<usize>,
    /// Characters of the longest value.
    pub longest: Option<usize>,
    /// What a value looks like: masked, or its shape.
    pub preview: Option<String>,
}

/// The messages of a file with one body a line, as an import would make them. Empty lines are skipped, and what comes
/// after the first 10,000 messages.
pub fn read_sample(path: &Path) -> Result<Vec<Message>, ConfigError> {
    let failed = || ConfigError::of_given_file("read", path, "name a file with one message body a line");
    let mut messages = Vec::new();
    for body in BufReader::new(File::open(path).map_err(failed())?).lines() {
        let body = body.map_err(failed())?;
        if !body.trim().is_empty() {
            messages.push(message(body));
        }
        if messages.len() == MOST_MESSAGES {
            break;
        }
    }
    Ok(messages)
}

fn message(body: String) -> Message {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX);
    Message {
        message_id: Uuid::now_v7().to_string(),
        sent_at: now,
        sent_at_is_stable: false,
        received_at: now,
        receive_count: 1,
        receipt_handle: String::new(),
        body,
        attributes: None,
        group_id: None,
        sequence_number: None,
    }
}

impl Trial {
    /// Tries the mapping on messages. `queue`: the name of the queue that they came from.
    #[must_use]
    pub fn of(messages: &[Message], pipeline: &Pipeline, plan: &Plan, queue: Option<&str>) -> Self {
        let columns = pipeline.columns.iter().map(|column| ColumnTrial {
            name: column.name.clone(),
            source: match &column.source {
                Source::Body(pointer) => format!("body{pointer}"),
                Source::Message(value) => serde_json::to_string(value).unwrap_or_default().replace('"', ""),
            },
            mask: column.mask.map(crate::config::Mask::name),
            nulls: 0,
            shortest: None,
            longest: None,
            preview: None,
        });
        let mut trial = Self {
            messages: messages.len() as u64,
            rows: 0,
            body_bytes: mean(messages.iter().map(|message| message.body.len())),
            row_bytes: 0.0,
            columns: columns.collect(),
            rejects: Vec::new(),
            fields_not_taken: BTreeMap::new(),
            lines: Vec::new(),
        };
        let taken: Vec<&str> = pipeline.columns.iter().filter_map(|column| pointer_of(&column.source)).collect();
        for message in messages {
            match plan.try_message(&Record::from(message), queue) {
                Ok(row) => {
                    trial.columns.iter_mut().zip(row.fields).for_each(|(column, field)| column.saw(field));
                    trial.lines.push(row.line);
                }
                Err(reason) => trial.refused(reason),
            }
            if let Ok(body) = serde_json::from_str(&message.body) {
                not_taken(&body, &mut String::new(), &taken, &mut trial.fields_not_taken);
            }
        }
        trial.rows = trial.lines.len() as u64;
        trial.row_bytes = mean(trial.lines.iter().map(Vec::len));
        trial
    }

    /// Adds what Postgres refused.
    pub fn add_refused(&mut self, copied: &CopyTrial) {
        copied.refused.iter().for_each(|reason| self.refused(reason.clone()));
        self.rows -= copied.refused.len() as u64;
    }

    fn refused(&mut self, reason: Reason) {
        match self.rejects.iter_mut().find(|reject| reject.reason == reason) {
            Some(reject) => reject.count += 1,
            None => self.rejects.push(RejectCount { reason, count: 1 }),
        }
    }
}

impl ColumnTrial {
    fn saw(&mut self, field: Option<String>) {
        let Some(field) = field else {
            self.nulls += 1;
            return;
        };
        let length = field.chars().count();
        self.shortest = Some(self.shortest.map_or(length, |shortest| shortest.min(length)));
        self.longest = Some(self.longest.map_or(length, |longest| longest.max(length)));
        let is_masked = self.mask.is_some();
        self.preview.get_or_insert_with(|| {
            let shown = field.chars().take(PREVIEW_CHARACTERS);
            if is_masked { shown.collect() } else { shown.map(shape).collect() }
        });
    }
}

/// What is no letter and no digit stays: it is what a format consists of.
fn shape(character: char) -> char {
    match character {
        _ if character.is_numeric() => '9',
        _ if character.is_uppercase() => 'A',
        _ if character.is_alphabetic() => 'a',
        _ if character.is_control() => ' ',
        _ => character,
    }
}

fn pointer_of(source: &Source) -> Option<&str> {
    match source {
        Source::Body(pointer) => Some(pointer),
        Source::Message(_) => None,
    }
}

/// Counts the members of a body that no pointer takes, neither they nor something in them.
fn not_taken(value: &Value, pointer: &mut String, taken: &[&str], found: &mut BTreeMap<String, u64>) {
    if taken.contains(&pointer.as_str()) {
        return;
    }
    let has_more =
        |pointer: &str| taken.iter().any(|taken| taken.strip_prefix(pointer).is_some_and(|rest| rest.starts_with('/')));
    match value {
        Value::Object(members) if pointer.is_empty() || has_more(pointer) => {
            for (name, value) in members {
                let before = pointer.len();
                pointer.push('/');
                pointer.push_str(&escape_pointer(name));
                not_taken(value, pointer, taken, found);
                pointer.truncate(before);
            }
        }
        _ if pointer.is_empty() || has_more(pointer) => {}
        _ => *found.entry(pointer.clone()).or_default() += 1,
    }
}

/// Judges what the mapping made of a sample.
#[must_use]
pub fn check_trial(trial: &Trial) -> Vec<Check> {
    const NAME: &str = "sample";
    let (rows, messages) = (grouped(trial.rows), grouped(trial.messages));
    let mut checks = vec![if trial.messages == 0 {
        Check::warning(NAME, "it holds no message", "give a file with a body a line, or --peek a queue that holds some")
    } else if trial.rows == trial.messages {
        Check::ok(NAME, format!("each of {messages} messages becomes a row"))
    } else {
        let advice = "correct the mapping or the producer, if these are no mistakes; a reject is kept with its reason";
        Check::warning(NAME, format!("{rows} of {messages} messages become rows"), advice)
    }];
    if !trial.fields_not_taken.is_empty() {
        let fields: Vec<&str> = trial.fields_not_taken.keys().map(String::as_str).collect();
        let advice = "map what should not be lost: the body is kept only as long as the archive";
        checks.push(Check::warning("fields", format!("no column takes {}", fields.join(", ")), advice));
    }
    checks
}

/// Judges a COPY that was rolled back.
#[must_use]
pub fn check_copy(copied: &CopyTrial) -> Check {
    const NAME: &str = "trial COPY";
    let CopyTrial { sent, taken, refused } = copied;
    if taken < sent {
        let seen = format!("the table took {taken} of {sent} rows: a trigger skips some");
        return Check::failure(
            NAME,
            seen,
            "drop the trigger, or filter before the queue: a run stops at a skipped row",
        );
    }
    if refused.is_empty() {
        return Check::ok(NAME, format!("the table took {} rows, and the COPY was rolled back", grouped(*taken)));
    }
    let seen = format!("Postgres refused {} rows; the COPY was rolled back", refused.len());
    Check::warning(NAME, seen, "see the reasons of the rejects below")
}

#[allow(clippy::cast_precision_loss, reason = "a mean of sizes")]
fn mean(sizes: impl ExactSizeIterator<Item = usize>) -> f64 {
    let count = sizes.len();
    if count == 0 { 0.0 } else { sizes.sum::<usize>() as f64 / count as f64 }
}
