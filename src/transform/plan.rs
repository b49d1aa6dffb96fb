//! The declared columns, compiled into what the hot loop runs: from one message to one row of the chunk.
//!
//! Always true: a message gives either a whole row or a [`Reason`], and a refused one leaves no byte in the chunk.
//! Reasons name fields and limits as they were declared, never a value.

use std::mem;

use super::body::{BodyProblem, Pointers};
use super::field::{self, Buffers, Problem};
use super::numeric;
use crate::chunk::{UtcText, csv};
use crate::config::{Column, ColumnType, ConfigError, MaskingKeys, MessageValue, Pipeline, Source};
use crate::mask::{Masker, masked_length};
use crate::reason::{Reason, Stage};
use crate::spool::Record;

/// A pipeline's mapping, ready to run. Shared by all threads.
#[derive(Debug)]
pub struct Plan {
    pointers: Pointers,
    columns: Vec<PlannedColumn>,
}

#[derive(Debug)]
struct PlannedColumn {
    /// What reasons call the field; the whole body has no name.
    field: Option<String>,
    value: Value,
    kind: ColumnType,
    required: bool,
    max_length: Option<usize>,
    scale: Option<u16>,
    masker: Option<Masker>,
}

#[derive(Debug)]
enum Value {
    Body { slot: usize },
    Message(MessageValue),
    Constant(String),
}

/// What a row is made of.
#[derive(Debug)]
pub(super) struct RowSource<'a> {
    pub(super) record: &'a Record<'a>,
    /// The text of the record's body.
    pub(super) body: &'a str,
    /// The record's `sent_at`.
    pub(super) sent: UtcText,
}

/// Memory that one thread reuses from message to message.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    found: Vec<Option<&'static str>>,
    buffers: Buffers,
    masked: Vec<u8>,
}

impl Plan {
    /// Compiles the mapping. Errors name the column at fault, or the key or queue that a column needs.
    pub fn compile(pipeline: &Pipeline, keys: &MaskingKeys, queue_name: Option<&str>) -> Result<Self, ConfigError> {
        let mut pointers = Vec::new();
        for column in &pipeline.columns {
            if let Source::Body(pointer) = &column.source {
                Pointers::compile([pointer.as_str()].into_iter()).map_err(|problem| invalid(column, problem))?;
                pointers.push(pointer.as_str());
            }
        }
        let pointers = Pointers::compile(pointers.into_iter())
            .map_err(|problem| ConfigError::InvalidSetting { setting: "column.from", problem: problem.to_owned() })?;
        let columns = pipeline.columns.iter().map(|column| PlannedColumn::new(column, &pointers, keys, queue_name));
        let columns = columns.collect::<Result<_, _>>()?;
        Ok(Self { pointers, columns })
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
    fn new(
        column: &Column,
        pointers: &Pointers,
        keys: &MaskingKeys,
        queue_name: Option<&str>,
    ) -> Result<Self, ConfigError> {
        let (field, value) = match &column.source {
            Source::Body(pointer) => {
                let slot = pointers.slot(pointer).ok_or_else(|| invalid(column, "its pointer is not compiled"))?;
                (pointer.strip_prefix('/').map(str::to_owned), Value::Body { slot })
            }
            Source::Message(value) => {
                if !is_written_as(*value, column.kind) {
                    return Err(invalid(column, "its type does not fit its value"));
                }
                (Some(column.name.clone()), message_value(*value, queue_name)?)
            }
        };
        let masker = column.mask.map(|mask| Masker::new(mask, &column.name, keys)).transpose()?;
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

    /// `found` is what the walk over the message's body found, by slot.
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
            Value::Constant(text) => Ok(text),
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
            MessageValue::MessageId => Some(&self.record.message_id),
            MessageValue::GroupId => self.record.group_id.as_ref(),
            MessageValue::SequenceNumber => self.record.sequence_number.as_ref(),
            MessageValue::Queue => None, // compiled to a constant
        };
        field::from_text(kind, text.ok_or(Problem::Missing)?, buffers)
    }
}

fn reason_of_body(problem: &BodyProblem) -> Reason {
    Reason { stage: Stage::Transform, field: None, text: format!("the body {problem}") }
}

/// Whether a value that the message has beside its body is written so that a column of this type can read it.
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

fn message_value(value: MessageValue, queue_name: Option<&str>) -> Result<Value, ConfigError> {
    match (value, queue_name) {
        (MessageValue::Queue, Some(name)) => Ok(Value::Constant(name.to_owned())),
        (MessageValue::Queue, None) => Err(ConfigError::Missing {
            setting: "PGSLUICE_QUEUE_URL",
            hint: "a column takes the queue's name: give --queue-url or PGSLUICE_QUEUE_URL",
        }),
        _ => Ok(Value::Message(value)),
    }
}

fn invalid(column: &Column, problem: &str) -> ConfigError {
    ConfigError::InvalidColumn { column: column.name.clone(), problem: problem.to_owned() }
}

/// The vector without its content, whose memory the next message reuses: the standard library collects in place.
fn emptied(mut found: Vec<Option<&str>>) -> Vec<Option<&'static str>> {
    found.clear();
    found.into_iter().map(|_| None).collect()
}

#[cfg(test)]
mod tests;
