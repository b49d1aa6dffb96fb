//! pgsluice.
pub mod config;
pub mod error;
pub mod exit_code;
pub mod spool;
pub mod staging;
pub mod transform;
