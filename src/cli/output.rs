//! What commands print. Data goes to stdout, everything else to stderr.
//!
//! Always true: output that cannot be written changes nothing of what happens to messages. A reader that closes its
//! pipe ends the output quietly; any other failure to write data is an error. What stderr does not take is dropped.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind, IsTerminal, StdoutLock, Write};

use crate::error::Error;
use crate::progress::AboveTheLine;

/// Writes data to stdout, line by line.
pub(super) struct DataLines {
    stdout: StdoutLock<'static>,
    is_closed: bool,
    is_terminal: bool,
}

impl DataLines {
    pub(super) fn new() -> Self {
        let stdout = io::stdout().lock();
        Self { is_terminal: stdout.is_terminal(), stdout, is_closed: false }
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
        self.bytes(text.as_bytes())
    }

    /// Writes a value that may hold anything, as a line.
    pub(super) fn value(&mut self, value: &str) -> Result<(), Error> {
        let line = format!("{}\n", self.shown(value));
        self.text(&line)
    }

    /// The value as this output may have it: on a terminal without control characters.
    pub(super) fn shown<'a>(&self, value: &'a str) -> Cow<'a, str> {
        if self.is_terminal { without_control_characters(value) } else { value.into() }
    }

    /// Writes bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.when_open(|stdout| stdout.write_all(bytes))
    }

    fn write(&mut self, text: fmt::Arguments<'_>) -> Result<(), Error> {
        self.when_open(|stdout| stdout.write_fmt(text))
    }

    fn when_open(&mut self, write: impl FnOnce(&mut StdoutLock<'static>) -> io::Result<()>) -> Result<(), Error> {
        if self.is_closed {
            return Ok(());
        }
        // Flushed here, because nothing can report a failure at the end of the process.
        match write(&mut self.stdout).and_then(|()| self.stdout.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => self.is_closed = true,
            written => written.map_err(|source| Error::Output { source })?,
        }
        Ok(())
    }
}

/// They change the direction of text, end a line, or cannot be seen: what is shown would not be what is there.
const MISLEADING: [char; 14] = [
    '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}',
    '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}', '\u{feff}',
];

/// Whether a person would see something else than what is there.
pub(super) fn is_misleading(character: char) -> bool {
    character.is_control() || MISLEADING.contains(&character)
}

/// Misleading characters as JSON writes them. A value with ESC or a line feed could forge what a person sees.
fn without_control_characters(value: &str) -> Cow<'_, str> {
    if !value.chars().any(is_misleading) {
        return value.into();
    }
    let mut shown = String::with_capacity(value.len() + 8);
    for character in value.chars() {
        if is_misleading(character) {
            _ = write!(shown, "\\u{:04x}", u32::from(character));
        } else {
            shown.push(character);
        }
    }
    shown.into()
}

/// Prints one line of data.
pub(super) fn print_line(line: impl fmt::Display) -> Result<(), Error> {
    DataLines::new().line(line)
}

/// Writes a line for people, if stderr takes it.
pub(super) fn say(line: impl fmt::Display) {
    say_text(&format!("{line}\n"));
}

/// Writes text that has its own line feeds, if stderr takes it.
pub(super) fn say_text(text: &str) {
    _ = AboveTheLine.write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::without_control_characters;

    #[test]
    fn control_characters_are_escaped_and_nothing_else() {
        for (value, shown) in [
            ("Gr\u{fc}\u{df}e, \u{6771}\u{4eac} \\u", "Gr\u{fc}\u{df}e, \u{6771}\u{4eac} \\u"),
            ("a\nb\r\tc", "a\\u000ab\\u000d\\u0009c"),
            ("\u{1b}[2Jx\u{7f}\u{9b}31m", "\\u001b[2Jx\\u007f\\u009b31m"),
        ] {
            assert_eq!(without_control_characters(value), shown);
        }
    }
}
