//! When a connection counts as lost: libpq's parameters, with defaults that fit a job nobody watches.
//!
//! `keepalives_idle` is also how long a load may be silent before the server is asked about it, see [`super::watch`];
//! `keepalives=0` turns both off.

use std::time::Duration;

use tokio_postgres::Config;

use super::error::invalid_setting as invalid;
use crate::config::ConfigError;

/// A host that vanished is noticed within a minute. libpq leaves it to the system, which takes two hours.
const KEEPALIVES_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVES_COUNT: u32 = 3;
const USER_TIMEOUT: Duration = Duration::from_mins(1);

/// When a connection counts as lost, as the text says it.
#[derive(Debug, Default)]
pub(super) struct Timeouts {
    idle_seconds: Option<String>,
    interval_seconds: Option<String>,
    count: Option<String>,
    user_timeout_ms: Option<String>,
}

impl Timeouts {
    /// Keeps a parameter that is one of these; `false` for any other.
    pub(super) fn take(&mut self, key: &str, value: &str) -> bool {
        let kept = match key {
            "keepalives_idle" => &mut self.idle_seconds,
            "keepalives_interval" => &mut self.interval_seconds,
            "keepalives_count" => &mut self.count,
            "tcp_user_timeout" => &mut self.user_timeout_ms,
            _ => return false,
        };
        *kept = Some(value.to_owned());
        true
    }

    /// Zero is the default, as with libpq.
    pub(super) fn apply(&self, config: &mut Config) -> Result<(), ConfigError> {
        let number = |value: &Option<String>, name: &str| match value.as_deref().map(str::parse::<u32>) {
            None | Some(Ok(0)) => Ok(None),
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(_)) => Err(invalid(format!("{name} is not a number"))),
        };
        let seconds = |number: u32| Duration::from_secs(number.into());
        let idle = number(&self.idle_seconds, "keepalives_idle")?.map_or(KEEPALIVES_IDLE, seconds);
        let interval = number(&self.interval_seconds, "keepalives_interval")?.map_or(KEEPALIVES_INTERVAL, seconds);
        let count = number(&self.count, "keepalives_count")?.unwrap_or(KEEPALIVES_COUNT);
        let user_timeout = number(&self.user_timeout_ms, "tcp_user_timeout")?;
        let user_timeout = user_timeout.map_or(USER_TIMEOUT, |number| Duration::from_millis(number.into()));
        config.keepalives_idle(idle).keepalives_interval(interval).keepalives_retries(count);
        config.tcp_user_timeout(user_timeout);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::Settings;
    use super::*;

    #[test]
    fn a_lost_connection_is_noticed_after_a_minute_or_when_the_string_says() {
        let seconds = Duration::from_secs;
        let timeouts = |text: &str| {
            let config = Settings::parse(text, |_| None).unwrap().config;
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
        Settings::parse("host=h keepalives_idle=soon", |_| None).unwrap_err();
    }
}
