//! Named points at which a test makes the process die, to prove that it may die there.
//!
//! Always true: without the feature `crash-points`, which is off by default and refuses to build without debug
//! assertions, [`CrashPoint::pass`] is an empty constant function, so neither a name nor a branch is in the binary.
//!
//! With it, `PGSLUICE_CRASH_POINT=name[:n]` kills the process with SIGKILL when it passes the point for the n-th time
//! (the first, if not given). SIGKILL does exactly what the kernel's out-of-memory killer and `kill -9` do: no handler
//! and no destructor runs, no buffer is flushed, and no core is written as by an abort. The passing thread raises the
//! signal by a system call, so nothing after the point happens on that thread. PGSLUICE_CRASH_PANIC beside it lets the
//! process panic with this message instead.

#[cfg(all(feature = "crash-points", not(debug_assertions)))]
compile_error!("crash points are for tests; build without the feature `crash-points`");

/// A step after which the process may die. A point is passed right after its step; for a segment, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CrashPoint {
    /// Messages were received; they are in memory alone.
    Receive,
    /// A message was appended to the open segment.
    Append,
    /// The open segment is flushed to disk.
    Fsync,
    /// A file has its final name: a sealed segment, a reject file, ids, a chunk, an archived segment.
    Rename,
    /// The directory that holds the new name is flushed to disk.
    DirectorySync,
    /// The parts of a chunk are written, and its manifest is not.
    WriteChunk,
    /// A segment's chunk is complete.
    Transform,
    /// The ledger's messages are copied, in a transaction that is open.
    CopyIds,
    /// The rows are copied, in the same transaction.
    CopyRows,
    /// Everything of the transaction except COMMIT is done.
    BeforeCommit,
    /// COMMIT is confirmed.
    Commit,
    /// A committed segment lies among the committed ones, and its chunk is removed.
    RemoveChunk,
    /// A batch of rejects is sent to the dead-letter queue.
    SendDeadLetters,
    /// A batch of messages is deleted from the queue.
    Delete,
    /// A segment is in the archive.
    Archive,
}

#[cfg(not(feature = "crash-points"))]
impl CrashPoint {
    /// Nothing happens here.
    #[allow(clippy::unused_self, reason = "with the feature, the point says where to die")]
    #[inline]
    pub(crate) const fn pass(self) {}
}

#[cfg(feature = "crash-points")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    use super::CrashPoint;

    static ARMED: LazyLock<Option<Armed>> =
        LazyLock::new(|| Armed::parse(&std::env::var("PGSLUICE_CRASH_POINT").ok()?));

    struct Armed {
        name: String,
        passings_left: AtomicU64,
    }

    impl Armed {
        fn parse(text: &str) -> Option<Self> {
            let (name, passing) = text.split_once(':').unwrap_or((text, "1"));
            Some(Self { name: name.to_owned(), passings_left: AtomicU64::new(passing.parse().ok()?) })
        }
    }

    impl CrashPoint {
        /// Dies here, if this is the passing that was asked for.
        pub(crate) fn pass(self) {
            if let Some(armed) = &*ARMED
                && armed.name == self.name()
                && armed.passings_left.fetch_sub(1, Ordering::AcqRel) == 1
            {
                if let Ok(message) = std::env::var("PGSLUICE_CRASH_PANIC") {
                    panic!("{message}");
                }
                // The signal cannot be blocked; a process may always send it to itself.
                _ = kill_process(getpid(), Signal::KILL);
            }
        }

        const fn name(self) -> &'static str {
            match self {
                Self::Receive => "receive",
                Self::Append => "append",
                Self::Fsync => "fsync",
                Self::Rename => "rename",
                Self::DirectorySync => "directory-sync",
                Self::WriteChunk => "write-chunk",
                Self::Transform => "transform",
                Self::CopyIds => "copy-ids",
                Self::CopyRows => "copy-rows",
                Self::BeforeCommit => "before-commit",
                Self::Commit => "commit",
                Self::RemoveChunk => "remove-chunk",
                Self::SendDeadLetters => "send-dead-letters",
                Self::Delete => "delete",
                Self::Archive => "archive",
            }
        }
    }
}
