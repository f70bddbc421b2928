//! How much memory a family's pages take, and what leaves when it gets short.

use super::cached_file::PagedCachedFile;
use super::frames::Frame;
use super::held::RunBuffer;
use super::stats::count;
use super::table::Retired;
use crate::codec::ids::PageId;
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::sync::epoch;

/// What a cache would do with more memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appetite {
    /// Bytes of its share, and how many of them it uses.
    pub(crate) share: u64,
    pub(crate) held: u64,
    /// Bytes that it missed since it was refused more; `None` if it was not.
    pub(crate) missed: Option<u64>,
    /// Decaying average of misses while it was refused more.
    pub(crate) pressure: u64,
}

/// Bytes of memory that a family's pages take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PageMemory {
    /// Clean pages and runs, and free frames.
    pub(crate) cached: u64,
    pub(crate) dirty: u64,
    /// What says where pages are and which were missed lately.
    pub(crate) tables: u64,
}

impl PagedCachedFile {
    /// What memory is taken now.
    pub(crate) fn memory(&self) -> PageMemory {
        let dirty = self.buffer.lock().bytes;
        let (frames, states) = self.frames.memory();
        let dirty_frames = self.table.dirty() * self.page_size;
        PageMemory {
            cached: (frames.saturating_sub(dirty_frames) + self.runs.bytes()) as u64,
            dirty,
            tables: (self.table.memory() + self.admission.memory() + self.reads.memory() + states) as u64,
        }
    }

