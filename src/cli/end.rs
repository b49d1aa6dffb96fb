//! How the stages of a command ended, and what that means for the exit code.
//!
//! Always true: the exit code follows from what remains to be done and from what ended the command, never from how a
//! loop happened to end.

use crate::drain::DrainEnd;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::in_flight::SetAside;
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

/// What a drain was told, beside its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    /// A signal told the command to stop.
    pub(super) to_stop: bool,
    /// It was to follow the queue, so to be told to stop is how it ends.
    pub(super) to_follow: bool,
}

impl End {
    /// The end of a command that looks at no queue: all is done, unless it left some of its work.
    pub(super) fn without_queue(told_to_stop: bool, work_left: bool) -> Self {
        let ended_by = if told_to_stop && work_left { EndedBy::Signal } else { EndedBy::Done };
        let remark = (ended_by == EndedBy::Signal).then(|| "stopped before the end; what remains is safe".to_owned());
        Self { ended_by, queue_empty: None, work_left, remark }
    }

    /// The end of a command that drains a queue. `unfinished`: something that it was to do with what it received is not
    /// done.
    pub(super) fn of_drain(end: DrainEnd, told: Told, unfinished: bool) -> Self {
        let ended_by = match end {
            DrainEnd::Empty => EndedBy::Done,
            DrainEnd::NotEmpty { .. } | DrainEnd::Unproven => EndedBy::InFlightElsewhere,
            DrainEnd::Stopped if told.to_stop => EndedBy::Signal,
            DrainEnd::Stopped | DrainEnd::Limit | DrainEnd::AtCap => EndedBy::Limit,
            DrainEnd::DiskFull => EndedBy::DiskFull,
        };
        // The cap is no flag, and a queue is to be emptied; but to follow one has no other end than a signal.
        let work_left = match ended_by {
            EndedBy::Done => unfinished,
            EndedBy::Limit => unfinished || end == DrainEnd::AtCap,
            EndedBy::Signal => unfinished || !told.to_follow,
            _ => true,
        };
        let remark = if unfinished && matches!(ended_by, EndedBy::Done | EndedBy::Limit) {
            format!("{}; some of what was received is not done yet, and safe in the spool", remark(end, told))
        } else {
            remark(end, told)
        };
        Self { ended_by, queue_empty: Some(end == DrainEnd::Empty), work_left, remark: Some(remark) }
    }
}

