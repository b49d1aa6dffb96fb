//! The declared columns, compiled into what the hot loop runs: from one message to one row of the chunk.
//!
//! Always true: a message gives either a whole row or a [`Reason`], and a refused one leaves no byte in the chunk.
//! Reasons name fields and limits as they were declared, never a value.

use std::mem;
use std::sync::Arc;

use super::body::{BodyProblem, Pointers};
use super::field::{self, Buffers, Problem};
use super::numeric;
use super::output::Counts;
use crate::chunk::{ColumnKey, Description, Manifest, UtcText, csv};
use crate::config::{Column, ColumnType, ConfigError, Mask, MessageValue, Pipeline, Source};
use crate::keyring::{Algorithm, Key, Keyring};
use crate::mask::{Masker, masked_length};
use crate::reason::{Reason, Stage};
use crate::segment::SegmentId;
use crate::spool::{Header, Record, Seal, Source as SegmentSource, SpoolKeys};

/// A pipeline's mapping, ready to run. Shared by all threads.
#[derive(Debug, Clone)]
pub struct Plan {
    pointers: Pointers,
    columns: Vec<PlannedColumn>,
    pipeline: String,
    table: String,
    fingerprint: String,
    keys: Vec<ColumnKey>,
    ring: Vec<String>,
    spool_keys: SpoolKeys,
    /// The pipeline whose segments it takes: its own, unless told otherwise.
    accepts: String,
    /// For segments of format 1, which do not say where they came from.
    configured_queue: Option<String>,
}

#[derive(Debug, Clone)]
struct PlannedColumn {
    /// The name of the field in reasons; the whole body has none.
    field: Option<String>,
    value: Value,
    kind: ColumnType,
    required: bool,
    max_length: Option<usize>,
    scale: Option<u16>,
    masker: Option<Arc<Masker>>,
}

#[derive(Debug, Clone)]
enum Value {
    Body { slot: usize },
    Message(MessageValue),
}

/// What a row is made of.
#[derive(Debug)]
pub(super) struct RowSource<'a> {
    pub(super) record: &'a Record<'a>,
    /// The text of the record's body.
    pub(super) body: &'a str,
    /// The record's `sent_at`.
    pub(super) sent: UtcText,
    /// The queue that it came from.
    pub(super) queue: Option<&'a str>,
    /// What its segment says of where it came from.
    pub(super) source: Option<&'a SegmentSource>,
}

/// Memory that one thread reuses from message to message.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    found: Vec<Option<&'static str>>,
    buffers: Buffers,
    masked: Vec<u8>,
}

impl Plan {
    /// Compiles the mapping. Errors name the column at fault, or the key that a column needs. The configured queue's name
    /// is for segments of format 1.
    pub fn compile(pipeline: &Pipeline, keys: &Keyring, queue_name: Option<&str>) -> Result<Self, ConfigError> {
        let mut pointers = Vec::new();
        for column in &pipeline.columns {
            if let Source::Body(pointer) = &column.source {
                Pointers::compile([pointer.as_str()].into_iter()).map_err(|problem| invalid(column, problem))?;
                pointers.push(pointer.as_str());
            }
        }
        let pointers = Pointers::compile(pointers.into_iter())
            .map_err(|problem| ConfigError::InvalidSetting { setting: "column.from", problem: problem.to_owned() })?;
        check_keys_are_apart(pipeline, keys)?;
        let columns = pipeline.columns.iter().map(|column| PlannedColumn::new(column, &pointers, keys));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let column_keys = pipeline.columns.iter().zip(&columns).filter_map(|(column, planned)| {
            let key = planned.masker.as_ref()?.key_id().to_owned();
            Some(ColumnKey { column: column.masked_as().to_owned(), method: column.mask?.name().to_owned(), key })
        });
        Ok(Self {
            keys: column_keys.collect(),
            ring: keys
                .iter()
                .filter(|key| key.algorithm() != Algorithm::Spool)
                .map(|key| key.id().to_owned())
                .collect(),
            spool_keys: SpoolKeys::of(keys),
            pointers,
            columns,
            accepts: pipeline.name.clone(),
            pipeline: pipeline.name.clone(),
            table: pipeline.table.to_string(),
            fingerprint: pipeline.fingerprint(),
            configured_queue: queue_name.map(str::to_owned),
        })
    }

    /// Takes the segments of another pipeline.
    #[must_use]
    pub fn accepting(&self, pipeline: &str) -> Self {
        Self { accepts: pipeline.to_owned(), ..self.clone() }
    }

