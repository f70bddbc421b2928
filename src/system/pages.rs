//! The system's unit of memory: 4 KiB on most machines, 16 or 64 KiB on others.
//!
//! Tests can have a larger one than the machine's: the variable `PERISTYLE_PAGE_KIB` of the environment says
//! how many KiB, and `memory.rs` then does what such a system would. Builds without debug assertions know
//! nothing of that.

use std::ops::Range;
use std::sync::OnceLock;

/// Bytes of a page of the system.
#[inline]
pub(crate) fn page_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| simulated().map_or(machine(), |size| size.max(machine())))
}

/// What of a range consists of whole pages; empty if there is none.
pub(crate) fn whole_pages(range: Range<usize>) -> Range<usize> {
    let page = page_size();
    let start = range.start.next_multiple_of(page);
    start..(range.end / page * page).max(start)
}

/// Bytes of a page of the machine that this runs on, whatever a test has it pretend.
#[cfg(unix)]
pub(super) fn machine() -> usize {
    // SAFETY: the call takes and gives numbers.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).ok().filter(|size| size.is_power_of_two()).unwrap_or(64 << 10)
}

/// Nothing is given back here, so what counts is that no page is larger.
#[cfg(not(unix))]
pub(super) fn machine() -> usize {
    64 << 10
}

/// What a test has the system's pages be.
#[cfg(any(test, debug_assertions))]
fn simulated() -> Option<usize> {
    let kib: usize = std::env::var("PERISTYLE_PAGE_KIB").ok()?.parse().expect("a number of KiB");
    assert!(kib.is_power_of_two(), "no system has pages of {kib} KiB");
    Some(kib << 10)
}

#[cfg(not(any(test, debug_assertions)))]
fn simulated() -> Option<usize> {
    None
}

#[cfg(all(test, not(loom), not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_rounded_inwards() {
        let page = page_size();
        assert!(page.is_power_of_two() && page >= 4096);
        assert_eq!(whole_pages(0..page), 0..page);
        assert_eq!(whole_pages(1..3 * page - 1), page..2 * page);
        assert!(whole_pages(1..page).is_empty());
        assert!(whole_pages(page + 1..page + 2).is_empty());
    }

    /// Runs all tests whose name says so once more, as on systems with pages of 16 and 64 KiB.
    #[test]
    fn tests_pass_with_pages_of_16_and_64_kib() {
        if std::env::var("PERISTYLE_PAGE_KIB").is_ok() {
            return;
        }
        for kib in ["16", "64"] {
            let output = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["whatever_the_page_size", "--nocapture"])
                .env("PERISTYLE_PAGE_KIB", kib)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "with pages of {kib} KiB:\n{said}");
            assert!(!said.contains("running 0 tests"), "{said}");
        }
    }
}
