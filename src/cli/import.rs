//! `pgsluice import`: NDJSON files of message bodies into the spool, to be loaded by `replay` or the next `run`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;

use super::SharedFlags;
use super::end::End;
use super::output::say;
use super::session::{Session, runtime};
use crate::blocking::blocking;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::import::import;
use crate::report::grouped;
use crate::spool;

#[derive(Debug, Clone, Args)]
pub(super) struct Flags {
    /// Files with one message body a line
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// When the messages were sent, as RFC 3339 [default: the file's modification time]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    sent_at: Option<Timestamp>,
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "expected a time with its offset, such as 2026-01-02T03:04:05Z".to_owned())
}

pub(super) fn run(flags: &SharedFlags, import_flags: &Flags) -> Result<ExitCode, Error> {
    let runtime = runtime()?;
    let code = runtime.block_on(async {
        let session = Session::open(flags)?;
        spool::recover(session.staging())?;
        let end = import_all(&session, import_flags).await;
        if end.is_ok() {
            session.expire_files().await;
        }
        session.finish_silently(end)
    });
    // A file that is still being read when a signal comes is not waited for: importing it again completes it.
    runtime.shutdown_background();
    code
}

/// The lines of a file that can be read twice; for progress alone, so an error is left to the import.
fn lines_of(path: &Path) -> io::Result<u64> {
    if !path.metadata()?.is_file() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let (mut file, mut block, mut lines) = (File::open(path)?, vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut block)? {
            0 => return Ok(lines),
            length => lines += memchr::memchr_iter(b'\n', &block[..length]).count() as u64,
        }
    }
}

/// Each file, until a signal.
async fn import_all(session: &Session, flags: &Flags) -> Result<End, Error> {
    let sent_at = flags.sent_at;
    session.expect_of_files(flags.files.clone(), lines_of);
    let spool_key = session.spool_key().await?;
    for file in &flags.files {
        let (staging, pipeline, path) = (session.staging().clone(), session.config.pipeline.name.clone(), file.clone());
        let (counters, key) = (Arc::clone(session.stages.counters()), spool_key.clone());
        let reading = blocking(move || {
            import(&staging, &pipeline, &path, sent_at, key.as_ref(), |segment| counters.enter(segment))
        });
        let imported = tokio::select! {
            imported = reading => imported?,
            () = session.stop.cancelled() => return Ok(End::without_queue(true, true)),
        };
        if !session.is_quiet() {
            let messages = grouped(imported.sealed.iter().map(|segment| segment.messages).sum());
            say(format_args!("{}: {messages} messages in {} segments", file.display(), imported.sealed.len()));
            if !imported.known.is_empty() {
                say(format_args!("{}: {} segments were imported before", file.display(), imported.known.len()));
            }
        }
    }
    Ok(End::without_queue(false, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_where_a_file_can_be_read_twice() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("bodies.ndjson");
        std::fs::write(&file, "{}\n".repeat(700_000)).unwrap();
        assert_eq!(lines_of(&file).unwrap(), 700_000);
        assert!(lines_of(Path::new("/dev/null")).is_err());
    }
}
