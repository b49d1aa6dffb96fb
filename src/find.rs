//! Where one message is: in the files of this staging directory, and in the ledger.

use std::fmt;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memchr::memmem::Finder;
use serde::Deserialize;

use crate::durable::{FileError, Place};
use crate::error::Error;
use crate::host::host_name;
use crate::load::{Fate, LoadedSegment};
use crate::segment::SegmentId;
use crate::spool::identity_time_ms;
use crate::staging::Staging;

const BUFFER_BYTES: usize = 256 * 1024;

/// What a file says of the messages in it, by where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Not loaded, as far as the files tell.
    Spool,
    /// A process saw the COMMIT of its segment.
    Loaded,
    /// A reject file.
    Rejects,
    /// A segment that cannot be read to its end.
    Damaged,
}

/// A line that holds the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// What its file says.
    pub kind: FileKind,
    /// The segment.
    pub segment: SegmentId,
    /// The file.
    pub file: PathBuf,
    /// Where in the file the line begins.
    pub offset: u64,
    /// The time in the message's identity, in milliseconds since the epoch.
    pub identity_time_ms: i64,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its row is in the table.
    Row,
    /// It could not become a row.
    Reject,
    /// It waits in the spool.
    Pending,
    /// What lies here is another delivery of a message whose row is in the table.
    Duplicate,
    /// Neither the files here nor the ledger know it.
    Unknown,
}

/// The answer in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What became of it.
    pub verdict: Verdict,
    segment: Option<SegmentId>,
    /// The host that loaded it; of what is not loaded, this one.
    host: Option<String>,
    line: Option<(PathBuf, u64)>,
    remark: Option<String>,
}

impl Delivery {
    /// The time in the message's identity, as the ledger has it.
    #[must_use]
    pub fn identity_time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(u64::try_from(self.identity_time_ms).unwrap_or(0))
    }
}

/// Each line of the staging directory that holds the message. Reads all its files. Blocks.
pub fn deliveries(staging: &Staging, message_id: &str) -> Result<Vec<Delivery>, Error> {
    let mut found = Vec::new();
    let finder = Finder::new(message_id);
    let mut look = |kind, segments: Vec<SegmentId>, place_of: &dyn Fn(SegmentId) -> Place| {
        segments.into_iter().try_for_each(|segment| {
            let search = Search { finder: &finder, message_id, kind, segment };
            search.file(&place_of(segment), &mut found)
        })
    };
    look(FileKind::Spool, staging.open_segments()?, &|segment| staging.open_segment(segment))?;
    look(FileKind::Spool, staging.sealed_segments()?, &|segment| staging.spool(segment))?;
    look(FileKind::Loaded, staging.committed_segments()?, &|segment| staging.committed(segment))?;
    look(FileKind::Loaded, staging.archived_segments()?, &|segment| staging.archive(segment))?;
    look(FileKind::Damaged, staging.damaged_segments()?, &|segment| staging.damaged(segment))?;
    look(FileKind::Rejects, staging.rejected_segments()?, &|segment| staging.rejects(segment))?;
    Ok(found)
}

struct Search<'a> {
    finder: &'a Finder<'a>,
    message_id: &'a str,
    kind: FileKind,
    segment: SegmentId,
}

/// What is read of a line.
#[derive(Deserialize)]
struct Identity {
    message_id: String,
    sent_at: i64,
    #[serde(default = "yes")]
    sent_at_is_stable: bool,
}

const fn yes() -> bool {
    true
}

impl Search<'_> {
    fn file(&self, place: &Place, found: &mut Vec<Delivery>) -> Result<(), FileError> {
        let file = match place.open() {
            // A run has moved it on.
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
        let (mut line, mut offset) = (Vec::new(), 0);
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(place.failed("read"))?;
            if read == 0 {
                return Ok(());
            }
            // A body may hold the text as well.
            if self.finder.find(&line).is_some()
                && let Ok(identity) = serde_json::from_slice::<Identity>(&line)
                && identity.message_id == self.message_id
            {
                found.push(Delivery {
                    kind: self.kind,
                    segment: self.segment,
                    file: place.path().to_owned(),
                    offset,
                    identity_time_ms: identity_time_ms(identity.sent_at, identity.sent_at_is_stable),
                });
            }
            offset += read as u64;
        }
    }
}

impl Found {
    /// Puts together what lies here and what the ledger says; `None`: it could not be asked.
    #[must_use]
    pub fn of(deliveries: &[Delivery], fate: Option<&Fate>) -> Self {
        let Some(fate) = fate else { return Self::of_files(deliveries) };
        let owner = fate.owner.as_ref();
        let is_owners = |delivery: &&Delivery| owner.is_some_and(|owner| owner.segment == delivery.segment);
        if let Some(reason) = &fate.reject {
            let of_owner = deliveries.iter().filter(is_owners);
            let line = of_owner.max_by_key(|delivery| delivery.kind == FileKind::Rejects);
            return Self { remark: Some(reason.text.clone()), ..Self::decided(Verdict::Reject, owner, line) };
        }
        if fate.is_decided {
            return match deliveries.iter().find(is_owners) {
                None if !deliveries.is_empty() && owner.is_some() => Self::duplicate(&deliveries[0], owner),
                line => Self::decided(Verdict::Row, owner, line),
            };
        }
        let loaded = |delivery: &Delivery| fate.loaded.iter().find(|loaded| loaded.segment == delivery.segment);
        match deliveries.iter().find_map(|delivery| Some((delivery, loaded(delivery)?))) {
            Some((line, loaded)) if loaded.left_it_in_queue => Self {
                remark: Some("refused, and left in the queue".to_owned()),
                ..Self::decided(Verdict::Reject, Some(loaded), Some(line))
            },
            // The ledger has forgotten the messages of the segment, or never kept them (dedupe = "segment").
            Some((line, loaded)) => Self {
                remark: loaded.has_duplicates.then(|| {
                    "of this segment the ledger has no messages, and some were duplicates; it may be one".to_owned()
                }),
                ..Self::decided(Verdict::Row, Some(loaded), Some(line))
            },
            None => match deliveries.first() {
                Some(line) => Self::at(Verdict::Pending, line),
                None => Self::unknown(),
            },
        }
    }

