//! Deletes against a queue that refuses, fails or falls silent, on a clock that is moved.

use std::ops::Range;
use std::sync::Mutex;

use super::*;
use crate::queue::FailedEntry;
use crate::queue::simulated::DeleteAnswer::{self, Failed, Lost, Refused};
use crate::queue::simulated::SimulatedQueue;
use crate::spool::{Record, SegmentWriter, origin};

/// The pauses before the retries, without their jitter, which can double each.
const PAUSES_MS: [u64; RETRIES] = [100, 200, 400, 800, 1600, 3200, 6400];

/// What a request or an entry is answered with by SQS's own fault.
const INTERNAL: &str = "InternalError";
const STALE: &str = "ReceiptHandleIsInvalid";

fn handles(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(|number| number.to_string()).collect()
}

fn failed_by_sqs(index: usize) -> FailedEntry {
    FailedEntry { index, code: INTERNAL.to_owned(), sender_fault: false }
}

/// SQS calls it the fault of the sender.
fn failed_by_us(index: usize, code: &str) -> FailedEntry {
    FailedEntry { index, code: code.to_owned(), sender_fault: true }
}

fn service_error(code: &str, server_fault: bool) -> QueueError {
    QueueError::Service { operation: "DeleteMessageBatch", code: code.to_owned(), server_fault }
}

/// The sum of what was told.
#[derive(Default)]
struct Told(Mutex<Acknowledged>);

impl Told {
    fn hear(&self, part: Acknowledged) {
        let mut sum = self.0.lock().unwrap();
        *sum = Acknowledged {
            deleted: sum.deleted + part.deleted,
            stale: sum.stale + part.stale,
            failed: sum.failed + part.failed,
            retries: sum.retries + part.retries,
            throttles: sum.throttles + part.throttles,
        };
    }

    fn sum(&self) -> Acknowledged {
        *self.0.lock().unwrap()
    }
}

/// One batch of deletes, and what the queue was asked for meanwhile.
struct Batch {
    outcome: Result<Acknowledged, QueueError>,
    requests: Vec<Vec<String>>,
    pauses: Vec<Duration>,
    deleted: Vec<String>,
}

impl Batch {
    /// Deletes the messages of these handles from a queue that answers in this way.
    async fn delete(numbers: Range<usize>, answers: impl IntoIterator<Item = DeleteAnswer>) -> Self {
        let queue = SimulatedQueue::answering_deletes(answers);
        let told = Told::default();
        let end = delete_batch(&queue, handles(numbers), &|part| told.hear(part)).await;
        let outcome = end.map(|()| told.sum());
        let (times, requests): (Vec<_>, Vec<_>) = queue.deletes().into_iter().unzip();
        let pauses = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        Self { outcome, requests, pauses, deleted: queue.deleted_handles().into_iter().collect() }
    }

    fn assert_outcome(&self, expected: Acknowledged) {
        let outcome = *self.outcome.as_ref().unwrap();
        let retries = self.pauses.len() as u64;
        assert_eq!(outcome, Acknowledged { retries, throttles: outcome.throttles, ..expected });
        assert_eq!(expected.deleted, self.deleted.len() as u64, "what is reported is what happened");
    }

