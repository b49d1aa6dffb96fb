//! pgsluice.
pub mod config;
pub mod error;
pub mod exit_code;
pub mod load;
#[cfg(feature = "local")]
pub mod local;
pub mod spool;
pub mod staging;
pub mod transform;
