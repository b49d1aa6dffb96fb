//! From a masked text back to its value.

use thiserror::Error;

use super::aes_cbc::BLOCK_BYTES;
use super::fixed;
use super::siv::{self, Siv};
use crate::advice::{Advice, Advised, fatal};
use crate::config::{Column, Mask, Pipeline};
use crate::keyring::{Algorithm, Key, Keyring};

/// A revealed value: plaintext, so it has no `Debug`.
pub struct Revealed<'a> {
    /// The value as it was before masking.
    pub value: String,
    /// The column that it was masked for; `fixed` does not know.
    pub column: Option<&'a str>,
}

/// Why a text could not be revealed. Never quotes the text.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is the documentation")]
pub enum RevealError {
    #[error("not a masked value: expected hex digits in whole blocks of 32, for `siv` after a key id and a colon")]
    Malformed,
    #[error("not UTF-8")]
    NotText,
    #[error("not a JSON object")]
    NotAnObject,
    #[error("masked with key {key_id}, and the keys for `siv` are {known}")]
    OtherKey { key_id: String, known: String },
    #[error("pipeline {pipeline} has no column with mask = \"siv\"")]
    NoSivColumn { pipeline: String },
    #[error("the value was changed, or was not masked for a column of pipeline {pipeline}")]
    NotAuthentic { pipeline: String },
    #[error("the value was changed, or was not masked for column {column}")]
    NotOfColumn { column: String },
    #[error("there is no key for `fixed`")]
    NoFixedKey,
    #[error("the value does not decrypt with key and IV of {known}")]
    NotDecryptable { known: String },
    #[error("the value decrypts with each of the keys {known}, and does not say which one is right")]
    Ambiguous { known: String },
}

impl Advised for RevealError {
    fn advice(&self) -> Advice {
        match self {
            Self::NotAnObject => fatal("give a JSON object a line, as `select row_to_json(t)` prints them"),
            Self::Malformed | Self::NotText => fatal("give the value as it stands in a masked column"),
            Self::OtherKey { .. } => {
                fatal("give the key that the value was masked with: by a keyring that holds it, or as PGSLUICE_KEY")
            }
            Self::NoSivColumn { .. } => {
                fatal("check --config: its mapping has to mask the column that the value is of")
            }
            Self::NotAuthentic { .. } | Self::NotOfColumn { .. } => fatal(
                "give the value as it stands in the masked column, and check --config: its mapping has to mask this \
                 column; of a column that was renamed, mask_name keeps the name",
            ),
            Self::NoFixedKey | Self::NotDecryptable { .. } => {
                fatal("give the key and the IV that the table was written with, by a keyring or the environment")
            }
            Self::Ambiguous { .. } => fatal("give a keyring that holds one of them"),
        }
    }
}

/// Decrypts a text of a masked column, by either method: only `siv` texts hold a colon.
///
/// A `siv` text is refused unless it authenticates for one of the pipeline's columns. A `fixed` text cannot be
/// authenticated: with a wrong key the padding refuses most texts, and a few reveal nonsense.
pub fn reveal<'a>(pipeline: &'a Pipeline, keys: &Keyring, masked: &str) -> Result<Revealed<'a>, RevealError> {
    let Some((key_id, digits)) = masked.split_once(':') else {
        return Ok(Revealed { value: reveal_fixed(keys, masked)?, column: None });
    };
    let sealed = Sealed::parse(keys, key_id, digits)?;
    if pipeline.masked_columns(Mask::Siv).next().is_none() {
        return Err(RevealError::NoSivColumn { pipeline: pipeline.name.clone() });
    }
    let opened = pipeline.masked_columns(Mask::Siv).find_map(|column| Some((sealed.open(column)?, column)));
    let (value, column) = opened.ok_or_else(|| RevealError::NotAuthentic { pipeline: pipeline.name.clone() })?;
    Ok(Revealed { value, column: Some(&column.name) })
}

