//! What connection strings mean, against libpq's own answers and for us; what TLS proves;
//! when a connection is given up.

mod conninfo;
#[cfg(feature = "local")]
pub(crate) mod hostile;
mod settings;
mod tls;
mod watch;
