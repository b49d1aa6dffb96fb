//! A queue in memory, for tests: it answers in given times, which on tokio's paused clock pass at once, and notes what
//! it is asked for.
//!
//! It is as simple as can be: a message that was handed out is never redelivered, so one that a broken-off receive had
//! taken stays in flight; and what is deleted is counted, whichever it is.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{Depth, FailedEntry, Message, Queue, QueueError, ReceiveAttempt};

pub(crate) const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a receive waits for a first message.
pub(crate) const LONG_POLL: Duration = Duration::from_secs(1);

pub(crate) struct SimulatedQueue {
    latency: Duration,
    /// How long the server is busy with one message, of all clients together.
    busy: Duration,
    refusal: Option<(&'static str, bool)>,
    /// How long the counts lag behind.
    lag: Duration,
    /// Every receive of this number brings nothing, whatever there is.
    empty_every: Option<u64>,
    state: Mutex<State>,
    sent: Notify,
    receiving: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    visible: u64,
    received: u64,
    deleted: u64,
    most_in_flight: u64,
    receives: u64,
    most_receiving: usize,
    busy_until: Option<Instant>,
    changes: Vec<(usize, Duration)>,
    delete_answers: VecDeque<DeleteAnswer>,
    deletes: Vec<(Instant, Vec<String>)>,
    deleted_handles: BTreeSet<String>,
    /// In flight with other consumers.
    held_elsewhere: u64,
    /// What the counts were, and since when.
    depths: Vec<(Instant, Depth)>,
    /// Questions for the counts that will fail.
    unanswered: u32,
}

/// What becomes of a request to delete.
pub(crate) enum DeleteAnswer {
    /// Carried out, except for these entries.
    Failed(Vec<FailedEntry>),
    /// Not carried out.
    Refused(QueueError),
    /// Carried out, and then the answer was lost; this is what the client sees.
    Lost(QueueError),
}

/// One receive under way.
struct Receiving<'a>(&'a SimulatedQueue);

impl Default for SimulatedQueue {
    /// Empty, and answers at once.
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            busy: Duration::ZERO,
            refusal: None,
            lag: Duration::ZERO,
            empty_every: None,
            state: Mutex::default(),
            sent: Notify::new(),
            receiving: watch::Sender::new(0),
        }
    }
}

impl SimulatedQueue {
    /// Each receive takes this time, and waits for its turn where that makes more than `ceiling` messages a second.
    pub(crate) fn with_latency(latency: Duration, ceiling: u32) -> Self {
        Self { latency, busy: Duration::from_secs(1) / ceiling, ..Self::default() }
    }

    /// Answers each entry of a change with this code, and says whose fault it is.
    pub(crate) fn refusing(code: &'static str, sender_fault: bool) -> Self {
        Self { refusal: Some((code, sender_fault)), ..Self::default() }
    }

    /// Answers the first requests to delete in this way, one after the other; the others are carried out.
    pub(crate) fn answering_deletes(answers: impl IntoIterator<Item = DeleteAnswer>) -> Self {
        let state = State { delete_answers: answers.into_iter().collect(), ..State::default() };
        Self { state: Mutex::new(state), ..Self::default() }
    }

    /// Its counts are those that were true this time ago.
    pub(crate) fn with_lagging_counts(self, lag: Duration) -> Self {
        Self { lag, ..self }
    }

    /// Every receive of this number brings nothing, whatever there is: SQS asks a part of its servers.
    pub(crate) fn with_empty_receives(self, every: u64) -> Self {
        Self { empty_every: Some(every), ..self }
    }

    /// From now on other consumers hold this number of messages.
    pub(crate) fn hold_elsewhere(&self, messages: u64) {
        self.change_state(|state| state.held_elsewhere = messages);
    }

    /// The next questions for the counts fail, this number of them.
    pub(crate) fn leave_unanswered(&self, questions: u32) {
        self.state().unanswered = questions;
    }

    pub(crate) fn send(&self, messages: u64) {
        self.change_state(|state| state.visible += messages);
        self.sent.notify_waiters();
    }

    /// Waits until the number of receives under way is as wanted.
    pub(crate) async fn until_receiving(&self, enough: impl FnMut(&usize) -> bool) {
        self.receiving.subscribe().wait_for(enough).await.expect("the queue outlives its users");
    }

    /// The most receives that were under way at a time since the last call.
    pub(crate) fn most_receiving(&self) -> usize {
        std::mem::take(&mut self.state().most_receiving)
    }

    /// Messages handed out so far.
    pub(crate) fn received(&self) -> u64 {
        self.state().received
    }

    /// Receives so far.
    pub(crate) fn receives(&self) -> u64 {
        self.state().receives
    }

    /// The most messages that were handed out and not deleted, at any time.
    pub(crate) fn most_in_flight(&self) -> u64 {
        self.state().most_in_flight
    }

    /// The changes of visibility since the last call: how many messages each, and for how long.
    pub(crate) fn changes(&self) -> Vec<(usize, Duration)> {
        std::mem::take(&mut self.state().changes)
    }

    /// The requests to delete since the last call: when, and what.
    pub(crate) fn deletes(&self) -> Vec<(Instant, Vec<String>)> {
        std::mem::take(&mut self.state().deletes)
    }

    /// The receipt handles by which messages were deleted.
    pub(crate) fn deleted_handles(&self) -> BTreeSet<String> {
        self.state().deleted_handles.clone()
    }