/// Decrypts a text of this column. A `siv` text that was masked for another one is refused.
pub fn reveal_of(column: &Column, keys: &Keyring, masked: &str) -> Result<String, RevealError> {
    let Some((key_id, digits)) = masked.split_once(':') else { return reveal_fixed(keys, masked) };
    let opened = Sealed::parse(keys, key_id, digits)?.open(column);
    opened.ok_or_else(|| RevealError::NotOfColumn { column: column.name.clone() })
}

/// The parts of a `siv` text.
struct Sealed<'a> {
    key: &'a Key,
    iv: [u8; BLOCK_BYTES],
    ciphertext: Vec<u8>,
}

impl<'a> Sealed<'a> {
    fn parse(keys: &'a Keyring, key_id: &str, digits: &str) -> Result<Self, RevealError> {
        let bytes = blocks_from_hex(digits)?;
        let (&iv, ciphertext) = bytes.split_first_chunk::<BLOCK_BYTES>().ok_or(RevealError::Malformed)?;
        let Some(key) = keys.all(Algorithm::Siv).find(|key| key.id() == key_id) else {
            return Err(RevealError::OtherKey { key_id: shown_key_id(key_id)?, known: ids(keys, Algorithm::Siv) });
        };
        Ok(Self { key, iv, ciphertext: ciphertext.to_vec() })
    }

    /// The value, if it was masked for this column and is what it was.
    fn open(&self, column: &Column) -> Option<String> {
        let secret = self.key.secret();
        let value = siv::decrypt(secret, self.iv, &self.ciphertext)?;
        let siv = Siv::new(column.masked_as(), self.key.id(), secret)?;
        siv.authenticates(self.iv, &value).then_some(value)
    }
}

fn reveal_fixed(keys: &Keyring, masked: &str) -> Result<String, RevealError> {
    let ciphertext = blocks_from_hex(masked)?;
    if keys.first(Algorithm::Fixed).is_none() {
        return Err(RevealError::NoFixedKey);
    }
    let mut revealed = keys.all(Algorithm::Fixed).filter_map(|key| fixed::reveal(key.secret(), key.iv()?, &ciphertext));
    let known = || ids(keys, Algorithm::Fixed);
    let value = revealed.next().ok_or_else(|| RevealError::NotDecryptable { known: known() })?;
    match revealed.next() {
        None => Ok(value),
        Some(_) => Err(RevealError::Ambiguous { known: known() }),
    }
}

fn ids(keys: &Keyring, algorithm: Algorithm) -> String {
    let ids: Vec<&str> = keys.all(algorithm).map(Key::id).collect();
    if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
}

/// The text before the colon, if it is a key id. Otherwise it may be anything, even a pasted plaintext: it is not
/// shown.
fn shown_key_id(text: &str) -> Result<String, RevealError> {
    let is_key_id = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_key_id.then(|| text.to_owned()).ok_or(RevealError::Malformed)
}

