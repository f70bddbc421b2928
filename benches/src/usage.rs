//! What this process has consumed so far, and what was written to the disk.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Totals since the process started. Figures that the system does not tell are zero.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time of all threads, in seconds.
    pub cpu_seconds: f64,
    /// The most memory that was resident at any time since the peak was last forgotten, mapped files
    /// included, in bytes.
    pub peak_memory_bytes: u64,
}

impl Usage {
    /// Reads the totals of this process.
    pub fn now() -> Result<Self> {
        Ok(Self {
            cpu_seconds: cpu_seconds()?,
            peak_memory_bytes: field("/proc/self/status", "VmHWM:").unwrap_or(0) * 1024,
        })
    }

    /// Lets the peak of the memory begin anew. Where the system does not do that, the peak stays that of the
    /// whole process.
    pub fn forget_peak_memory() {
        // Resets what the system calls the high water mark.
        let _ = fs::write("/proc/self/clear_refs", "5");
    }
}

fn cpu_seconds() -> Result<f64> {
    let mut times = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `times` is a valid timespec that the call fills in.
    let outcome = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut times) };
    if outcome != 0 {
        return Err(std::io::Error::last_os_error()).context("the process has no CPU clock");
    }
    Ok(times.tv_sec as f64 + times.tv_nsec as f64 / 1e9)
}

/// The number behind `name` in a file of lines of names and numbers.
pub(crate) fn field(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The disk under a directory, as the system counts what is written to it.
///
/// What the system says of a process (`write_bytes`) is no measure of that: where the page cache has large
/// folios, a page of 8 KiB that is changed within one counts as all of it (half a megabyte was seen),
/// although the disk gets the page alone. So it is the disk that is asked, and what others write to it
/// meanwhile counts, too.
#[derive(Clone, Debug)]
pub struct Disk {
    directory: PathBuf,
    /// The system's counters of the block device.
    counters: PathBuf,
}

impl Disk {
    /// The disk that `directory` lies on; `None` if the system does not count what is written to it, as to a
    /// file system in memory.
    pub fn under(directory: &Path) -> Result<Option<Self>> {
        let device = fs::metadata(directory)?.dev();
        let (major, minor) = (libc::major(device), libc::minor(device));
        let counters = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"));
        Ok(counters.exists().then(|| Self { directory: directory.into(), counters }))
    }

    /// Has everything written that waits in memory, and gives the bytes written so far.
    pub fn written_bytes(&self) -> Result<u64> {
        let directory = File::open(&self.directory)?;
        // SAFETY: the descriptor is open until the end of this function.
        if unsafe { libc::syncfs(directory.as_raw_fd()) } != 0 {
            return Err(std::io::Error::last_os_error()).context("what waits in memory was not written");
        }
        let counters = fs::read_to_string(&self.counters)?;
        // The seventh: sectors of 512 bytes, whatever the disk's own are.
        let sectors: Option<u64> = counters.split_whitespace().nth(6).and_then(|count| count.parse().ok());
        Ok(sectors.context("the disk's counters are not as expected")? * 512)
    }
}

/// Space that the files under a directory take on the disk, in bytes; holes do not count.
pub fn disk_bytes(directory: &Path) -> Result<u64> {
    Ok(Footprint::of(directory, |_| false)?.disk_bytes)
}

/// What the files under a directory take.
#[derive(Clone, Copy, Debug, Default)]
pub struct Footprint {
    /// Space on the disk, in bytes; holes do not count.
    pub disk_bytes: u64,
    /// What of that belongs to the log.
    pub log_bytes: u64,
    /// What of it does not.
    pub data_bytes: u64,
    /// The lengths of the files, holes included, in bytes.
    pub length: u64,
}

impl Footprint {
    /// Looks at every file; `is_log` is asked with its path from the directory on. A file that vanishes
    /// meanwhile takes nothing.
    pub fn of(directory: &Path, is_log: impl Fn(&Path) -> bool) -> Result<Self> {
        let mut footprint = Self::default();
        let mut waiting = vec![PathBuf::new()];
        while let Some(below) = waiting.pop() {
            let Some(entries) = unless_gone(fs::read_dir(directory.join(&below)))? else { continue };
            for entry in entries {
                let Some(entry) = unless_gone(entry)? else { continue };
                let Some(metadata) = unless_gone(entry.metadata())? else { continue };
                let path = below.join(entry.file_name());
                if metadata.is_dir() {
                    waiting.push(path);
                    continue;
                }
                let bytes = metadata.blocks() * 512;
                footprint.disk_bytes += bytes;
                footprint.length += metadata.len();
                *if is_log(&path) { &mut footprint.log_bytes } else { &mut footprint.data_bytes } += bytes;
            }
        }
        Ok(footprint)
    }

    /// The greater of both, each by itself.
    pub fn max(self, other: Self) -> Self {
        Self {
            disk_bytes: self.disk_bytes.max(other.disk_bytes),
            log_bytes: self.log_bytes.max(other.log_bytes),
            data_bytes: self.data_bytes.max(other.data_bytes),
            length: self.length.max(other.length),
        }
    }
}

fn unless_gone<T>(outcome: std::io::Result<T>) -> Result<Option<T>> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        outcome => Ok(Some(outcome?)),
    }
}

/// Memory of this process that belongs to nobody's file, in bytes.
pub fn own_memory_bytes() -> Result<u64> {
    Ok(field("/proc/self/status", "RssAnon:")
        .context("the system does not tell the memory of the process")?
        * 1024)
}

/// Time for which this thread was ready to run and had no processor, in seconds; 0 where the system does not
/// tell.
pub fn wait_for_processor_seconds() -> f64 {
    let statistics = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds: Option<f64> = statistics.split_whitespace().nth(1).and_then(|wait| wait.parse().ok());
    nanoseconds.unwrap_or(0.0) / 1e9
}

/// What the threads of this process have done, the one that asks left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Threads {
    /// How many there are.
    pub count: u64,
    /// How often they came to run again after they had waited or were interrupted; of those that are still
    /// there.
    pub wake_ups: u64,
}

impl Threads {
    /// Counts them.
    pub fn now() -> Result<Self> {
        let mut threads = Self::default();
        let own = fs::read_link("/proc/thread-self")?;
        for task in fs::read_dir("/proc/self/task")? {
            let task = task?;
            if Some(task.file_name().as_os_str()) == own.file_name() {
                continue;
            }
            let status = task.path().join("status");
            let Some(status) = status.to_str() else { continue };
            let switches =
                field(status, "voluntary_ctxt_switches:").zip(field(status, "nonvoluntary_ctxt_switches:"));
            let Some((waited, interrupted)) = switches else { continue };
            threads.count += 1;
            threads.wake_ups += waited + interrupted;
        }
        Ok(threads)
    }
}

/// Space that is free on the disk that a path lies on, in bytes.
pub fn free_bytes(path: &Path) -> Result<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let mut figures = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path ends with a zero byte, and `figures` has room for what the call fills in.
    let outcome = unsafe { libc::statvfs(path.as_ptr(), figures.as_mut_ptr()) };
    if outcome != 0 {
        return Err(std::io::Error::last_os_error()).context("the disk does not tell its free space");
    }
    // SAFETY: all bytes were zero, which is a value of this type, and the call has filled them in.
    let figures = unsafe { figures.assume_init() };
    Ok(figures.f_bavail * figures.f_frsize)
}