/// What there is to say to a person.
fn remark(end: DrainEnd, told: Told) -> String {
    match end {
        DrainEnd::Empty => "the queue is empty".to_owned(),
        DrainEnd::NotEmpty { depth: Depth { visible, in_flight, delayed }, set_aside } => {
            let own = in_flight.min(set_aside.messages);
            let others = in_flight - own;
            let (own, whose) = match set_aside {
                SetAside { uncounted: 1.., .. } => {
                    (String::new(), "in segments that were set aside, or with other consumers")
                }
                SetAside { messages: 1.., .. } => {
                    (format!(", {own} in flight in segments that were set aside"), "with other consumers")
                }
                SetAside { .. } => (String::new(), "with other consumers"),
            };
            let others = if set_aside.uncounted > 0 { in_flight } else { others };
            format!("the queue is not empty: {visible} visible, {others} in flight {whose}{own}, {delayed} delayed")
        }
        DrainEnd::Unproven => {
            "nothing came any more, but the queue's counts could not be asked for, so it is not proven \
             empty"
                .to_owned()
        }
        DrainEnd::Limit => "received as many messages as --max-messages allows".to_owned(),
        DrainEnd::AtCap => {
            "as many messages are in flight as queue.max_in_flight allows; load and acknowledge them, then \
             drain again"
                .to_owned()
        }
        DrainEnd::Stopped if !told.to_stop => "received for as long as --max-duration allows".to_owned(),
        DrainEnd::Stopped if told.to_follow => "stopped; what was received is safe".to_owned(),
        DrainEnd::Stopped => "stopped before the queue was empty; what was received is safe".to_owned(),
        DrainEnd::DiskFull => "the staging directory's disk is full, so receiving stopped; what was received is \
             safe; make room, or lower spool.segment_max_bytes, and run again"
            .to_owned(),
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

    const NOT_EMPTY: DrainEnd = DrainEnd::NotEmpty {
        depth: Depth { visible: 0, in_flight: 1, delayed: 0 },
        set_aside: SetAside { messages: 0, uncounted: 0 },
    };
    const UNTOLD: Told = Told { to_stop: false, to_follow: false };
    const STOPPED: Told = Told { to_stop: true, to_follow: false };
    const FOLLOWING: Told = Told { to_stop: false, to_follow: true };
    const FOLLOWED: Told = Told { to_stop: true, to_follow: true };

    /// `--max-messages`, `--max-duration` and a signal under `--follow` ended with 3, also where all was done.
    #[test]
    fn each_end_of_a_drain_has_its_cause_and_leaves_work_or_does_not() {
        use EndedBy::{DiskFull, Done, InFlightElsewhere, Limit, Signal};
        let cases = [
            (DrainEnd::Empty, UNTOLD, false, Done, false),
            (DrainEnd::Empty, UNTOLD, true, Done, true),
            (DrainEnd::Empty, STOPPED, false, Done, false),
            (NOT_EMPTY, UNTOLD, false, InFlightElsewhere, true),
            (DrainEnd::Unproven, UNTOLD, false, InFlightElsewhere, true),
            (DrainEnd::Limit, UNTOLD, false, Limit, false),
            (DrainEnd::Limit, UNTOLD, true, Limit, true),
            (DrainEnd::Limit, FOLLOWING, false, Limit, false),
            (DrainEnd::AtCap, UNTOLD, false, Limit, true),
            // Told by nobody: its time is over.
            (DrainEnd::Stopped, UNTOLD, false, Limit, false),
            (DrainEnd::Stopped, UNTOLD, true, Limit, true),
            (DrainEnd::Stopped, FOLLOWING, false, Limit, false),
            (DrainEnd::Stopped, FOLLOWING, true, Limit, true),
            (DrainEnd::Stopped, STOPPED, false, Signal, true),
            (DrainEnd::Stopped, STOPPED, true, Signal, true),
            (DrainEnd::Stopped, FOLLOWED, false, Signal, false),
            (DrainEnd::Stopped, FOLLOWED, true, Signal, true),
            (DrainEnd::DiskFull, UNTOLD, false, DiskFull, true),
            (DrainEnd::DiskFull, FOLLOWED, false, DiskFull, true),
        ];
        for (drain_end, told, unfinished, ended_by, work_left) in cases {
            let end = End::of_drain(drain_end, told, unfinished);
            assert_eq!((end.ended_by, end.work_left), (ended_by, work_left), "{drain_end:?}, {told:?}, {unfinished}");
            assert_eq!(end.queue_empty, Some(drain_end == DrainEnd::Empty), "only the proof calls a queue empty");
        }
    }

    /// A signal that came when nothing was left to do made it 3.
    #[test]
    fn a_command_without_a_queue_ends_by_what_it_left() {
        for (told_to_stop, work_left, ended_by) in [
            (false, false, EndedBy::Done),
            (true, false, EndedBy::Done),
            (true, true, EndedBy::Signal),
            (false, true, EndedBy::Done),
        ] {
            let end = End::without_queue(told_to_stop, work_left);
            assert_eq!((end.ended_by, end.work_left, end.queue_empty), (ended_by, work_left, None));
        }
    }

    #[test]
    fn each_end_has_its_exit_code() {
        let limit = MaxRejects::Count(1);
        let too_many = LoadError::TooManyRejects { segment: SegmentId::now(), rejects: 2, messages: 9, limit };
        let missing = ConfigError::Missing { setting: "s", hint: "h" };
        let done = || Ok(End::of_drain(DrainEnd::Empty, UNTOLD, false));
        let cases: [(Result<End, Error>, bool, bool, ExitCode); 9] = [
            (done(), true, false, ExitCode::Done),
            (done(), true, true, ExitCode::WorkLeft),
            (done(), false, false, ExitCode::Bug),
            (Ok(End::of_drain(DrainEnd::DiskFull, UNTOLD, false)), true, true, ExitCode::WorkLeft),
            (Ok(End::without_queue(false, false)), true, false, ExitCode::Done),
            (Ok(End::without_queue(true, true)), true, false, ExitCode::WorkLeft),
            (Err(Error::Load(LoadError::NoLedger)), true, true, ExitCode::Failed),
            (Err(too_many.into()), false, false, ExitCode::TooManyRejects),
            (Err(missing.into()), true, false, ExitCode::Usage),
        ];
        for (index, (end, sum_holds, set_aside, expected)) in cases.into_iter().enumerate() {
            assert_eq!(exit_code(&end, sum_holds, set_aside), expected, "case {index}: {end:?}");
        }
    }
}
