//! Looks at messages and gives them back. For SQS that is a receive like any other, and counts as one.

use std::collections::HashSet;

use super::Sqs;
use crate::queue::{BATCH_MESSAGES, Message, Queue, QueueError, ReceiveAttempt};

impl Sqs {
    /// Receives up to this number of messages and makes them visible again, also after a failure. Ends at the first receive
    /// that brings nothing.
    pub async fn peek(&self, most: usize) -> Result<Vec<Message>, QueueError> {
        let (mut messages, mut handles, mut ids) = (Vec::new(), Vec::new(), HashSet::new());
        let received = loop {
            let wanted = (most - messages.len()).min(BATCH_MESSAGES);
            if wanted == 0 {
                break Ok(());
            }
            match self.receive(wanted, &ReceiveAttempt::begin()).await {
                Ok(batch) if batch.is_empty() => break Ok(()),
                Ok(batch) => {
                    handles.extend(batch.iter().map(|message| message.receipt_handle.clone()));
                    messages.extend(batch.into_iter().filter(|message| ids.insert(message.message_id.clone())));
                }
                Err(error) => break Err(error),
            }
        };
        let mut released = Ok(());
        for batch in handles.chunks(BATCH_MESSAGES) {
            released = self.release(batch).await.map(|_| ()).and(released);
        }
        received.and(released).map(|()| messages)
    }
}
