//! Rules for faults: which requests fail, and how.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustack_sqs_model::operations::SqsOperation;

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// For which requests,
    pub operation: Operation,
    /// for which of them,
    pub when: When,
    /// and how.
    pub fault: Fault,
}

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `ReceiveMessage`.
    Receive,
    /// `DeleteMessageBatch`.
    Delete,
    /// `ChangeMessageVisibilityBatch`.
    ChangeVisibility,
    /// `GetQueueAttributes`.
    Attributes,
}

/// Which requests of an operation, counted from 1 when the rule is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// This number of first requests.
    First(u32),
    /// Only this one.
    Nth(u32),
    /// Every n-th.
    Every(u32),
    /// Every n-th of the first ones.
    EveryOfFirst(u32, u32),
    /// All.
    Always,
}

/// How a request goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Refused with this HTTP status and error code, and not carried out.
    Refused(u16, &'static str),
    /// Carried out, but the connection ends before the answer. A receive that is asked for again by the same
    /// `ReceiveRequestAttemptId` gives the lost answer, as FIFO queues do.
    LostAnswer,
    /// Carried out, but the connection ends in the middle of the answer.
    CutAnswer,
    /// Carried out, but the JSON of the answer ends in its middle, as if that were all.
    MalformedAnswer,
    /// Carried out this time after it was asked for.
    Slow(Duration),
    /// Received bodies differ from what their MD5 says.
    DamagedBodies,
    /// Received messages say that they were sent later than they were, or earlier: the server's clock differs.
    ClockAhead {
        /// By how many milliseconds.
        ms: i64,
    },
    /// The queue's counts are higher than they should be: they lag behind what was received and deleted.
    CountsAhead {
        /// Of the messages that can be received, by this number.
        visible: u32,
        /// Of those in flight, by this number.
        in_flight: u32,
    },
    /// Received messages do not say when they were sent, as with some servers.
    NoSentTimestamp,
    /// Of a batch, the first entry and every second one after it are not carried out.
    FailedEntries {
        /// What is said of them.
        code: &'static str,
        /// Whose fault it is said to be.
        sender_fault: bool,
    },
    /// The queue is deleted, and then the request is carried out.
    QueueDeleted,
}

/// The rules in force and how many requests each has seen.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rules: Mutex<Vec<(Rule, u32)>>,
}

impl Rules {
    /// Replaces all rules.
    pub(super) fn replace(&self, rules: &[Rule]) {
        *self.lock() = rules.iter().map(|rule| (*rule, 0)).collect();
    }

    /// The fault of this request, by the first rule that includes it.
    pub(super) fn fault_of(&self, operation: SqsOperation) -> Option<Fault> {
        let mut fault = None;
        for (rule, seen) in self.lock().iter_mut().filter(|(rule, _)| rule.operation.is(operation)) {
            *seen += 1;
            if rule.when.includes(*seen) {
                fault = fault.or(Some(rule.fault));
            }
        }
        fault
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Rule, u32)>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Operation {
    fn is(self, operation: SqsOperation) -> bool {
        match self {
            Self::Receive => operation == SqsOperation::ReceiveMessage,
            Self::Delete => operation == SqsOperation::DeleteMessageBatch,
            Self::ChangeVisibility => operation == SqsOperation::ChangeMessageVisibilityBatch,
            Self::Attributes => operation == SqsOperation::GetQueueAttributes,
        }
    }
}

impl When {
    const fn includes(self, number: u32) -> bool {
        match self {
            Self::First(count) => number <= count,
            Self::Nth(only) => number == only,
            Self::Every(nth) => number.is_multiple_of(nth),
            Self::EveryOfFirst(nth, count) => number <= count && number.is_multiple_of(nth),
            Self::Always => true,
        }
    }
}
