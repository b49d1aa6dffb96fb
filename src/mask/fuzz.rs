//! What holds for any text that is revealed, see [`crate::fuzz`].

#![allow(clippy::expect_used, reason = "a property that does not hold is a panic")]

use super::{Masker, reveal};
use crate::config::{Mask, Pipeline};
use crate::fuzz::assert_quotes_nothing;
use crate::keyring::{Keyring, SecretKey};

const COLUMN: &str = "masked_ip";

/// Any text is a masked value or is refused without being quoted; any value comes back; a changed one does not.
pub(crate) fn reveal_any(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let pipeline = Pipeline::user_logins().expect("the built-in mapping");
    let keys = keys();
    if let Err(error) = reveal(&pipeline, &keys, text) {
        let without_key_id = text.split_once(':').map_or(text, |(_, rest)| rest);
        assert_quotes_nothing(&error.to_string(), without_key_id);
    }
    for mask in [Mask::Siv, Mask::Fixed] {
        let mut masked = Vec::new();
        Masker::new(mask, COLUMN, &keys).expect("keys").mask(text, &mut masked);
        let mut masked = String::from_utf8(masked).expect("ASCII");
        let revealed = reveal(&pipeline, &keys, &masked).expect("a masked value");
        assert_eq!(revealed.value, text);
        if mask == Mask::Siv {
            assert_eq!(revealed.column, Some(COLUMN));
            change(&mut masked, input);
            assert!(reveal(&pipeline, &keys, &masked).is_err(), "a changed value is revealed");
        }
    }
}

/// Changes one digit behind the key's id.
fn change(masked: &mut String, input: &[u8]) {
    let digits = masked.find(':').map_or(0, |colon| colon + 1);
    let chosen = input.iter().fold(0_usize, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let position = digits + chosen % (masked.len() - digits);
    let other = if masked.as_bytes()[position] == b'0' { "1" } else { "0" };
    masked.replace_range(position..=position, other);
}

fn keys() -> Keyring {
    Keyring::of_one_key(SecretKey::from_hex("PGSLUICE_KEY", &"07".repeat(32)).expect("a key"), Some([7; 16]))
}