    /// Each retry came after its pause of the backoff.
    fn assert_pauses(&self, retries: usize) {
        assert_eq!(self.pauses.len(), retries);
        for (pause, ms) in self.pauses.iter().zip(PAUSES_MS) {
            // The clock has a resolution of 1 ms, and rounds up.
            let expected = Duration::from_millis(ms)..=Duration::from_millis(2 * ms + 1);
            assert!(expected.contains(pause), "{pause:?} is not within {expected:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_sqs_confirms_takes_one_request_and_no_pause() {
    let batch = Batch::delete(0..10, []).await;
    batch.assert_outcome(Acknowledged { deleted: 10, ..Acknowledged::default() });
    assert_eq!(batch.requests, [handles(0..10)]);
}

#[tokio::test(start_paused = true)]
async fn entries_that_failed_by_the_fault_of_sqs_are_asked_for_again_alone() {
    let answers = [
        Failed([1, 4, 7].map(failed_by_sqs).into()),
        // Of 1, 4 and 7 the second and the third.
        Failed([1, 2].map(failed_by_sqs).into()),
    ];
    let batch = Batch::delete(0..10, answers).await;
    batch.assert_outcome(Acknowledged { deleted: 10, ..Acknowledged::default() });
    assert_eq!(batch.requests, [handles(0..10), handles([1, 4, 7]), handles([4, 7])]);
    batch.assert_pauses(2);
}

/// SQS calls throttling the sender's fault.
#[tokio::test(start_paused = true)]
async fn entries_that_are_throttled_are_asked_for_again() {
    for code in ["RequestThrottled", "KmsThrottled", "KMS.ThrottlingException"] {
        let batch = Batch::delete(0..3, [Failed(vec![failed_by_us(2, code)])]).await;
        batch.assert_outcome(Acknowledged { deleted: 3, ..Acknowledged::default() });
        assert_eq!(batch.requests, [handles(0..3), handles([2])], "{code}");
        batch.assert_pauses(1);
    }
}

#[tokio::test(start_paused = true)]
async fn entries_that_sqs_refuses_have_failed_and_are_not_asked_for_again() {
    let refused = [0, 9].map(|index| failed_by_us(index, "AccessDenied"));
    let batch = Batch::delete(0..10, [Failed(refused.into())]).await;
    batch.assert_outcome(Acknowledged { deleted: 8, failed: 2, ..Acknowledged::default() });
    assert_eq!(batch.requests.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn stale_handles_are_no_failures_and_are_not_asked_for_again() {
    let stale = vec![failed_by_us(3, STALE), failed_by_us(5, "InvalidParameterValue")];
    let batch = Batch::delete(0..10, [Failed(stale)]).await;
    batch.assert_outcome(Acknowledged { deleted: 8, stale: 2, failed: 0, ..Acknowledged::default() });
    assert_eq!(batch.requests.len(), 1);
}

/// Each message is counted once, in whichever request its fate is decided.
#[tokio::test(start_paused = true)]
async fn what_fails_in_different_ways_is_counted_exactly() {
    let answers = [
        Failed(vec![
            failed_by_sqs(0),
            failed_by_us(1, STALE),
            failed_by_us(2, "AccessDenied"),
            failed_by_sqs(3),
            failed_by_sqs(9),
        ]),
        // Of 0, 3 and 9.
        Failed(vec![failed_by_us(0, STALE), failed_by_sqs(1), failed_by_us(2, "AccessDenied")]),
    ];
    let batch = Batch::delete(0..10, answers).await;
    batch.assert_outcome(Acknowledged { deleted: 6, stale: 2, failed: 2, ..Acknowledged::default() });
    assert_eq!(batch.requests, [handles(0..10), handles([0, 3, 9]), handles([3])]);
}

#[tokio::test(start_paused = true)]
async fn entries_that_fail_each_time_are_given_up_after_the_last_pause() {
    let answers = (0..=RETRIES).map(|round| Failed(vec![failed_by_sqs(if round == 0 { 6 } else { 0 })]));
    let batch = Batch::delete(0..10, answers).await;
    batch.assert_outcome(Acknowledged { deleted: 9, stale: 0, failed: 1, ..Acknowledged::default() });
    batch.assert_pauses(RETRIES);
    assert!(batch.requests[1..].iter().all(|request| *request == handles([6])), "{:?}", batch.requests);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_fails_by_the_fault_of_sqs_is_made_again_as_it_was() {
    let answers = [
        Refused(service_error(INTERNAL, true)),
        Refused(QueueError::Throttled { code: "KmsThrottled".to_owned() }),
        Refused(QueueError::Unreachable { endpoint: "sqs".to_owned(), source: "reset".into() }),
    ];
    let batch = Batch::delete(0..10, answers).await;
    batch.assert_outcome(Acknowledged { deleted: 10, ..Acknowledged::default() });
    assert_eq!(batch.requests, [(); 4].map(|()| handles(0..10)));
    batch.assert_pauses(3);
}

/// The answer that was lost had said that they are deleted.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_asked_for_again_and_its_deletes_count_once() {
    let lost = || Lost(QueueError::Unreachable { endpoint: "sqs".to_owned(), source: "reset".into() });
    let batch = Batch::delete(0..10, [lost(), lost()]).await;
    batch.assert_outcome(Acknowledged { deleted: 10, ..Acknowledged::default() });
    assert_eq!(batch.requests.len(), 3);
    batch.assert_pauses(2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_after_some_entries_failed_costs_no_count() {
    let lost = Lost(service_error(INTERNAL, true));
    let batch = Batch::delete(0..10, [Failed([2, 3].map(failed_by_sqs).into()), lost]).await;
    batch.assert_outcome(Acknowledged { deleted: 10, ..Acknowledged::default() });
    assert_eq!(batch.requests, [handles(0..10), handles([2, 3]), handles([2, 3])]);
}

#[tokio::test(start_paused = true)]
async fn requests_that_fail_each_time_are_an_error_after_the_last_pause() {
    let batch = Batch::delete(0..10, (0..=RETRIES).map(|_| Refused(service_error(INTERNAL, true)))).await;
    assert!(matches!(&batch.outcome, Err(QueueError::Service { code, .. }) if code == INTERNAL), "{:?}", batch.outcome);
    batch.assert_pauses(RETRIES);
    assert!(batch.deleted.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_sqs_refuses_is_an_error_at_once() {
    let denied = || QueueError::AccessDenied { queue_url: "queue".to_owned(), code: "AccessDenied".to_owned() };
    let batch = Batch::delete(0..10, [Refused(denied()), Refused(denied())]).await;
    assert!(matches!(batch.outcome, Err(QueueError::AccessDenied { .. })), "{:?}", batch.outcome);
    assert_eq!(batch.requests.len(), 1);
}

/// A sealed segment with a message for each of these ids; the receipt handle is its position.
fn segment_of(staging: &Staging, ids: &[Uuid]) -> SegmentId {
    let mut writer = SegmentWriter::create(staging, &origin()).unwrap();
    for (number, id) in ids.iter().enumerate() {
        let (message_id, receipt_handle) = (id.to_string().into(), number.to_string().into());
        writer.append(&Record { message_id, receipt_handle, ..Record::with_body("{}") }).unwrap();
    }
    writer.seal().unwrap().id
}

/// A segment of 25 messages, of which two stay in the queue: each batch has its own fate, and the sum is the segment's.
#[tokio::test(start_paused = true)]
async fn the_batches_of_a_segment_add_up_and_what_is_left_to_the_queue_is_not_deleted() {
    const MESSAGES: usize = 25;
    let root = tempfile::tempdir().unwrap();
    let staging = Staging::open(root.path()).unwrap();
    let ids: Vec<Uuid> = (0..MESSAGES).map(|_| Uuid::now_v7()).collect();
    let segment = staging.spool(segment_of(&staging, &ids));

    let answers = [
        Failed(vec![failed_by_us(0, STALE), failed_by_us(1, "AccessDenied")]),
        Refused(service_error(INTERNAL, true)),
        Failed(vec![failed_by_us(0, "AccessDenied")]),
    ];
    let queue = SimulatedQueue::answering_deletes(answers);
    let (left_in_queue, told) = (HashSet::from([ids[4], ids[24]]), Told::default());
    delete_all(&queue, &segment, &left_in_queue, &Deletes::at_most(1), &|part| told.hear(part)).await.unwrap();
    let expected = Acknowledged { deleted: 20, stale: 1, failed: 2, retries: 1, throttles: 0 };
    assert_eq!(told.sum(), expected);
    assert_eq!(queue.deleted_handles().len(), 20);
    let asked: HashSet<String> = queue.deletes().into_iter().flat_map(|(_, handles)| handles).collect();
    let expected = handles((0..MESSAGES).filter(|number| ![4, 24].contains(number)));
    assert_eq!(asked, expected.into_iter().collect());
}

/// The counts of a segment were dropped with the request that was refused, so the report said that nothing of it had
/// been acknowledged.
#[tokio::test(start_paused = true)]
async fn what_sqs_confirmed_counts_also_where_another_request_of_the_segment_is_refused() {
    let denied = || QueueError::AccessDenied { queue_url: "queue".to_owned(), code: "AccessDenied".to_owned() };
    // One after the other: the third of four. Side by side: the first, while another one is under way.
    for (parallel, refused, deleted) in [(1, 2, 20), (2, 0, 10)] {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::open(root.path()).unwrap();
        let ids: Vec<Uuid> = (0..40).map(|_| Uuid::now_v7()).collect();
        let segment = staging.spool(segment_of(&staging, &ids));
        let answers = (0..=refused).map(|batch| if batch == refused { Refused(denied()) } else { Failed(Vec::new()) });
        let queue = SimulatedQueue::answering_deletes(answers);
        let told = Told::default();
        let deletes = Deletes::at_most(parallel);
        let end = delete_all(&queue, &segment, &HashSet::new(), &deletes, &|part| told.hear(part)).await;
        assert!(matches!(end, Err(Error::Queue(QueueError::AccessDenied { .. }))), "{end:?}");
        assert_eq!(told.sum(), Acknowledged { deleted, ..Acknowledged::default() });
        assert_eq!(queue.deleted_handles().len() as u64, deleted, "no request began after the refusal");
    }
}
