//! From a masked text back to its value.

use thiserror::Error;

use super::aes_cbc::BLOCK_BYTES;
use super::siv::{self, Siv};
use super::{fixed, fixed_iv, master_key};
use crate::advice::{Advice, Advised, fatal};
use crate::config::{ConfigError, Mask, MaskingKeys, Pipeline};

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
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("not a masked value: expected hex digits in whole blocks of 32, for `siv` after a key id and a colon")]
    Malformed,
    #[error("masked with key {key_id}, but PGSLUICE_KEY is key {own_key_id}")]
    OtherKey { key_id: String, own_key_id: String },
    #[error("pipeline {pipeline} has no column with mask = \"siv\"")]
    NoSivColumn { pipeline: String },
    #[error("the value was changed, or was not masked for a column of pipeline {pipeline}")]
    NotAuthentic { pipeline: String },
    #[error("the value does not decrypt with PGSLUICE_KEY and PGSLUICE_FIXED_IV")]
    NotDecryptable,
}

impl Advised for RevealError {
    fn advice(&self) -> Advice {
        match self {
            Self::Config(error) => error.advice(),
            Self::Malformed => fatal("give the value as it stands in a masked column"),
            Self::OtherKey { .. } => fatal("set PGSLUICE_KEY to the key that the value was masked with"),
            Self::NoSivColumn { .. } => {
                fatal("check --config: its mapping has to mask the column that the value is of")
            }
            Self::NotAuthentic { .. } => fatal(
                "give the value as it stands in the masked column, and check --config: its mapping has to mask this column",
            ),
            Self::NotDecryptable => {
                fatal("set PGSLUICE_KEY and PGSLUICE_FIXED_IV to the key and the IV that the table was written with")
            }
        }
    }
}

/// Decrypts a text of a masked column, by either method: only `siv` texts hold a colon.
///
/// A `siv` text is refused unless it authenticates for one of the pipeline's columns. A `fixed` text cannot be
/// authenticated: with a wrong key the padding refuses most texts, and a few reveal nonsense.
pub fn reveal<'a>(pipeline: &'a Pipeline, keys: &MaskingKeys, masked: &str) -> Result<Revealed<'a>, RevealError> {
    if let Some((key_id, digits)) = masked.split_once(':') {
        return reveal_siv(pipeline, keys, key_id, &blocks_from_hex(digits)?);
    }
    let ciphertext = blocks_from_hex(masked)?;
    let value = fixed::reveal(master_key(keys)?, fixed_iv(keys)?, &ciphertext);
    Ok(Revealed { value: value.ok_or(RevealError::NotDecryptable)?, column: None })
}

fn reveal_siv<'a>(
    pipeline: &'a Pipeline,
    keys: &MaskingKeys,
    key_id: &str,
    bytes: &[u8],
) -> Result<Revealed<'a>, RevealError> {
    let key = master_key(keys)?;
    let own_key_id = siv::key_id(key)?;
    if key_id != own_key_id {
        return Err(RevealError::OtherKey { key_id: shown_key_id(key_id)?, own_key_id });
    }
    if pipeline.masked_columns(Mask::Siv).next().is_none() {
        return Err(RevealError::NoSivColumn { pipeline: pipeline.name.clone() });
    }
    let not_authentic = || RevealError::NotAuthentic { pipeline: pipeline.name.clone() };
    let (&iv, ciphertext) = bytes.split_first_chunk::<BLOCK_BYTES>().ok_or(RevealError::Malformed)?;
    let value = siv::decrypt(key, iv, ciphertext)?.ok_or_else(not_authentic)?;
    for column in pipeline.masked_columns(Mask::Siv) {
        if Siv::new(&column.name, key)?.authenticates(iv, &value) {
            return Ok(Revealed { value, column: Some(&column.name) });
        }
    }
    Err(not_authentic())
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
    use crate::config::MaskingKey;

    fn keys(byte: u8) -> MaskingKeys {
        let key = MaskingKey::from_hex("PGSLUICE_KEY", &hex::encode([byte; 32])).unwrap();
        MaskingKeys { key: Some(key), fixed_iv: Some([byte; 16]) }
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
    fn missing_keys_are_configuration_errors() {
        let text = masked(Mask::Siv, "masked_ip", "1.2.3.4");
        let error = reveal(&Pipeline::user_logins().unwrap(), &MaskingKeys::default(), &text).err().unwrap();
        assert!(matches!(error, RevealError::Config(ConfigError::Missing { setting: "PGSLUICE_KEY", .. })));
    }
}
