//! An instant as UTC text.

use jiff::Timestamp;
use jiff::tz::Offset;

const TEXT_BYTES: usize = "2026-01-02T03:04:05.678Z".len();
const DATE_BYTES: usize = "2026-01-02".len();

/// An instant of the years 0001 to 9999, written as Postgres reads it whatever its time zone setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instant([u8; TEXT_BYTES]);

impl Instant {
    /// From milliseconds since the epoch; `None` outside the years that four digits can name.
    pub(super) fn from_milliseconds(milliseconds: i64) -> Option<Self> {
        let time = Offset::UTC.to_datetime(Timestamp::from_millisecond(milliseconds).ok()?);
        if time.year() < 1 {
            return None;
        }
        let mut text = *b"0000-00-00T00:00:00.000Z";
        put_digits(&mut text[0..4], time.year().unsigned_abs());
        put_digits(&mut text[5..7], time.month().unsigned_abs().into());
        put_digits(&mut text[8..10], time.day().unsigned_abs().into());
        put_digits(&mut text[11..13], time.hour().unsigned_abs().into());
        put_digits(&mut text[14..16], time.minute().unsigned_abs().into());
        put_digits(&mut text[17..19], time.second().unsigned_abs().into());
        put_digits(&mut text[20..23], time.millisecond().unsigned_abs());
        Some(Self(text))
    }

    /// `2026-01-02T03:04:05.678Z`
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default() // always ASCII
    }

    /// `2026-01-02`
    pub(super) fn date(&self) -> &str {
        &self.as_str()[..DATE_BYTES]
    }
}

/// Fills the places with the number's last digits: this runs for every message, and formatting machinery shows there.
fn put_digits(places: &mut [u8], mut number: u16) {
    for place in places.iter_mut().rev() {
        *place = b"0123456789"[usize::from(number % 10)];
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(milliseconds: i64) -> Option<String> {
        Some(Instant::from_milliseconds(milliseconds)?.as_str().to_owned())
    }

    #[test]
    fn instants_are_utc_to_the_millisecond() {
        assert_eq!(text(1_767_323_045_678).as_deref(), Some("2026-01-02T03:04:05.678Z"));
        assert_eq!(text(0).as_deref(), Some("1970-01-01T00:00:00.000Z"));
        assert_eq!(text(-1).as_deref(), Some("1969-12-31T23:59:59.999Z"));
        assert_eq!(Instant::from_milliseconds(-1).unwrap().date(), "1969-12-31");
    }

    #[test]
    fn years_of_other_than_four_digits_have_no_text() {
        const FIRST: i64 = -62_135_596_800_000;
        assert_eq!(text(FIRST).as_deref(), Some("0001-01-01T00:00:00.000Z"));
        for milliseconds in [FIRST - 1, 253_402_300_800_000, i64::MIN, i64::MAX] {
            assert_eq!(text(milliseconds), None);
        }
    }
}
