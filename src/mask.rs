//! Encrypts the values of masked columns, and reveals them again.
//!
//! Always true:
//! - both methods are deterministic, so equal values of a column stay equal; the key reverses them;
//! - a masked value is ASCII: hexadecimal digits; `siv` puts its key's id and a colon before them;
//! - no key and no plaintext appears in `Debug` output or in an error.
//!
//! Masking itself cannot fail: [`Masker::new`] checks the key and the IV, which may be missing or malformed.

mod aes_cbc;
mod fixed;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
mod reveal;
mod siv;

use std::fmt;

use self::fixed::Fixed;
use self::siv::Siv;
use crate::config::{ConfigError, Mask, MaskingKey, MaskingKeys};

pub use reveal::{RevealError, Revealed, reveal};

/// Encrypts the values of one column. Shared by all threads.
pub struct Masker {
    method: Method,
    key_id: String,
}

enum Method {
    Siv(Box<Siv>),
    Fixed(Box<Fixed>),
}

impl Masker {
    /// Prepares the keys for one column; an error names the key or IV that is missing.
    pub fn new(mask: Mask, column: &str, keys: &MaskingKeys) -> Result<Self, ConfigError> {
        let key = master_key(keys)?;
        Ok(match mask {
            Mask::Siv => Self { method: Method::Siv(Box::new(Siv::new(column, key)?)), key_id: siv::key_id(key)? },
            Mask::Fixed => {
                let iv = fixed_iv(keys)?;
                Self { method: Method::Fixed(Box::new(Fixed::new(key, iv)?)), key_id: fixed::key_id(key, iv)? }
            }
        })
    }

    /// What stands for the key, and the IV where the method has one: eight hexadecimal digits.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Appends the encrypted `value` to `out`, as ASCII text.
    pub fn mask(&self, value: &str, out: &mut Vec<u8>) {
        match &self.method {
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
        formatter.write_str(match self.method {
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
        hint: "mask = \"fixed\" is for existing tables and needs the IV that the table was written with, 32 hex digits; \
               a new table is better masked by \"siv\", which needs none",
    })
}

/// `MaskingKey` accepts 16 and 32 bytes only, so only a bug can show this error.
fn unusable_key() -> ConfigError {
    ConfigError::InvalidSetting { setting: "PGSLUICE_KEY", problem: "expected 16 or 32 bytes".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(mask: Mask, keys: &MaskingKeys) -> (&'static str, &'static str) {
        match Masker::new(mask, "masked_ip", keys).unwrap_err() {
            ConfigError::Missing { setting, hint } => (setting, hint),
            other => panic!("not a missing setting: {other:?}"),
        }
    }

    #[test]
    fn a_missing_key_is_named_with_the_command_that_makes_one() {
        for mask in [Mask::Siv, Mask::Fixed] {
            let (setting, hint) = missing(mask, &MaskingKeys::default());
            assert_eq!(setting, "PGSLUICE_KEY");
            assert!(hint.contains("pgsluice keygen"), "{hint}");
        }
    }

    /// The hint once named `pgsluice keygen`, whose 64 digits are no IV and were refused.
    #[test]
    fn a_missing_iv_is_the_tables_own_and_no_command_makes_it() {
        let key = MaskingKey::from_hex("PGSLUICE_KEY", &"07".repeat(16)).unwrap();
        let (setting, hint) = missing(Mask::Fixed, &MaskingKeys { key: Some(key), fixed_iv: None });
        assert_eq!(setting, "PGSLUICE_FIXED_IV");
        assert!(hint.contains("32 hex digits") && !hint.contains("keygen"), "{hint}");
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
