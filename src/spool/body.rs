//! A message's body, which stays as it stands in its spool line until its text is needed.

use std::borrow::Cow;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::unescape::{LoneSurrogate, unescape};

/// A message's body, as text or as a JSON string.
#[derive(Debug, Clone, Default)]
pub enum Body<'a> {
    /// The text.
    Text(Cow<'a, str>),
    /// The inside of a JSON string, with escapes.
    Escaped(&'a str),
    /// In the record's encrypted text, see [`super::Opener`].
    #[default]
    Encrypted,
}

impl<'a> Body<'a> {
    /// From the inside of a JSON string.
    pub(super) fn from_json(inside: &'a str) -> Self {
        if memchr::memchr(b'\\', inside.as_bytes()).is_some() { Self::Escaped(inside) } else { inside.into() }
    }

    /// The same, if it is the inside of one JSON string: a second field would begin with a quote that has no backslash
    /// before it.
    pub(super) fn alone(inside: &'a str) -> Option<Self> {
        (!has_bare_quote(inside.as_bytes())).then(|| Self::from_json(inside))
    }

    /// The same body, borrowed.
    pub(super) fn borrowed(&self) -> Body<'_> {
        match self {
            Self::Text(text) => Body::Text(Cow::Borrowed(text)),
            Self::Escaped(escaped) => Body::Escaped(escaped),
            Self::Encrypted => Body::Encrypted,
        }
    }

    pub(super) const fn is_encrypted(&self) -> bool {
        matches!(self, Self::Encrypted)
    }

    /// The text, decoded into `memory` where it has escapes. A body of JSON has one for each of its quotes. A caller that
    /// reads many bodies gives the same memory each time: to allocate it for each costs more than to decode, and threads
    /// that allocate wait for each other. The error says what is wrong, without quoting the body.
    pub fn text<'b>(&'b self, memory: &'b mut String) -> Result<&'b str, &'static str> {
        let escaped = match self {
            Self::Text(text) => return Ok(text),
            Self::Escaped(escaped) => escaped,
            Self::Encrypted => return Err("the message is encrypted"),
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

/// Whether a quote stands anywhere but behind a backslash. Looks at all pairs, so that it takes many at a time.
fn has_bare_quote(bytes: &[u8]) -> bool {
    let bare = |pair: &[u8]| pair[1] == b'"' && pair[0] != b'\\';
    bytes.first() == Some(&b'"') || bytes.windows(2).fold(false, |found, pair| found | bare(pair))
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
