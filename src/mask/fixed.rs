//! `mask = "fixed"`, the format of existing tables: AES-CBC with PKCS#7, one key and one IV for every value, as
//! lowercase hex. The key's length says which AES. It is neither authenticated nor bound to its column, and values
//! whose first 16 bytes are equal start with equal digits: `siv` is the better choice for a new table.

use aes::cipher::KeyInit;
use aes::{Aes128Dec, Aes128Enc, Aes256Dec, Aes256Enc};

use super::aes_cbc;
use crate::keyring::SecretKey;

pub(super) struct Fixed {
    cipher: Cipher,
    iv: [u8; 16],
}

enum Cipher {
    Aes128(Aes128Enc),
    Aes256(Aes256Enc),
}

impl Fixed {
    /// `None` if the key has neither 16 nor 32 bytes, which no [`SecretKey`] has.
    pub(super) fn new(key: &SecretKey, iv: [u8; 16]) -> Option<Self> {
        let key = key.as_bytes();
        let cipher = Aes128Enc::new_from_slice(key)
            .map(Cipher::Aes128)
            .or_else(|_| Aes256Enc::new_from_slice(key).map(Cipher::Aes256));
        Some(Self { cipher: cipher.ok()?, iv })
    }

    pub(super) fn mask(&self, value: &str, out: &mut Vec<u8>) {
        match &self.cipher {
            Cipher::Aes128(cipher) => aes_cbc::encrypt_to_hex(cipher, self.iv, value.as_bytes(), out),
            Cipher::Aes256(cipher) => aes_cbc::encrypt_to_hex(cipher, self.iv, value.as_bytes(), out),
        }
    }
}

/// The value, unless the padding or UTF-8 shows that the key or the IV is another. Not every wrong key shows.
pub(super) fn reveal(key: &SecretKey, iv: [u8; 16], ciphertext: &[u8]) -> Option<String> {
    let key = key.as_bytes();
    let value = if let Ok(cipher) = Aes128Dec::new_from_slice(key) {
        aes_cbc::decrypt(&cipher, iv, ciphertext)
    } else {
        aes_cbc::decrypt(&Aes256Dec::new_from_slice(key).ok()?, iv, ciphertext)
    };
    String::from_utf8(value?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const IV: [u8; 16] = *b"InitializationVe";

    /// Computed by `openssl enc -aes-128-cbc` (and -256-) and by Python's cryptography, which agreed.
    const VECTORS: [(&str, &str, &str); 18] = [
        ("Sixteen byte key", "199.172.111.135", "0ca98bdb16538050f135562323eb6072"),
        ("Sixteen byte key", "", "87bbafdbf5f7b22d4bd69da116a10703"),
        ("Sixteen byte key", "593-47-5928", "78c9fc7d238685d8e81691c33a1b0c15"),
        ("Sixteen byte key", "0123456789abcde", "7dec60cfb81175c310ebad5b4ce62f31"),
        ("Sixteen byte key", "0123456789abcdef", "c00ad47b9164b4f7a6e3c15d28897eeede273e8cd99a5f8d536159b56ae59b30"),
        ("Sixteen byte key", "0123456789abcdefg", "c00ad47b9164b4f7a6e3c15d28897eee550bb46973746b4c54e8e878c3b73ea5"),
        ("Sixteen byte key", "Grüße, 東京 🦀", "b6829935bdd3e6bd4ae4965cae7de769a8719e355f35f4290a972a027bfa09e5"),
        (
            "Sixteen byte key",
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "66b91debeee553a1e65152a528ba140611ec8cc38eefc4f62832d0364e14f999",
        ),
        (
            "Sixteen byte key",
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "66b91debeee553a1e65152a528ba14065b2ef10f97404560acfff56cd316a5f399a76b92900751f9b6c5d31fd453251f",
        ),
        ("a key of exactly thirty-two byte", "199.172.111.135", "c3d59a61f72b13e4262b9c276b232c4d"),
        ("a key of exactly thirty-two byte", "", "b8a63ed82bae3ef57584ad8e7fbb6d21"),
        ("a key of exactly thirty-two byte", "593-47-5928", "c8b28a6628b444f5a3abea58e9e2f56f"),
        ("a key of exactly thirty-two byte", "0123456789abcde", "e36d7350d4ea69e9ae0727ba63a78b07"),
        (
            "a key of exactly thirty-two byte",
            "0123456789abcdef",
            "44fc5b1eaf1b7d37cf6f92ee943ce41273367afccb672156bcacf16ca7e60469",
        ),
        (
            "a key of exactly thirty-two byte",
            "0123456789abcdefg",
            "44fc5b1eaf1b7d37cf6f92ee943ce41205bb90436d398ecee0f2f9eb670c0a89",
        ),
        (
            "a key of exactly thirty-two byte",
            "Grüße, 東京 🦀",
            "1c3ab7f5675fe55a8d44d1dd49176fd238ed2a1d6fb8c674555db086b3b96fee",
        ),
        (
            "a key of exactly thirty-two byte",
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "f63fc44807a6ad82d0e1765eeaedd0359f90248b265034a09b91ac98e3903cfb",
        ),
        (
            "a key of exactly thirty-two byte",
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "f63fc44807a6ad82d0e1765eeaedd0357e04ff96ca95d172681b3ee1665e8264c886876712107b2c8b627cb04972d629",
        ),
    ];

    fn key(text: &str) -> SecretKey {
        SecretKey::from_hex("key", &hex::encode(text)).unwrap()
    }

    #[test]
    fn values_equal_those_of_other_implementations() {
        for (key_text, value, expected) in VECTORS {
            let mut masked = b"kept:".to_vec();
            Fixed::new(&key(key_text), IV).unwrap().mask(value, &mut masked);
            assert_eq!(String::from_utf8(masked).unwrap(), format!("kept:{expected}"), "{key_text}: {value:?}");
            assert_eq!(reveal(&key(key_text), IV, &hex::decode(expected).unwrap()).as_deref(), Some(value));
        }
    }

    #[test]
    fn a_cut_value_is_refused() {
        let (key_text, _, masked) = VECTORS[0];
        let masked = hex::decode(masked).unwrap();
        assert_eq!(reveal(&key(key_text), IV, &masked[..15]), None);
        assert_eq!(reveal(&key(key_text), IV, &[]), None);
    }
}
