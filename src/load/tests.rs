//! Loads through real COPYs into a temporary Postgres: each test has a database and a staging directory of its own.

mod fixture;

mod connecting;
mod isolation;
mod loading;
mod lost_answers;
mod mapping;
mod search_path;
mod turns;
