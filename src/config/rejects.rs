//! What becomes of messages that cannot become rows: `on_reject`, `dlq_url` and `max_rejects` of `[pipeline]`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::ConfigError;
use super::queue_address::is_url;

/// A smaller run counts as one of this number of messages, so that a share means something from the first segment on.
const SMALLEST_SAMPLE: u64 = 100;
const MILLION: u64 = 1_000_000;

/// How rejects are treated, and how many are too many.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RejectPolicy {
    /// What becomes of a rejected message.
    pub on_reject: OnReject,
    /// With more rejects a run stops.
    pub max_rejects: Option<MaxRejects>,
}

/// What becomes of a rejected message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum OnReject {
    /// It is kept in the staging directory, recorded in the ledger and acknowledged.
    #[default]
    Keep,
    /// It is made visible again instead of acknowledged, for the queue's own redrive policy. The ledger does not know
    /// it.
    Leave,
    /// As `Keep`; before it is acknowledged, it is sent to the queue of this URL, with the reason.
    Send {
        /// The dead-letter queue's URL.
        dlq_url: String,
    },
}

/// How many rejects a run may find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxRejects {
    /// This number.
    Count(u64),
    /// This number of a million messages of the run so far. A run of fewer than 100 messages counts as one of 100.
    PerMillion(u64),
}

impl MaxRejects {
    /// How many of `messages` may be rejects.
    #[must_use]
    pub fn of(self, messages: u64) -> u64 {
        match self {
            Self::Count(rejects) => rejects,
            Self::PerMillion(rejects) => {
                let product = u128::from(rejects) * u128::from(messages.max(SMALLEST_SAMPLE));
                u64::try_from(product / u128::from(MILLION)).unwrap_or(u64::MAX)
            }
        }
    }

    fn parse_share(text: &str) -> Option<Self> {
        let number = text.strip_suffix('%')?.trim_end();
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let is_digits = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(whole) || !is_digits(fraction) || fraction.len() > 4 {
            return None;
        }
        let percent: u64 = whole.parse().ok()?;
        let fraction: u64 = format!("{fraction:0<4}").parse().ok()?;
        let per_million = percent.checked_mul(10_000)?.checked_add(fraction)?;
        (per_million <= MILLION).then_some(Self::PerMillion(per_million))
    }
}

impl fmt::Display for MaxRejects {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(rejects) => rejects.fmt(formatter),
            Self::PerMillion(rejects) => {
                let fraction = format!("{:04}", rejects % 10_000);
                let fraction = fraction.trim_end_matches('0');
                let point = if fraction.is_empty() { "" } else { "." };
                write!(formatter, "{}{point}{fraction}%", rejects / 10_000)
            }
        }
    }
}

impl<'de> Deserialize<'de> for MaxRejects {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrShare;
        impl Visitor<'_> for NumberOrShare {
            type Value = MaxRejects;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a number of messages, or a share such as \"5%\"")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<MaxRejects, E> {
                u64::try_from(number).map(MaxRejects::Count).map_err(|_| E::custom("expected no negative number"))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<MaxRejects, E> {
                let expected = "expected a number of messages, or a share such as \"5%\" or \"0.25%\"";
                MaxRejects::parse_share(text).ok_or_else(|| E::custom(expected))
            }
        }
        deserializer.deserialize_any(NumberOrShare)
    }
}

impl Serialize for MaxRejects {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(rejects) => serializer.serialize_u64(*rejects),
            Self::PerMillion(_) => serializer.collect_str(self),
        }
    }
}

impl JsonSchema for MaxRejects {
    fn schema_name() -> Cow<'static, str> {
        "MaxRejects".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": "^[0-9]+(\\.[0-9]{1,4})?\\s*%$" },
            ]
        })
    }
}

/// `on_reject` as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum OnRejectName {
    /// It is recorded in pgsluice.reject and deleted from the queue.
    #[default]
    Keep,
    /// It is not recorded, and made visible again at once, until the queue's redrive policy moves it.
    Leave,
    /// As `keep`, and sent to `dlq_url` before it is deleted.
    Dlq,
}

impl OnRejectName {
    /// `dlq_url` goes with `"dlq"`, and with nothing else.
    pub(super) fn with_dlq_url(self, dlq_url: Option<&str>) -> Result<OnReject, ConfigError> {
        let invalid = |problem: &str| {
            Err(ConfigError::InvalidSetting { setting: "pipeline.dlq_url", problem: problem.to_owned() })
        };
        match (self, dlq_url) {
            (Self::Keep, None) => Ok(OnReject::Keep),
            (Self::Leave, None) => Ok(OnReject::Leave),
            (Self::Keep | Self::Leave, Some(_)) => invalid("it goes with on_reject = \"dlq\""),
            (Self::Dlq, Some(url)) if is_url(url) => Ok(OnReject::Send { dlq_url: url.to_owned() }),
            (Self::Dlq, _) => invalid("on_reject = \"dlq\" needs the URL of a queue here"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        max_rejects: MaxRejects,
    }

    fn max_rejects(value: &str) -> Option<MaxRejects> {
        toml::from_str::<File>(&format!("max_rejects = {value}")).ok().map(|file| file.max_rejects)
    }

    #[test]
    fn max_rejects_is_a_number_or_a_share() {
        assert_eq!(max_rejects("0"), Some(MaxRejects::Count(0)));
        assert_eq!(max_rejects("12"), Some(MaxRejects::Count(12)));
        for (text, per_million) in [("5%", 50_000), ("0.25%", 2500), ("100 %", 1_000_000), ("0%", 0), ("0.0001%", 1)] {
            assert_eq!(max_rejects(&format!("{text:?}")), Some(MaxRejects::PerMillion(per_million)), "{text}");
        }
        for wrong in ["-1", "0.05", "true", "\"5\"", "\"%\"", "\"101%\"", "\".5%\"", "\"1.%\"", "\"1.00001%\""] {
            assert_eq!(max_rejects(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_share_reads_as_it_was_written() {
        for text in ["5%", "0.25%", "100%", "12.5%"] {
            assert_eq!(max_rejects(&format!("{text:?}")).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_share_of_few_messages_is_a_share_of_a_hundred() {
        let share = MaxRejects::PerMillion(50_000);
        assert_eq!([0, 1, 100, 199, 1000].map(|messages| share.of(messages)), [5, 5, 5, 9, 50]);
        assert_eq!(MaxRejects::Count(3).of(1_000_000), 3);
    }
}
