//! Messages shaped like those of the login exercise, random but valid, and the same for the same seed.
//!
//! About 1 % are of another kind, which no `user_logins` row can be made of; about 29 % of the logins have no locale.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Builder;

use crate::durable::FileError;
use crate::spool::{Origin, Record, SealedSegment, SegmentWriter};
use crate::staging::Staging;

/// 2026-01-02.
/// The queue that its segments say they came from.
const QUEUE_URL: &str = "http://localhost/000000000000/login-queue";
const FIRST_SENT_AT_MS: i64 = 1_767_323_045_678;
/// As long as those of SQS.
const RECEIPT_HANDLE: &str = "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a86iSDEuCZsVzW0jYKXMM6f5T6m5nJ7sT3x4gFv0p2hB9QkWcUe8dLrNa5yG\
    1ZoXvHt7SmIqPbEfRlKwAjCuDxYzTnMs4OV6GB0Q2W9e8J3hL5iFdUkXrtSgPpNayHvZcRo7b1mEwq";
const OTHER_KIND_SHARE: f64 = 0.01;
const NULL_LOCALE_SHARE: f64 = 0.29;
const LOCALES: [&str; 12] = ["BR", "CN", "DE", "FR", "GR", "ID", "KR", "PH", "PT", "RU", "US", "VN"];

/// An endless supply of message bodies.
#[derive(Debug)]
pub struct Logins {
    random: StdRng,
    of_another_kind: usize,
    next_sent_at_ms: i64,
    sent_every_ms: i64,
}

impl Logins {
    /// Starts a supply; two of the same seed give the same bodies. Its segments' messages were sent in the first days
    /// of 2026, a millisecond apart.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { random, of_another_kind: 0, next_sent_at_ms: FIRST_SENT_AT_MS, sent_every_ms: 1 }
    }

    /// Lets the messages of its segments be sent from this time on, one every `every_ms` milliseconds.
    #[must_use]
    pub fn sent(self, first_ms: i64, every_ms: i64) -> Self {
        Self { next_sent_at_ms: first_ms, sent_every_ms: every_ms, ..self }
    }

    /// The number of bodies so far that are no logins.
    #[must_use]
    pub const fn of_another_kind(&self) -> usize {
        self.of_another_kind
    }

    /// Spools the next `messages` as one sealed segment, as if a queue had delivered them. Their times go on where
    /// those of the segment before end.
    pub fn seal_segment(&mut self, staging: &Staging, messages: usize) -> Result<SealedSegment, FileError> {
        let mut writer = SegmentWriter::create(staging, &Origin::of_queue("user_logins", QUEUE_URL))?;
        for _ in 0..messages {
            let sent_at = self.next_sent_at_ms;
            self.next_sent_at_ms += self.sent_every_ms;
            let message_id = Builder::from_random_bytes(self.random.random()).into_uuid();
            let body = self.login();
            writer.append(&Record {
                received_at: sent_at + 1000,
                receipt_handle: RECEIPT_HANDLE.into(),
                ..Record::first_delivery(message_id.to_string(), sent_at, body)
            })?;
        }
        writer.seal()
    }

    fn login(&mut self) -> String {
        let random = &mut self.random;
        let user_id = Builder::from_random_bytes(random.random()).into_uuid();
        let device_type = if random.random() { "android" } else { "ios" };
        let [a, b, c, d]: [u8; 4] = random.random();
        let locale = if random.random_bool(NULL_LOCALE_SHARE) {
            "null".to_owned()
        } else {
            format!("\"{}\"", LOCALES[random.random_range(..LOCALES.len())])
        };
        let device_id = format!(
            "{:03}-{:02}-{:04}",
            random.random_range(1..1000),
            random.random_range(1..100),
            random.random_range(1..10_000),
        );
        let app_version = self.app_version();
        format!(
            r#"{{"user_id":"{user_id}","app_version":"{app_version}","device_type":"{device_type}","ip":"{a}.{b}.{c}.{d}","locale":{locale},"device_id":"{device_id}"}}"#
        )
    }

    /// Two or three parts, as apps give them: `2.3.0`, `0.96`.
    fn app_version(&mut self) -> String {
        let random = &mut self.random;
        let major = random.random_range(0..10);
        if random.random() {
            format!("{major}.{}.{}", random.random_range(0..10), random.random_range(0..10))
        } else {
            format!("{major}.{}", random.random_range(0..100))
        }
    }
}

impl Iterator for Logins {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        if self.random.random_bool(OTHER_KIND_SHARE) {
            self.of_another_kind += 1;
            return Some(format!(r#"{{"foo":"another kind","bar":"{}"}}"#, self.random.random_range(0..1000)));
        }
        Some(self.login())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::spool::SegmentReader;

    fn parsed(count: usize) -> (Vec<Value>, usize) {
        let mut logins = Logins::new(1);
        let bodies = logins.by_ref().take(count).map(|body| serde_json::from_str(&body).unwrap()).collect();
        (bodies, logins.of_another_kind())
    }

    #[test]
    fn the_same_seed_gives_the_same_bodies_and_another_seed_others() {
        let bodies = |seed| Logins::new(seed).take(100).collect::<Vec<_>>();
        assert_eq!(bodies(7), bodies(7));
        assert_ne!(bodies(7), bodies(8));
    }

    #[test]
    fn the_mixture_is_that_of_the_exercise_and_the_count_of_the_other_kind_is_right() {
        let (bodies, of_another_kind) = parsed(10_000);
        let (logins, others): (Vec<_>, Vec<_>) = bodies.iter().partition(|body| body.get("user_id").is_some());
        assert_eq!(others.len(), of_another_kind);
        assert!((50..200).contains(&others.len()), "{} of another kind", others.len());
        let without_locale = logins.iter().filter(|login| login["locale"].is_null()).count();
        assert!((2500..3300).contains(&without_locale), "{without_locale} without locale");
        let three_parts = logins.iter().filter(|login| login["app_version"].as_str().unwrap().split('.').count() == 3);
        assert!((4000..6000).contains(&three_parts.count()));
    }

    #[test]
    fn a_segment_goes_on_with_the_times_of_the_one_before() {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::open(root.path()).unwrap();
        let mut logins = Logins::new(1).sent(1000, 10);
        let sent_at: Vec<i64> = [2, 3]
            .into_iter()
            .flat_map(|messages| {
                let segment = logins.seal_segment(&staging, messages).unwrap().id;
                let block = SegmentReader::open(&staging.spool(segment)).unwrap().next_block().unwrap().unwrap();
                block.lines().map(|line| line.unwrap().record.sent_at).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(sent_at, [1000, 1010, 1020, 1030, 1040]);
    }

    #[test]
    fn a_login_has_the_exercises_fields() {
        let (bodies, _) = parsed(100);
        let login = bodies.iter().find(|body| body.get("user_id").is_some()).unwrap().as_object().unwrap();
        let mut fields: Vec<_> = login.keys().collect();
        fields.sort();
        assert_eq!(fields, ["app_version", "device_id", "device_type", "ip", "locale", "user_id"]);
        uuid::Uuid::parse_str(login["user_id"].as_str().unwrap()).unwrap();
        login["ip"].as_str().unwrap().parse::<std::net::Ipv4Addr>().unwrap();
    }
}
