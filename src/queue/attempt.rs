//! One receive, however often it has to be asked for.

use std::time::{Duration, Instant};

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
