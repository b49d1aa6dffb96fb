//! A point in time as UTC text, written and read.
//!
//! Always true: what is read is exactly what is written; any other text of an instant is refused.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

const TEXT_BYTES: usize = "2026-01-02T03:04:05.678Z".len();
const DATE_BYTES: usize = "2026-01-02".len();

/// An instant of the years 0001 to 9999, written as Postgres reads it whatever its time zone setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UtcText([u8; TEXT_BYTES]);

impl UtcText {
    /// 0 milliseconds since the epoch.
    pub const EPOCH: Self = Self(*b"1970-01-01T00:00:00.000Z");

    /// From milliseconds since the epoch; `None` outside the years that four digits can name.
    #[must_use]
    pub fn from_milliseconds(milliseconds: i64) -> Option<Self> {
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

    /// Milliseconds since the epoch, of a text that [`from_milliseconds`](Self::from_milliseconds) gave.
    #[must_use]
    pub fn milliseconds_of(text: &[u8]) -> Option<i64> {
        let &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', ref time @ ..] = text else { return None };
        let &[h1, h2, b':', n1, n2, b':', s1, s2, b'.', f1, f2, f3, b'Z'] = time else { return None };
        let year = number([y1, y2, y3, y4]).filter(|&year| year > 0)?;
        let (month, day) = (two_digits([m1, m2])?, two_digits([d1, d2])?);
        let (hour, minute, second) = (two_digits([h1, h2])?, two_digits([n1, n2])?, two_digits([s1, s2])?);
        let nanoseconds = i32::from(number([f1, f2, f3])?) * 1_000_000;
        let time = DateTime::new(year, month, day, hour, minute, second, nanoseconds).ok()?;
        Some(Offset::UTC.to_timestamp(time).ok()?.as_millisecond())
    }

    /// `2026-01-02T03:04:05.678Z`
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default() // always ASCII
    }

    /// `2026-01-02`
    #[must_use]
    pub fn date(&self) -> &str {
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

/// The number that at most four decimal digits name.
fn number<const PLACES: usize>(digits: [u8; PLACES]) -> Option<i16> {
    digits
        .into_iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i16::from(digit - b'0')))
}

fn two_digits(digits: [u8; 2]) -> Option<i8> {
    i8::try_from(number(digits)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: i64 = -62_135_596_800_000;
    /// The last that jiff takes in milliseconds: 9999-12-30T22:00:00Z.
    const LAST: i64 = 253_402_207_200_000;

    fn text(milliseconds: i64) -> Option<String> {
        Some(UtcText::from_milliseconds(milliseconds)?.as_str().to_owned())
    }

    #[test]
    fn instants_are_utc_to_the_millisecond() {
        assert_eq!(text(1_767_323_045_678).as_deref(), Some("2026-01-02T03:04:05.678Z"));
        assert_eq!(text(0).as_deref(), Some("1970-01-01T00:00:00.000Z"));
        assert_eq!(text(-1).as_deref(), Some("1969-12-31T23:59:59.999Z"));
        assert_eq!(UtcText::from_milliseconds(-1).unwrap().date(), "1969-12-31");
    }

    #[test]
    fn years_of_other_than_four_digits_have_no_text() {
        assert_eq!(text(FIRST).as_deref(), Some("0001-01-01T00:00:00.000Z"));
        for milliseconds in [FIRST - 1, 253_402_300_800_000, i64::MIN, i64::MAX] {
            assert_eq!(text(milliseconds), None);
        }
    }

    #[test]
    fn the_first_and_the_last_instant_are_read() {
        for milliseconds in [FIRST, -1, 0, LAST] {
            assert_eq!(UtcText::milliseconds_of(text(milliseconds).unwrap().as_bytes()), Some(milliseconds));
        }
    }

    #[test]
    fn only_what_is_written_is_read() {
        for text in [
            "",
            "2026-01-02T03:04:05.678",
            "2026-01-02T03:04:05.6789Z",
            "2026-01-02 03:04:05.678Z",
            "2026-01-02t03:04:05.678z",
            "2026-01-02T03:04:05,678Z",
            "2026-01-02T03:04:05.678Z ",
            "+026-01-02T03:04:05.678Z",
            "2026-1--02T03:04:05.678Z",
            "2026-01-02T03:04:05.67:Z",
            "2026-01-02T03:04:05.67/Z",
            "0000-01-01T00:00:00.000Z",
            "2026-00-02T03:04:05.678Z",
            "2026-13-02T03:04:05.678Z",
            "2026-01-00T03:04:05.678Z",
            "2026-02-29T03:04:05.678Z",
            "2026-01-02T24:00:00.000Z",
            "2026-01-02T03:60:05.678Z",
            "2016-12-31T23:59:60.000Z",
        ] {
            assert_eq!(UtcText::milliseconds_of(text.as_bytes()), None, "{text}");
        }
    }

    /// Mostly texts that are nearly right.
    fn any_text() -> impl Strategy<Value = Vec<u8>> {
        let field = |width: usize, most: u16| (0..=most).prop_map(move |number| format!("{number:0width$}"));
        let fields =
            (field(4, 9999), field(2, 14), field(2, 33), field(2, 25), field(2, 61), field(2, 61), field(3, 999));
        let dates = fields.prop_map(|(year, month, day, hour, minute, second, millisecond)| {
            format!("{year}-{month}-{day}T{hour}:{minute}:{second}.{millisecond}Z").into_bytes()
        });
        (dates, proptest::option::weighted(0.3, (0..TEXT_BYTES, any::<u8>()))).prop_map(|(mut text, damage)| {
            if let Some((position, byte)) = damage {
                text[position] = byte;
            }
            text
        })
    }

    proptest! {
        #[test]
        fn every_instant_that_is_written_is_read_as_jiff_reads_it(milliseconds in FIRST..=LAST) {
            let text = text(milliseconds).unwrap();
            prop_assert_eq!(UtcText::milliseconds_of(text.as_bytes()), Some(milliseconds));
            prop_assert_eq!(text.parse::<Timestamp>().unwrap().as_millisecond(), milliseconds);
        }

        #[test]
        fn a_text_that_is_read_is_the_one_that_is_written(any in any_text()) {
            let read = UtcText::milliseconds_of(&any);
            let parsed = std::str::from_utf8(&any).ok().and_then(|text| text.parse::<Timestamp>().ok());
            let written = parsed.and_then(|instant| UtcText::from_milliseconds(instant.as_millisecond()));
            prop_assert_eq!(read.is_some(), written.is_some_and(|written| written.as_str().as_bytes() == any));
            if let Some(milliseconds) = read {
                prop_assert_eq!(Some(milliseconds), parsed.map(Timestamp::as_millisecond));
            }
        }
    }
}
