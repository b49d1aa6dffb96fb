//! What a run had done at each second, of as many seconds as a page can show.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::counters::{Counters, Thinned};

/// Of a longer run, every second, fourth, … sample is kept.
pub const SAMPLES: usize = 600;
const EVERY: Duration = Duration::from_secs(1);

/// What a run had done at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// The moment.
    pub at: Timestamp,
    /// Messages that had entered.
    pub received: u64,
    /// Rows that had committed.
    pub loaded: u64,
    /// Deletes that SQS had confirmed.
    pub acknowledged: u64,
    /// Messages in flight; null where no queue was drained.
    pub in_flight: Option<u64>,
}

/// Takes a sample each second until it is finished. Dropped, it ends.
#[derive(Debug)]
pub struct Sampler {
    samples: Arc<Mutex<Thinned<Sample>>>,
    counters: Arc<Counters>,
    task: JoinHandle<()>,
}

impl Sample {
    fn of(counters: &Counters) -> Self {
        let counts = counters.counts();
        Self {
            at: Timestamp::now(),
            received: counts.received,
            loaded: counts.loaded,
            acknowledged: counts.acknowledged,
            in_flight: counters.in_flight.get().map(|in_flight| in_flight.messages()),
        }
    }
}

impl Sampler {
    /// Takes the first sample now. Must be called in a runtime.
    #[must_use]
    pub fn start(counters: Arc<Counters>) -> Self {
        let samples = Arc::new(Mutex::new(Thinned::of_twice(SAMPLES / 2)));
        let task = tokio::spawn(sample(Arc::clone(&counters), Arc::clone(&samples)));
        Self { samples, counters, task }
    }

    /// The samples so far, with one of this moment as the last.
    #[must_use]
    pub fn finish(self) -> Vec<Sample> {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push_last(Sample::of(&self.counters));
        samples.kept().to_vec()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn sample(counters: Arc<Counters>, samples: Arc<Mutex<Thinned<Sample>>>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        samples.lock().unwrap_or_else(PoisonError::into_inner).push(Sample::of(&counters));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::SegmentId;
    use crate::spool::SealedSegment;

    #[tokio::test(start_paused = true)]
    async fn a_long_run_is_sampled_from_its_first_second_to_its_last() {
        let counters = Arc::new(Counters::default());
        let sampler = Sampler::start(Arc::clone(&counters));
        for _ in 0..5000 {
            counters.enter(&SealedSegment { id: SegmentId::now(), messages: 1, bytes: 1, seal: None });
            tokio::time::sleep(EVERY).await;
        }
        let received: Vec<u64> = sampler.finish().iter().map(|sample| sample.received).collect();
        assert!(received.len() <= SAMPLES && received.len() > SAMPLES / 2, "{}", received.len());
        assert!(received[0] <= 1 && received.is_sorted(), "{received:?}");
        assert_eq!(received.last(), Some(&5000));
        let steps: Vec<u64> = received.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.iter().all(|step| *step <= 17), "each 16 seconds: {steps:?}");
    }
}
