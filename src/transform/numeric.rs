//! Numbers that Postgres' `numeric` and `double precision` can hold.

/// Digits before and after the decimal point that an unconstrained `numeric` can hold (PostgreSQL's documentation,
/// "Numeric Types").
const MAX_DIGITS_BEFORE_POINT: i64 = 131_072;
const MAX_DIGITS_AFTER_POINT: i64 = 16_383;

/// What is wrong with a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NumberProblem {
    NotANumber,
    OutOfRange,
    /// A double would be another number.
    TooPrecise,
}

/// Checks that `text` is a decimal number (`-12.50`, `1e-3`) within `numeric`'s range.
pub(super) fn check(text: &str) -> Result<(), NumberProblem> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent).ok_or(NumberProblem::NotANumber)?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return Err(NumberProblem::NotANumber);
    }
    let digits_before = length(whole.trim_start_matches('0')) + exponent;
    let digits_after = length(fraction) - exponent;
    if digits_before > MAX_DIGITS_BEFORE_POINT || digits_after > MAX_DIGITS_AFTER_POINT {
        return Err(NumberProblem::OutOfRange);
    }
    Ok(())
}

/// Whether a number that [`check`] takes would lose digits in a column of this scale. Zeros at its end are none.
pub(super) fn is_finer_than(scale: u16, number: &str) -> bool {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let zeros = |digits: &str| length(digits) - length(digits.trim_end_matches('0'));
    let zeros = if zeros(fraction) == length(fraction) { zeros(fraction) + zeros(whole) } else { zeros(fraction) };
    let is_zero = mantissa.bytes().all(|byte| !matches!(byte, b'1'..=b'9'));
    let decimals = length(fraction) - zeros - parse_exponent(exponent).unwrap_or(0);
    !is_zero && decimals > i64::from(scale)
}

/// Checks that `text` is a decimal number that a double keeps: the shortest decimal that stands for the nearest double is
/// this number. That holds for all that has 15 digits, and for whatever a program writes of a double that it has.
pub(super) fn check_double(text: &str) -> Result<(), NumberProblem> {
    check(text)?;
    let nearest: f64 = text.parse().map_err(|_| NumberProblem::NotANumber)?;
    let (number, kept) = (Decimal::of(text), Decimal::of(&format!("{nearest:e}")));
    if nearest.is_infinite() || (nearest == 0.0 && !number.digits.is_empty()) {
        return Err(NumberProblem::OutOfRange);
    }
    if number == kept { Ok(()) } else { Err(NumberProblem::TooPrecise) }
}

/// A decimal number, however it is spelt: digits without zeros at either end, and the power of ten of the last one.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    /// Of a number that [`check`] takes. Zero has no digits and no sign.
    fn of(number: &str) -> Self {
        let unsigned = number.strip_prefix(['-', '+']).unwrap_or(number);
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_end_matches('0');
        let exponent = parse_exponent(exponent).unwrap_or(0) - length(fraction) + length(&all) - length(digits);
        let digits = digits.trim_start_matches('0').to_owned();
        let is_zero = digits.is_empty();
        Self { is_negative: number.starts_with('-') && !is_zero, exponent: if is_zero { 0 } else { exponent }, digits }
    }
}

/// Whether every number in a JSON text is within `numeric`'s range, as `jsonb` needs it. `json` is valid JSON.
pub(super) fn all_in_range(json: &str) -> bool {
    let mut rest = json;
    while let Some(start) = rest.find(['"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) {
        let token = &rest[start..];
        let end = match token.strip_prefix('"') {
            Some(string) => 1 + string_length(string),
            None => token.find([',', ']', '}', ' ', '\n', '\r', '\t']).unwrap_or(token.len()),
        };
        if !token.starts_with('"') && check(&token[..end]).is_err() {
            return false;
        }
        rest = &token[end..];
    }
    true
}

/// The length of a string after its opening quote, the closing one included.
fn string_length(string: &str) -> usize {
    let bytes = string.as_bytes();
    let mut position = 0;
    while let Some(found) = bytes.get(position..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        position += found + 1;
        if bytes[position - 1] == b'"' {
            return position;
        }
        position += 1; // what a backslash escapes ends no string
    }
    bytes.len()
}

/// An exponent of any length, clamped to a value far beyond every limit.
fn parse_exponent(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| sign * digits.parse().unwrap_or(i64::from(i32::MAX)).min(i64::from(i32::MAX)))
}

