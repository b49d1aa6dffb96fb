//! What follows from an error: whether it is tried again, how the process ends, what a person can do.
//!
//! Each stage's errors stand beside the stage, with a table of their advice.

use std::error::Error;

use crate::exit_code::ExitCode;

/// An error of a library, kept as the cause.
pub type BoxedError = Box<dyn Error + Send + Sync>;

/// What follows from an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    /// Waiting and trying again can help: the fault is the server's, the network's or of the moment.
    pub retry: bool,
    /// How the process ends if it does not.
    pub exit: ExitCode,
    /// What a person can do.
    pub hint: Option<&'static str>,
}

/// An error that says what follows from it.
pub trait Advised: Error {
    /// What follows from the error.
    fn advice(&self) -> Advice;

    /// Waiting and trying again can help.
    fn is_transient(&self) -> bool {
        self.advice().retry
    }
}

pub(crate) const fn fatal(hint: &'static str) -> Advice {
    Advice { retry: false, exit: ExitCode::Failed, hint: Some(hint) }
}

pub(crate) const fn retried(hint: &'static str) -> Advice {
    Advice { retry: true, ..fatal(hint) }
}

pub(crate) const fn usage(hint: &'static str) -> Advice {
    Advice { exit: ExitCode::Usage, ..fatal(hint) }
}
