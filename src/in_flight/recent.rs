//! What happened so lately that SQS's counts may not know of it.
//!
//! Always true: it is counted for [`LAG`] and at most a second longer, and takes the memory of one entry a second.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// SQS promises right counts no earlier than a minute after the last change; half a minute is for good measure.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_GetQueueAttributes.html>
pub(super) const LAG: Duration = Duration::from_secs(90);
const RESOLUTION: Duration = Duration::from_secs(1);

/// Messages to which something happened within [`LAG`].
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// Since when, and how many; the oldest first.
    seconds: VecDeque<(Instant, u64)>,
}

impl Recent {
    /// It happened to this number of messages now.
    pub(super) fn note(&mut self, messages: u64) {
        if messages == 0 {
            return;
        }
        self.forget();
        match self.seconds.back_mut() {
            Some((began, noted)) if began.elapsed() < RESOLUTION => *noted += messages,
            _ => self.seconds.push_back((Instant::now(), messages)),
        }
    }

    /// To this number of messages it happened lately.
    pub(super) fn messages(&mut self) -> u64 {
        self.forget();
        self.seconds.iter().map(|(_, messages)| messages).sum()
    }

    fn forget(&mut self) {
        while self.seconds.front().is_some_and(|(began, _)| began.elapsed() >= LAG + RESOLUTION) {
            self.seconds.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_happened_is_known_for_the_lag_and_then_forgotten() {
        let mut recent = Recent::default();
        assert_eq!(recent.messages(), 0);
        recent.note(3);
        advance(Duration::from_millis(900)).await;
        recent.note(4);
        advance(Duration::from_secs(45)).await;
        recent.note(5);
        assert_eq!(recent.messages(), 12);
        advance(Duration::from_secs(44)).await;
        assert_eq!(recent.messages(), 12);
        advance(Duration::from_millis(1200)).await;
        assert_eq!(recent.messages(), 5);
        advance(LAG).await;
        assert_eq!(recent.messages(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn it_takes_one_entry_a_second_at_most() {
        let mut recent = Recent::default();
        for _ in 0..10_000 {
            recent.note(1);
            advance(Duration::from_millis(30)).await;
        }
        assert!(recent.seconds.len() <= 92, "{}", recent.seconds.len());
    }
}
