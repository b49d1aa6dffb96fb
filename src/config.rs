//! Configuration.
mod keys;
mod pipeline;
pub use keys::{DatabaseUrl, Key, Keys};
pub use pipeline::{Column, ColumnType, Dedupe, Mask, MessageValue, Pipeline, Source, TableName, quote_identifier};
