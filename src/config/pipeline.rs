//! The declaration of a pipeline: which table, and how a message becomes a row of it.
//!
//! This is data as declared and checked; `transform::Plan` compiles it into the plan that a hot loop runs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::ConfigError;
use super::column_type::ColumnType;
use super::rejects::RejectPolicy;

/// How messages of one queue become rows of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline {
    /// The name under which the ledger keeps this pipeline's messages apart from others.
    pub name: String,
    /// The target table, as declared: `table` or `schema.table`.
    pub table: TableName,
    /// What makes two deliveries the same.
    pub dedupe: Dedupe,
    /// What becomes of messages that cannot become rows.
    pub rejects: RejectPolicy,
    /// The mapped columns, in the order of the chunk's fields.
    pub columns: Vec<Column>,
}

/// A table's name, with or without its schema; written into SQL only quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName {
    /// `None` leaves it to the connection's `search_path`.
    pub schema: Option<String>,
    /// The table's own name.
    pub table: String,
}

/// What makes two deliveries one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dedupe {
    /// A message counts once, however often it is delivered.
    #[default]
    Message,
    /// A segment counts once; redeliveries in different segments are not recognised. For replays without redeliveries.
    Segment,
}

/// One column of the target table and where its value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The column's name in the table.
    pub name: String,
    /// Where the value comes from.
    pub source: Source,
    /// How the value is read and written.
    pub kind: ColumnType,
    /// A missing or null value is a reject; otherwise it is NULL.
    pub required: bool,
    /// The longest text that fits the column, in characters as Postgres counts them, after masking.
    pub max_length: Option<usize>,
    /// The most decimal digits that a number may have, so that a column of this scale takes it without rounding.
    pub scale: Option<u16>,
    /// How the value is encrypted, if it is.
    pub mask: Option<Mask>,
    /// What the column was called when its values were masked, where that is another name: `siv` binds a value to it.
    pub mask_name: Option<String>,
}

/// Where a column's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A JSON pointer (RFC 6901) into the body.
    Body(String),
    /// The message around the body.
    Message(MessageValue),
}

/// A value that the message has beside its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MessageValue {
    /// The UTC date the message was sent.
    SentDate,
    /// The instant the message was sent.
    SentAt,
    /// The UTC date of this delivery.
    ReceivedDate,
    /// The instant of this delivery.
    ReceivedAt,
    /// SQS's id of the message.
    MessageId,
    /// How often SQS has delivered it, this delivery included.
    ReceiveCount,
    /// The FIFO group, or null.
    GroupId,
    /// The FIFO sequence number, or null.
    SequenceNumber,
    /// The name of the queue that the message was received from, or null.
    Queue,
}

/// How a value is encrypted. Both ways are deterministic, so equal values stay equal, and reversible by `reveal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mask {
    /// Synthetic IV: authenticated, bound to the column.
    Siv,
    /// One key, one IV: the format of existing tables. Equal prefixes of 16 bytes show.
    Fixed,
}

impl Mask {
    /// The method's name, as it is declared.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Siv => "siv",
            Self::Fixed => "fixed",
        }
    }
}

impl Column {
    /// A column that takes any value of its type, as it is.
    pub fn of(name: impl Into<String>, source: Source, kind: ColumnType) -> Self {
        let name = name.into();
        Self { name, source, kind, required: false, max_length: None, scale: None, mask: None, mask_name: None }
    }

    /// The name that its masked values are bound to, and that the ledger keeps their keys under.
    #[must_use]
    pub fn masked_as(&self) -> &str {
        self.mask_name.as_deref().unwrap_or(&self.name)
    }
}

impl MessageValue {
    /// The type that the value is written as.
    #[must_use]
    pub const fn column_type(self) -> ColumnType {
        match self {
            Self::SentDate | Self::ReceivedDate => ColumnType::Date,
            Self::SentAt | Self::ReceivedAt => ColumnType::Timestamptz,
            Self::ReceiveCount => ColumnType::Integer,
            Self::MessageId | Self::GroupId | Self::SequenceNumber | Self::Queue => ColumnType::Text,
        }
    }
}

impl TableName {
    /// Reads `table` or `schema.table`.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let parts: Vec<&str> = text.split('.').collect();
        let (schema, table) = match parts[..] {
            [table] if !table.is_empty() => (None, table),
            [schema, table] if !schema.is_empty() && !table.is_empty() => (Some(schema.to_owned()), table),
            _ => {
                return Err(ConfigError::InvalidSetting {
                    setting: "pipeline.table",
                    problem: "expected `table` or `schema.table`".to_owned(),
                });
            }
        };
        Ok(Self { schema, table: table.to_owned() })
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(schema) = &self.schema {
            write!(formatter, "{schema}.")?;
        }
        formatter.write_str(&self.table)
    }
}

impl Pipeline {
    /// What the rows of a chunk depend on beside messages and keys: equal for equal mappings into the same table.
    /// 32 hexadecimal digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        let mut add = |part: &str| {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        };
        add(&self.name);
        add(&self.table.to_string());
        for column in &self.columns {
            // Each field by its name: a new one must be thought of here.
            let Column { name, source, kind, required, max_length, scale, mask, mask_name } = column;
            add(name);
            add(&format!("{source:?} {kind:?} {required} {max_length:?} {scale:?} {mask:?}"));
            if let Some(mask_name) = mask_name {
                add(mask_name);
            }
        }
        hex::encode(&hash.finalize()[..16])
    }

    /// The columns that are encrypted with `mask`.
    pub fn masked_columns(&self, mask: Mask) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(move |column| column.mask == Some(mask))
    }
}
