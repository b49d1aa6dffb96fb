//! What a crash left open becomes sealed.

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::{Seal, SealedSegment, SegmentReader, Source, SpoolError};
use crate::durable::{FileError, Place, remove_if_present, rename_durably};
use crate::segment::SegmentId;
use crate::staging::{Staging, StagingError};

const BUFFER_BYTES: usize = 256 * 1024;

/// Seals every segment that a process left open, after cutting off what is not a whole, undamaged line.
///
/// What is cut is still in SQS: a message is deleted only after its segment was sealed and loaded. Needs the
/// staging lock, or it would seal a segment that another process is writing. A segment that cannot be read stays as it
/// is; the others are recovered.
pub fn recover(staging: &Staging) -> Result<Vec<SealedSegment>, SpoolError> {
    let mut recovered = Vec::new();
    for id in staging.open_segments()? {
        match recover_one(staging, id) {
            Ok(Some(segment)) => {
                tracing::info!(segment = %id, messages = segment.messages, "recovered an open segment");
                recovered.push(segment);
            }
            Ok(None) => {
                let what = "removed an open segment without a message, or of an import that did not end";
                tracing::info!(segment = %id, "{what}");
            }
            Err(error) if error.is_disk_full() => return Err(error),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                tracing::error!(segment = %id, "{error}{cause}; this open segment stays, the others are recovered");
            }
        }
    }
    Ok(recovered)
}

fn recover_one(staging: &Staging, id: SegmentId) -> Result<Option<SealedSegment>, SpoolError> {
    let open = staging.open_segment(id);
    let whole = WholeLines::read(&open)?;
    // The file that was being imported is still there; a part of it under the name of the whole would hide the rest.
    if whole.messages == 0 || whole.is_imported {
        remove_if_present(&open)?;
        return Ok(None);
    }
    let seal = whole.has_header.then(|| whole.seal());
    let mut line = Vec::new();
    if let Some(seal) = seal {
        seal.write_line(&mut line).map_err(io::Error::from).map_err(open.failed("seal"))?;
    }
    end_with(&open, whole.bytes, &line)?;
    rename_durably(&open, &staging.spool(id))?;
    Ok(Some(SealedSegment { id, messages: whole.messages, bytes: whole.bytes + line.len() as u64, seal }))
}

/// The lines of an open segment that are whole.
#[derive(Default)]
struct WholeLines {
    has_header: bool,
    is_imported: bool,
    messages: u64,
    /// From the file's first byte to the end of the last whole line.
    bytes: u64,
    checksum: crc32fast::Hasher,
}

impl WholeLines {
    fn read(open: &Place) -> Result<Self, SpoolError> {
        let mut whole = Self::default();
        let mut reader = match SegmentReader::open_unsealed(open) {
            // The header was not written to its end, or did not reach the disk: then no message did either.
            Err(SpoolError::Damaged { .. }) => return Ok(whole),
            reader => reader?,
        };
        whole.has_header = reader.header().is_some();
        whole.is_imported = reader.header().is_some_and(|header| matches!(header.source, Source::Import { .. }));
        whole.bytes = reader.offset();
        loop {
            let block = match reader.next_block() {
                Ok(Some(block)) => block,
                Ok(None) | Err(SpoolError::Damaged { .. }) => break,
                Err(error) => return Err(error),
            };
            // A seal is no message, so it is cut too: after a crash between seal and rename the segment gets a new seal.
            for line in block.lines().map_while(Result::ok) {
                whole.messages += 1;
                whole.bytes = line.offset + line.bytes.len() as u64 + 1;
            }
            if whole.bytes < block.end() {
                break;
            }
        }
        whole.checksum = checksum_of(open, whole.bytes)?;
        Ok(whole)
    }

    fn seal(&self) -> Seal {
        Seal { messages: self.messages, bytes: self.bytes, checksum: self.checksum.clone().finalize() }
    }
}

fn checksum_of(open: &Place, bytes: u64) -> Result<crc32fast::Hasher, FileError> {
    let mut checksum = crc32fast::Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut file = open.open()?.take(bytes);
    loop {
        match file.read(&mut buffer).map_err(open.failed("read"))? {
            0 => return Ok(checksum),
            read => checksum.update(&buffer[..read]),
        }
    }
}

