//! What a crash left open becomes sealed.

use std::path::Path;

use super::{SealedSegment, SegmentReader, SpoolError};
use crate::durable::{FileError, private_options, remove_if_present, rename_durably};
use crate::segment::SegmentId;
use crate::staging::{Staging, StagingError};

/// Seals every segment that a process left open, after cutting off what is not a whole, undamaged line.
///
/// What is cut is still in SQS: a message is deleted only after its segment was sealed and loaded. Needs the
/// staging lock, or it would seal a segment that another process is writing.
pub fn recover(staging: &Staging) -> Result<Vec<SealedSegment>, SpoolError> {
    let mut recovered = Vec::new();
    for id in staging.open_segments()? {
        let path = staging.open_segment(id);
        let whole = whole_lines(&path)?;
        if whole.messages == 0 {
            remove_if_present(&path)?;
        } else {
            truncate(&path, whole.bytes)?;
            rename_durably(&path, &staging.spool(id))?;
            recovered.push(SealedSegment { id, messages: whole.messages, bytes: whole.bytes });
        }
        tracing::info!(segment = %id, messages = whole.messages, "recovered an open segment");
    }
    Ok(recovered)
}

/// A sealed segment as it lies in the spool, its messages counted by their line feeds, not parsed.
pub fn sealed_segment(staging: &Staging, id: SegmentId) -> Result<SealedSegment, SpoolError> {
    let path = staging.find_segment(id).ok_or(StagingError::NoSuchSegment { segment: id })?;
    let mut reader = SegmentReader::open(&path)?;
    let mut segment = SealedSegment { id, messages: 0, bytes: 0 };
    // A damaged end is found, and reported, by the stage that parses the lines.
    while let Ok(Some(block)) = reader.next_block() {
        segment.messages += block.line_feeds();
        segment.bytes += block.size();
    }
    Ok(segment)
}

struct WholeLines {
    messages: u64,
    bytes: u64,
}

fn whole_lines(path: &Path) -> Result<WholeLines, SpoolError> {
    let mut reader = SegmentReader::open(path)?;
    let mut whole = WholeLines { messages: 0, bytes: 0 };
    loop {
        let block = match reader.next_block() {
            Ok(Some(block)) => block,
            Ok(None) | Err(SpoolError::Damaged { .. }) => return Ok(whole),
            Err(error) => return Err(error),
        };
        for line in block.lines() {
            let Ok(line) = line else { return Ok(whole) };
            whole.messages += 1;
            whole.bytes = line.offset + line.bytes.len() as u64 + 1;
        }
    }
}

fn truncate(path: &Path, bytes: u64) -> Result<(), FileError> {
    let file = private_options().write(true).open(path).map_err(FileError::of("open", path))?;
    file.set_len(bytes).and_then(|()| file.sync_all()).map_err(FileError::of("cut", path))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::super::{Record, SegmentWriter};
    use super::*;

    fn write_segment(staging: &Staging, bodies: &[String]) -> SealedSegment {
        let mut writer = SegmentWriter::create(staging).unwrap();
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
            let whole = memchr::memchr_iter(b'\n', &bytes).count();
            let kept = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |position| position + 1);
            let expected = bytes[..kept].to_vec();
            bytes.extend_from_slice(&garbage);
            fs::remove_file(staging.spool(sealed.id)).unwrap();
            fs::write(staging.open_segment(sealed.id), &bytes).unwrap();

            let recovered = recover(&staging).unwrap();

            prop_assert!(staging.open_segments().unwrap().is_empty());
            if whole == 0 {
                prop_assert!(recovered.is_empty());
            } else {
                prop_assert_eq!(recovered[0].messages, whole as u64);
                prop_assert_eq!(fs::read(staging.spool(sealed.id)).unwrap(), expected);
            }
        }
    }
}
