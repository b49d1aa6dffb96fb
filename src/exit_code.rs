//! The exit codes: a contract with schedulers and scripts.

/// How a command ended, as the shell sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Done what was asked: the queue is empty or holds nothing older than the run (`--until started`), the replay
    /// complete, a limit given by flag reached, or `--follow` told to stop. Rejects below the threshold are no failure.
    Done = 0,
    /// Failed; the error line says why.
    Failed = 1,
    /// A mistake in usage or configuration; nothing was received.
    Usage = 2,
    /// Work is left, all of it safe: stopped by a signal, disk full, damage, failed deletes, or messages that others hold.
    WorkLeft = 3,
    /// More rejects than `max_rejects`; nothing of that segment was acknowledged.
    TooManyRejects = 4,
    /// A bug: a task panicked, or received = loaded + duplicates + rejected + pending did not hold.
    Bug = 70,
}

impl ExitCode {
    /// The number that the process returns.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.number())
    }
}

#[cfg(test)]
mod tests {
    use super::ExitCode;

    #[test]
    fn the_numbers_are_the_documented_ones() {
        let numbers = [
            ExitCode::Done,
            ExitCode::Failed,
            ExitCode::Usage,
            ExitCode::WorkLeft,
            ExitCode::TooManyRejects,
            ExitCode::Bug,
        ]
        .map(ExitCode::number);
        assert_eq!(numbers, [0, 1, 2, 3, 4, 70]);
    }
}
