//! Runs that were read or written: least recently used first out. A family's readers of large values meet at
//! its lock, for no longer than a look-up takes.

use std::collections::hash_map::RandomState;

use crossbeam_utils::CachePadded;
use lru::LruCache;

use super::held::RunBuffer;
use crate::codec::ids::PageId;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex};

pub(super) struct RunCache {
    runs: CachePadded<Mutex<LruCache<PageId, Arc<RunBuffer>, RandomState>>>,
    bytes: AtomicUsize,
}

impl RunCache {
    pub(super) fn new() -> Self {
        Self {
            runs: CachePadded::new(Mutex::new(LruCache::unbounded_with_hasher(RandomState::new()))),
            bytes: AtomicUsize::new(0),
        }
    }

    /// Bytes of all runs.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The run at `page`, which becomes the most recently used.
    pub(super) fn get(&self, page: PageId) -> Option<Arc<RunBuffer>> {
        if self.bytes() == 0 {
            return None;
        }
        self.runs.lock().get(&page).cloned()
    }

    /// Whether the run at `page` is here.
    pub(super) fn holds(&self, page: PageId) -> bool {
        self.bytes() > 0 && self.runs.lock().contains(&page)
    }

    /// Adds a run; one that was just `read` leaves last, one that was merely written leaves first.
    pub(super) fn insert(&self, page: PageId, run: Arc<RunBuffer>, read: bool) {
        let len = run.len();
        let mut runs = self.runs.lock();
        let before = runs.put(page, run);
        if !read {
            runs.demote(&page);
        }
        self.bytes.fetch_add(len, Ordering::Relaxed);
        self.bytes.fetch_sub(before.map_or(0, |run| run.len()), Ordering::Relaxed);
    }

    pub(super) fn remove(&self, page: PageId) {
        if self.bytes() == 0 {
            return;
        }
        if let Some(run) = self.runs.lock().pop(&page) {
            self.bytes.fetch_sub(run.len(), Ordering::Relaxed);
        }
    }

    /// Takes out runs until `bytes` are freed or none is left. Returns how many runs and bytes went.
    pub(super) fn evict(&self, bytes: usize) -> (usize, usize) {
        let (mut count, mut freed) = (0, 0);
        let mut runs = self.runs.lock();
        while freed < bytes {
            let Some((_, run)) = runs.pop_lru() else { break };
            freed += run.len();
            count += 1;
        }
        self.bytes.fetch_sub(freed, Ordering::Relaxed);
        (count, freed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn run(len: usize) -> Arc<RunBuffer> {
        Arc::new(RunBuffer::new(len))
    }

    #[test]
    fn written_runs_leave_first_then_the_least_recently_read() {
        let cache = RunCache::new();
        cache.insert(PageId(1), run(100), true);
        cache.insert(PageId(2), run(100), true);
        cache.insert(PageId(3), run(100), false);
        cache.get(PageId(1));
        assert_eq!(cache.evict(1), (1, 100));
        assert!(cache.get(PageId(3)).is_none());
        assert_eq!(cache.evict(100), (1, 100));
        assert!(cache.get(PageId(2)).is_none());
        assert!(cache.get(PageId(1)).is_some());
    }

    #[test]
    fn bytes_follow_what_is_held() {
        let cache = RunCache::new();
        cache.insert(PageId(1), run(100), true);
        cache.insert(PageId(1), run(300), true);
        cache.insert(PageId(2), run(50), false);
        assert_eq!(cache.bytes(), 350);
        cache.remove(PageId(1));
        cache.remove(PageId(9));
        assert_eq!(cache.bytes(), 50);
        assert_eq!(cache.evict(usize::MAX), (1, 50));
        assert_eq!(cache.bytes(), 0);
    }
}
