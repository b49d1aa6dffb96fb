//! What holds for any manifest, see [`crate::fuzz`].

#![allow(clippy::expect_used, reason = "a property that does not hold is a panic")]

use super::Manifest;

/// A manifest is read back as it was written.
pub(crate) fn manifest(input: &[u8]) {
    let Ok(manifest) = Manifest::parse(input) else { return };
    let text = serde_json::to_vec(&manifest).expect("a manifest can be written");
    assert!(Manifest::parse(&text).is_ok_and(|again| again == manifest), "what is written is read back");
}
