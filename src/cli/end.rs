//! How the stages of a command ended, and what that means for the exit code.

use crate::drain::DrainEnd;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::queue::Depth;
use crate::report::EndedBy;

/// How the stages of a command ended.
#[derive(Debug)]
pub(super) struct End {
    /// What ended them.
    pub(super) ended_by: EndedBy,
    /// The queue was proven empty, or was not; `None` where no queue was asked.
    pub(super) queue_empty: Option<bool>,
    /// Something remains to be done, all of it safe.
    pub(super) work_left: bool,
    /// The last line of the summary.
    pub(super) remark: Option<String>,
}

impl End {
    /// The end of a command that looks at no queue: all is done, unless segments that it was to do are unfinished.
    pub(super) fn without_queue(work_left: bool) -> Self {
        let remark = work_left.then(|| "not all of it is done; what remains is safe".to_owned());
        Self { ended_by: EndedBy::Done, queue_empty: None, work_left, remark }
    }
}

impl End {
    /// With unfinished segments, something remains to be done, however the drain ended.
    pub(super) fn unless_unfinished(self, unfinished: bool) -> Self {
        Self { work_left: self.work_left || unfinished, ..self }
    }
}

impl From<DrainEnd> for End {
    fn from(end: DrainEnd) -> Self {
        let remark = match end {
            DrainEnd::Empty => "the queue is empty".to_owned(),
            DrainEnd::NotEmpty(Depth { visible, in_flight, delayed }) => format!(
                "the queue is not empty: {visible} visible, {in_flight} in flight with other consumers, {delayed} delayed"
            ),
            DrainEnd::Stopped => "stopped before the queue was empty; what was received is safe".to_owned(),
            DrainEnd::DiskFull => "the staging directory's disk is full, so receiving stopped; what was received is \
                 safe; make room, or lower spool.segment_max_bytes, and run again"
                .to_owned(),
        };
        let empty = end == DrainEnd::Empty;
        let ended_by = match end {
            DrainEnd::Empty => EndedBy::Done,
            DrainEnd::NotEmpty(_) => EndedBy::InFlightElsewhere,
            DrainEnd::Stopped => EndedBy::Signal,
            DrainEnd::DiskFull => EndedBy::DiskFull,
        };
        Self { ended_by, queue_empty: Some(empty), work_left: !empty, remark: Some(remark) }
    }
}

/// The exit code of a command: that of its error; else of books that do not balance; else of work that remains.
///
/// `set_aside`: a segment's own files, or a full disk, stopped it.
pub(super) fn exit_code(end: &Result<End, Error>, sum_holds: bool, set_aside: bool) -> ExitCode {
    match end {
        Err(error) => error.exit_code(),
        Ok(_) if !sum_holds => ExitCode::Bug,
        Ok(end) if end.work_left || set_aside => ExitCode::WorkLeft,
        Ok(_) => ExitCode::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigError, MaxRejects};
    use crate::load::LoadError;
    use crate::segment::SegmentId;

    #[test]
    fn each_end_has_its_exit_code() {
        let not_empty = DrainEnd::NotEmpty(Depth { visible: 0, in_flight: 1, delayed: 0 });
        let limit = MaxRejects::Count(1);
        let too_many = LoadError::TooManyRejects { segment: SegmentId::now(), rejects: 2, messages: 9, limit };
        let missing = ConfigError::Missing { setting: "s", hint: "h" };
        let cases: [(Result<End, Error>, bool, bool, ExitCode); 11] = [
            (Ok(DrainEnd::Empty.into()), true, false, ExitCode::Done),
            (Ok(DrainEnd::Empty.into()), true, true, ExitCode::WorkLeft),
            (Ok(DrainEnd::Empty.into()), false, false, ExitCode::Bug),
            (Ok(not_empty.into()), true, false, ExitCode::WorkLeft),
            (Ok(DrainEnd::Stopped.into()), true, false, ExitCode::WorkLeft),
            (Ok(DrainEnd::DiskFull.into()), true, true, ExitCode::WorkLeft),
            (Ok(End::without_queue(false)), true, false, ExitCode::Done),
            (Ok(End::without_queue(true)), true, false, ExitCode::WorkLeft),
            (Err(Error::Load(LoadError::NoLedger)), true, true, ExitCode::Failed),
            (Err(too_many.into()), false, false, ExitCode::TooManyRejects),
            (Err(missing.into()), true, false, ExitCode::Usage),
        ];
        for (index, (end, sum_holds, set_aside, expected)) in cases.into_iter().enumerate() {
            assert_eq!(exit_code(&end, sum_holds, set_aside), expected, "case {index}: {end:?}");
        }
    }

    #[test]
    fn only_a_drain_that_proved_it_calls_the_queue_empty() {
        assert_eq!(End::from(DrainEnd::Empty).queue_empty, Some(true));
        assert_eq!(End::from(DrainEnd::Stopped).queue_empty, Some(false));
        assert_eq!(End::without_queue(false).queue_empty, None);
    }
}
