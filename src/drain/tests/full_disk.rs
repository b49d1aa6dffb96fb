//! A drain whose disk is full ends, and what it counts as received is what is sealed.

use tokio::runtime::Builder;

use super::*;
use crate::drain::spooler::tests::{handles_in, spool_files, where_files_are_small};

/// Far more than the disk takes, and all of them are received before a segment is sealed for its age.
const MESSAGES: u64 = 5000;

/// How the drain ends; on the clock of these tests an hour is soon over.
async fn end_of(running: &mut RunningDrain) -> DrainEnd {
    timeout(Duration::from_hours(1), &mut running.drain).await.expect("an end").unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_drain_without_room_for_a_segment_ends_and_spools_nothing() {
    let mut running = Setup { segment_max_bytes: u64::MAX, limits: UNTIL_EMPTY, ..Setup::default() }.start(MESSAGES);
    assert_eq!(end_of(&mut running).await, DrainEnd::DiskFull);
    assert_eq!(running.counters.counts().received, 0);
    assert!(spool_files(&running.staging).is_empty());
}

/// Receiving stops. Whole lines of what was received are sealed; the rest is in the queue alone, and is not counted.
async fn seals_what_fits_and_counts_that(segment_max_messages: u64) {
    let mut running = Setup { segment_max_messages, limits: UNTIL_EMPTY, ..Setup::default() }.start(MESSAGES);
    assert_eq!(end_of(&mut running).await, DrainEnd::DiskFull);
    assert!(running.queue.received() < MESSAGES);
    let staging = &running.staging;
    let sealed = staging.sealed_segments().unwrap();
    assert_eq!(spool_files(staging).len(), sealed.len(), "no segment is left open");
    let messages: usize = sealed.iter().map(|segment| handles_in(staging, *segment).len()).sum();
    assert!(messages > 0);
    assert_eq!(running.counters.counts().received, messages as u64);
}

fn on_a_paused_clock(test: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(test);
}

#[test]
fn a_drain_whose_disk_is_full_at_a_seal_ends_with_what_fits() {
    where_files_are_small(|| on_a_paused_clock(seals_what_fits_and_counts_that(1000)));
}

#[test]
fn a_drain_whose_disk_is_full_at_an_append_ends_with_what_fits() {
    where_files_are_small(|| on_a_paused_clock(seals_what_fits_and_counts_that(MESSAGES)));
}
