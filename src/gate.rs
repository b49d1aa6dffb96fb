//! Lets receives begin only while there is evidence that what they bring can be loaded.
//!
//! A receive counts for the queue's redrive policy. Without a gate, a table that refuses everything would have each run
//! receive the whole backlog again, until the queue moved it to its dead-letter queue.
//!
//! Always true: the gate is closed
//! - while segments of an earlier run wait for their load and none of them was loaded yet;
//! - while a load failed and is tried again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Open from the beginning.
#[derive(Debug)]
pub struct Gate {
    doubts: Mutex<Doubts>,
    is_open: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Doubts {
    /// Segments of an earlier run to be loaded, while none of them was.
    unproven: usize,
    /// Loads that are tried again.
    retrying: usize,
}

/// A load is tried again, until this is dropped.
#[derive(Debug)]
pub struct Retrying(Arc<Gate>);

impl Default for Gate {
    fn default() -> Self {
        Self { doubts: Mutex::default(), is_open: watch::Sender::new(true) }
    }
}

impl Gate {
    /// Whether receives may begin, as it changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.is_open.subscribe()
    }

    /// Why no receive may begin.
    #[must_use]
    pub fn waits_for(&self) -> Option<&'static str> {
        match *self.doubts() {
            Doubts { retrying: 1.., .. } => Some("held back: a load failed and is tried again"),
            Doubts { unproven: 1.., .. } => Some("held back: a segment of an earlier run is loaded first"),
            Doubts { .. } => None,
        }
    }

    /// An earlier run left this number of segments that are to be loaded.
    pub fn doubt(&self, segments: usize) {
        self.change(|doubts| doubts.unproven = segments);
    }

    /// A segment was loaded.
    pub fn prove(&self) {
        self.change(|doubts| doubts.unproven = 0);
    }

    /// A segment is done or set aside without a load, which proves nothing.
    pub fn skip(&self) {
        self.change(|doubts| doubts.unproven = doubts.unproven.saturating_sub(1));
    }

    /// A load is tried again.
    #[must_use]
    pub fn retry(self: &Arc<Self>) -> Retrying {
        self.change(|doubts| doubts.retrying += 1);
        Retrying(Arc::clone(self))
    }

    fn change(&self, change: impl FnOnce(&mut Doubts)) {
        let mut doubts = self.doubts();
        change(&mut doubts);
        self.is_open.send_replace(doubts.unproven == 0 && doubts.retrying == 0);
    }

    fn doubts(&self) -> MutexGuard<'_, Doubts> {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Retrying {
    fn drop(&mut self) {
        self.0.change(|doubts| doubts.retrying -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_load_of_an_earlier_runs_segments_opens_it() {
        let gate = Gate::default();
        let is_open = gate.watch();
        assert!(*is_open.borrow());
        assert_eq!(gate.waits_for(), None);
        gate.doubt(3);
        assert!(!*is_open.borrow());
        assert!(gate.waits_for().is_some_and(|what| what.contains("earlier run")));
        gate.skip();
        assert!(!*is_open.borrow(), "what was set aside proves nothing");
        gate.prove();
        assert!(*is_open.borrow());
    }

    #[test]
    fn where_none_of_them_is_to_be_loaded_any_more_it_is_open() {
        let gate = Gate::default();
        gate.doubt(2);
        gate.skip();
        gate.skip();
        assert!(*gate.watch().borrow());
        gate.skip();
        assert!(*gate.watch().borrow());
    }

    #[test]
    fn it_is_closed_while_any_load_is_tried_again() {
        let gate = Arc::new(Gate::default());
        let (one, other) = (gate.retry(), gate.retry());
        drop(one);
        assert!(gate.waits_for().is_some_and(|what| what.contains("tried again")));
        assert!(!*gate.watch().borrow());
        drop(other);
        assert!(*gate.watch().borrow());
    }
}
