//! One pass over a segment by all threads of the pool, in blocks of whole lines.
//!
//! Always true:
//! - rows, ids and rejects are written in the order of the spool, whichever thread made them;
//! - at most [`BLOCKS_PER_THREAD`] finished blocks a thread wait for their turn, so memory does not grow with the
//!   segment;
//! - no thread waits for another: the thread that finishes the next block in order writes it, while the others go on;
//!   a worker that may not run further ahead ends, and the writing thread starts it again. So passes that share a pool
//!   cannot block each other.
//!
//! The first error in the order of the spool ends the pass.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::Scope;

use super::output::{Counts, Output};
use super::plan::{Plan, Scratch};
use crate::chunk::ChunkWriter;
use crate::durable::{FileError, Place};
use crate::spool::{Block, Header, Seal, SegmentReader, SpoolError};

/// A thread still finds work while a block before its own takes longer.
const BLOCKS_PER_THREAD: usize = 3;

/// What a pass came to.
pub(super) struct Passed {
    pub(super) chunk: ChunkWriter,
    pub(super) counts: Counts,
    pub(super) seal: Option<Seal>,
}

/// Transforms the segment at `place` into `chunk`, which the caller finishes.
pub(super) fn run(place: &Place, plan: &Plan, chunk: ChunkWriter) -> Result<Passed, SpoolError> {
    let threads = rayon::current_num_threads();
    let reader = SegmentReader::open(place)?;
    let header = reader.header().cloned();
    if let Some(header) = &header
        && !plan.accepts(&header.pipeline)
    {
        let (path, pipeline) = (place.path().to_owned(), header.pipeline.clone());
        return Err(SpoolError::OtherPipeline { path, pipeline, configured: plan.pipeline().to_owned() });
    }
    let pass = Pass {
        plan,
        header: header.as_ref(),
        source: Mutex::new(Source { reader, next: 0, at_end: false }),
        queue: Mutex::new(Queue::default()),
        files: Mutex::new((chunk, Counts::default())),
        max_ready: threads * BLOCKS_PER_THREAD,
    };
    rayon::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|scope| pass.work(scope));
        }
    });
    if let Some(error) = lock(&pass.queue).failure.take() {
        return Err(error);
    }
    let seal = lock(&pass.source).reader.seal();
    let (chunk, counts) = pass.files.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Passed { chunk, counts, seal })
}

struct Pass<'a> {
    plan: &'a Plan,
    header: Option<&'a Header>,
    source: Mutex<Source>,
    queue: Mutex<Queue>,
    /// Locked only by the thread that [`Queue::take_next`] made the writer.
    files: Mutex<(ChunkWriter, Counts)>,
    max_ready: usize,
}

struct Source {
    reader: SegmentReader,
    /// The number of the next block.
    next: u64,
    at_end: bool,
}

/// Finished blocks that wait for their turn.
#[derive(Default)]
struct Queue {
    ready: BTreeMap<u64, Result<Output, SpoolError>>,
    next_to_write: u64,
    is_writing: bool,
    /// Written outputs, whose memory is used again.
    spare: Vec<Output>,
    /// Workers that ended because too much was ready.
    parked: usize,
    failure: Option<SpoolError>,
}

impl Pass<'_> {
    fn work<'scope>(&'scope self, scope: &Scope<'scope>) {
        let mut scratch = Scratch::default();
        let mut done = None;
        while let Some(mut output) = self.claim_output() {
            let Some((number, block)) = self.next_block(done.take()) else { return };
            let result = block.and_then(|block| {
                let filled = output.fill(&block, self.plan, self.header, &mut scratch);
                done = Some(block);
                filled
            });
            self.deliver(number, result.map(|()| output), scope);
        }
    }

    /// Memory for one more block, or `None` where this worker has to end.
    fn claim_output(&self) -> Option<Output> {
        let mut queue = lock(&self.queue);
        if queue.failure.is_some() {
            return None;
        }
        if queue.ready.len() >= self.max_ready {
            queue.parked += 1;
            return None;
        }
        Some(queue.spare.pop().unwrap_or_default())
    }

    fn next_block(&self, done: Option<Block>) -> Option<(u64, Result<Block, SpoolError>)> {
        let mut source = lock(&self.source);
        if let Some(done) = done {
            source.reader.reuse(done);
        }
        if source.at_end {
            return None;
        }
        let block = source.reader.next_block().transpose();
        source.at_end = !matches!(block, Some(Ok(_)));
        let number = source.next;
        source.next += 1;
        block.map(|block| (number, block))
    }

    fn deliver<'scope>(&'scope self, number: u64, result: Result<Output, SpoolError>, scope: &Scope<'scope>) {
        let mut queue = lock(&self.queue);
        queue.ready.insert(number, result);
        while let Some(output) = queue.take_next() {
            drop(queue);
            let written = self.write(&output);
            queue = lock(&self.queue);
            queue.finish_write(output, written.map_err(SpoolError::from));
            for _ in 0..mem::take(&mut queue.parked) {
                scope.spawn(|scope| self.work(scope));
            }
        }
    }
}

impl Pass<'_> {
    fn write(&self, output: &Output) -> Result<(), FileError> {
        let (chunk, counts) = &mut *lock(&self.files);
        counts.add(output.counts);
        chunk.write(&output.rows, &output.ids, &output.rejects)
    }
}

impl Queue {
    /// The next output in order, if it is ready and no thread writes; the caller is then the writer.
    fn take_next(&mut self) -> Option<Output> {
        if self.is_writing || self.failure.is_some() {
            return None;
        }
        match self.ready.remove(&self.next_to_write)? {
            Ok(output) => {
                self.is_writing = true;
                Some(output)
            }
            Err(error) => {
                self.failure = Some(error);
                None
            }
        }
    }

    fn finish_write(&mut self, output: Output, written: Result<(), SpoolError>) {
        self.is_writing = false;
        self.next_to_write += 1;
        self.failure = written.err();
        self.spare.push(output);
    }
}

/// A thread that panics while it holds the lock leaves whole values: each critical section above ends with its last
/// change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
