//! What connection strings mean, against libpq's own answers and for us; what TLS proves.

mod conninfo;
mod settings;
mod tls;