fn length(digits: &str) -> i64 {
    i64::try_from(digits.len()).unwrap_or(i64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimal_numbers_are_taken_in_every_spelling_and_nothing_else() {
        for number in
            ["0", "-0", "+1", "007", "1.50", "1.", ".5", "1e5", "1E+5", "-2.5e-3", "123456789012345678901234567890.1"]
        {
            assert_eq!(check(number), Ok(()), "{number}");
        }
        for other in [
            "", "-", ".", "e5", "1e", "1e+", "1.2.3", "0x10", "1_000", "NaN", "Infinity", " 1", "1 ", "--1", "٣",
            "1e5e5",
        ] {
            assert_eq!(check(other), Err(NumberProblem::NotANumber), "{other}");
        }
    }

    #[test]
    fn the_limits_are_those_of_postgres() {
        let digits = "9".repeat(131_072);
        assert_eq!(check(&digits), Ok(()));
        assert_eq!(check(&format!("{digits}9")), Err(NumberProblem::OutOfRange));
        assert_eq!(check(&format!("0{digits}")), Ok(()));
        assert_eq!(check("1e131071"), Ok(()));
        assert_eq!(check("1e-16383"), Ok(()));
        for beyond in ["1e131072", "1e-16384", "0.1e-16383", "1e99999999999999999999", "1e-99999999999999999999"] {
            assert_eq!(check(beyond), Err(NumberProblem::OutOfRange), "{beyond}");
        }
    }

    #[test]
    fn a_number_is_finer_than_a_scale_by_its_value_and_not_by_its_spelling() {
        for (scale, number) in [
            (2, "1.23"),
            (2, "1.230000"),
            (2, "-.5"),
            (2, "123e-2"),
            (2, "12300e-4"),
            (2, "1.23456e3"),
            (0, "1.0"),
            (0, "100e-2"),
            (0, "100.00e-2"),
            (0, "12"),
            (0, "1E+9"),
            (0, "0.000e-9"),
            (0, "-0"),
            (16_383, "1e-16383"),
        ] {
            assert!(!is_finer_than(scale, number), "{number}");
        }
        for (scale, number) in [
            (2, "1.239"),
            (2, "1.2301"),
            (2, "1e-3"),
            (2, "1234e-3"),
            (0, "0.5"),
            (0, "10e-2"),
            (1, "1.23456e3"),
            (2, "-0.001"),
        ] {
            assert!(is_finer_than(scale, number), "{number}");
        }
    }

    #[test]
    fn a_double_keeps_what_its_shortest_decimal_says() {
        for kept in [
            "0",
            "-0",
            "0.0e7",
            "0.1",
            "-12.50",
            "100",
            "1e2",
            "123456789012345",
            "9007199254740992",
            "9007199254740993e-5",
            "0.30000000000000004",
            "1.7976931348623157e308",
            "5e-324",
            "1e22",
            ".5",
            "+1.",
            "007",
        ] {
            assert_eq!(check_double(kept), Ok(()), "{kept}");
        }
        for rounded in ["9007199254740993", "0.1000000000000000055511151231257827", "3.14159265358979323846"] {
            assert_ne!(check_double(rounded), Ok(()), "{rounded}");
        }
        assert_eq!(check_double("9007199254740993"), Err(NumberProblem::TooPrecise));
        for beyond in ["1e309", "-1e309", "1e-400"] {
            assert_eq!(check_double(beyond), Err(NumberProblem::OutOfRange), "{beyond}");
        }
        assert_eq!(check_double("NaN"), Err(NumberProblem::NotANumber));
    }

    proptest! {
        #[test]
        fn a_double_keeps_what_a_program_writes_of_it(value in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL) {
            prop_assert_eq!(check_double(&format!("{value:e}")), Ok(()));
        }

        #[test]
        fn a_double_keeps_fifteen_digits(digits in 0..1_000_000_000_000_000_u64, exponent in -290..290_i32) {
            prop_assert_eq!(check_double(&format!("{digits}e{exponent}")), Ok(()));
        }

        /// As Postgres rounds: by the digits after the point of the number written out.
        #[test]
        fn shifting_the_point_changes_nothing(digits in "[0-9]{1,12}", shift in 0..8_u16, scale in 0..8_u16) {
            let written_out = format!("{digits:0>width$}", width = usize::from(shift) + 1);
            let (whole, fraction) = written_out.split_at(written_out.len() - usize::from(shift));
            let finer = fraction.trim_end_matches('0').len() > usize::from(scale);
            prop_assert_eq!(is_finer_than(scale, &format!("{digits}e-{shift}")), finer);
            prop_assert_eq!(is_finer_than(scale, &format!("{whole}.{fraction}")), finer);
        }
    }

    #[test]
    fn numbers_are_found_in_json_and_strings_are_skipped() {
        for fine in [r#"{"a":[1,2.5e3],"1e999999":"1e999999","b\"":"\\"}"#, "[]", "1", r#""1e999999""#, r#"["\\",1]"#] {
            assert!(all_in_range(fine), "{fine}");
        }
        for beyond in ["1e999999", "[1, 1e999999 ]", r#"{"a\\":1e-99999}"#, r#"["\"",1e999999]"#] {
            assert!(!all_in_range(beyond), "{beyond}");
        }
    }
}
