//! `pgsluice infer`: drafts a mapping and its table from samples.

use std::path::PathBuf;

use clap::Args;

use super::SharedFlags;
use super::output::{DataLines, say};
use super::session::{PEEK, connect_queue, runtime};
use crate::check::read_sample;
use crate::config::Config;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::infer::Draft;
use crate::queue::Message;

#[derive(Debug, Clone, Args)]
pub(super) struct Flags {
    /// A file with one message body a line
    #[arg(value_name = "FILE", required_unless_present = "peek", conflicts_with = "peek")]
    file: Option<PathBuf>,
    /// Take this number of messages of the queue instead; counts as a receive of each
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    peek: Option<u16>,
    /// Print CREATE TABLE alone
    #[arg(long)]
    sql: bool,
}

pub(super) fn run(flags: &SharedFlags, infer: &Flags) -> Result<ExitCode, Error> {
    let (messages, name, origin) = match (&infer.file, infer.peek) {
        (Some(file), _) => {
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            (read_sample(file)?, name, file.display().to_string())
        }
        (None, most) => peek(flags, most.unwrap_or(1))?,
    };
    let draft = Draft::of(messages.iter().map(|message| message.body.as_str()), &name, &origin);
    let mut lines = DataLines::new();
    if infer.sql {
        lines.line(draft.sql())?;
    } else {
        lines.text(&draft.toml())?;
    }
    Ok(ExitCode::Done)
}

fn peek(flags: &SharedFlags, most: u16) -> Result<(Vec<Message>, String, String), Error> {
    let config = Config::resolve(flags.overrides())?;
    let messages = runtime()?.block_on(async {
        let queue = connect_queue(&config).await?;
        Ok::<_, Error>(queue.peeking(PEEK).peek(most.into()).await?)
    })?;
    if !flags.quiet {
        say(format_args!(
            "{} messages were received and given back, which counts as a receive of each",
            messages.len()
        ));
    }
    let name = config.queue_name().unwrap_or_default().to_owned();
    let origin = format!("queue {name}");
    Ok((messages, name, origin))
}
