//! Drafts a mapping and its table from samples of message bodies.
//!
//! Always true: each type takes every value of the sample, by the reader that a run uses; and no value is in the draft,
//! only what was seen of it.

mod draft;
mod seen;

pub use draft::Draft;
