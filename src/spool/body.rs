//! A message's body, which stays as it stands in its spool line until its text is needed.

use std::borrow::Cow;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::unescape::{LoneSurrogate, unescape};

/// A message's body, as text or as a JSON string.
#[derive(Debug, Clone)]
pub enum Body<'a> {
    /// The text.
    Text(Cow<'a, str>),
    /// The inside of a JSON string, with escapes.
    Escaped(&'a str),
}

impl<'a> Body<'a> {
    /// From the inside of a JSON string.
    pub(super) fn from_json(inside: &'a str) -> Self {
        if memchr::memchr(b'\\', inside.as_bytes()).is_some() { Self::Escaped(inside) } else { inside.into() }
    }

    /// The text, decoded into `memory` where it has escapes. A body of JSON has one for each of its quotes. A caller that
    /// reads many bodies gives the same memory each time: to allocate it for each costs more than to decode, and threads
    /// that allocate wait for each other. The error says what is wrong, without quoting the body.
    pub fn text<'b>(&'b self, memory: &'b mut String) -> Result<&'b str, &'static str> {
        let escaped = match self {
            Self::Text(text) => return Ok(text),
            Self::Escaped(escaped) => escaped,
        };
        memory.clear();
        let decoded = unescape(escaped, |piece| {
            memory.push_str(piece);
            Ok(())
        });
        decoded.map_err(|LoneSurrogate| "the body holds half of a surrogate pair")?;
        Ok(memory)
    }
}

impl<'a> From<&'a str> for Body<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Body<'_> {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text(&mut String::new()).map_err(S::Error::custom)?)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Body<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?.get();
        let inside = json.strip_prefix('"').and_then(|json| json.strip_suffix('"'));
        inside.map(Self::from_json).ok_or_else(|| D::Error::custom("the body is not a string"))
    }
}
