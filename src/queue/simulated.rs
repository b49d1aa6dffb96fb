//! A queue in memory, for tests: it answers in given times, which on tokio's paused clock pass at once, and notes what
//! it is asked for.
//!
//! It is as simple as can be: a message that was handed out never comes again, so one that a broken-off receive had
//! taken is in flight for ever; and what is deleted is counted, whichever it is.

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
    /// How long the server is busy with one message, whoever asks.
    busy: Duration,
    refusal: Option<(&'static str, bool)>,
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
            state: Mutex::default(),
            sent: Notify::new(),
            receiving: watch::Sender::new(0),
        }
    }
}

impl SimulatedQueue {
    /// Each receive takes this long, and waits for its turn where that makes more than `ceiling` messages a second.
    pub(crate) fn with_latency(latency: Duration, ceiling: u32) -> Self {
        Self { latency, busy: Duration::from_secs(1) / ceiling, ..Self::default() }
    }

    /// Answers each entry of a change with this code, and says whose fault it is.
    pub(crate) fn refusing(code: &'static str, sender_fault: bool) -> Self {
        Self { refusal: Some((code, sender_fault)), ..Self::default() }
    }

    pub(crate) fn send(&self, messages: u64) {
        self.state().visible += messages;
        self.sent.notify_waiters();
    }

    /// Waits until so many receives are under way.
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

    /// So many messages of a segment are deleted.
    pub(crate) fn delete_messages(&self, messages: u64) {
        self.state().deleted += messages;
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
            let taken = self.state().take(max_messages, self.busy);
            match taken {
                Some(taken) => return taken,
                None => sent.await,
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
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
        let Ok((messages, ready)) = timeout(LONG_POLL, self.take(max_messages)).await else { return Ok(Vec::new()) };
        sleep_until(ready).await;
        Ok(messages)
    }

    async fn delete(&self, handles: &[String]) -> Result<Vec<FailedEntry>, QueueError> {
        self.delete_messages(handles.len() as u64);
        Ok(Vec::new())
    }

    async fn extend(&self, handles: &[String], duration: Duration) -> Result<Vec<FailedEntry>, QueueError> {
        Ok(self.change(handles, duration))
    }

    async fn release(&self, handles: &[String]) -> Result<Vec<FailedEntry>, QueueError> {
        Ok(self.change(handles, Duration::ZERO))
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        let state = self.state();
        Ok(Depth { visible: state.visible, in_flight: state.received - state.deleted, delayed: 0 })
    }
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
