//! What connection strings mean: against libpq's own answers, and for us.

mod conninfo;
mod settings;
