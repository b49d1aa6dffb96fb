//! Where rows go: memory for what one block becomes.

use super::plan::{Plan, RowSource, Scratch};
use crate::chunk::{UtcText, push_id};
use crate::spool::{Block, Header, Opener, SpoolError, push_reject};

/// What a block of spool lines became. Each line gave a row and its id, or a reject.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) rows: Vec<u8>,
    pub(super) ids: Vec<u8>,
    pub(super) rejects: Vec<u8>,
    pub(super) counts: Counts,
}

/// Messages that became rows, messages that did not, and when the first and the last of them were sent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) rows: u64,
    pub(super) rejected: u64,
    pub(super) sent_between: Option<(i64, i64)>,
}

impl Counts {
    pub(super) fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.rejected += other.rejected;
        for time in other.sent_between.into_iter().flat_map(|(first, last)| [first, last]) {
            self.saw(time);
        }
    }

    fn saw(&mut self, sent_at: i64) {
        let (first, last) = self.sent_between.unwrap_or((sent_at, sent_at));
        self.sent_between = Some((first.min(sent_at), last.max(sent_at)));
    }
}

impl Output {
    /// Replaces the content by what `block` becomes; a damaged line ends the segment.
    pub(super) fn fill(
        &mut self,
        block: &Block,
        plan: &Plan,
        header: Option<&Header>,
        scratch: &mut Scratch,
    ) -> Result<(), SpoolError> {
        self.clear();
        let (queue, source) = (plan.queue_of(header), header.map(|header| &header.source));
        let (mut memory, mut opener) = (String::new(), Opener::default());
        for line in block.lines() {
            let line = line?;
            let damaged = |problem| block.damaged(line.offset, problem);
            let sent = UtcText::from_milliseconds(line.record.sent_at)
                .ok_or_else(|| damaged("sent_at is outside the years 0001 to 9999"))?;
            let message = opener.open(&line.record, plan.spool_keys());
            let record = &*message.map_err(|problem| block.unopened(line.offset, problem))?;
            let body = record.body.text(&mut memory).map_err(damaged)?;
            self.push(line.bytes, &RowSource { record, body, sent, queue, source }, plan, scratch);
        }
        Ok(())
    }

    fn push(&mut self, line: &[u8], message: &RowSource<'_>, plan: &Plan, scratch: &mut Scratch) {
        self.counts.saw(message.record.sent_at);
        match plan.push_row(message, scratch, &mut self.rows) {
            Ok(()) => {
                push_id(&mut self.ids, identity_time(message), &message.record.message_id);
                self.counts.rows += 1;
            }
            Err(reason) => {
                push_reject(&mut self.rejects, line, plan.pipeline(), message.source, &reason);
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

/// The time in the message's identity.
fn identity_time<'a>(message: &'a RowSource<'_>) -> &'a UtcText {
    if message.record.sent_at_is_stable { &message.sent } else { &UtcText::EPOCH }
}
