//! What commands print. Data goes to stdout, everything else to stderr.
//!
//! Always true: output that cannot be written changes nothing of what happens to messages. A reader that closes its
//! pipe ends the output quietly; any other failure to write data is an error. What stderr does not take is dropped.

use std::fmt;
use std::io::{self, ErrorKind, StderrLock, StdoutLock, Write};

use crate::error::Error;

/// Writes data to stdout, line by line.
pub(super) struct DataLines {
    stdout: StdoutLock<'static>,
    is_closed: bool,
}

impl DataLines {
    pub(super) fn new() -> Self {
        Self { stdout: io::stdout().lock(), is_closed: false }
    }

    /// Whether the reader has closed its end. A further line would be lost.
    pub(super) const fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Writes one line.
    pub(super) fn line(&mut self, line: impl fmt::Display) -> Result<(), Error> {
        self.write(format_args!("{line}\n"))
    }

    /// Writes text that has its own line feeds.
    pub(super) fn text(&mut self, text: &str) -> Result<(), Error> {
        self.write(format_args!("{text}"))
    }

    fn write(&mut self, text: fmt::Arguments<'_>) -> Result<(), Error> {
        if self.is_closed {
            return Ok(());
        }
        // Flushed here, because nothing can report a failure at the end of the process.
        match self.stdout.write_fmt(text).and_then(|()| self.stdout.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => self.is_closed = true,
            written => written.map_err(|source| Error::Output { source })?,
        }
        Ok(())
    }
}

/// Prints one line of data.
pub(super) fn print_line(line: impl fmt::Display) -> Result<(), Error> {
    DataLines::new().line(line)
}

/// Writes a line for people, if stderr takes it.
pub(super) fn say(line: impl fmt::Display) {
    _ = writeln!(stderr(), "{line}");
}

/// Writes text that has its own line feeds, if stderr takes it.
pub(super) fn say_text(text: &str) {
    _ = stderr().write_all(text.as_bytes());
}

fn stderr() -> StderrLock<'static> {
    io::stderr().lock()
}
