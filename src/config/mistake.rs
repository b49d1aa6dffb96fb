//! Reads TOML into settings. What is wrong is told by key, what is allowed and a near name; the value itself is never
//! quoted, because it may be a password at the wrong place.

use std::fmt::{self, Display};

use serde::de::value::{MapDeserializer, SeqDeserializer, StringDeserializer};
use serde::de::{DeserializeOwned, Deserializer, EnumAccess, Error, Expected, IntoDeserializer, Unexpected, Visitor};
use serde_path_to_error::Segment;
use toml::{Table, Value};

use crate::suggestion::closest;

/// What is wrong with a value, or with a key.
#[derive(Debug)]
pub(super) struct Mistake(String);

/// Reads a table. The error names the key, such as `queue.pollers`.
pub(super) fn read<T: DeserializeOwned>(table: Table) -> Result<T, String> {
    serde_path_to_error::deserialize(Node(Value::Table(table))).map_err(|error| {
        let names = error.path().iter().filter_map(|segment| match segment {
            Segment::Map { key } => Some(key.as_str()),
            Segment::Seq { .. } | Segment::Enum { .. } | Segment::Unknown => None,
        });
        let names: Vec<&str> = names.collect();
        let Mistake(problem) = error.inner();
        if names.is_empty() { problem.clone() } else { format!("{}: {problem}", names.join(".")) }
    })
}

impl Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Mistake {}

impl Error for Mistake {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self(format!("expected {}, got {}", in_words(expected), kind(&found)))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self(format!("expected {}, got another one", in_words(expected)))
    }

    fn unknown_variant(variant: &str, allowed: &'static [&'static str]) -> Self {
        let meant = closest(variant, allowed.iter().copied());
        Self(with_near_name(&format!("expected {}", list(allowed, " or ")), meant, ""))
    }

    fn unknown_field(field: &str, allowed: &'static [&'static str]) -> Self {
        let meant = closest(field, allowed.iter().copied());
        Self(with_near_name(
            &format!("unknown key `{field}`"),
            meant,
            &format!(", there are {}", list(allowed, " and ")),
        ))
    }

    fn missing_field(field: &'static str) -> Self {
        Self(format!("`{field}` is missing"))
    }
}

fn with_near_name(problem: &str, meant: Option<&str>, otherwise: &str) -> String {
    meant.map_or_else(|| format!("{problem}{otherwise}"), |meant| format!("{problem}; did you mean `{meant}`?"))
}

fn list(names: &[&str], last: &str) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        Some((end, rest)) if !rest.is_empty() => format!("{}{last}{end}", rest.join(", ")),
        _ => names.concat(),
    }
}

/// Rust's names of types are not the reader's.
fn in_words(expected: &dyn Expected) -> String {
    match expected.to_string().as_str() {
        "u16" | "u32" | "u64" | "usize" => "a whole number, not negative".to_owned(),
        "a sequence" => "a list".to_owned(),
        other => other.to_owned(),
    }
}

const fn kind(found: &Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "true or false",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
        Unexpected::Str(_) | Unexpected::Char(_) => "a string",
        Unexpected::Seq => "a list",
        Unexpected::Map => "a table",
        _ => "something else",
    }
}

/// A value, read with [`Mistake`]s.
struct Node(Value);

impl<'de> Deserializer<'de> for Node {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.0 {
            Value::String(text) => visitor.visit_string(text),
            Value::Integer(number) => visitor.visit_i64(number),
            Value::Float(number) => visitor.visit_f64(number),
            Value::Boolean(is_so) => visitor.visit_bool(is_so),
            Value::Datetime(_) => Err(Mistake::invalid_type(Unexpected::Other("a date"), &visitor)),
            Value::Array(values) => visitor.visit_seq(SeqDeserializer::new(values.into_iter().map(Node))),
            Value::Table(table) => {
                visitor.visit_map(MapDeserializer::new(table.into_iter().map(|(key, value)| (key, Node(value)))))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match self.0 {
            Value::String(text) => visitor.visit_enum(Name(text.into_deserializer())),
            _ => Err(Mistake(format!("expected {}", list(variants, " or ")))),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct seq
        tuple tuple_struct map struct identifier ignored_any
    }
}

impl IntoDeserializer<'_, Mistake> for Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// A variant without a value.
struct Name(StringDeserializer<Mistake>);

impl<'de> EnumAccess<'de> for Name {
    type Error = Mistake;
    type Variant = <StringDeserializer<Mistake> as EnumAccess<'de>>::Variant;

    fn variant_seed<S: serde::de::DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), Mistake> {
        self.0.variant_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tables::ConfigFile;
    use super::*;

    const SECRET: &str = "S3cr3t";

    fn problem(text: &str) -> String {
        let problem = read::<ConfigFile>(text.parse().unwrap()).unwrap_err();
        assert!(!problem.contains(SECRET), "{problem}");
        problem
    }

    #[test]
    fn a_mistake_names_the_key_and_what_is_allowed_and_never_quotes_the_value() {
        for (text, said) in [
            ("[queue]\npollers = \"S3cr3t\"", "queue.pollers: expected a whole number, not negative, got a string"),
            ("[queue]\npollers = -1", "queue.pollers: expected a whole number, not negative, got another one"),
            ("queue = \"S3cr3t\"", "queue: expected a table, got a string"),
            ("queue_url = 5", "queue_url: expected a string, got a number"),
            ("key_command = \"S3cr3t\"", "key_command: expected a list, got a string"),
            ("[pipeline]\ndedupe = \"S3cr3t\"", "pipeline.dedupe: expected `message` or `segment`"),
            ("[pipeline]\ndedupe = 5", "pipeline.dedupe: expected `message` or `segment`"),
            ("[pipeline]\non_reject = \"S3cr3t\"", "pipeline.on_reject: expected `keep`, `leave` or `dlq`"),
            (
                "[[column]]\nname = \"a\"\nmask = \"sivv\"",
                "column.mask: expected `siv` or `fixed`; did you mean `siv`?",
            ),
            ("[[column]]\nname = \"a\"\nmask = \"S3cr3t\"", "column.mask: expected `siv` or `fixed`"),
            ("[[column]]\nname = \"a\"\nrequired = \"S3cr3t\"", "column.required: expected a boolean, got a string"),
            ("[database]\npassword_source = \"S3cr3t\"", "database.password_source: expected `rds-iam`"),
            ("[pipeline]\nmax_rejects = true", "a number of messages, or a share such as \"5%\", got true or false"),
        ] {
            assert!(problem(text).ends_with(said), "{text}: {}", problem(text));
        }
    }

    #[test]
    fn an_unknown_key_comes_with_the_one_that_was_meant() {
        for (text, said) in [
            ("[queue]\npolers = 3", "unknown key `polers`; did you mean `pollers`?"),
            ("stagingdir = \"x\"", "unknown key `stagingdir`; did you mean `staging_dir`?"),
            ("[[column]]\nname = \"a\"\nmaxlength = 3", "unknown key `maxlength`; did you mean `max_length`?"),
            ("[load]\nqqq = 3", "unknown key `qqq`, there are `connections`"),
            ("[[column]]\nfrom = \"/a\"", "`name` is missing"),
        ] {
            assert!(problem(text).contains(said), "{text}: {}", problem(text));
        }
    }
}
