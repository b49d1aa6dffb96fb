//! The host that this process runs on: its name, and the names that lead back to it.

use std::net::IpAddr;

/// HOSTNAME, or what the kernel says; "unknown" where neither says anything.
#[must_use]
pub(crate) fn host_name() -> String {
    let from_kernel = || std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name = std::env::var("HOSTNAME").or_else(|_| from_kernel()).unwrap_or_default();
    if name.trim().is_empty() { "unknown".to_owned() } else { name.trim().to_owned() }
}

/// Whether a name or an address leads to this host and crosses no network.
#[must_use]
pub(crate) fn is_local(name: &str) -> bool {
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_local;

    #[test]
    fn only_loopback_is_local() {
        for name in ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1", "[::1]"] {
            assert!(is_local(name), "{name}");
        }
        for name in ["", "db", "localhost.example.com", "10.0.0.1", "0.0.0.0", "127.0.0.1.example.com"] {
            assert!(!is_local(name), "{name}");
        }
    }
}
