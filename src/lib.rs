//! pgsluice.
pub mod config;
pub mod error;
pub mod exit_code;
#[cfg(feature = "local")]
pub mod local;
pub mod spool;
pub mod staging;
pub mod transform;
