//! Puts the commit into `--version` of a release build.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=BUILD_VERSION={}", version());
}

/// `0.1.0 (af8400c)`, or `0.1.0` where there is neither PGSLUICE_COMMIT nor a git checkout. A debug build goes without:
/// it would be made again for each commit.
fn version() -> String {
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    if env::var("PROFILE").as_deref() != Ok("release") {
        return version;
    }
    println!("cargo::rerun-if-env-changed=PGSLUICE_COMMIT");
    if let Some(commit) = env::var("PGSLUICE_COMMIT").ok().filter(|commit| !commit.is_empty()) {
        return format!("{version} ({commit})");
    }
    // Git names this file also where the checkout is a worktree. It changes with each commit.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    match git(&["rev-parse", "--short", "HEAD"]) {
        Some(commit) => format!("{version} ({commit})"),
        None => version,
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
