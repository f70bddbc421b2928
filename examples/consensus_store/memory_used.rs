//! The memory that this process holds.

/// Bytes in main memory, now and at the most so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryUsed {
    pub(crate) resident: u64,
    pub(crate) peak: u64,
}

impl MemoryUsed {
    /// `None` where the system does not tell.
    pub(crate) fn now() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        Some(Self { resident: field(&status, "VmRSS:")?, peak: field(&status, "VmHWM:")? })
    }
}

/// A field of `/proc/self/status`, which tells in KiB.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}