/// A sealed segment as it lies in the staging directory. The seal tells the number of messages; in a segment of format 1
/// the line feeds do. No message is parsed.
pub fn sealed_segment(staging: &Staging, id: SegmentId) -> Result<SealedSegment, SpoolError> {
    let place = staging.find_segment(id).ok_or(StagingError::NoSuchSegment { segment: id })?;
    if let Some(seal) = Seal::at_end_of(&place)? {
        let bytes = place.open()?.metadata().map_err(place.failed("inspect"))?.len();
        return Ok(SealedSegment { id, messages: seal.messages, bytes, seal: Some(seal) });
    }
    let mut reader = SegmentReader::open(&place)?;
    let mut segment = SealedSegment { id, messages: 0, bytes: 0, seal: None };
    let is_sealed = reader.header().is_some();
    loop {
        match reader.next_block() {
            Ok(Some(block)) => {
                segment.messages += block.line_feeds();
                segment.bytes += block.size();
            }
            Err(error) if is_sealed => return Err(error),
            // A damaged end is found, and reported, by the stage that parses the lines.
            Ok(None) | Err(_) => return Ok(segment),
        }
    }
}

/// Cuts a file after this number of bytes, appends `line`, and makes it durable.
fn end_with(open: &Place, bytes: u64, line: &[u8]) -> Result<(), FileError> {
    let mut file = open.open_for_writing()?;
    let ended = file.set_len(bytes).and_then(|()| file.seek(SeekFrom::End(0))).and_then(|_| file.write_all(line));
    ended.and_then(|()| file.sync_all()).map_err(open.failed("cut"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::super::{Record, SegmentWriter, origin};
    use super::*;

    fn write_segment(staging: &Staging, bodies: &[String]) -> SealedSegment {
        let mut writer = SegmentWriter::create(staging, &origin()).unwrap();
        for body in bodies {
            writer.append(&Record::with_body(body)).unwrap();
        }
        writer.seal().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_segment_cut_anywhere_keeps_its_whole_lines(
            bodies in proptest::collection::vec(".{0,40}", 1..8),
            cut in any::<prop::sample::Index>(),
            garbage in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let root = tempfile::tempdir().unwrap();
            let staging = Staging::open(root.path()).unwrap();
            let sealed = write_segment(&staging, &bodies);
            let mut bytes = fs::read(staging.spool(sealed.id)).unwrap();
            bytes.truncate(cut.index(bytes.len() + 1));
            let lines = memchr::memchr_iter(b'\n', &bytes).count();
            // Without the header; the seal may be among them.
            let whole = lines.saturating_sub(1).min(bodies.len());
            let end = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(whole).map_or(0, |(end, _)| end + 1);
            let expected = bytes[..end].to_vec();
            bytes.extend_from_slice(&garbage);
            fs::remove_file(staging.spool(sealed.id)).unwrap();
            fs::write(staging.open_segment(sealed.id), &bytes).unwrap();

            let recovered = recover(&staging).unwrap();

            prop_assert!(staging.open_segments().unwrap().is_empty());
            if whole == 0 {
                prop_assert!(recovered.is_empty());
            } else {
                prop_assert_eq!(recovered[0].messages, whole as u64);
                prop_assert!(fs::read(staging.spool(sealed.id)).unwrap().starts_with(&expected));
                // With its new seal it is a whole segment.
                prop_assert_eq!(sealed_segment(&staging, sealed.id).unwrap(), recovered[0]);
                let mut reader = SegmentReader::open(&staging.spool(sealed.id)).unwrap();
                while reader.next_block().unwrap().is_some() {}
                prop_assert_eq!(reader.seal(), recovered[0].seal);
            }
        }
    }

    /// A process of an earlier version was killed: its segment has no header, and gets no seal.
    #[test]
    fn an_open_segment_of_format_1_is_recovered_as_one() {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::open(root.path()).unwrap();
        let id = SegmentId::now();
        let line =
            r#"{"message_id":"m","sent_at":1,"received_at":2,"receive_count":1,"receipt_handle":"","body":"{}"}"#;
        fs::write(staging.open_segment(id), format!("{line}\n{line}\n{{\"torn")).unwrap();
        let recovered = recover(&staging).unwrap();
        assert_eq!((recovered[0].messages, recovered[0].seal), (2, None));
        assert_eq!(fs::read_to_string(staging.spool(id)).unwrap(), format!("{line}\n{line}\n"));
    }
}
