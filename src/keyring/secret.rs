//! The bytes of a key.

use std::fmt;

use zeroize::Zeroizing;

use super::KeyringError;

const RANDOM_BYTES: usize = 32;

/// A key: 16 or 32 bytes. Wiped from memory when dropped, never shown by `Debug`.
#[derive(Clone)]
pub struct SecretKey(Zeroizing<Vec<u8>>);

impl SecretKey {
    /// Reads 32 or 64 hexadecimal digits; `origin` names where they stand, for an error.
    pub fn from_hex(origin: &str, text: &str) -> Result<Self, KeyringError> {
        let bytes = bytes_from_hex(origin, text)?;
        if ![16, 32].contains(&bytes.len()) {
            let problem = format!("expected 16 or 32 bytes (32 or 64 hex digits), got {} bytes", bytes.len());
            return Err(KeyringError::InvalidKey { origin: origin.to_owned(), problem });
        }
        Ok(Self(bytes))
    }

    /// 32 random bytes.
    pub fn random() -> Result<Self, KeyringError> {
        let mut bytes = Zeroizing::new(vec![0; RANDOM_BYTES]);
        getrandom::fill(&mut bytes).map_err(|error| KeyringError::Random { source: error.into() })?;
        Ok(Self(bytes))
    }

    /// The key's bytes: 16 or 32.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key as lowercase hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(&*self.0))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretKey(…)")
    }
}

/// Reads the 32 hexadecimal digits of an IV.
pub(super) fn iv_from_hex(origin: &str, text: &str) -> Result<[u8; 16], KeyringError> {
    let bytes = bytes_from_hex(origin, text)?;
    bytes.as_slice().try_into().map_err(|_| KeyringError::InvalidKey {
        origin: origin.to_owned(),
        problem: format!("expected 16 bytes (32 hex digits), got {} bytes", bytes.len()),
    })
}

pub(super) fn random_iv() -> Result<[u8; 16], KeyringError> {
    let mut iv = [0; 16];
    getrandom::fill(&mut iv).map_err(|error| KeyringError::Random { source: error.into() })?;
    Ok(iv)
}

fn bytes_from_hex(origin: &str, text: &str) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
    // hex's own error quotes the offending character of what is a secret.
    hex::decode(text.trim()).map(Zeroizing::new).map_err(|_| KeyringError::InvalidKey {
        origin: origin.to_owned(),
        problem: "expected an even number of hexadecimal digits".to_owned(),
    })
}
