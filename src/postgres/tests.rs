//! What connection strings mean, against libpq's own answers and for us; what TLS and authentication prove;
//! when a connection is given up.

mod authentication;
pub(crate) mod authority;
mod conninfo;
mod files;
#[cfg(feature = "local")]
pub(crate) mod hostile;
mod server;
mod settings;
mod tls;
mod watch;
