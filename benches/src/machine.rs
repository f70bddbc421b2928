//! The machine that a run ran on, since figures mean nothing without it.

use std::fs;
use std::path::Path;

use crate::usage::field;

/// One line that describes the machine and how busy it is with other work; `data` is where the databases lie.
pub fn description(data: &Path) -> String {
    let processor = processor().unwrap_or_else(|| "unknown processor".into());
    let threads = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = field("/proc/meminfo", "MemTotal:").unwrap_or(0) >> 20;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let loads = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = loads.split_whitespace().next().unwrap_or("unknown");
    format!(
        "{processor} ({}), {threads} hardware threads, {memory} GiB of memory, {} {}, {}, {}, load average {load} before",
        std::env::consts::ARCH,
        std::env::consts::OS,
        kernel.trim(),
        file_system(data).unwrap_or_else(|| "unknown file system".into()),
        env!("COMPILER_VERSION"),
    )
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The type of the file system with the longest mount point above `path`.
fn file_system(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(point, _)| path.starts_with(point))
        .max_by_key(|(point, _)| point.len())
        .map(|(_, kind)| kind.to_owned())
}