fn blocks_from_hex(digits: &str) -> Result<Vec<u8>, RevealError> {
    let bytes = hex::decode(digits).map_err(|_| RevealError::Malformed)?;
    let is_whole = !bytes.is_empty() && bytes.len().is_multiple_of(BLOCK_BYTES);
    is_whole.then_some(bytes).ok_or(RevealError::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Masker;
    use super::*;
    use crate::keyring::SecretKey;

    fn key(byte: u8) -> SecretKey {
        SecretKey::from_hex("key", &hex::encode([byte; 32])).unwrap()
    }

    fn keys(byte: u8) -> Keyring {
        Keyring::of_one_key(key(byte), Some([byte; 16]))
    }

    fn masked(mask: Mask, column: &str, value: &str) -> String {
        let mut text = Vec::new();
        Masker::new(mask, column, &keys(7)).unwrap().mask(value, &mut text);
        String::from_utf8(text).unwrap()
    }

    fn refusal(text: &str) -> String {
        reveal(&Pipeline::user_logins().unwrap(), &keys(7), text).err().unwrap().to_string()
    }

    proptest! {
        #[test]
        fn any_value_is_revealed_with_its_column(value in any::<String>()) {
            let pipeline = Pipeline::user_logins().unwrap();
            let siv = masked(Mask::Siv, "masked_device_id", &value);
            let revealed = reveal(&pipeline, &keys(7), &siv).unwrap();
            prop_assert_eq!((revealed.value.as_str(), revealed.column), (value.as_str(), Some("masked_device_id")));
            let fixed = masked(Mask::Fixed, "masked_device_id", &value);
            let revealed = reveal(&pipeline, &keys(7), &fixed).unwrap();
            prop_assert_eq!((revealed.value.as_str(), revealed.column), (value.as_str(), None));
        }

        #[test]
        fn a_changed_siv_text_is_refused(
            value in ".{0,40}", position in any::<prop::sample::Index>(), bit in 0..8_u32,
        ) {
            let text = masked(Mask::Siv, "masked_ip", &value);
            let mut bytes = hex::decode(&text[9..]).unwrap();
            let position = position.index(bytes.len());
            bytes[position] ^= 1 << bit;
            let changed = format!("{}{}", &text[..9], hex::encode(bytes));
            prop_assert!(refusal(&changed).contains("was changed"));
        }
    }

    #[test]
    fn a_value_of_a_column_that_the_pipeline_lacks_is_refused() {
        assert!(refusal(&masked(Mask::Siv, "elsewhere", "1.2.3.4")).contains("user_logins"));
    }

    #[test]
    fn a_text_of_another_key_names_both_keys() {
        let text = masked(Mask::Siv, "masked_ip", "1.2.3.4");
        let error = reveal(&Pipeline::user_logins().unwrap(), &keys(8), &text).err().unwrap();
        assert!(matches!(error, RevealError::OtherKey { key_id, .. } if key_id == text[..8]));
    }

    #[test]
    fn what_is_no_masked_text_is_refused_without_being_quoted() {
        for text in ["", "199.172.111.135", "2001:db8::1", "zz", "00", ":", "76b0f3af:", "76b0f3af:00", "ü:00"] {
            let message = refusal(text);
            assert!(message.starts_with("not a masked value"), "{text}: {message}");
        }
        assert!(!refusal("secret:00112233445566778899aabbccddeeff").contains("secret"));
    }

    #[test]
    fn without_keys_nothing_is_revealed() {
        let pipeline = Pipeline::user_logins().unwrap();
        let reveal = |text: &str| reveal(&pipeline, &Keyring::default(), text).err().unwrap();
        let siv = reveal(&masked(Mask::Siv, "masked_ip", "1.2.3.4"));
        assert!(matches!(siv, RevealError::OtherKey { known, .. } if known == "none"));
        assert!(matches!(reveal(&masked(Mask::Fixed, "masked_ip", "1.2.3.4")), RevealError::NoFixedKey));
    }

    #[test]
    fn a_ring_reveals_what_any_of_its_keys_masked() {
        let ring = [Key::siv(key(8), None), Key::fixed(key(9), [1; 16], None), Key::siv(key(7), None)]
            .into_iter()
            .chain([Key::fixed(key(10), [2; 16], None)])
            .try_fold(Keyring::default(), Keyring::with)
            .unwrap();
        let pipeline = Pipeline::user_logins().unwrap();
        for key in ring.iter() {
            let mut text = Vec::new();
            Masker::with_key("masked_ip", key).unwrap().mask("199.172.111.135", &mut text);
            let revealed = reveal(&pipeline, &ring, std::str::from_utf8(&text).unwrap());
            assert_eq!(revealed.ok().unwrap().value, "199.172.111.135", "{}", key.id());
        }
    }

    #[test]
    fn a_value_that_was_moved_to_another_column_is_found_out() {
        let pipeline = Pipeline::user_logins().unwrap();
        let text = masked(Mask::Siv, "masked_ip", "1.2.3.4");
        for column in pipeline.masked_columns(Mask::Siv) {
            let revealed = reveal_of(column, &keys(7), &text);
            match column.name.as_str() {
                "masked_ip" => assert_eq!(revealed.unwrap(), "1.2.3.4"),
                _ => assert!(matches!(revealed, Err(RevealError::NotOfColumn { .. }))),
            }
        }
        let renamed = Column { mask_name: Some("masked_ip".to_owned()), ..pipeline.columns[3].clone() };
        assert_eq!(reveal_of(&renamed, &keys(7), &text).unwrap(), "1.2.3.4");
    }
}
