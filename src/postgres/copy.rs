//! COPY … FROM STDIN: bytes from a blocking producer to the server, with little memory between them.

use std::io::Cursor;

use futures::SinkExt;
use tokio::sync::mpsc;
use tokio_postgres::{ToStatement, Transaction};

use crate::blocking::blocking;

/// Large enough that waking the sending task costs nothing beside sending.
const BUFFER_BYTES: usize = 256 * 1024;

/// A COPY that did not succeed. The transaction must be rolled back, or back to a savepoint.
#[derive(Debug)]
pub(crate) enum CopyError<E> {
    /// Postgres refused, or the connection was lost.
    Postgres(tokio_postgres::Error),
    /// What was to be sent could not be read.
    Source(E),
}

impl<E> From<tokio_postgres::Error> for CopyError<E> {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

/// Takes the bytes that a producer writes.
#[derive(Debug)]
pub(crate) struct Feed {
    sender: mpsc::Sender<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Feed {
    /// Passes bytes on; `false` says that nobody takes more.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> bool {
        self.buffer.extend_from_slice(bytes);
        self.buffer.len() < BUFFER_BYTES || self.flush()
    }

    fn flush(&mut self) -> bool {
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(BUFFER_BYTES + BUFFER_BYTES / 8));
        self.sender.blocking_send(full).is_ok()
    }
}

/// Runs a COPY with what `produce` writes, which it does on a thread where it may block; returns the rows taken.
pub(crate) async fn copy_in<E: Send + 'static>(
    transaction: &Transaction<'_>,
    statement: &(impl ToStatement + ?Sized),
    produce: impl FnOnce(&mut Feed) -> Result<(), E> + Send + 'static,
) -> Result<u64, CopyError<E>> {
    let mut sink = std::pin::pin!(transaction.copy_in::<_, Cursor<Vec<u8>>>(statement).await?);
    let (sender, mut receiver) = mpsc::channel(2);
    let producer = blocking(move || {
        let mut feed = Feed { sender, buffer: Vec::new() };
        produce(&mut feed)?;
        feed.flush();
        Ok(())
    });
    let sending = async {
        while let Some(buffer) = receiver.recv().await {
            if sink.feed(Cursor::new(buffer)).await.is_err() {
                break; // `finish` tells why
            }
        }
        drop(receiver);
    };
    let (written, ()) = tokio::join!(producer, sending);
    written.map_err(CopyError::Source)?;
    Ok(sink.finish().await?)
}
