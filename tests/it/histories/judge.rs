//! Conservation, after each step and at the end.
//!
//! After each step: no message has more rows than it was sent times, no row is wrong, and a message that was deleted
//! from its queue, or that an import took, is a row, or a reject that is kept. At the end: each good message is its row,
//! and each bad one is kept.

use std::collections::BTreeSet;
use std::fmt;

use super::Verdict;
use super::expected::Message;
use super::holdings::{Files, PARTS, Recorded};
use super::pipelines::{PIPELINES, secret};
use super::world::World;

/// How long a letter that is read is hidden from the reader, until it is deleted.
const LETTER_SECONDS: i32 = 60;
/// Where a message may lie that is not loaded yet.
const WAITING: [&str; 3] = ["spool", "committed", "damaged"];

/// What everybody holds at one moment.
pub(super) struct Books {
    pub(super) files: Files,
    pub(super) recorded: Recorded,
    deleted: BTreeSet<String>,
}

impl World {
    /// Reads what everybody holds.
    pub(super) fn books(&mut self) -> Verdict<Books> {
        self.read_letters();
        let files = Files::of(&self.env);
        self.learn_ids(&files);
        let recorded = Recorded::read(&self.env.database, &self.messages)?;
        for pipeline in PIPELINES {
            self.has_loaded[pipeline as usize] |=
                self.messages.iter().any(|message| message.pipeline == pipeline && recorded.rows(&message.body) > 0);
        }
        let deleted = self.deleted.lock().unwrap().clone();
        Ok(Books { files, recorded, deleted })
    }

    /// Ids of imported messages are known from the files alone.
    pub(super) fn learn_ids(&mut self, files: &Files) {
        for (id, body) in files.0.iter().flat_map(|file| &file.messages) {
            self.messages.learn(id, body);
        }
        self.segments_seen.extend(files.replayable().map(|file| file.segment.clone()));
    }

    fn read_letters(&mut self) {
        loop {
            let letters = self.letters.take(LETTER_SECONDS);
            if letters.is_empty() {
                return;
            }
            for letter in letters {
                self.letters.delete(letter.receipt_handle().unwrap());
                self.lettered.extend(letter.body);
            }
        }
    }

    /// What must be true after each step, whatever it was.
    pub(super) fn judge_step(&mut self) -> Verdict {
        let books = self.books()?;
        for message in self.messages.iter().filter(|message| message.promised && !message.given_up) {
            let standing = self.standing(&books, message);
            if standing.rows > message.copies {
                return Err(format!("more rows than messages: {standing}"));
            }
            let settled = standing.rows + standing.kept;
            // Rows that a person removed can be loaded again, from wherever the message lies.
            let lies = |parts: &[&str]| usize::from(books.files.holders(&message.body, parts).next().is_some());
            let recoverable = if self.lost_rows { lies(&PARTS) } else { 0 };
            if settled + recoverable * message.copies < standing.deleted {
                return Err(format!("deleted, and neither a row nor a kept reject: {standing}"));
            }
            if message.queue_ids.is_empty() && settled + recoverable + lies(&WAITING) == 0 {
                return Err(format!("imported, and lost: {standing}"));
            }
        }
        Ok(())
    }

    /// What must be true when all is done.
    pub(super) fn judge_rest(&mut self) -> Verdict {
        self.judge_step()?;
        let books = self.books()?;
        for message in self.messages.iter().filter(|message| message.promised && !message.given_up) {
            let standing = self.standing(&books, message);
            // What was retried since an old dump is a reject again, and its body may lie in its segment alone.
            let is_reject_again = self.went_back && standing.recorded > 0 && !standing.files.is_empty();
            if message.fits && standing.rows != message.copies && !is_reject_again {
                return Err(format!("not one row a message: {standing}"));
            }
            if message.fits && standing.recorded > 0 && !self.went_back {
                return Err(format!("a row and a reject: {standing}"));
            }
            if !message.fits && standing.kept < message.copies {
                return Err(format!("a bad body is not kept: {standing}"));
            }
        }
        self.judge_masked_values()
    }

    /// Each masked value, revealed with the key of the history, is what was sent.
    fn judge_masked_values(&self) -> Verdict {
        for pipeline in PIPELINES {
            let table = pipeline.name();
            let rows = self.env.database.rows(&format!("select number, secret from {table} order by number"));
            let texts = |column: usize| rows.iter().map(move |row| row[column].clone().unwrap_or_default());
            if rows.is_empty() {
                continue;
            }
            let masked: String = texts(1).map(|value| value + "\n").collect();
            let configuration = format!("{table}.toml");
            let revealed = self.env.pgsluice_with_input(&["reveal", "--config", &configuration], &masked);
            let sent = texts(0).map(|number| secret(number.parse().unwrap()));
            if revealed.code != Some(0) || !revealed.stdout.lines().map(str::to_owned).eq(sent) {
                return Err(format!("masked values of {table} are not what was sent\n{revealed}"));
            }
        }
        Ok(())
    }

    /// Where a message is.
    pub(super) fn standing<'a>(&self, books: &Books, message: &'a Message) -> Standing<'a> {
        let body = &message.body;
        let recorded = self.messages.ids_among(message, &books.recorded.rejects);
        let has_body = self.lettered.contains(body) || books.files.holders(body, &["rejects"]).next().is_some();
        Standing {
            message,
            rows: books.recorded.rows(body),
            recorded,
            kept: if has_body { recorded } else { 0 },
            deleted: message.queue_ids.intersection(&books.deleted).count(),
            files: books.files.0.iter().filter(|file| file.holds(body)).map(|file| file.with_ids_of(body)).collect(),
        }
    }
}

/// Where a message is.
#[derive(Debug)]
pub(super) struct Standing<'a> {
    pub(super) message: &'a Message,
    pub(super) rows: usize,
    /// Rejects of the ledger.
    recorded: usize,
    /// Of these, rejects whose body is kept.
    pub(super) kept: usize,
    /// Messages that a queue was asked to delete.
    deleted: usize,
    files: Vec<String>,
}

impl fmt::Display for Standing<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message: Message { body, fits, copies, queue_ids, .. }, rows, recorded, kept, deleted, files } =
            self;
        let (fits, from) = (if *fits { "good" } else { "bad" }, if queue_ids.is_empty() { "imported" } else { "sent" });
        write!(
            formatter,
            "{body} ({fits}, {from}, {copies} of it): {rows} rows, {recorded} rejects, {kept} of them kept, {deleted} deleted, \
             in {files:?}"
        )
    }
}
