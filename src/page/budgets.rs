//! How much memory a family's pages take, and what leaves when it gets short.

use super::cached_file::PagedCachedFile;
use super::frames::Frame;
use super::held::RunBuffer;
use super::stats::count;
use crate::codec::ids::PageId;
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::sync::epoch::{self, Guard};

/// How much memory a family's pages may take.
///
/// The sum of both is kept, whatever readers hold, and reads keep to the read budget. Beyond it go only: a cache with room for
/// fewer than [`LEAST_FRAMES`](PagedCachedFile::LEAST_FRAMES) pages, the page or run that makes the write buffer write itself
/// out, written pages whose evicted predecessors wait for their readers, for as long as those read, and pages that readers hold and
/// that did not enter the cache, of which each thread keeps the memory of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheBudgets {
    /// Bytes of clean pages and runs.
    pub(crate) read_bytes: u64,
    /// Bytes of dirty pages and runs.
    pub(crate) write_bytes: u64,
}

impl PagedCachedFile {
    /// Room that every read cache has, in pages.
    pub(crate) const LEAST_FRAMES: usize = 8;

    /// Frames that the read budget has room for.
    pub(super) fn read_frames(&self) -> usize {
        let frames = self.read_budget.load(Ordering::Relaxed) / self.page_size as u64;
        (frames as usize).clamp(Self::LEAST_FRAMES, Frame::LIMIT as usize / 2)
    }

    /// Frames that both budgets have room for.
    pub(super) fn most_frames(&self) -> usize {
        let write_frames = self.write_budget.load(Ordering::Relaxed) / self.page_size as u64;
        self.read_frames() + (write_frames as usize).clamp(1, Frame::LIMIT as usize / 2)
    }

    /// Frames kept out of use, so that there are free ones while evicted ones wait for their readers.
    pub(super) fn reserve(read_frames: usize) -> usize {
        (read_frames / 8).clamp(1, 128)
    }

    /// Changes the budgets; what is beyond them leaves now, its memory as its last readers do.
    pub(crate) fn set_budgets(&self, budgets: CacheBudgets) {
        self.read_budget.store(budgets.read_bytes, Ordering::Relaxed);
        self.write_budget.store(budgets.write_bytes, Ordering::Relaxed);
        self.make_room(&epoch::pin());
        self.adjust_kept_memory();
    }

    pub(super) fn adjust_kept_memory(&self) {
        let runs = self.runs.bytes().div_ceil(self.page_size);
        self.frames.set_keep(self.most_frames().saturating_sub(runs));
    }

    /// Whether, but for what was last evicted to make room, the read cache holds what it may.
    pub(super) fn is_full(&self) -> bool {
        let frames = self.read_frames();
        let reserve = Self::reserve(frames);
        self.read_bytes_held() + Self::batch(reserve) * self.page_size >= (frames - reserve) * self.page_size
    }

    /// Frames that are evicted at once, so that not every miss looks for one.
    fn batch(reserve: usize) -> usize {
        (reserve / 4).max(1)
    }

    fn read_bytes_held(&self) -> usize {
        self.table.clean() * self.page_size + self.runs.bytes()
    }

    /// Evicts, if the read cache is all but full, a batch. Frames and runs may each use what the other leaves; under
    /// pressure from both, each gets half.
    pub(super) fn make_room(&self, guard: &Guard) {
        let frames = self.read_frames();
        let reserve = Self::reserve(frames);
        let limit = (frames - reserve) * self.page_size;
        if self.read_bytes_held() <= limit {
            return;
        }
        let mut clock = self.clock.lock();
        let mut over = self.read_bytes_held().saturating_sub(limit);
        if over == 0 {
            return;
        }
        let half = frames * self.page_size / 2;
        let runs = self.runs.bytes();
        if runs > half {
            over = over.saturating_sub(self.evict_runs(over.min(runs - half)));
        }
        let mut evicted = Vec::new();
        if over > 0 {
            let wanted = over.div_ceil(self.page_size).max(Self::batch(reserve));
            evicted = clock.sweep(&self.table, &self.frames, wanted);
            over = over.saturating_sub(evicted.len() * self.page_size);
        }
        if over > 0 {
            self.evict_runs(over);
        }
        drop(clock);
        count(&self.counters.evictions, evicted.len());
        self.frames.retire(evicted, guard);
    }

    pub(super) fn evict_runs(&self, bytes: usize) -> usize {
        let (evicted, freed) = self.runs.evict(bytes);
        count(&self.counters.evictions, evicted);
        freed
    }

    pub(super) fn keep_run(&self, page: PageId, run: &Arc<RunBuffer>, read: bool, guard: &Guard) {
        self.keep_run_without_making_room(page, run, read);
        self.make_room(guard);
        self.adjust_kept_memory();
    }

    /// A run beyond a quarter of the budget would push out too much.
    pub(super) fn keep_run_without_making_room(&self, page: PageId, run: &Arc<RunBuffer>, read: bool) {
        if run.len() <= self.read_frames() * self.page_size / 4 {
            self.runs.insert(page, Arc::clone(run), read);
        }
    }
}
