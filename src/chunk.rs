//! The chunk format, both ends of it: what `transform` writes and `load` sends to COPY.
//!
//! Always true:
//! - each message of the segment is one row of the chunk or one line of its rejects;
//! - rows and ids stand in the order of the spool, a line of ids for each row;
//! - where the [`Manifest`] is, the chunk is complete; it says what the chunk was made of, and with which mapping.

pub mod csv;
mod error;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
mod ids;
mod manifest;
mod rows;
mod utc_text;
mod writer;

pub use error::ChunkError;
pub use ids::{IdReader, RowId, push_id};
pub use manifest::{ColumnKey, Description, Manifest, Part, TablePart};
pub use rows::{Rows, send_whole};
pub use utc_text::UtcText;
pub use writer::ChunkWriter;
