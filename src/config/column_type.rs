//! The types of mapped columns, and what is known of each.
//!
//! Always true: a fact of a type stands here once, in a match without a wildcard, so that a type that is added cannot
//! be forgotten.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a value is read from JSON and written for Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// A JSON string.
    #[default]
    Text,
    /// A JSON integer of 32 bits.
    Integer,
    /// A JSON integer of 64 bits.
    Bigint,
    /// A JSON number, or a string that holds one; every digit is kept.
    Numeric,
    /// A JSON number, or a string that holds one, of no more digits than a double keeps.
    Double,
    /// `true` or `false`.
    Boolean,
    /// An RFC 3339 date-time with its offset.
    Timestamptz,
    /// `YYYY-MM-DD`.
    Date,
    /// A UUID in any of its usual spellings.
    Uuid,
    /// Any JSON value, kept as it is.
    Jsonb,
    /// Dotted digits, dots removed: `"2.3.0"` → 230.
    Version,
    /// Dotted digits, up to three parts below 1000 each after the first: `"2.3.0"` → 2003000, which sorts.
    #[serde(skip)] // declared as `version`, with its form beside it
    PackedVersion,
}

impl ColumnType {
    /// The type as it is written in `pgsluice.toml`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// What a value of this type is out of range for.
    #[must_use]
    pub const fn range(self) -> &'static str {
        self.facts().range
    }

    const fn facts(self) -> Facts {
        const YEARS: &str = "a time of the years 0001 to 9999";
        let (name, range) = match self {
            Self::Text => ("text", "text"),
            Self::Integer => ("integer", "integer"),
            Self::Bigint => ("bigint", "bigint"),
            Self::Numeric => ("numeric", "numeric"),
            Self::Double => ("double", "double precision"),
            Self::Boolean => ("boolean", "boolean"),
            Self::Timestamptz => ("timestamptz", YEARS),
            Self::Date => ("date", YEARS),
            Self::Uuid => ("uuid", "uuid"),
            // The numbers in it are what may be out of range.
            Self::Jsonb => ("jsonb", "numeric"),
            Self::Version => ("version", "integer"),
            Self::PackedVersion => ("version", "a packed version"),
        };
        Facts { name, range }
    }
}

struct Facts {
    name: &'static str,
    range: &'static str,
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, StrDeserializer};

    use super::ColumnType::{
        self, Bigint, Boolean, Date, Double, Integer, Jsonb, Numeric, PackedVersion, Text, Timestamptz, Uuid, Version,
    };

    fn declared(name: &str) -> Result<ColumnType, Error> {
        let deserializer: StrDeserializer<'_, Error> = name.into_deserializer();
        ColumnType::deserialize(deserializer)
    }

    #[test]
    fn a_type_is_called_what_the_configuration_file_calls_it() {
        for kind in [Text, Integer, Bigint, Numeric, Double, Boolean, Timestamptz, Date, Uuid, Jsonb, Version] {
            assert_eq!(declared(kind.name()), Ok(kind));
        }
        assert_eq!(declared(PackedVersion.name()), Ok(Version), "a packed version is declared as a version");
    }
}