    fn of_files(deliveries: &[Delivery]) -> Self {
        let find = |kind| deliveries.iter().find(move |delivery| delivery.kind == kind);
        let verdicts = [
            (FileKind::Rejects, Verdict::Reject),
            (FileKind::Loaded, Verdict::Row),
            (FileKind::Spool, Verdict::Pending),
            (FileKind::Damaged, Verdict::Pending),
        ];
        let found = verdicts.into_iter().find_map(|(kind, verdict)| Some(Self::at(verdict, find(kind)?)));
        found.unwrap_or_else(Self::unknown)
    }

    fn decided(verdict: Verdict, by: Option<&LoadedSegment>, line: Option<&Delivery>) -> Self {
        Self {
            verdict,
            segment: by.map(|by| by.segment),
            host: by.map(|by| by.host.clone()),
            line: line.map(|line| (line.file.clone(), line.offset)),
            remark: None,
        }
    }

    fn duplicate(line: &Delivery, owner: Option<&LoadedSegment>) -> Self {
        let row = owner.map(|owner| format!("its row is of segment {}, loaded by {}", owner.segment, owner.host));
        Self { remark: row, ..Self::at(Verdict::Duplicate, line) }
    }

    fn at(verdict: Verdict, line: &Delivery) -> Self {
        let place = Some((line.file.clone(), line.offset));
        let remark = (line.kind == FileKind::Damaged).then(|| "in a damaged segment".to_owned());
        Self { verdict, segment: Some(line.segment), host: Some(host_name()), line: place, remark }
    }

    const fn unknown() -> Self {
        Self { verdict: Verdict::Unknown, segment: None, host: None, line: None, remark: None }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.verdict {
            Verdict::Row => "row",
            Verdict::Reject => "reject",
            Verdict::Pending => "pending",
            Verdict::Duplicate => "duplicate",
            Verdict::Unknown => "unknown",
        })?;
        if let Some(segment) = self.segment {
            write!(formatter, " segment {segment}")?;
        }
        if let Some(host) = &self.host {
            write!(formatter, " host {host}")?;
        }
        if let Some((file, offset)) = &self.line {
            write!(formatter, " file {} offset {offset}", file.display())?;
        }
        match &self.remark {
            Some(remark) => write!(formatter, " ({remark})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::{Reason, Stage};

    fn delivery(kind: FileKind, segment: SegmentId) -> Delivery {
        Delivery { kind, segment, file: "f".into(), offset: 7, identity_time_ms: 1 }
    }

    fn loaded(segment: SegmentId) -> LoadedSegment {
        LoadedSegment {
            segment,
            host: "h".to_owned(),
            loaded_at: jiff::Timestamp::UNIX_EPOCH,
            has_duplicates: false,
            left_it_in_queue: false,
        }
    }

    #[test]
    fn the_ledger_decides_and_the_files_say_where() {
        use Verdict::{Duplicate, Pending, Reject, Row, Unknown};
        let [here, elsewhere] = [SegmentId::now(), SegmentId::now()];
        let owned = |segment| Fate { is_decided: true, owner: Some(loaded(segment)), ..Fate::default() };
        let reason = Reason { stage: Stage::Load, field: None, text: "no".to_owned() };
        let rejected = Fate { reject: Some(reason), ..owned(here) };
        let known = Fate { loaded: vec![loaded(here)], ..Fate::default() };
        let left = LoadedSegment { left_it_in_queue: true, ..loaded(here) };
        let left = Fate { loaded: vec![left], ..Fate::default() };
        let cases = [
            (vec![], Some(Fate::default()), Unknown),
            (vec![], Some(owned(elsewhere)), Row),
            (vec![], None, Unknown),
            (vec![(FileKind::Spool, here)], Some(Fate::default()), Pending),
            (vec![(FileKind::Damaged, here)], Some(Fate::default()), Pending),
            (vec![(FileKind::Loaded, here)], Some(owned(here)), Row),
            (vec![(FileKind::Spool, here)], Some(owned(elsewhere)), Duplicate),
            (vec![(FileKind::Spool, elsewhere), (FileKind::Loaded, here)], Some(owned(here)), Row),
            (vec![(FileKind::Loaded, here), (FileKind::Rejects, here)], Some(rejected), Reject),
            (vec![(FileKind::Spool, here)], Some(left), Reject),
            (vec![(FileKind::Loaded, here)], Some(known), Row),
            (vec![(FileKind::Loaded, here)], None, Row),
            (vec![(FileKind::Loaded, here), (FileKind::Rejects, here)], None, Reject),
            (vec![(FileKind::Spool, here)], None, Pending),
        ];
        for (index, (places, fate, expected)) in cases.into_iter().enumerate() {
            let lines: Vec<_> = places.into_iter().map(|(place, segment)| delivery(place, segment)).collect();
            assert_eq!(Found::of(&lines, fate.as_ref()).verdict, expected, "case {index}");
        }
    }
}
