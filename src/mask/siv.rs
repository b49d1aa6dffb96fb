//! `mask = "siv"`, the SIV composition (Rogaway and Shrimpton, 2006): the IV is a keyed hash of the column's name and
//! the value, so equal values of a column stay equal, equal prefixes do not show, and a changed value is detected.
//!
//! IV = the first 16 bytes of HMAC-SHA-256(mac key, column name ‖ 0 ‖ value);
//! text = key id `:` hex(IV ‖ AES-256-CBC(enc key, IV, value)).
//! Both keys (32 bytes each) and the key id (4 bytes, see `keyring`) come from the master key by HKDF-SHA-256 without salt,
//! each under its own info string.

use aes::cipher::KeyInit;
use aes::{Aes256Dec, Aes256Enc};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::aes_cbc::{self, BLOCK_BYTES};
use crate::keyring::SecretKey;

const MAC_INFO: &[u8] = b"pgsluice siv mac";
const ENCRYPTION_INFO: &[u8] = b"pgsluice siv enc";
const KEY_ID_BYTES: usize = 4;

pub(super) struct Siv {
    /// Starts each text.
    prefix: String,
    /// The state after the mac key, the column's name and the zero byte, which are the same for every value.
    mac: Hmac<Sha256>,
    cipher: Aes256Enc,
}

impl Siv {
    /// `None` if HKDF or HMAC refused the key, which they do not for any length that a [`SecretKey`] has.
    pub(super) fn new(column: &str, key_id: &str, key: &SecretKey) -> Option<Self> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&*derive(key, MAC_INFO)?).ok()?;
        mac.update(column.as_bytes());
        mac.update(&[0]);
        let cipher = Aes256Enc::new((&*derive(key, ENCRYPTION_INFO)?).into());
        Some(Self { prefix: format!("{key_id}:"), mac, cipher })
    }

    pub(super) fn mask(&self, value: &str, out: &mut Vec<u8>) {
        let hash = self.mac.clone().chain_update(value).finalize().into_bytes();
        let mut iv = [0; BLOCK_BYTES];
        iv.copy_from_slice(&hash[..BLOCK_BYTES]);
        out.extend_from_slice(self.prefix.as_bytes());
        aes_cbc::push_hex(iv, out);
        aes_cbc::encrypt_to_hex(&self.cipher, iv, value.as_bytes(), out);
    }

    /// Whether `iv` is the one that [`Self::mask`] computes for this column and value.
    pub(super) fn authenticates(&self, iv: [u8; BLOCK_BYTES], value: &str) -> bool {
        self.mac.clone().chain_update(value).verify_truncated_left(&iv).is_ok()
    }
}

/// The number of characters of the text for a value of this number of bytes: key id, colon, IV, ciphertext.
pub(super) const fn text_length(bytes: usize) -> usize {
    2 * KEY_ID_BYTES + 1 + 2 * BLOCK_BYTES + aes_cbc::text_length(bytes)
}

/// The value of a text's two parts, not authenticated yet, unless the padding or UTF-8 is wrong.
pub(super) fn decrypt(key: &SecretKey, iv: [u8; BLOCK_BYTES], ciphertext: &[u8]) -> Option<String> {
    let cipher = Aes256Dec::new((&*derive(key, ENCRYPTION_INFO)?).into());
    String::from_utf8(aes_cbc::decrypt(&cipher, iv, ciphertext)?).ok()
}

fn derive(key: &SecretKey, info: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let mut derived = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(None, key.as_bytes()).expand(info, &mut *derived).ok()?;
    Some(derived)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::Key;

    /// Computed by Python from the description above (hmac, hashlib and cryptography), not by this code.
    const VECTORS: [(&str, &str, &str, &str); 10] = [
        (
            "Sixteen byte key",
            "masked_ip",
            "199.172.111.135",
            "76b0f3af:c0208208de77d351e9e8d66e26172bd8f070284970fb31be87e1b51bac6af4f9",
        ),
        (
            "Sixteen byte key",
            "masked_device_id",
            "199.172.111.135",
            "76b0f3af:1d19309bf5564a53c9694918bfa9597432eba41c01c6c8661173758af5bc381b",
        ),
        (
            "Sixteen byte key",
            "masked_ip",
            "",
            "76b0f3af:856b447b2146077a8180298eebc14dd1e72c122b52e0caa40771794b1eb863b8",
        ),
        (
            "Sixteen byte key",
            "masked_ip",
            "0123456789abcdef",
            "76b0f3af:e6697b8fa39011378480c54b11cf1e685ee45c225d5a5c81236c6336b722569df16a8b626b27257f68239c74d028713a",
        ),
        (
            "Sixteen byte key",
            "masked_ip",
            "Grüße, 東京 🦀",
            "76b0f3af:82020a14be15ed2ca865453470fe28af2db8f95bfe29f8ad160dacfd672399d38d5c275ba0547da266e126f13275bb4e",
        ),
        (
            "a key of exactly thirty-two byte",
            "masked_ip",
            "199.172.111.135",
            "00d70a95:a5d758d1afbbfc708d8eab5e97a3d4a9787819979a469b6df4b2f940ad7a3722",
        ),
        (
            "a key of exactly thirty-two byte",
            "masked_device_id",
            "199.172.111.135",
            "00d70a95:7b7637e0fba7370aa7d8eb3f3dece09c20b132b7246662cc47f0f18b47e1f2ea",
        ),
        (
            "a key of exactly thirty-two byte",
            "masked_ip",
            "",
            "00d70a95:d9fc3829126a8e480a054368f7ffabd58a2d2a3669fa8610964ffd8dc6ca6390",
        ),
        (
            "a key of exactly thirty-two byte",
            "masked_ip",
            "0123456789abcdef",
            "00d70a95:baa5f20187cbd3afadcce401540249fe4279ffdef692d26134941384878c56378f262e6b479a008f88d1f91c882820f3",
        ),
        (
            "a key of exactly thirty-two byte",
            "masked_ip",
            "Grüße, 東京 🦀",
            "00d70a95:8c4b67610bbeae8291e81e50d5e81429fb87315a0b454efc4cc5456d4d32621e4d319be01f00d1f822a3fbf3b9e8f03a",
        ),
    ];

    #[test]
    fn values_equal_those_of_an_independent_implementation() {
        for (key, column, value, expected) in VECTORS {
            let key = Key::siv(SecretKey::from_hex("key", &hex::encode(key)).unwrap(), None);
            let mut masked = Vec::new();
            Siv::new(column, key.id(), key.secret()).unwrap().mask(value, &mut masked);
            assert_eq!(String::from_utf8(masked).unwrap(), expected, "{column}: {value:?}");
        }
    }
}
