//! Where rows go: memory for one block, and the files of one segment.

use std::path::PathBuf;

use super::plan::{Plan, RowSource, Scratch};
use crate::chunk::{UtcText, push_id};
use crate::durable::{AtomicFile, FileError, remove_if_present};
use crate::segment::SegmentId;
use crate::spool::{Block, SpoolError, push_reject};
use crate::staging::Staging;

/// What a block of spool lines became. Each line gave a row and its id, or a reject.
#[derive(Debug, Default)]
pub(super) struct Output {
    rows: Vec<u8>,
    ids: Vec<u8>,
    rejects: Vec<u8>,
    pub(super) counts: Counts,
}

/// Messages that became rows and messages that did not, and the size of the rows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) rows: u64,
    pub(super) rejected: u64,
    pub(super) chunk_bytes: u64,
}

impl Output {
    /// Replaces the content by what `block` becomes; a damaged line ends the segment.
    pub(super) fn fill(&mut self, block: &Block, plan: &Plan, scratch: &mut Scratch) -> Result<(), SpoolError> {
        self.clear();
        let mut memory = String::new();
        for line in block.lines() {
            let line = line?;
            let damaged = |problem| block.damaged(line.offset, problem);
            let sent = UtcText::from_milliseconds(line.record.sent_at)
                .ok_or_else(|| damaged("sent_at is outside the years 0001 to 9999"))?;
            let body = line.record.body.text(&mut memory).map_err(damaged)?;
            self.push(line.bytes, &RowSource { record: &line.record, body, sent }, plan, scratch);
        }
        self.counts.chunk_bytes = self.rows.len() as u64;
        Ok(())
    }

    fn push(&mut self, line: &[u8], message: &RowSource<'_>, plan: &Plan, scratch: &mut Scratch) {
        match plan.push_row(message, scratch, &mut self.rows) {
            Ok(()) => {
                push_id(&mut self.ids, &message.sent, &message.record.message_id);
                self.counts.rows += 1;
            }
            Err(reason) => {
                push_reject(&mut self.rejects, line, &reason);
                self.counts.rejected += 1;
            }
        }
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.ids.clear();
        self.rejects.clear();
        self.counts = Counts::default();
    }
}

/// The files of one segment. Dropped unfinished, they leave nothing.
#[derive(Debug)]
pub(super) struct Files {
    chunk: AtomicFile,
    ids: AtomicFile,
    /// Created for the first reject.
    rejects: Option<AtomicFile>,
    rejects_path: PathBuf,
    counts: Counts,
}

impl Files {
    /// Starts the files. The chunk of an earlier transform is removed first: with another mapping its rows and ids
    /// would not match the new ones.
    pub(super) fn create(staging: &Staging, segment: SegmentId) -> Result<Self, FileError> {
        staging.remove_chunk(segment)?;
        Ok(Self {
            chunk: AtomicFile::create(&staging.chunk(segment))?,
            ids: AtomicFile::create(&staging.ids(segment))?,
            rejects: None,
            rejects_path: staging.rejects(segment),
            counts: Counts::default(),
        })
    }

    /// Appends what a block became.
    pub(super) fn write(&mut self, output: &Output) -> Result<(), FileError> {
        self.chunk.write(&output.rows)?;
        self.ids.write(&output.ids)?;
        if !output.rejects.is_empty() {
            let rejects = match self.rejects.take() {
                Some(rejects) => rejects,
                None => AtomicFile::create(&self.rejects_path)?,
            };
            self.rejects.insert(rejects).write(&output.rejects)?;
        }
        self.counts.rows += output.counts.rows;
        self.counts.rejected += output.counts.rejected;
        self.counts.chunk_bytes += output.counts.chunk_bytes;
        Ok(())
    }

    /// Makes the files durable and gives them their names; the chunk comes last, because its presence says "staged".
    pub(super) fn finish(self) -> Result<Counts, FileError> {
        match self.rejects {
            Some(rejects) => rejects.finish()?,
            None => remove_if_present(&self.rejects_path)?,
        }
        self.ids.finish()?;
        self.chunk.finish()?;
        Ok(self.counts)
    }
}