    /// Frames that the read budget has room for.
    pub(super) fn read_frames(&self) -> usize {
        let frames = self.share.bytes() / self.page_size as u64;
        frames.min(u64::from(Frame::LIMIT / 2)) as usize
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

    /// Changes how many bytes may be dirty.
    pub(crate) fn set_write_budget(&self, bytes: u64) {
        if self.write_budget.swap(bytes, Ordering::Relaxed) != bytes {
            self.adjust_kept_memory();
        }
    }

    /// Gives back the memory of all free frames, which are kept otherwise as far as the budgets go: nothing
    /// will be read or written for long.
    pub(crate) fn rest(&self) {
        self.frames.set_keep(0);
        self.frames.set_keep(self.most_frames().saturating_sub(self.runs.bytes().div_ceil(self.page_size)));
    }

    /// What the cache would do with more memory. Asked by one thread at a time; what was missed counts anew
    /// from here on.
    pub(crate) fn appetite(&self) -> Appetite {
        let missed = self.share.take_hunger(self.reads.misses());
        Appetite {
            share: self.share.bytes(),
            held: (self.read_bytes_held() + Self::reserve(self.read_frames()) * self.page_size) as u64,
            missed: missed.map(|pages| pages.saturating_mul(self.page_size as u64)),
            pressure: self.share.pressure(),
        }
    }

    /// Makes the read budget larger by up to `bytes`, as many as are left of the total.
    pub(crate) fn take_more(&self, bytes: u64) {
        self.share.take(bytes);
        self.adjust_kept_memory();
    }

    /// Makes the read budget smaller by up to `bytes`; what is beyond it leaves now, its memory as its last
    /// readers do.
    pub(crate) fn take_away(&self, bytes: u64) {
        let less = self.share.shrink(bytes);
        self.evict_what_is_beyond();
        self.adjust_kept_memory();
        self.share.give_back(less);
    }

    /// Sets both budgets of a cache that has a total of its own.
    #[cfg(test)]
    pub(crate) fn set_budgets(&self, read_bytes: u64, write_bytes: u64) {
        self.set_write_budget(write_bytes);
        self.share.set_total(read_bytes);
        self.take_away(self.share.bytes().saturating_sub(read_bytes));
        self.take_more(read_bytes.saturating_sub(self.share.bytes()));
    }

    pub(super) fn adjust_kept_memory(&self) {
        let runs = self.runs.bytes().div_ceil(self.page_size);
        self.frames.set_keep(self.most_frames().saturating_sub(runs));
    }

    /// Whether, but for what was last evicted to make room, the read cache holds what it may, and may hold no
    /// more.
    pub(super) fn is_full(&self) -> bool {
        let is_full = || {
            let frames = self.read_frames();
            let reserve = Self::reserve(frames);
            let room = frames.saturating_sub(reserve) * self.page_size;
            self.read_bytes_held() + Self::batch(reserve) * self.page_size >= room
        };
        is_full() && (!self.grow(self.page_size) || is_full())
    }

    /// Takes more of the total, `wanted` bytes at least, if they are left. Says whether there was anything.
    fn grow(&self, wanted: usize) -> bool {
        let grown = self.share.grow(wanted as u64);
        if grown {
            self.adjust_kept_memory();
        } else {
            self.share.refused(|| self.reads.misses());
        }
        grown
    }

    /// Frames that are evicted at once, so that not every miss looks for one.
    fn batch(reserve: usize) -> usize {
        (reserve / 4).max(1)
    }

    fn read_bytes_held(&self) -> usize {
        // What the frame table takes counts in whole frames.
        let table = self.table.piece_bytes() / self.page_size;
        (self.table.clean() + table) * self.page_size + self.runs.bytes()
    }

    /// Bytes beyond what the read cache may hold while it keeps some frames in reserve.
    fn read_bytes_beyond(&self) -> usize {
        let frames = self.read_frames();
        let limit = frames.saturating_sub(Self::reserve(frames)) * self.page_size;
        self.read_bytes_held().saturating_sub(limit)
    }

    /// Makes room if the read cache is all but full: more of the total, as long as anything is left of it,
    /// else by evicting a batch.
    pub(super) fn make_room(&self) {
        loop {
            match self.read_bytes_beyond() {
                0 => return,
                beyond if self.grow(beyond) => {}
                _ => return self.evict_what_is_beyond(),
            }
        }
    }

    /// Evicts, if the read cache is all but full, a batch. Frames and runs may each use what the other
    /// leaves; under pressure from both, each gets half.
    fn evict_what_is_beyond(&self) {
        if self.read_bytes_beyond() == 0 {
            return;
        }
        let frames = self.read_frames();
        let reserve = Self::reserve(frames);
        let mut clock = self.clock.lock();
        let mut over = self.read_bytes_beyond();
        if over == 0 {
            return;
        }
        let half = frames * self.page_size / 2;
        let runs = self.runs.bytes();
        if runs > half {
            over = over.saturating_sub(self.evict_runs(over.min(runs - half)));
        }
        let guard = epoch::pin();
        let mut retired = Retired::default();
        let mut evicted = 0;
        if over > 0 {
            let wanted = over.div_ceil(self.page_size).max(Self::batch(reserve));
            evicted = clock.sweep(&self.table, &self.frames, wanted, &guard, &mut retired);
            over = over.saturating_sub(evicted * self.page_size);
        }
        if over > 0 {
            self.evict_runs(over);
        }
        drop(clock);
        count(&self.counters.evictions, evicted);
        self.frames.retire(retired.frames, retired.pieces, &guard);
    }

    pub(super) fn evict_runs(&self, bytes: usize) -> usize {
        let (evicted, freed) = self.runs.evict(bytes);
        count(&self.counters.evictions, evicted);
        freed
    }

    pub(super) fn keep_run(&self, page: PageId, run: &Arc<RunBuffer>, read: bool) {
        self.keep_run_without_making_room(page, run, read);
        self.make_room();
        self.adjust_kept_memory();
    }

    /// A run beyond a quarter of the budget would push out too much.
    pub(super) fn keep_run_without_making_room(&self, page: PageId, run: &Arc<RunBuffer>, read: bool) {
        let is_short = || run.len() <= self.read_frames() * self.page_size / 4;
        if is_short() || self.grow(4 * run.len()) && is_short() {
            self.runs.insert(page, Arc::clone(run), read);
        }
    }
}
