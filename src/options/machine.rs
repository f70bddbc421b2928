//! How much memory this process may hope for: what the machine has, or a control group that the process is in
//! allows, whichever is less.
//!
//! The limit of a group holds for all groups below it, so every group from the process's own up to the root
//! counts. Where groups are found is read from the process's own list of groups and mounts, of both versions:
//! in a container the root of a mount is the container's group.

use std::fs::read_to_string;
use std::path::{Component, Path, PathBuf};

/// What a machine has of which nothing is known, in bytes, and what is believed at least.
const UNKNOWN: u64 = 8 << 30;
const LEAST: u64 = 64 << 20;

/// Bytes of memory that this process may hope for.
pub(super) fn memory() -> u64 {
    let read = |path: &str| read_to_string(path).unwrap_or_default();
    let group = group_limit(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
    installed_memory().unwrap_or(UNKNOWN).min(group.unwrap_or(u64::MAX)).max(LEAST)
}

#[cfg(target_os = "linux")]
#[allow(clippy::useless_conversion, reason = "it is a word of the machine, of 32 bits on some")]
fn installed_memory() -> Option<u64> {
    let info = rustix::system::sysinfo();
    u64::from(info.totalram).checked_mul(info.mem_unit.into())
}

#[cfg(not(target_os = "linux"))]
fn installed_memory() -> Option<u64> {
    None
}

/// The least that any control group of the process allows, in bytes. `groups` is what `/proc/self/cgroup`
/// says, `mounts` what `/proc/self/mountinfo` does.
fn group_limit(groups: &str, mounts: &str) -> Option<u64> {
    mounts.lines().filter_map(Mount::parse).filter_map(|mount| mount.limit(groups)).min()
}

/// A mounted hierarchy of control groups.
struct Mount<'a> {
    /// The group that is seen at `point`.
    root: &'a str,
    point: PathBuf,
    version: Version,
}

#[derive(Clone, Copy)]
enum Version {
    One,
    Two,
}

impl<'a> Mount<'a> {
    /// One line of `/proc/self/mountinfo`, if it is of a hierarchy that limits memory.
    fn parse(line: &'a str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        let mut kind = kind.split(' ');
        let version = match kind.next()? {
            "cgroup2" => Version::Two,
            "cgroup" if kind.nth(1)?.split(',').any(|option| option == "memory") => Version::One,
            _ => return None,
        };
        Some(Self { root, point: unescape(point), version })
    }

    /// The group that the process is in.
    fn group(&self, groups: &'a str) -> Option<&'a str> {
        groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (number, controllers, group) = (parts.next()?, parts.next()?, parts.next()?);
            let is_ours = match self.version {
                Version::One => controllers.split(',').any(|controller| controller == "memory"),
                Version::Two => number == "0" && controllers.is_empty(),
            };
            is_ours.then_some(group)
        })
    }

    fn limit(&self, groups: &str) -> Option<u64> {
        let group = Path::new(self.group(groups)?);
        // What lies outside of what is mounted is not seen; the root of the mount is above it or is it.
        let below = group.strip_prefix(self.root).unwrap_or(Path::new(""));
        let below: PathBuf = below.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        let names: &[&str] = match self.version {
            Version::One => &["memory.limit_in_bytes"],
            Version::Two => &["memory.max", "memory.high"],
        };
        let limits = below.ancestors().flat_map(|group| {
            names.iter().filter_map(move |name| {
                // No limit is a word, or a number beyond all memory.
                read_to_string(self.point.join(group).join(name)).ok()?.trim().parse().ok()
            })
        });
        limits.min()
    }
}

/// Spaces and the like stand in the list of mounts as a backslash and three octal digits.
fn unescape(path: &str) -> PathBuf {
    let mut parts = path.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(byte.into());
                plain.push_str(&part[3..]);
            }
            None => plain.extend(["\\", part]),
        }
    }
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Directories with files that hold limits.
    fn groups(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        directory
    }

    fn mount(root: &str, directory: &tempfile::TempDir, below: &str, kind: &str) -> String {
        format!("30 24 0:26 {root} {}{below} rw,nosuid shared:4 - {kind}\n", directory.path().display())
    }

    #[test]
    fn the_least_limit_of_all_groups_above_counts() {
        let directory = groups(&[
            ("a/memory.max", "3000\n"),
            ("a/b/memory.max", "max\n"),
            ("a/b/c/memory.max", "5000\n"),
            ("x/memory.max", "1\n"),
        ]);
        let mounts = mount("/", &directory, "", "cgroup2 cgroup2 rw,nsdelegate");
        assert_eq!(group_limit("0::/a/b/c\n", &mounts), Some(3000));
        fs::write(directory.path().join("a/b/c/memory.high"), "2000").unwrap();
        assert_eq!(group_limit("0::/a/b/c\n", &mounts), Some(2000));
        assert_eq!(group_limit("0::/a/b\n", &mounts), Some(3000));
        assert_eq!(group_limit("0::/\n", &mounts), None);
    }

    #[test]
    fn in_a_container_the_root_of_the_mount_is_its_group() {
        let directory = groups(&[("memory.max", "4000"), ("inner/memory.max", "900")]);
        let own = mount("/", &directory, "", "cgroup2 cgroup rw");
        assert_eq!(group_limit("0::/", &own), Some(4000));
        assert_eq!(group_limit("0::/inner", &own), Some(900));
        // Groups of the host, of which a part is mounted.
        let part = mount("/docker/abc", &directory, "", "cgroup2 cgroup rw");
        assert_eq!(group_limit("0::/docker/abc/inner", &part), Some(900));
        assert_eq!(group_limit("0::/docker/abc", &part), Some(4000));
        // A process beside its namespace.
        assert_eq!(group_limit("0::/../elsewhere", &own), Some(4000));
    }

    #[test]
    fn version_1_has_a_hierarchy_of_its_own_for_memory() {
        let directory = groups(&[
            ("memory/memory.limit_in_bytes", "9223372036854771712"),
            ("memory/job/memory.limit_in_bytes", "7000"),
            ("cpu/job/memory.limit_in_bytes", "1"),
        ]);
        let mounts = mount("/", &directory, "/memory", "cgroup cgroup rw,memory")
            + &mount("/", &directory, "/cpu", "cgroup cgroup rw,cpu,cpuacct");
        let groups = "12:cpu,cpuacct:/job\n5:memory:/job/step\n0::/unified\n";
        assert_eq!(group_limit(groups, &mounts), Some(7000));
    }

    #[test]
    fn both_versions_at_once_count_both() {
        let directory = groups(&[("memory/memory.limit_in_bytes", "6000"), ("unified/u/memory.max", "5000")]);
        let mounts = mount("/", &directory, "/memory", "cgroup cgroup rw,memory")
            + &mount("/", &directory, "/unified", "cgroup2 cgroup2 rw");
        assert_eq!(group_limit("5:memory:/\n0::/u\n", &mounts), Some(5000));
        assert_eq!(group_limit("5:memory:/\n0::/\n", &mounts), Some(6000));
    }

    #[test]
    fn nonsense_says_nothing() {
        assert_eq!(group_limit("", ""), None);
        assert_eq!(group_limit("0::/", "30 24 0:26 / - cgroup2\n\n - \nx"), None);
        assert_eq!(unescape("/a\\040b\\x"), Path::new("/a b\\x"));
        assert!(memory() >= LEAST);
    }
}
