//! The name of the host that this process runs on.

/// HOSTNAME, or what the kernel says; "unknown" where neither says anything.
#[must_use]
pub(crate) fn host_name() -> String {
    let from_kernel = || std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name = std::env::var("HOSTNAME").or_else(|_| from_kernel()).unwrap_or_default();
    if name.trim().is_empty() { "unknown".to_owned() } else { name.trim().to_owned() }
}
