//! The id of a key: four bytes that follow from it, each algorithm's under its own info string, and say nothing about it.
//!
//! Frozen: ids stand in masked values, in the ledger and in the spool.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::SecretKey;

const SIV_INFO: &[u8] = b"pgsluice key id";
const FIXED_INFO: &[u8] = b"pgsluice fixed key id";
const SPOOL_INFO: &[u8] = b"pgsluice spool key id";
const ID_BYTES: usize = 4;

/// HKDF-SHA-256 without salt.
pub(super) fn siv(key: &SecretKey) -> String {
    by_hkdf(key, SIV_INFO)
}

/// HMAC-SHA-256 under the key, of the info string and the IV.
pub(super) fn fixed(key: &SecretKey, iv: [u8; 16]) -> String {
    // HMAC takes keys of every length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes()) else { return String::new() };
    mac.update(FIXED_INFO);
    mac.update(&iv);
    hex::encode(&mac.finalize().into_bytes()[..ID_BYTES])
}

/// HKDF-SHA-256 without salt.
pub(super) fn spool(key: &SecretKey) -> String {
    by_hkdf(key, SPOOL_INFO)
}

fn by_hkdf(key: &SecretKey, info: &[u8]) -> String {
    let mut id = [0; ID_BYTES];
    // Four bytes are never too many for HKDF.
    _ = Hkdf::<Sha256>::new(None, key.as_bytes()).expand(info, &mut id);
    hex::encode(id)
}
