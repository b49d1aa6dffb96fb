//! One receive, however often it has to be asked for.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// SQS remembers an attempt for five minutes; a retry that arrives later would be refused.
const REMEMBERED: Duration = Duration::from_mins(4);

/// Makes the retry of a FIFO receive give the messages whose answer was lost. Without it their groups would stand still
/// until their visibility timeout ends. Standard queues have no use for it.
#[derive(Debug)]
pub struct ReceiveAttempt {
    id: Uuid,
    begun: Instant,
}

impl ReceiveAttempt {
    /// A receive that was not asked for before.
    #[must_use]
    pub fn begin() -> Self {
        Self { id: Uuid::now_v7(), begun: Instant::now() }
    }

    /// The attempt to ask with next: this one as long as SQS remembers it, then a new one.
    #[must_use]
    pub fn again(self) -> Self {
        if self.begun.elapsed() < REMEMBERED { self } else { Self::begin() }
    }

    /// `ReceiveRequestAttemptId`.
    #[must_use]
    pub fn id(&self) -> String {
        self.id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const A_MOMENT: Duration = Duration::from_millis(1);
    /// A moment less than four minutes.
    const ALMOST: Duration = Duration::from_millis(4 * 60_000 - 1);

    #[tokio::test(start_paused = true)]
    async fn an_attempt_keeps_its_id_for_four_minutes_and_then_is_a_new_one() {
        let attempt = ReceiveAttempt::begin();
        let id = attempt.id();
        advance(ALMOST).await;
        let attempt = attempt.again();
        assert_eq!(attempt.id(), id);
        // Counted from its beginning, however often it is asked for.
        advance(A_MOMENT).await;
        let attempt = attempt.again();
        assert_ne!(attempt.id(), id);

        let id = attempt.id();
        advance(ALMOST).await;
        assert_eq!(attempt.again().id(), id, "the new one has four minutes of its own");
    }
}
