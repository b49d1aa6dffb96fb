//! How much was in flight for how long: what the in-flight arithmetic needs.
//!
//! Always true: the messages in flight, summed up over time and divided by the messages settled, are the mean time from
//! receive to delete (Little's law). That is exact once nothing is in flight; before that, what still is makes the mean
//! too long.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Flow {
    messages: u64,
    settled: u64,
    /// Receives that have room and are not back yet.
    reserved: usize,
    /// The messages in flight times how long they were, until `changed`.
    message_nanos: u128,
    changed: Instant,
    /// Receives that wait for room, and since when there has been at least one.
    waiting: usize,
    waiting_since: Instant,
    /// How long there was one, except for the wait under way.
    waited: Duration,
}

impl Flow {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            messages: 0,
            settled: 0,
            reserved: 0,
            message_nanos: 0,
            changed: now,
            waiting: 0,
            waiting_since: now,
            waited: Duration::ZERO,
        }
    }

    pub(super) const fn messages(&self) -> u64 {
        self.messages
    }

    /// Whether a receive waits for room.
    pub(super) const fn is_waited_for(&self) -> bool {
        self.waiting > 0
    }

    pub(super) fn arrived(&mut self, messages: u64) {
        self.pass_time();
        self.messages += messages;
    }

    pub(super) fn settled(&mut self, messages: u64) {
        self.pass_time();
        self.messages = self.messages.saturating_sub(messages);
        self.settled += messages;
    }

    pub(super) fn reserve(&mut self) {
        self.reserved += 1;
    }

    pub(super) fn unreserve(&mut self) {
        self.reserved -= 1;
    }

    /// A receive waits for room, and no other can bring anything.
    pub(super) const fn is_full(&self) -> bool {
        self.waiting > 0 && self.reserved == 0
    }

    pub(super) fn wait_begins(&mut self) {
        if self.waiting == 0 {
            self.waiting_since = Instant::now();
        }
        self.waiting += 1;
    }

    pub(super) fn wait_ends(&mut self) {
        self.waiting -= 1;
        if self.waiting == 0 {
            self.waited += self.waiting_since.elapsed();
        }
    }

    /// How long at least one receive waited.
    pub(super) fn waited(&self) -> Duration {
        let under_way = if self.waiting > 0 { self.waiting_since.elapsed() } else { Duration::ZERO };
        self.waited + under_way
    }

    /// The mean time in flight of what was settled; `None` where nothing was.
    pub(super) fn mean_time(&self) -> Option<Duration> {
        let nanos = self.message_nanos.checked_div(self.settled.into())?;
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    fn pass_time(&mut self) {
        let now = Instant::now();
        self.message_nanos += (now - self.changed).as_nanos() * u128::from(self.messages);
        self.changed = now;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_mean_time_weighs_each_message() {
        let mut flow = Flow::new();
        assert_eq!(flow.mean_time(), None);
        flow.arrived(1);
        advance(Duration::from_secs(1)).await;
        flow.arrived(9);
        advance(Duration::from_secs(2)).await;
        flow.settled(10);
        advance(Duration::from_mins(1)).await;
        assert_eq!(flow.mean_time(), Some(Duration::from_millis(2100)), "one for 3 s, nine for 2 s");
    }

    #[tokio::test(start_paused = true)]
    async fn receives_that_wait_side_by_side_wait_once() {
        let mut flow = Flow::new();
        flow.wait_begins();
        advance(Duration::from_secs(1)).await;
        flow.wait_begins();
        advance(Duration::from_secs(1)).await;
        flow.wait_ends();
        advance(Duration::from_secs(1)).await;
        assert_eq!(flow.waited(), Duration::from_secs(3), "the wait under way counts");
        flow.wait_ends();
        advance(Duration::from_secs(1)).await;
        assert_eq!(flow.waited(), Duration::from_secs(3));
    }
}
