//! What a run over the whole queue will take, by the arithmetic of docs/sizing.md. The constants are that page's.

use serde::Serialize;

use crate::config::{Config, Dedupe};
use crate::drain::crew::{FEWEST, RECEIVES_A_POLLER, WINDOW};

/// A run that finds its queue empty: its attributes twice, and the receives that prove it. Measured.
const REQUESTS_OF_AN_EMPTY_RUN: f64 = 4.0;
const BATCH: f64 = 10.0;
/// Each 64 KB of a request count as one. AWS's pricing page.
const BILLED_BYTES: f64 = 65_536.0;
/// Dollars a million requests: us-east-1, first tier, without the free million. AWS's pricing page.
const STANDARD_DOLLARS: f64 = 0.40;
const FIFO_DOLLARS: f64 = 0.50;
/// Messages a second of a process: 25 µs of CPU for receive and delete. Measured.
const SQS_CPU_RATE: f64 = 40_000.0;
/// Messages a second of a core that transforms. Measured with masking by `siv`.
const TRANSFORM_RATE: f64 = 550_000.0;
/// Rows a second that Postgres takes by COPY, with the ledger's ids beside and without. Measured.
const LOAD_RATE: f64 = 676_000.0;
const LOAD_RATE_WITHOUT_IDS: f64 = 1_290_000.0;
/// Messages a second of a FIFO queue for each action in batches of ten. AWS's quotas.
const FIFO_RATE: f64 = 3_000.0;
/// Seconds of a run beside its calls to SQS. Measured: 1,000 messages take 1.05 s, of which 1 s is the last long poll.
const FIXED_SECONDS: f64 = 0.1;
/// A spool line beside its body: ids, times, receipt handle, checksum. Measured: 531 - 155.
const SPOOL_LINE_BYTES: f64 = 376.0;
/// What an encrypted line has more: names of key and segment, tag, base64 of what stands around the body; and a third of the
/// body for base64. Measured: 678 - 531.
const ENCRYPTED_LINE_BYTES: f64 = 95.0;
/// Of a row in the heap, beside its CSV. Measured: 234 - 208.
const HEAP_ROW_BYTES: f64 = 26.0;
/// WAL of a row beside its CSV, and of the ledger's id with its index. Measured: 213 - 208, 352 - 213.
const WAL_ROW_BYTES: f64 = 5.0;
const WAL_ID_BYTES: f64 = 139.0;
/// An id in `pgsluice.message`, index included. Measured.
const LEDGER_ID_BYTES: f64 = 115.0;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backlog {
    /// Messages in the queue.
    pub messages: u64,
    /// Mean size of a body, in bytes.
    pub body_bytes: f64,
    /// Mean size of a row, in bytes of CSV; assumed where no sample told.
    pub row_bytes: f64,
    /// Seconds that a call to SQS takes.
    pub call_seconds: f64,
    /// The queue is FIFO.
    pub is_fifo: bool,
}

/// What it will take.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// Messages.
    pub messages: u64,
    /// Wall-clock time.
    pub seconds: f64,
    /// Messages a second.
    pub rate: f64,
    /// What sets the rate.
    pub bound_by: &'static str,
    /// Requests to SQS.
    pub requests: u64,
    /// Requests as AWS bills them: a large one counts as several.
    pub billed_requests: u64,
    /// What these cost.
    pub dollars: f64,
    /// Spool, which becomes the archive.
    pub spool_bytes: u64,
    /// Write-ahead log of Postgres.
    pub wal_bytes: u64,
    /// The table, without its indexes.
    pub table_bytes: u64,
    /// The ledger's ids.
    pub ledger_bytes: u64,
}

impl Estimate {
    /// Works out what the backlog takes with these settings on this number of cores.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "estimates"
    )]
    pub fn of(backlog: &Backlog, config: &Config, cores: usize) -> Self {
        let messages = backlog.messages as f64;
        let has_ids = config.pipeline.dedupe == Dedupe::Message;
        let call_seconds = backlog.call_seconds.max(0.000_5);
        let mut limits = vec![
            ("receives (pollers × 10 ÷ the time of a call)", config.queue.pollers as f64 * BATCH / call_seconds),
            ("the CPU of SQS calls", SQS_CPU_RATE),
            ("the transform", TRANSFORM_RATE * cores as f64),
            ("Postgres", if has_ids { LOAD_RATE } else { LOAD_RATE_WITHOUT_IDS }),
        ];
        if backlog.is_fifo {
            limits.push(("SQS's quota for FIFO queues", FIFO_RATE));
        }
        let (bound_by, rate) =
            limits.into_iter().min_by(|one, other| one.1.total_cmp(&other.1)).unwrap_or(("", SQS_CPU_RATE));
        let batches = (messages / BATCH).ceil();
        let requests = 2.0 * batches + REQUESTS_OF_AN_EMPTY_RUN;
        let billed_receives = batches * (BATCH * backlog.body_bytes / BILLED_BYTES).ceil().max(1.0);
        let billed_requests = billed_receives + batches + REQUESTS_OF_AN_EMPTY_RUN;
        let dollars = if backlog.is_fifo { FIFO_DOLLARS } else { STANDARD_DOLLARS };
        let id_bytes = |bytes: f64| if has_ids { bytes } else { 0.0 };
        let encryption_bytes =
            if config.spool.encryption { ENCRYPTED_LINE_BYTES + backlog.body_bytes / 3.0 } else { 0.0 };
        let of_all = |bytes: f64| (messages * bytes).round() as u64;
        Self {
            messages: backlog.messages,
            seconds: messages / rate + seconds_beside(messages, rate, call_seconds, config),
            rate,
            bound_by,
            requests: requests.round() as u64,
            billed_requests: billed_requests.round() as u64,
            dollars: billed_requests * dollars / 1_000_000.0,
            spool_bytes: of_all(backlog.body_bytes + SPOOL_LINE_BYTES + encryption_bytes),
            wal_bytes: of_all(backlog.row_bytes + WAL_ROW_BYTES + id_bytes(WAL_ID_BYTES)),
            table_bytes: of_all(backlog.row_bytes + HEAP_ROW_BYTES),
            ledger_bytes: of_all(id_bytes(LEDGER_ID_BYTES)),
        }
    }
}