    /// Whether it takes segments that were spooled for this pipeline.
    pub(super) fn accepts(&self, pipeline: &str) -> bool {
        self.accepts == pipeline
    }

    /// The pipeline's name.
    #[must_use]
    pub fn pipeline(&self) -> &str {
        &self.pipeline
    }

    /// Which key each masked column has.
    #[must_use]
    pub fn keys(&self) -> &[ColumnKey] {
        &self.keys
    }

    /// The keys of the spool.
    #[must_use]
    pub const fn spool_keys(&self) -> &SpoolKeys {
        &self.spool_keys
    }

    /// The ids of all masking keys.
    #[must_use]
    pub fn ring(&self) -> &[String] {
        &self.ring
    }

    /// Whether a chunk with this manifest is what this plan would make of the segment.
    #[must_use]
    pub fn made(&self, manifest: &Manifest) -> bool {
        manifest.pipeline == self.pipeline && manifest.mapping == self.fingerprint && manifest.keys == self.keys
    }

    /// What a manifest says of the mapping.
    pub(super) fn describe(&self, segment: SegmentId, counts: Counts, seal: Option<Seal>) -> Description {
        Description {
            segment,
            pipeline: self.pipeline.clone(),
            seal,
            mapping: self.fingerprint.clone(),
            keys: self.keys.clone(),
            ring: self.ring.clone(),
            table: self.table.clone(),
            rows: counts.rows,
            rejects: counts.rejected,
            sent_between: counts.sent_between,
        }
    }

    /// The name of the queue that a segment came from.
    #[must_use]
    pub fn queue_of<'a>(&'a self, header: Option<&'a Header>) -> Option<&'a str> {
        match header {
            Some(header) => header.source.queue_name(),
            None => self.configured_queue.as_deref(),
        }
    }

    /// Appends the message's row to `rows`, its line feed included.
    pub(super) fn push_row(
        &self,
        message: &RowSource<'_>,
        scratch: &mut Scratch,
        rows: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        let start = rows.len();
        let mut found: Vec<Option<&str>> = mem::take(&mut scratch.found);
        found.resize(self.pointers.slots(), None);
        let pushed = self
            .pointers
            .find(message.body, &mut found)
            .map_err(|problem| reason_of_body(&problem))
            .and_then(|()| self.push_fields(message, &found, scratch, rows));
        scratch.found = emptied(found);
        if pushed.is_err() {
            rows.truncate(start);
        }
        pushed
    }

    fn push_fields(
        &self,
        message: &RowSource<'_>,
        found: &[Option<&str>],
        scratch: &mut Scratch,
        rows: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        for (position, column) in self.columns.iter().enumerate() {
            csv::push_separator(rows, position);
            column.push_field(message, found, scratch, rows).map_err(|problem| column.reason(problem))?;
        }
        rows.push(b'\n');
        Ok(())
    }
}

impl PlannedColumn {
    fn new(column: &Column, pointers: &Pointers, keys: &Keyring) -> Result<Self, ConfigError> {
        let (field, value) = match &column.source {
            Source::Body(pointer) => {
                let slot = pointers.slot(pointer).ok_or_else(|| invalid(column, "its pointer is not compiled"))?;
                (pointer.strip_prefix('/').map(str::to_owned), Value::Body { slot })
            }
            Source::Message(value) => {
                if !is_written_as(*value, column.kind) {
                    return Err(invalid(column, "its type does not fit its value"));
                }
                (Some(column.name.clone()), Value::Message(*value))
            }
        };
        let masker = column.mask.map(|mask| Masker::new(mask, column.masked_as(), keys).map(Arc::new)).transpose()?;
        if let (Some(mask), Some(max_length)) = (column.mask, column.max_length)
            && max_length < masked_length(mask, 1)
        {
            let shortest = masked_length(mask, 1);
            return Err(invalid(
                column,
                &format!("a masked value has {shortest} characters or more, and max_length is {max_length}"),
            ));
        }
        let Column { kind, required, max_length, scale, .. } = *column;
        Ok(Self { field, value, kind, required, max_length, scale, masker })
    }

    fn reason(&self, problem: Problem) -> Reason {
        let text = format!("{} {problem}", self.field.as_deref().unwrap_or("the body"));
        Reason { stage: Stage::Transform, field: self.field.clone(), text }
    }

