//! When a connection counts as lost: libpq's parameters, with defaults that fit a job nobody watches.
//!
//! `keepalives_idle` is also how long a load may be silent before the server is asked about it, see [`super::watch`];
//! `keepalives=0` turns both off.

use std::time::Duration;

use tokio_postgres::Config;

use super::conninfo::Parameters;
use super::settings::number;
use crate::config::ConfigError;

/// How long a server may take to answer a new connection, each host of several. Libpq waits without end.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A host that vanished is noticed within a minute. libpq leaves it to the system, which takes two hours.
const KEEPALIVES_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVES_COUNT: u32 = 3;
const USER_TIMEOUT: Duration = Duration::from_mins(1);
/// C's `int`, which libpq reads these into.
const INTEGERS: std::ops::RangeInclusive<i64> = i32::MIN as i64..=i32::MAX as i64;

/// Sets the limits that the parameters give. Zero, or less, is the default.
pub(super) fn apply(config: &mut Config, parameters: &Parameters) -> Result<(), ConfigError> {
    let given = |name| match parameters.get(name) {
        None => Ok(None),
        Some(text) => number::<i64>(text, INTEGERS, name).map(Some),
    };
    let positive = |name| {
        Ok::<_, ConfigError>(given(name)?.and_then(|number| u32::try_from(number).ok()).filter(|&number| number > 0))
    };
    let seconds = |name| Ok::<_, ConfigError>(positive(name)?.map(|number| Duration::from_secs(number.into())));
    config.keepalives(given("keepalives")? != Some(0));
    config.keepalives_idle(seconds("keepalives_idle")?.unwrap_or(KEEPALIVES_IDLE));
    config.keepalives_interval(seconds("keepalives_interval")?.unwrap_or(KEEPALIVES_INTERVAL));
    config.keepalives_retries(positive("keepalives_count")?.unwrap_or(KEEPALIVES_COUNT));
    let user_timeout = positive("tcp_user_timeout")?.map(|number| Duration::from_millis(number.into()));
    config.tcp_user_timeout(user_timeout.unwrap_or(USER_TIMEOUT));
    config.connect_timeout(seconds("connect_timeout")?.unwrap_or(CONNECT_TIMEOUT));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::settings::Settings;
    use super::*;

    #[test]
    fn a_lost_connection_is_noticed_after_a_minute_or_when_the_string_says() {
        let seconds = Duration::from_secs;
        let timeouts = |text: &str| {
            let config = Settings::parse(text, None, |_| None).unwrap().config;
            let (idle, interval) = (config.get_keepalives_idle(), config.get_keepalives_interval());
            (idle, interval, config.get_keepalives_retries(), config.get_tcp_user_timeout().copied())
        };
        let defaults = (seconds(30), Some(seconds(10)), Some(3), Some(seconds(60)));
        assert_eq!(timeouts("postgres://h"), defaults);
        assert_eq!(timeouts("host=h keepalives_idle=0"), defaults);
        let given = "keepalives_idle=5 keepalives_interval=2 keepalives_count=4 tcp_user_timeout=1500";
        let expected = (seconds(5), Some(seconds(2)), Some(4), Some(Duration::from_millis(1500)));
        assert_eq!(timeouts(&format!("host=h {given}")), expected);
        assert_eq!(timeouts(&format!("postgres://h?{}", given.replace(' ', "&"))), expected);
        Settings::parse("host=h keepalives_idle=soon", None, |_| None).unwrap_err();
    }
}
