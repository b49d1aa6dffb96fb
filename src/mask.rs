//! Encrypts the values of masked columns, and reveals them again.
//!
//! Always true:
//! - both methods are deterministic, so equal values of a column stay equal; the key reverses them;
//! - a masked value is ASCII: hexadecimal digits; `siv` puts its key's id and a colon before them;
//! - no key and no plaintext appears in `Debug` output or in an error.
//!
//! Masking itself cannot fail: [`Masker::new`] finds out where the key is missing.

mod aes_cbc;
mod fixed;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
mod reveal;
mod siv;

use std::fmt;

use self::fixed::Fixed;
use self::siv::Siv;
use crate::config::{ConfigError, Mask};
use crate::keyring::{Algorithm, Key, Keyring};

pub use reveal::{RevealError, Revealed, reveal, reveal_of};

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
    /// Prepares the first key of the method for one column, see [`crate::config::Column::masked_as`].
    pub fn new(mask: Mask, column: &str, keys: &Keyring) -> Result<Self, ConfigError> {
        let key = keys.first(algorithm(mask)).ok_or_else(|| missing_key(mask))?;
        Self::with_key(column, key).ok_or_else(|| missing_key(mask))
    }

    /// Prepares any masking key for one column; `None` if the key is no masking key.
    #[must_use]
    pub fn with_key(column: &str, key: &Key) -> Option<Self> {
        let method = match key.algorithm() {
            Algorithm::Siv => Method::Siv(Box::new(Siv::new(column, key.id(), key.secret())?)),
            Algorithm::Fixed => Method::Fixed(Box::new(Fixed::new(key.secret(), key.iv()?)?)),
            Algorithm::Spool => return None,
        };
        Some(Self { method, key_id: key.id().to_owned() })
    }

    /// The id of the key.
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

/// What a method's keys are for.
#[must_use]
pub const fn algorithm(mask: Mask) -> Algorithm {
    match mask {
        Mask::Siv => Algorithm::Siv,
        Mask::Fixed => Algorithm::Fixed,
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

const fn missing_key(mask: Mask) -> ConfigError {
    match mask {
        Mask::Siv => ConfigError::Missing {
            setting: "the masking key (PGSLUICE_KEY_FILE or PGSLUICE_KEY)",
            hint: "masked columns need a key: `pgsluice keygen --out FILE` makes a keyring, which PGSLUICE_KEY_FILE or \
                   --key-file names",
        },
        Mask::Fixed => ConfigError::Missing {
            setting: "the key of mask = \"fixed\" (a keyring, or PGSLUICE_KEY and PGSLUICE_FIXED_IV)",
            hint: "mask = \"fixed\" is for existing tables and needs what the table was written with: an entry of the \
                   keyring, or PGSLUICE_KEY and PGSLUICE_FIXED_IV, 32 hex digits; a new table is better masked by \
                   \"siv\", which needs no IV",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::SecretKey;

    fn keys() -> Keyring {
        Keyring::of_one_key(SecretKey::from_hex("key", &"07".repeat(16)).unwrap(), Some([9; 16]))
    }

    fn missing(mask: Mask, keys: &Keyring) -> (&'static str, &'static str) {
        match Masker::new(mask, "masked_ip", keys).unwrap_err() {
            ConfigError::Missing { setting, hint } => (setting, hint),
            other => panic!("not a missing setting: {other:?}"),
        }
    }

    #[test]
    fn a_missing_key_is_named_with_the_command_that_makes_one() {
        let (setting, hint) = missing(Mask::Siv, &Keyring::default());
        assert!(setting.contains("PGSLUICE_KEY_FILE") && hint.contains("pgsluice keygen"), "{setting}, {hint}");
    }

    /// The hint once named `pgsluice keygen`, whose 64 digits are no IV and were refused.
    #[test]
    fn a_missing_iv_is_the_tables_own_and_no_command_makes_it() {
        let key = SecretKey::from_hex("key", &"07".repeat(16)).unwrap();
        let (setting, hint) = missing(Mask::Fixed, &Keyring::of_one_key(key, None));
        assert!(setting.contains("IV"), "{setting}");
        assert!(hint.contains("32 hex digits") && !hint.contains("keygen"), "{hint}");
    }

    #[test]
    fn the_length_of_a_masked_value_is_known_before() {
        for mask in [Mask::Siv, Mask::Fixed] {
            let masker = Masker::new(mask, "c", &keys()).unwrap();
            for bytes in 0..100 {
                let mut text = Vec::new();
                masker.mask(&"x".repeat(bytes), &mut text);
                assert_eq!(masked_length(mask, bytes), text.len(), "{mask:?}: {bytes} bytes");
            }
        }
    }

    #[test]
    fn debug_shows_the_method_alone() {
        assert_eq!(format!("{:?}", Masker::new(Mask::Siv, "c", &keys()).unwrap()), "Masker(siv)");
        assert_eq!(format!("{:?}", Masker::new(Mask::Fixed, "c", &keys()).unwrap()), "Masker(fixed)");
    }
}
