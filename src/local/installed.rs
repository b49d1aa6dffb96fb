//! What this machine has installed: the server's binaries, in the places where systems put them, and a user to run
//! them.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use super::error::{LocalError, io_error};

/// The directory of `initdb` and `postgres`: from PATH, or the newest of the places where systems put them.
pub(super) fn find_binaries() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(installed_elsewhere())
        .chain(beside_this_program())
        .find(|directory| ["initdb", "postgres"].iter().all(|program| directory.join(program).is_file()))
}

/// Where packages put the binaries without adding them to PATH, newest major version first.
fn installed_elsewhere() -> Vec<PathBuf> {
    const PLACES: [(&str, &str, &str); 8] = [
        ("/usr/lib/postgresql", "", "bin"),                          // Debian, Ubuntu
        ("/usr", "pgsql-", "bin"),                                   // PGDG on Red Hat
        ("/usr/libexec", "postgresql", ""),                          // Alpine
        ("/opt/homebrew/opt", "postgresql@", "bin"),                 // Homebrew on Apple silicon
        ("/usr/local/opt", "postgresql@", "bin"),                    // Homebrew on Intel
        ("/home/linuxbrew/.linuxbrew/opt", "postgresql@", "bin"),    // Homebrew on Linux
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"), // Postgres.app
        ("/usr/local", "pgsql", "bin"),                              // built from source; carries no version
    ];
    let mut found = Vec::new();
    for (parent, prefix, binaries) in PLACES {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(version) = name.to_str().and_then(|name| name.strip_prefix(prefix)) else { continue };
            found.push((version.parse::<u32>().unwrap_or(0), entry.path().join(binaries)));
        }
    }
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, directory)| directory).collect()
}

/// The server in the Python package `pgserver`, where pgsluice was installed into the same environment by its wheel.
fn beside_this_program() -> Vec<PathBuf> {
    let program = env::current_exe().and_then(fs::canonicalize).ok();
    let Some(environment) = program.as_deref().and_then(|program| program.parent()?.parent()) else {
        return Vec::new();
    };
    let pythons = fs::read_dir(environment.join("lib")).into_iter().flatten().flatten();
    pythons.map(|python| python.path().join("site-packages/pgserver/pginstall/bin")).collect()
}

/// An account of this machine, by its numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct User {
    pub(super) id: u32,
    pub(super) group: u32,
}

/// Whether this process runs as root. Postgres refuses to.
pub(super) fn is_root() -> Result<bool, LocalError> {
    let output = Command::new("id").arg("-u").output().map_err(io_error("ask `id` for the user"))?;
    Ok(output.stdout.trim_ascii() == b"0")
}

/// The user that runs Postgres for root.
pub(super) fn unprivileged_user() -> Result<User, LocalError> {
    let passwd = fs::read_to_string("/etc/passwd").map_err(io_error("read /etc/passwd"))?;
    ["postgres", "nobody"].iter().find_map(|name| find_user(&passwd, name)).ok_or(LocalError::NoUnprivilegedUser)
}

fn find_user(passwd: &str, name: &str) -> Option<User> {
    let mut users = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let user = users.find(|fields| fields.first() == Some(&name))?;
    Some(User { id: user.get(2)?.parse().ok()?, group: user.get(3)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\npostgres2:x:7:7::/:\npostgres:x:101:104:PostgreSQL:/:/bin/bash\n";
        let user = find_user(passwd, "postgres").unwrap();
        assert_eq!((user.id, user.group), (101, 104));
        assert!(find_user(passwd, "nobody").is_none());
    }
}
