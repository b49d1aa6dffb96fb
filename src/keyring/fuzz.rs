//! What holds for any keyring, see [`crate::fuzz`].

#![allow(clippy::expect_used, reason = "a property that does not hold is a panic")]

use super::Keyring;
use crate::fuzz::assert_quotes_nothing;

/// A keyring is read back as it was written, or is refused without being quoted.
pub(crate) fn ring(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match Keyring::parse("keys.toml", text) {
        Ok(ring) => {
            let again = Keyring::parse("keys.toml", &ring.to_toml()).expect("a keyring that was written");
            assert_eq!(again.to_toml(), ring.to_toml());
            assert!(ring.iter().map(super::Key::id).eq(again.iter().map(super::Key::id)));
        }
        Err(error) => {
            // The id that follows from a key is no secret, and the text may hold it, too, where it does not belong.
            let error = error.to_string();
            assert_quotes_nothing(error.split("follows from this key is").next().unwrap_or_default(), text);
        }
    }
}
