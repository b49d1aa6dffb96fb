//! The man pages and completion scripts that a release carries, as files.
//!
//! `cargo run --release --example pages -- DIRECTORY` writes DIRECTORY/man/man1/*.1 and DIRECTORY/completions/*.

use std::fs;
use std::path::Path;

use anyhow::Context;
use clap::ValueEnum;
use clap_complete::Shell;

fn main() -> anyhow::Result<()> {
    let directory = std::env::args().nth(1).context("give the directory")?;
    let (pages, scripts) = (Path::new(&directory).join("man/man1"), Path::new(&directory).join("completions"));
    fs::create_dir_all(&pages)?;
    fs::create_dir_all(&scripts)?;
    clap_mangen::generate_to(pgsluice::cli::command_line(), &pages)?;
    for &shell in Shell::value_variants() {
        clap_complete::generate_to(shell, &mut pgsluice::cli::command_line(), "pgsluice", &scripts)?;
    }
    Ok(())
}
