//! `pgsluice rejects show`: a reject's record, and its body as it was received.
//!
//! The record goes to stderr and the body to stdout: byte for byte, except on a terminal, which gets no control character
//! of a message.

use std::fmt::Write;
use std::io::{IsTerminal, stdout};

use clap::Args;

use super::super::SharedFlags;
use super::super::output::{DataLines, is_misleading, say};
use super::super::session::runtime;
use crate::config::Config;
use crate::durable::Place;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::keyring::{self, Keyring};
use crate::load::{FoundReject, LoadError};
use crate::postgres::connect;
use crate::spool::{SpoolError, SpoolKeys, message_uuid, read_rejects};
use crate::staging::Staging;

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct Flags {
    /// The message's id, as `rejects list --entries` prints it
    #[arg(value_name = "ID")]
    message_id: String,
}

pub(super) fn run(flags: &SharedFlags, show: &Flags) -> Result<ExitCode, Error> {
    let config = Config::resolve(flags.overrides())?;
    let pipeline = &config.pipeline.name;
    let (found, keys) = runtime()?.block_on(async {
        let client = connect(&config.database_url()?).await?;
        let found = FoundReject::of_message(&client, pipeline, message_uuid(&show.message_id)).await?;
        // A line in clear needs no key. One that is encrypted tells which it needs.
        Ok::<_, Error>((found, keyring::read(&config.keys).await))
    })?;
    let keys = SpoolKeys::of(
        &keys.or_else(|error| if config.spool.encryption { Err(error) } else { Ok(Keyring::default()) })?,
    );
    if found.is_empty() {
        return Err(LoadError::NoSuchReject { pipeline: pipeline.clone() }.into());
    }
    let staging = Staging::existing(&config.staging_dir)?;
    let (mut lines, mut missing) = (DataLines::new(), 0);
    for (index, reject) in found.iter().enumerate() {
        if !flags.quiet {
            say(serde_json::to_string(reject).unwrap_or_default());
        }
        let body = match reject.listed.segment {
            Some(segment) => kept_body(&staging.rejects(segment), pipeline, &show.message_id, &keys)?,
            None => None,
        };
        match body {
            Some(body) if stdout().is_terminal() => lines.line(for_terminal(&body))?,
            Some(body) if index == 0 => lines.text(&body)?,
            Some(body) => lines.text(&format!("\n{body}"))?,
            None => missing += 1,
        }
    }
    if missing > 0 { Err(LoadError::NoKeptBody { rejects: missing }.into()) } else { Ok(ExitCode::Done) }
}

/// The body in this pipeline's line of the message.
fn kept_body(place: &Place, pipeline: &str, message_id: &str, keys: &SpoolKeys) -> Result<Option<String>, SpoolError> {
    let wanted = message_uuid(message_id);
    let mut lines = read_rejects(place)?;
    while let Some(entry) = lines.next().transpose()? {
        if entry.is_of(pipeline) && message_uuid(&entry.message_id) == wanted {
            return lines.body(keys).map(Some);
        }
    }
    Ok(None)
}

/// The text with its control characters escaped, except line feeds and tabs.
fn for_terminal(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        let is_layout = matches!(character, '\n' | '\t');
        if !is_layout && is_misleading(character) {
            _ = write!(shown, "\\u{{{:04x}}}", u32::from(character));
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_control_character_of_a_message() {
        let text = "{\"a\": \"\u{1b}[2J\r\u{7}\u{9b}31m\u{202e}é\"}\n\tß";
        let shown = for_terminal(text);
        assert_eq!(shown, "{\"a\": \"\\u{001b}[2J\\u{000d}\\u{0007}\\u{009b}31m\\u{202e}é\"}\n\tß");
    }
}
