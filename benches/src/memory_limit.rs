//! A limit on all memory of a process, the page cache of the files that it reads included.
//!
//! An engine that reads through the page cache alone keeps to no budget of its own; a control group holds all engines to the same.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// A control group that this process is in as long as this lives.
pub struct MemoryLimit {
    group: PathBuf,
    parent: PathBuf,
}

impl MemoryLimit {
    /// Holds this process to `bytes`, in whichever version of control groups the system has; what was charged before stays where it
    /// was charged. The system asks for root.
    pub fn enter(bytes: u64) -> Result<Self> {
        let unified = PathBuf::from("/sys/fs/cgroup");
        let (parent, limit) = if unified.join("cgroup.controllers").exists() {
            // Where a service manager runs this is so already, and may not be changed.
            let _ = std::fs::write(unified.join("cgroup.subtree_control"), "+memory");
            (unified, "memory.max")
        } else {
            (unified.join("memory"), "memory.limit_in_bytes")
        };
        let limited = Self { group: parent.join(format!("peristyle-{}", std::process::id())), parent };
        let enter = || {
            std::fs::create_dir(&limited.group)?;
            std::fs::write(limited.group.join(limit), bytes.to_string())?;
            std::fs::write(limited.group.join("cgroup.procs"), std::process::id().to_string())
        };
        enter().with_context(|| {
            format!("no control group with limited memory in {}", limited.parent.display())
        })?;
        Ok(limited)
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // A group that stays limits nobody.
        let _ = std::fs::write(self.parent.join("cgroup.procs"), std::process::id().to_string());
        let _ = std::fs::remove_dir(&self.group);
    }
}
