//! How many messages a drain may still receive: `--max-messages` and, where nothing is deleted, `max_in_flight`.
//!
//! Always true: what was received and what receives under way may still bring never exceed the limit. The limit is
//! reached when it was received, not when it was asked for: a receive that brings less gives the rest back, and a
//! poller that found nothing to draw waits for that.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::queue::BATCH_MESSAGES;

/// What receives draw on.
#[derive(Debug)]
pub(super) struct Budget {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    unasked: u64,
    /// Asked for by receives that are not back yet.
    drawn: u64,
}

/// What one receive may bring. Dropped, it gives back what did not come.
#[derive(Debug)]
pub(super) struct Draw<'a> {
    budget: &'a Budget,
    messages: usize,
}

impl Budget {
    /// `None`: no limit.
    pub(super) const fn of(messages: Option<u64>) -> Self {
        let unasked = match messages {
            Some(messages) => messages,
            None => u64::MAX,
        };
        Self { state: Mutex::new(State { unasked, drawn: 0 }), changed: Notify::const_new() }
    }

    /// Up to a batch; `None` where receives under way have asked for all that is left, or nothing is.
    pub(super) fn try_draw(&self) -> Option<Draw<'_>> {
        let mut state = self.state();
        let messages = state.unasked.min(BATCH_MESSAGES as u64);
        state.unasked -= messages;
        state.drawn += messages;
        let messages = usize::try_from(messages).unwrap_or(BATCH_MESSAGES);
        (messages > 0).then(|| Draw { budget: self, messages })
    }

    /// Waits for something to draw; `None` once all of it is received.
    pub(super) async fn draw(&self) -> Option<Draw<'_>> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(draw) = self.try_draw() {
                return Some(draw);
            }
            if self.is_spent() {
                return None;
            }
            changed.await;
        }
    }

    /// As many messages were received as the limit allows.
    pub(super) fn is_spent(&self) -> bool {
        let state = self.state();
        state.unasked == 0 && state.drawn == 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, drawn: usize, unused: usize) {
        let mut state = self.state();
        state.drawn -= drawn as u64;
        state.unasked += unused as u64;
        drop(state);
        self.changed.notify_waiters();
    }
}

impl Draw<'_> {
    /// How many messages to ask for.
    pub(super) const fn messages(&self) -> usize {
        self.messages
    }

    /// This number of messages came.
    pub(super) fn received(mut self, messages: usize) {
        let received = messages.min(self.messages);
        self.budget.give_back(received, 0);
        self.messages -= received;
    }
}

impl Drop for Draw<'_> {
    fn drop(&mut self) {
        self.budget.give_back(self.messages, self.messages);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn without_a_limit_there_is_always_a_batch() {
        let budget = Budget::of(None);
        for _ in 0..100 {
            budget.try_draw().unwrap().received(BATCH_MESSAGES);
        }
        assert!(!budget.is_spent());
    }

    /// A poller that found the whole limit drawn gave up, so it was not reached where a receive came back short.
    #[tokio::test]
    async fn what_a_receive_does_not_bring_is_there_for_the_next() {
        let budget = Budget::of(Some(15));
        let (first, second) = (budget.try_draw().unwrap(), budget.try_draw().unwrap());
        assert_eq!((first.messages(), second.messages()), (10, 5));
        let waiting = budget.draw();
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        second.received(2);
        let third = waiting.now_or_never().unwrap().unwrap();
        assert_eq!(third.messages(), 3);
        drop(first);
        third.received(3);
        assert!(!budget.is_spent());
        budget.try_draw().unwrap().received(10);
        assert!(budget.is_spent());
        assert!(budget.draw().await.is_none());
    }
}
