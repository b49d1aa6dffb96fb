//! A keyring as TOML.
//!
//! ```toml
//! [[key]]
//! id        = "76b0f3af"
//! algorithm = "siv"              # or "fixed", with an iv, or "spool"
//! created   = "2026-01-02T03:04:05Z"
//! key       = "5369787465656e2062797465206b6579"
//! ```

use std::fmt::Write;

use jiff::Timestamp;
use serde::Deserialize;
use toml::Spanned;
use zeroize::Zeroizing;

use super::secret::iv_from_hex;
use super::{Key, Keyring, KeyringError, SecretKey};

const HEADER: &str = "\
# Keys of pgsluice. Of each algorithm the first key encrypts, and all decrypt.
# Keep a copy in a safe place: what was encrypted with a key is lost without it.
";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RingText {
    #[serde(default)]
    key: Vec<Spanned<KeyText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyText {
    id: String,
    algorithm: AlgorithmText,
    created: String,
    key: Zeroizing<String>,
    iv: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum AlgorithmText {
    Siv,
    Fixed,
    Spool,
}

impl Keyring {
    /// Reads a keyring; `origin` names where it comes from, for an error. Each id must be the one that follows from its key.
    pub fn parse(origin: &str, text: &str) -> Result<Self, KeyringError> {
        let line_of = |offset: usize| text[..offset].matches('\n').count() + 1;
        let invalid = |line, problem| KeyringError::Invalid { origin: origin.to_owned(), line, problem };
        // The error's own text quotes the line, which may hold a key.
        let ring: RingText = toml::from_str(text).map_err(|error| {
            let problem = "it is not TOML of [[key]] tables, each with id, algorithm, created and key".to_owned();
            invalid(error.span().map_or(1, |span| line_of(span.start)), problem)
        })?;
        let mut keys = Self::default();
        for key in ring.key {
            let line = line_of(key.span().start);
            let key = key.into_inner().checked().map_err(|problem| invalid(line, problem))?;
            keys = keys.with(key).map_err(|error| invalid(line, error.to_string()))?;
        }
        if keys.keys.is_empty() {
            return Err(KeyringError::Empty { origin: origin.to_owned() });
        }
        Ok(keys)
    }

    /// The keyring as TOML.
    #[must_use]
    pub fn to_toml(&self) -> Zeroizing<String> {
        // Large enough from the start: a string that grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(HEADER.len() + self.keys.len() * 256));
        text.push_str(HEADER);
        for key in &self.keys {
            let created = key.created.unwrap_or(Timestamp::UNIX_EPOCH);
            _ = write!(
                text,
                "\n[[key]]\nid        = \"{}\"\nalgorithm = \"{}\"\ncreated   = \"{created}\"\nkey       = \"{}\"\n",
                key.id,
                key.algorithm.name(),
                *key.secret.to_hex()
            );
            if let Some(iv) = key.iv {
                _ = writeln!(text, "iv        = \"{}\"", hex::encode(iv));
            }
        }
        text
    }
}

impl KeyText {
    fn checked(self) -> Result<Key, String> {
        let told = |error: KeyringError| error.to_string();
        let secret = SecretKey::from_hex("key", &self.key).map_err(told)?;
        let created = self.created.parse::<Timestamp>().map_err(|_| "created is not a time in RFC 3339".to_owned())?;
        let iv = self.iv.map(|iv| iv_from_hex("iv", &iv)).transpose().map_err(told)?;
        let created = Some(created);
        let key = match (self.algorithm, iv) {
            (AlgorithmText::Siv, None) => Key::siv(secret, created),
            (AlgorithmText::Fixed, Some(iv)) => Key::fixed(secret, iv, created),
            (AlgorithmText::Fixed, None) => return Err("a key of `fixed` comes with its iv".to_owned()),
            (AlgorithmText::Spool, None) if secret.as_bytes().len() == 32 => Key::spool(secret, created),
            (AlgorithmText::Spool, None) => return Err("a key of `spool` has 32 bytes".to_owned()),
            (AlgorithmText::Siv | AlgorithmText::Spool, Some(_)) => return Err("only `fixed` has an iv".to_owned()),
        };
        if key.id != self.id {
            return Err(format!("the id that follows from this key is {}", key.id));
        }
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::Algorithm;

    fn ring() -> Keyring {
        let key = |byte: u8| SecretKey::from_hex("key", &hex::encode([byte; 32])).unwrap();
        let created = Some("2026-01-02T03:04:05Z".parse().unwrap());
        [Key::siv(key(1), created), Key::fixed(key(2), [3; 16], created), Key::spool(key(4), created)]
            .into_iter()
            .try_fold(Keyring::default(), Keyring::with)
            .unwrap()
    }

    #[test]
    fn a_ring_is_read_as_it_was_written() {
        let text = ring().to_toml();
        let read = Keyring::parse("the test", &text).unwrap();
        assert_eq!(*read.to_toml(), *text);
        assert_eq!(read.ids(), ring().ids());
        assert_eq!(read.first(Algorithm::Fixed).unwrap().iv(), Some([3; 16]));
    }

    #[test]
    fn a_mistake_is_named_with_its_line_and_no_key_is_quoted() {
        let text = ring().to_toml();
        let cases = [
            (text.replace("\"siv\"", "\"aes\""), "line 6: it is not TOML"),
            (text.replacen("created", "made   ", 1), "it is not TOML"),
            (text.replacen("0101\"", "01\"", 1), "line 4: key is not valid: expected 16 or 32 bytes"),
            (text.replacen("0101\"", "0x01\"", 1), "line 4: key is not valid: expected an even number"),
            (text.replacen("id        = \"", "id        = \"0", 1), "line 4: the id that follows from this key is"),
            (text.replace("iv   ", "#iv"), "line 10: a key of `fixed` comes with its iv"),
            (text.replace("\"fixed\"", "\"siv\""), "line 10: only `fixed` has an iv"),
            (text.replace("2026-01-02T", "2026-01-02 at "), "line 4: created is not a time"),
            (format!("{}{}", *text, &text[HEADER.len()..]), "is in the keyring already"),
            ("hello".to_owned(), "line 1: it is not TOML"),
            (String::new(), "has no key"),
        ];
        for (text, expected) in cases {
            let told = Keyring::parse("the test", &text).unwrap_err().to_string();
            assert!(told.contains(expected), "{told}\n{text}");
            assert!(!told.contains("0101") && !told.contains("0202") && !told.contains("0404"), "{told}");
        }
    }
}
