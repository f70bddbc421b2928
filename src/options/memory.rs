//! How one number becomes the budgets of what a database keeps in memory.

use super::machine;
use crate::error::{Error, ErrorKind, Result};

/// What was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MemorySettings {
    pub(crate) total: Option<u64>,
    pub(crate) cache: Option<u64>,
    pub(crate) write: Option<u64>,
}

/// Bytes for all that is kept in memory, and for parts of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Budgets {
    pub(crate) total: u64,
    pub(crate) cache: u64,
    pub(crate) write: u64,
}

/// The least total, and the least of each of its parts.
const LEAST_TOTAL: u64 = 1 << 20;
const LEAST_PART: u64 = 64 << 10;
/// Of a total one byte in so many is for what is neither cached nor being written: the log's mapping,
/// filters, tables, lists.
const OTHER_PART: u64 = 8;
/// Sixteenths of a total that are for writing.
const WRITE_SIXTEENTHS: u64 = 5;
/// Without a total: the part of the machine's memory that caches take, and what writing takes, and the most
/// that they do.
const CACHE_PART_OF_MACHINE: u64 = 4;
const WRITE_PART_OF_MACHINE: u64 = 8;
const MOST_CACHE: u64 = 4 << 30;
const MOST_WRITE: u64 = 1 << 30;

impl MemorySettings {
    /// What follows from what was asked for.
    pub(crate) fn budgets(self) -> Result<Budgets> {
        self.budgets_on(machine::memory())
    }

    fn budgets_on(self, machine: u64) -> Result<Budgets> {
        let refuse = |message: String| Err(Error::new(ErrorKind::InvalidArgument, message));
        for (part, what) in [(self.cache, "read cache"), (self.write, "write buffers")] {
            if let Some(bytes) = part.filter(|bytes| *bytes < LEAST_PART) {
                return refuse(format!("{bytes} bytes of {what} are too few; give at least 64 KiB"));
            }
        }
        let Some(total) = self.total else {
            let cache = self.cache.unwrap_or(MOST_CACHE.min(machine / CACHE_PART_OF_MACHINE));
            let write = self.write.unwrap_or(MOST_WRITE.min(machine / WRITE_PART_OF_MACHINE));
            let parts = cache.saturating_add(write);
            return Ok(Budgets { total: parts.saturating_add(parts / (OTHER_PART - 1)), cache, write });
        };
        if total < LEAST_TOTAL {
            return refuse(format!("{total} bytes of memory are too few; give at least 1 MiB"));
        }
        let parts = total - total / OTHER_PART;
        let write = match (self.cache, self.write) {
            (_, Some(write)) => write,
            (Some(cache), None) => parts.saturating_sub(cache).min(MOST_WRITE),
            (None, None) => (total / 16 * WRITE_SIXTEENTHS).min(MOST_WRITE),
        };
        let cache = self.cache.unwrap_or(parts.saturating_sub(write));
        if cache.saturating_add(write) > parts || cache.min(write) < LEAST_PART {
            return refuse(format!(
                "{total} bytes of memory have room for {parts} bytes of read cache and write buffers together, \
                 64 KiB of each at least, not for {cache} and {write}; ask for one total or smaller parts"
            ));
        }
        Ok(Budgets { total, cache, write })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budgets(total: Option<u64>, cache: Option<u64>, write: Option<u64>) -> Option<(u64, u64, u64)> {
        let asked = MemorySettings { total, cache, write }.budgets_on(16 << 30);
        asked.ok().map(|budgets| (budgets.total, budgets.cache, budgets.write))
    }

    #[test]
    fn parts_follow_from_the_total_and_stay_within_it() {
        assert_eq!(budgets(Some(64 << 20), None, None), Some((64 << 20, 36 << 20, 20 << 20)));
        for total in (20..44).map(|bits| (1 << bits) + 12345) {
            let (_, cache, write) = budgets(Some(total), None, None).unwrap();
            assert!(cache + write + total / 8 <= total && write <= MOST_WRITE);
        }
    }

    #[test]
    fn what_is_asked_for_is_given_and_the_rest_follows() {
        assert_eq!(budgets(Some(64 << 20), Some(50 << 20), None), Some((64 << 20, 50 << 20, 6 << 20)));
        assert_eq!(budgets(Some(64 << 20), None, Some(6 << 20)), Some((64 << 20, 50 << 20, 6 << 20)));
        assert_eq!(budgets(Some(64 << 20), Some(1 << 20), Some(1 << 20)), Some((64 << 20, 1 << 20, 1 << 20)));
        assert_eq!(budgets(None, Some(28 << 20), Some(28 << 20)), Some((64 << 20, 28 << 20, 28 << 20)));
        assert_eq!(budgets(None, None, Some(1 << 20)).map(|budgets| budgets.1), Some(4 << 30));
        assert_eq!(budgets(None, Some(u64::MAX), None).map(|budgets| budgets.0), Some(u64::MAX));
    }

    #[test]
    fn contradictions_are_refused() {
        assert_eq!(budgets(Some(1000), None, None), None);
        assert_eq!(budgets(Some(64 << 20), Some(56 << 20), None), None);
        assert_eq!(budgets(Some(64 << 20), Some(u64::MAX), None), None);
        assert_eq!(budgets(Some(64 << 20), Some(40 << 20), Some(17 << 20)), None);
        assert_eq!(budgets(None, Some(1000), None), None);
        assert_eq!(budgets(None, None, Some(1000)), None);
    }
}
