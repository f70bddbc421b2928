//! Which pages leave the cache: a clock hand over the frames, one reference bit each.
//!
//! Source: F. J. Corbató, "A paging experiment with the Multics system", 1968. A page enters without its bit
//! and gets it when it is used again, so that a scan that touches every page once does not push out what is
//! in use.

use super::frames::{Frame, FrameStore};
use super::table::{Aged, FrameTable, Retired};
use crate::sync::epoch::Guard;

/// The hand. Behind the cache lock, so one thread sweeps at a time.
#[derive(Debug, Default)]
pub(super) struct Clock {
    hand: u32,
}

impl Clock {
    /// Takes up to `wanted` pages out of `table` and gives their frames to `retired`, which the caller
    /// retires under the guard. Returns how many. Goes round twice at most: once to clear the bits, once to
    /// collect.
    pub(super) fn sweep(
        &mut self,
        table: &FrameTable,
        store: &FrameStore,
        wanted: usize,
        guard: &Guard,
        retired: &mut Retired,
    ) -> usize {
        let dial = store.dial();
        let mut evicted = 0;
        for _ in 0..2 * u64::from(dial) {
            if evicted >= wanted {
                break;
            }
            if self.hand >= dial {
                self.hand = 0;
            }
            let frame = Frame(self.hand);
            self.hand += 1;
            if let Some(page) = store.page(frame)
                && table.age(page, frame, guard, &mut retired.pieces) == Aged::Evicted
            {
                retired.frames.push(frame);
                evicted += 1;
            }
        }
        evicted
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::codec::ids::PageId;
    use crate::sync::Arc;
    use crate::sync::epoch;

    fn sweep(table: &FrameTable, store: &FrameStore, wanted: usize) -> Vec<Frame> {
        let mut retired = Retired::default();
        let evicted = Clock::default().sweep(table, store, wanted, &epoch::pin(), &mut retired);
        assert_eq!(evicted, retired.frames.len());
        retired.frames
    }

    fn fill(table: &FrameTable, store: &Arc<FrameStore>, pages: u32, dirty: bool) {
        for page in 0..pages {
            let owned = store.take(usize::MAX).unwrap();
            owned.set_page(PageId(page));
            table.insert(PageId(page), owned.frame(), dirty, &epoch::pin());
            owned.into_mapped();
        }
    }

    #[test]
    fn what_was_used_again_outlives_what_was_not() {
        let (table, store) = (FrameTable::new(), FrameStore::new(512, 64));
        fill(&table, &store, 32, false);
        let guard = epoch::pin();
        for page in (0..32).step_by(2) {
            table.lookup(PageId(page), &guard);
        }
        let evicted = sweep(&table, &store, 16);
        let pages: Vec<u32> = evicted.iter().map(|&frame| store.page(frame).unwrap().0).collect();
        assert_eq!(pages, (0..32).filter(|page| page % 2 == 1).collect::<Vec<_>>());
    }

    #[test]
    fn a_sweep_over_nothing_but_dirty_pages_ends_empty() {
        let (table, store) = (FrameTable::new(), FrameStore::new(512, 64));
        assert!(sweep(&table, &store, 3).is_empty());
        fill(&table, &store, 10, true);
        assert!(sweep(&table, &store, 3).is_empty());
    }

    #[test]
    fn a_sweep_takes_everything_if_asked_to() {
        let (table, store) = (FrameTable::new(), FrameStore::new(512, 64));
        fill(&table, &store, 10, false);
        let guard = epoch::pin();
        table.lookup(PageId(3), &guard);
        assert_eq!(sweep(&table, &store, usize::MAX).len(), 10);
        assert_eq!(table.clean(), 0);
    }
}
