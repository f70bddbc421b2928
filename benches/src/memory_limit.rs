//! A limit on all memory of a process, the page cache of the files that it reads included.
//!
//! An engine that reads through the page cache alone keeps to no budget of its own; a control group holds all
//! engines to the same.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A control group that this process is in as long as this lives. One that stays because the process was
/// killed limits nobody.
pub struct MemoryLimit {
    group: PathBuf,
    /// The group from which this process came.
    origin: PathBuf,
}

impl MemoryLimit {
    /// Holds this process to `bytes`, in whichever version of control groups the system has; what was charged
    /// before stays where it was charged. The system asks for root.
    pub fn enter(bytes: u64) -> Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own_path = |controllers: &str| {
            let path = own.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(controllers));
            path.map(|path| path.trim_start_matches([':', '/']).to_owned())
        };
        let root = Path::new("/sys/fs/cgroup");
        let (origin, parent, limit) = if root.join("cgroup.controllers").exists() {
            // Where a service manager runs this is so already, and may not be changed. Groups with processes
            // have no groups below them.
            let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
            (root.join(own_path(":").unwrap_or_default()), root.to_owned(), "memory.max")
        } else {
            let origin = root.join("memory").join(own_path("memory:").unwrap_or_default());
            (origin.clone(), origin, "memory.limit_in_bytes")
        };
        let group = parent.join(format!("peristyle-{}", std::process::id()));
        // What a process of the same number left when it was killed.
        let _ = fs::remove_dir(&group);
        let enter = || {
            fs::create_dir(&group)?;
            fs::write(group.join(limit), bytes.to_string())?;
            fs::write(group.join("cgroup.procs"), std::process::id().to_string())
        };
        if let Err(error) = enter() {
            let _ = fs::remove_dir(&group);
            let message = format!("no control group with limited memory in {}", parent.display());
            return Err(error).context(message);
        }
        Ok(Self { group, origin })
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let _ = fs::write(self.origin.join("cgroup.procs"), std::process::id().to_string());
        let _ = fs::remove_dir(&self.group);
    }
}
