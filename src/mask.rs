//! Encrypts the values of masked columns, and reveals them again.
//!
//! Always true:
//! - both methods are deterministic, so equal values of a column stay equal, and reversible by who holds the key;
//! - what is written is ASCII: hexadecimal digits, before which `siv` puts its key's id and a colon;
//! - no key and no plaintext appears in `Debug` output or in an error.
//!
//! Masking itself cannot fail: what may be missing or malformed (the key, the IV) is checked by [`Masker::new`].

mod aes_cbc;
mod fixed;
mod reveal;
mod siv;

use std::fmt;

use self::fixed::Fixed;
use self::siv::Siv;
use crate::config::{ConfigError, Mask, MaskingKey, MaskingKeys};

pub use reveal::{RevealError, Revealed, reveal};

/// Encrypts the values of one column. Shared by all threads.
pub struct Masker(Method);

enum Method {
    Siv(Box<Siv>),
    Fixed(Box<Fixed>),
}

impl Masker {
    /// Prepares the keys for one column; an error names the key or IV that is missing.
    pub fn new(mask: Mask, column: &str, keys: &MaskingKeys) -> Result<Self, ConfigError> {
        let method = match mask {
            Mask::Siv => Method::Siv(Box::new(Siv::new(column, master_key(keys)?)?)),
            Mask::Fixed => Method::Fixed(Box::new(Fixed::new(master_key(keys)?, fixed_iv(keys)?)?)),
        };
        Ok(Self(method))
    }

    /// Appends the encrypted `value` to `out`, as ASCII text.
    pub fn mask(&self, value: &str, out: &mut Vec<u8>) {
        match &self.0 {
            Method::Siv(siv) => siv.mask(value, out),
            Method::Fixed(fixed) => fixed.mask(value, out),
        }
    }
}

/// The number of characters of the text that a value of this number of bytes becomes.
#[must_use]
pub const fn masked_length(mask: Mask, bytes: usize) -> usize {
    match mask {
        Mask::Siv => siv::text_length(bytes),
        Mask::Fixed => aes_cbc::text_length(bytes),
    }
}

impl fmt::Debug for Masker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.0 {
            Method::Siv(_) => "Masker(siv)",
            Method::Fixed(_) => "Masker(fixed)",
        })
    }
}

fn master_key(keys: &MaskingKeys) -> Result<&MaskingKey, ConfigError> {
    keys.key.as_ref().ok_or(ConfigError::Missing {
        setting: "PGSLUICE_KEY",
        hint: "masked columns need a key of 32 or 64 hex digits; `pgsluice keygen` makes one",
    })
}

fn fixed_iv(keys: &MaskingKeys) -> Result<[u8; 16], ConfigError> {
    keys.fixed_iv.ok_or(ConfigError::Missing {
        setting: "PGSLUICE_FIXED_IV",
        hint: "columns with mask = \"fixed\" need the table's IV, 32 hex digits; `pgsluice keygen` makes one for a new table",
    })
}

/// `MaskingKey` accepts 16 and 32 bytes only, so this is a bug if it is ever seen.
fn unusable_key() -> ConfigError {
    ConfigError::InvalidSetting { setting: "PGSLUICE_KEY", problem: "expected 16 or 32 bytes".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_key_or_iv_is_named_with_the_command_that_makes_one() {
        let key = MaskingKey::from_hex("PGSLUICE_KEY", &"07".repeat(16)).unwrap();
        let without_iv = MaskingKeys { key: Some(key), fixed_iv: None };
        for (mask, keys, expected) in [
            (Mask::Siv, &MaskingKeys::default(), "PGSLUICE_KEY"),
            (Mask::Fixed, &MaskingKeys::default(), "PGSLUICE_KEY"),
            (Mask::Fixed, &without_iv, "PGSLUICE_FIXED_IV"),
        ] {
            let error = Masker::new(mask, "masked_ip", keys).unwrap_err();
            assert!(
                matches!(error, ConfigError::Missing { setting, hint } if setting == expected && hint.contains("pgsluice keygen")),
                "{error:?}"
            );
        }
    }

    #[test]
    fn the_length_of_a_masked_value_is_known_before() {
        let key = MaskingKey::from_hex("PGSLUICE_KEY", &"07".repeat(16)).unwrap();
        let keys = MaskingKeys { key: Some(key), fixed_iv: Some([9; 16]) };
        for mask in [Mask::Siv, Mask::Fixed] {
            let masker = Masker::new(mask, "c", &keys).unwrap();
            for bytes in 0..100 {
                let mut text = Vec::new();
                masker.mask(&"x".repeat(bytes), &mut text);
                assert_eq!(masked_length(mask, bytes), text.len(), "{mask:?}: {bytes} bytes");
            }
        }
    }

    #[test]
    fn debug_shows_the_method_alone() {
        let key = MaskingKey::from_hex("PGSLUICE_KEY", &"07".repeat(16)).unwrap();
        let keys = MaskingKeys { key: Some(key), fixed_iv: Some([9; 16]) };
        assert_eq!(format!("{:?}", Masker::new(Mask::Siv, "c", &keys).unwrap()), "Masker(siv)");
        assert_eq!(format!("{:?}", Masker::new(Mask::Fixed, "c", &keys).unwrap()), "Masker(fixed)");
    }
}