    /// `found` holds what the walk over the message's body found, by slot.
    fn push_field(
        &self,
        message: &RowSource<'_>,
        found: &[Option<&str>],
        scratch: &mut Scratch,
        row: &mut Vec<u8>,
    ) -> Result<(), Problem> {
        let text = match self.text(message, found, &mut scratch.buffers) {
            Err(Problem::Missing | Problem::Null) if !self.required => return Ok(()),
            text => text?,
        };
        if let Some(scale) = self.scale
            && numeric::is_finer_than(scale, text)
        {
            return Err(Problem::TooManyDecimals { scale });
        }
        let text = match &self.masker {
            Some(masker) => {
                scratch.masked.clear();
                masker.mask(text, &mut scratch.masked);
                &scratch.masked
            }
            None => text.as_bytes(),
        };
        if let Some(max_length) = self.max_length
            && field::is_longer_than(max_length, text)
        {
            return Err(Problem::TooLong { max_length });
        }
        csv::push_field(row, text);
        Ok(())
    }

    fn text<'a>(
        &'a self,
        message: &'a RowSource<'_>,
        found: &[Option<&'a str>],
        buffers: &'a mut Buffers,
    ) -> Result<&'a str, Problem> {
        match &self.value {
            Value::Body { slot } => match found[*slot] {
                None => Err(Problem::Missing),
                Some("null") => Err(Problem::Null),
                Some(json) => field::from_json(self.kind, json, buffers),
            },
            Value::Message(value) => message.value(*value, self.kind, buffers),
        }
    }
}

impl<'a> RowSource<'a> {
    fn value(&'a self, value: MessageValue, kind: ColumnType, buffers: &'a mut Buffers) -> Result<&'a str, Problem> {
        let received = || {
            let instant = UtcText::from_milliseconds(self.record.received_at);
            instant.ok_or(Problem::OutOfRange(ColumnType::Timestamptz))
        };
        let text = match value {
            MessageValue::SentDate => return Ok(buffers.keep(self.sent.date())),
            MessageValue::SentAt => return Ok(buffers.keep(self.sent.as_str())),
            MessageValue::ReceivedDate => return Ok(buffers.keep(received()?.date())),
            MessageValue::ReceivedAt => return Ok(buffers.keep(received()?.as_str())),
            MessageValue::ReceiveCount => return Ok(buffers.keep(self.record.receive_count)),
            MessageValue::MessageId => Some(&*self.record.message_id),
            MessageValue::GroupId => self.record.group_id.as_deref(),
            MessageValue::SequenceNumber => self.record.sequence_number.as_deref(),
            MessageValue::Queue => self.queue,
        };
        field::from_text(kind, text.ok_or(Problem::Missing)?, buffers)
    }
}

fn reason_of_body(problem: &BodyProblem) -> Reason {
    Reason { stage: Stage::Transform, field: None, text: format!("the body {problem}") }
}

/// `fixed` needs a key of its own: what it leaks would be known of the values of `siv` too. A keyring holds no such key
/// twice; PGSLUICE_KEY stands for both.
fn check_keys_are_apart(pipeline: &Pipeline, keys: &Keyring) -> Result<(), ConfigError> {
    let used = |mask: Mask, algorithm| {
        let is_used = pipeline.masked_columns(mask).next().is_some();
        keys.first(algorithm).filter(|_| is_used).map(Key::secret)
    };
    match (used(Mask::Siv, Algorithm::Siv), used(Mask::Fixed, Algorithm::Fixed)) {
        (Some(siv), Some(fixed)) if siv.as_bytes() == fixed.as_bytes() => Err(ConfigError::SharedKey),
        _ => Ok(()),
    }
}

/// Whether a column of this type can read a value that the message has beside its body.
const fn is_written_as(value: MessageValue, kind: ColumnType) -> bool {
    use ColumnType::{Bigint, Date, Integer, Numeric, Text, Timestamptz, Uuid};
    match value {
        MessageValue::SentDate | MessageValue::ReceivedDate => matches!(kind, Date | Text),
        MessageValue::SentAt | MessageValue::ReceivedAt => matches!(kind, Timestamptz | Text),
        MessageValue::ReceiveCount => matches!(kind, Integer | Bigint | Numeric | Text),
        MessageValue::MessageId => matches!(kind, Uuid | Text),
        MessageValue::SequenceNumber => matches!(kind, Numeric | Text),
        MessageValue::GroupId | MessageValue::Queue => matches!(kind, Text),
    }
}

fn invalid(column: &Column, problem: &str) -> ConfigError {
    ConfigError::InvalidColumn { column: column.name.clone(), problem: problem.to_owned() }
}

/// The vector without its content. The next message reuses its memory: the standard library collects in place.
fn emptied(mut found: Vec<Option<&str>>) -> Vec<Option<&'static str>> {
    found.clear();
    found.into_iter().map(|_| None).collect()
}

#[cfg(test)]
mod tests;
