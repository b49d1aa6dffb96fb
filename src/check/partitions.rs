//! Whether a table that is partitioned by day has partitions for the days to come.

use jiff::civil::Date;
use jiff::{Span, Zoned};

/// A partition that is made once a week is there by then.
const DAYS_AHEAD: i64 = 7;

/// Those of the next days that no partition takes. `None`: the key or the bounds are not such that days can be told.
pub(super) fn missing_days(key: &str, bounds: &[String], today: Date) -> Option<Vec<Date>> {
    if bounds.iter().any(|bound| bound == "DEFAULT") {
        return Some(Vec::new());
    }
    // Of one column; an expression has parentheses of its own.
    let column = key.strip_prefix("RANGE (")?.strip_suffix(')')?;
    if column.contains([',', '(']) {
        return None;
    }
    let ranges = bounds.iter().map(|bound| range(bound)).collect::<Option<Vec<_>>>()?;
    let days = (0..=DAYS_AHEAD).filter_map(|days| today.checked_add(Span::new().days(days)).ok());
    let is_missing = |day: &Date| !ranges.iter().any(|(from, to)| from <= day && day < to);
    Some(days.filter(is_missing).collect())
}

/// The day of now, in UTC, which is what days of sending are.
pub(super) fn today() -> Date {
    Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).date()
}

/// `FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')`. A bound with a time counts as its day.
fn range(bound: &str) -> Option<(Date, Date)> {
    let (from, to) = bound.strip_prefix("FOR VALUES FROM (")?.strip_suffix(')')?.split_once(") TO (")?;
    let day = |text: &str| match text {
        "MINVALUE" => Some(Date::MIN),
        "MAXVALUE" => Some(Date::MAX),
        _ => text.trim_matches('\'').get(..10)?.parse().ok(),
    };
    Some((day(from)?, day(to)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(key: &str, bounds: &[&str]) -> Option<usize> {
        let bounds: Vec<String> = bounds.iter().map(|&bound| bound.to_owned()).collect();
        Some(missing_days(key, &bounds, "2026-01-28".parse().unwrap())?.len())
    }

    #[test]
    fn days_without_a_partition_are_told() {
        const JANUARY: &str = "FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')";
        const FEBRUARY: &str = "FOR VALUES FROM ('2026-02-01 00:00:00+00') TO ('2026-03-01 00:00:00+00')";
        assert_eq!(missing("RANGE (create_date)", &[JANUARY]), Some(4));
        assert_eq!(missing("RANGE (create_date)", &[JANUARY, FEBRUARY]), Some(0));
        assert_eq!(missing("RANGE (create_date)", &["DEFAULT"]), Some(0));
        assert_eq!(missing("RANGE (create_date)", &["FOR VALUES FROM (MINVALUE) TO (MAXVALUE)"]), Some(0));
        assert_eq!(missing("RANGE (create_date)", &[]), Some(8));
        for key in ["LIST (country)", "RANGE (a, b)", "RANGE (date_trunc('day'::text, sent_at))"] {
            assert_eq!(missing(key, &[JANUARY]), None, "{key}");
        }
        assert_eq!(missing("RANGE (id)", &["FOR VALUES FROM (1) TO (1000)"]), None);
    }
}