    /// This number of messages of a segment is deleted.
    pub(crate) fn delete_messages(&self, messages: u64) {
        self.change_state(|state| state.deleted += messages);
    }

    fn change(&self, handles: &[String], duration: Duration) -> Vec<FailedEntry> {
        self.state().changes.push((handles.len(), duration));
        let Some((code, sender_fault)) = self.refusal else { return Vec::new() };
        (0..handles.len()).map(|index| FailedEntry { index, code: code.to_owned(), sender_fault }).collect()
    }

    /// Some messages, as soon as there are any, and when the server is done with them.
    async fn take(&self, max_messages: usize) -> (Vec<Message>, Instant) {
        loop {
            let sent = self.sent.notified();
            let taken = self.change_state(|state| state.take(max_messages, self.busy));
            match taken {
                Some(taken) => return taken,
                None => sent.await,
            }
        }
    }

    fn change_state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let changed = change(&mut state);
        if !self.lag.is_zero() {
            let depth = state.depth();
            state.depths.push((Instant::now(), depth));
        }
        changed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn depth(&self) -> Depth {
        let in_flight = self.received - self.deleted + self.held_elsewhere;
        Depth { visible: self.visible, in_flight, delayed: 0 }
    }

    /// The counts as they were at this instant, or at first.
    fn depth_at(&self, instant: Instant) -> Depth {
        let before = self.depths.iter().rev().find(|(since, _)| *since <= instant);
        before.or(self.depths.first()).map_or_else(|| self.depth(), |(_, depth)| *depth)
    }

    fn take(&mut self, max_messages: usize, busy: Duration) -> Option<(Vec<Message>, Instant)> {
        let taken = self.visible.min(max_messages as u64);
        if taken == 0 {
            return None;
        }
        let numbers = self.received..self.received + taken;
        self.visible -= taken;
        self.received += taken;
        self.most_in_flight = self.most_in_flight.max(self.received - self.deleted);
        let now = Instant::now();
        let ready = self.busy_until.map_or(now, |until| until.max(now)) + busy * u32::try_from(taken).unwrap();
        self.busy_until = Some(ready);
        Some((numbers.map(message).collect(), ready))
    }

    /// Deletes what did not fail. A second delete by the same handle succeeds and changes nothing.
    fn delete(&mut self, handles: &[String], failed: Vec<FailedEntry>) -> Vec<FailedEntry> {
        for (index, handle) in handles.iter().enumerate() {
            if failed.iter().all(|entry| entry.index != index) && self.deleted_handles.insert(handle.clone()) {
                self.deleted += 1;
            }
        }
        failed
    }
}

impl<'a> Receiving<'a> {
    fn begin(queue: &'a SimulatedQueue) -> Self {
        queue.receiving.send_modify(|receiving| *receiving += 1);
        let (receiving, mut state) = (*queue.receiving.borrow(), queue.state());
        state.receives += 1;
        state.most_receiving = state.most_receiving.max(receiving);
        Self(queue)
    }
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        self.0.receiving.send_modify(|receiving| *receiving -= 1);
    }
}

impl Queue for SimulatedQueue {
    fn visibility_timeout(&self) -> Duration {
        VISIBILITY_TIMEOUT
    }

    async fn receive(&self, max_messages: usize, _: &ReceiveAttempt) -> Result<Vec<Message>, QueueError> {
        let _receiving = Receiving::begin(self);
        sleep(self.latency).await;
        if self.empty_every.is_some_and(|every| self.receives().is_multiple_of(every)) {
            return Ok(Vec::new());
        }
        let Ok((messages, ready)) = timeout(LONG_POLL, self.take(max_messages)).await else { return Ok(Vec::new()) };
        sleep_until(ready).await;
        Ok(messages)
    }

    async fn delete(&self, handles: &[String]) -> Result<Vec<FailedEntry>, QueueError> {
        let mut state = self.state();
        state.deletes.push((Instant::now(), handles.to_vec()));
        match state.delete_answers.pop_front() {
            None => Ok(state.delete(handles, Vec::new())),
            Some(DeleteAnswer::Failed(entries)) => Ok(state.delete(handles, entries)),
            Some(DeleteAnswer::Refused(error)) => Err(error),
            Some(DeleteAnswer::Lost(error)) => {
                state.delete(handles, Vec::new());
                Err(error)
            }
        }
    }

    async fn extend(&self, handles: &[String], duration: Duration) -> Result<Vec<FailedEntry>, QueueError> {
        Ok(self.change(handles, duration))
    }

    async fn release(&self, handles: &[String]) -> Result<Vec<FailedEntry>, QueueError> {
        Ok(self.change(handles, Duration::ZERO))
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        let mut state = self.state();
        if state.unanswered > 0 {
            state.unanswered -= 1;
            let code = "InternalError".to_owned();
            return Err(QueueError::Service { operation: "GetQueueAttributes", code, server_fault: true });
        }
        Ok(if self.lag.is_zero() { state.depth() } else { state.depth_at(Instant::now() - self.lag) })
    }
}

/// This number of messages.
pub(crate) fn messages(count: usize) -> Vec<Message> {
    (0..count as u64).map(message).collect()
}

fn message(number: u64) -> Message {
    Message {
        message_id: number.to_string(),
        sent_at: 1,
        sent_at_is_stable: true,
        received_at: 2,
        receive_count: 1,
        receipt_handle: number.to_string(),
        body: "{}".to_owned(),
        attributes: None,
        group_id: None,
        sequence_number: None,
    }
}