/// What a run takes beside receiving at its rate: until it has the pollers for that, and from the last receive on.
#[allow(clippy::cast_precision_loss, reason = "estimates")]
fn seconds_beside(messages: f64, rate: f64, call_seconds: f64, config: &Config) -> f64 {
    // It begins with the fewest pollers and doubles them, and looks at each number for a window; the receives under way at
    // its beginning do not count.
    let fewest = FEWEST as f64;
    let pollers = (rate * call_seconds / BATCH).max(fewest);
    let lost_windows = (pollers / fewest).log2() - 1.0 + fewest / pollers;
    let start = lost_windows * WINDOW.as_secs_f64().max((RECEIVES_A_POLLER + 1) as f64 * call_seconds);
    // Half of a segment, which is deleted after its COMMIT and at the same rate.
    let segment_seconds = config.spool.segment_max_messages as f64 / rate;
    let last_deletes = segment_seconds.min(config.spool.segment_max_age_ms as f64 / 1000.0).min(messages / rate) / 2.0;
    let last_poll = f64::from(config.queue.wait_seconds);
    start + last_deletes + last_poll + REQUESTS_OF_AN_EMPTY_RUN * call_seconds + FIXED_SECONDS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    fn config() -> Config {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/pgsluice.toml");
        Config::resolve(Overrides { config: Some(example.into()), ..Overrides::default() }).unwrap()
    }

    const MILLION: Backlog =
        Backlog { messages: 1_000_000, body_bytes: 155.0, row_bytes: 208.0, call_seconds: 0.1, is_fifo: false };

    /// The rows of docs/sizing.md.
    #[test]
    fn the_estimate_is_the_arithmetic_of_the_page() {
        let estimate = Estimate::of(&MILLION, &config(), 2);
        assert_eq!((estimate.rate, estimate.bound_by.split(' ').next()), (6_400.0, Some("receives")));
        assert_eq!(estimate.requests, 200_004);
        assert_eq!([estimate.spool_bytes, estimate.wal_bytes], [531_000_000, 352_000_000]);
        assert_eq!([estimate.table_bytes, estimate.ledger_bytes], [234_000_000, 115_000_000]);
        let mut encrypting = config();
        encrypting.spool.encryption = true;
        let spool_bytes = Estimate::of(&MILLION, &encrypting, 2).spool_bytes;
        assert!((677_000_000..679_000_000).contains(&spool_bytes), "{spool_bytes}");
        let ten = Estimate::of(&Backlog { messages: 10_000_000, ..MILLION }, &config(), 2);
        assert!((ten.dollars - 0.80).abs() < 0.001 && (25.0..27.0).contains(&(ten.seconds / 60.0)), "{ten:?}");
    }

    /// Measured: 1.05 s, and 13.5 s for 50,000 messages at 100 ms.
    #[test]
    fn a_short_run_takes_its_beginning_and_its_end() {
        let of =
            |messages, call_seconds| Estimate::of(&Backlog { messages, call_seconds, ..MILLION }, &config(), 2).seconds;
        assert!((1.0..1.3).contains(&of(1_000, 0.001)), "{}", of(1_000, 0.001));
        assert!((11.0..13.6).contains(&of(50_000, 0.1)), "{}", of(50_000, 0.1));
    }

    #[test]
    fn large_bodies_are_billed_by_64_kb() {
        let of = |body_bytes| Estimate::of(&Backlog { body_bytes, ..MILLION }, &config(), 2).billed_requests;
        assert_eq!([6_500.0, 64_000.0].map(of), [200_004, 1_100_004]);
        let fifo = Estimate::of(&Backlog { is_fifo: true, ..MILLION }, &config(), 2);
        assert_eq!(fifo.bound_by, "SQS's quota for FIFO queues");
    }
}
