//! The cache as a whole, over a disk that counts and fails on demand.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::codec::ids::{FamilyId, PageId};
use crate::error::{ErrorKind, Result};
use crate::storage::{FileHandlePool, FileMode, MemoryStorage, StorageBackend, StorageFile, StorageLock};
use crate::sync::epoch;
use crate::sync::{Arc, Mutex};

const PAGE_SIZE: usize = if cfg!(miri) { 512 } else { 4096 };

/// A disk in memory that notes every write and can be told to fail writes.
#[derive(Debug, Clone)]
struct Disk {
    memory: MemoryStorage,
    watch: Arc<Watch>,
}

#[derive(Debug, Default)]
struct Watch {
    /// Offset and length.
    writes: Mutex<Vec<(u64, usize)>>,
    failing: AtomicBool,
}

#[derive(Debug)]
struct DiskFile(Arc<dyn StorageFile>, Arc<Watch>);

impl StorageBackend for Disk {
    fn open(&self, path: &str, mode: FileMode) -> std::io::Result<std::sync::Arc<dyn StorageFile>> {
        Ok(std::sync::Arc::new(DiskFile(self.memory.open(path, mode)?, Arc::clone(&self.watch))))
    }
    fn list(&self, directory: &str) -> std::io::Result<Vec<String>> {
        self.memory.list(directory)
    }
    fn create_directory(&self, directory: &str) -> std::io::Result<()> {
        self.memory.create_directory(directory)
    }
    fn sync_directory(&self, directory: &str) -> std::io::Result<()> {
        self.memory.sync_directory(directory)
    }
    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.memory.rename(from, to)
    }
    fn remove(&self, path: &str) -> std::io::Result<()> {
        self.memory.remove(path)
    }
    fn lock(&self, path: &str, shared: bool) -> std::io::Result<Box<dyn StorageLock>> {
        self.memory.lock(path, shared)
    }
}

impl StorageFile for DiskFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        self.write_parts_at(&[bytes], offset)
    }
    fn write_parts_at(&self, parts: &[&[u8]], offset: u64) -> std::io::Result<()> {
        if self.1.failing.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("a broken disk"));
        }
        self.1.writes.lock().push((offset, parts.iter().map(|part| part.len()).sum()));
        self.0.write_parts_at(parts, offset)
    }
    fn sync(&self) -> std::io::Result<()> {
        self.0.sync()
    }
    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.0.set_len(len)
    }
    fn allocate(&self, offset: u64, len: u64) -> std::io::Result<()> {
        self.0.allocate(offset, len)
    }
    fn deallocate(&self, offset: u64, len: u64) -> std::io::Result<()> {
        self.0.deallocate(offset, len)
    }
}

struct Bench {
    disk: Disk,
    pool: Arc<FileHandlePool>,
    file: PagedCachedFile,
}

fn budgets(read_pages: u64, write_pages: u64) -> CacheBudgets {
    CacheBudgets::fixed(read_pages * PAGE_SIZE as u64, write_pages * PAGE_SIZE as u64)
}

fn offset_of(page: u32) -> u64 {
    u64::from(page) * PAGE_SIZE as u64
}

/// Byte `i` of what a test's page or run holds.
fn pattern(page: u32, i: usize) -> u8 {
    (page.wrapping_mul(2_654_435_761).wrapping_add(i as u32 / 64) >> 8) as u8
}

impl Bench {
    fn new(read_pages: u64, write_pages: u64) -> Self {
        let disk = Disk { memory: MemoryStorage::new(), watch: Arc::default() };
        let backend = std::sync::Arc::new(disk.clone());
        let pool = Arc::new(FileHandlePool::new(backend, "data", FileMode::Create, 4).unwrap());
        let file =
            PagedCachedFile::new(FamilyId(3), PAGE_SIZE, Arc::clone(&pool), budgets(read_pages, write_pages));
        Self { disk, pool, file }
    }

    fn set_budgets(&self, read_pages: u64, write_pages: u64) {
        self.file.set_budgets(read_pages * PAGE_SIZE as u64, write_pages * PAGE_SIZE as u64);
    }

    fn publish(&self, page: u32, pages: u32) -> Result<PagePointer> {
        let mut new = self.file.new_page(PageId(page), pages, offset_of(page));
        let len = new.len() - HEADER_LEN;
        for (i, chunk) in new[HEADER_LEN..].chunks_mut(64).enumerate() {
            chunk.fill(pattern(page, i * 64));
        }
        let (kind, length) = if pages == 1 { (PageKind::Leaf, new.len()) } else { (PageKind::Value, len) };
        let (pointer, full) = self.file.publish(new, kind, 0, 1, length as u64)?;
        if full {
            self.file.write_out()?;
        }
        Ok(pointer)
    }

    fn publish_all(&self, pages: u32) -> Vec<PagePointer> {
        let pointers = (0..pages).map(|page| self.publish(page, 1).unwrap()).collect();
        self.file.write_out().unwrap();
        pointers
    }

    fn pin(&self, pointer: PagePointer) -> Result<PinnedPage> {
        match self.file.find_pinned(pointer) {
            Some(page) => Ok(page),
            None => self.file.load(pointer, offset_of(pointer.page.0)),
        }
    }

    fn check(&self, pointer: PagePointer) {
        if let Some(page) = self.file.find(pointer, &epoch::pin()) {
            return assert_holds(&page, pointer);
        }
        assert_holds(&self.pin(pointer).unwrap(), pointer);
    }

    fn empty_cache(&self) {
        self.file.write_out().unwrap();
        let pages: Vec<_> = (0..64).map(|page| (PageId(page), 1)).collect();
        self.file.release(&pages);
    }

    fn writes(&self) -> Vec<(u64, usize)> {
        std::mem::take(&mut self.disk.watch.writes.lock())
    }
}

/// Looks at every 61st byte and at the last one.
fn assert_holds(bytes: &[u8], pointer: PagePointer) {
    assert_eq!(bytes.len(), pointer.pages as usize * PAGE_SIZE);
    let content = &bytes[HEADER_LEN..];
    for i in (0..content.len()).step_by(61).chain([content.len() - 1]) {
        assert_eq!(content[i], pattern(pointer.page.0, i), "byte {i} of page {}", pointer.page);
    }
}

fn assert_within_budgets(stats: &CacheStats) {
    let held = stats.resident_bytes + stats.dirty_bytes;
    assert!(held <= stats.budget_bytes + stats.dirty_budget_bytes, "{stats:?}");
}

#[test]
fn a_page_is_found_dirty_then_clean_then_on_disk() {
    let bench = Bench::new(16, 16);
    let pointer = bench.publish(5, 1).unwrap();
    bench.check(pointer);
    assert_eq!(bench.file.stats().dirty_bytes, PAGE_SIZE as u64);
    assert!(bench.writes().is_empty());
    bench.file.write_out().unwrap();
    assert_eq!(bench.writes(), [(offset_of(5), PAGE_SIZE)]);
    bench.check(pointer);
    assert_eq!(bench.file.stats().misses, 0);
    bench.file.release(&[(PageId(5), 1)]);
    bench.check(pointer);
    bench.check(pointer);
    let stats = bench.file.stats();
    assert_eq!((stats.misses, stats.hits, stats.dirty_bytes), (1, 3, 0));
    assert_eq!((stats.bytes_read, stats.bytes_written), (PAGE_SIZE as u64, PAGE_SIZE as u64));
}

#[test]
fn neighbours_in_the_file_are_written_by_one_write() {
    let bench = Bench::new(64, 64);
    for page in [7, 3, 4, 2, 20, 5] {
        bench.publish(page, 1).unwrap();
    }
    bench.publish(8, 3).unwrap();
    bench.file.write_out().unwrap();
    assert_eq!(
        bench.writes(),
        [(offset_of(2), 4 * PAGE_SIZE), (offset_of(7), 4 * PAGE_SIZE), (offset_of(20), PAGE_SIZE)]
    );
}

#[test]
fn a_write_buffer_beyond_its_budget_writes_itself_out() {
    let bench = Bench::new(64, 4);
    for page in 0..10 {
        bench.publish(page, 1).unwrap();
        assert!(bench.file.stats().dirty_bytes <= 4 * PAGE_SIZE as u64);
    }
    assert_eq!(bench.writes(), [(0, 5 * PAGE_SIZE), (offset_of(5), 5 * PAGE_SIZE)]);
}

#[test]
fn what_is_released_while_dirty_is_never_written() {
    let bench = Bench::new(64, 64);
    bench.publish(1, 1).unwrap();
    bench.publish(2, 2).unwrap();
    let kept = bench.publish(4, 1).unwrap();
    bench.file.release(&[(PageId(1), 1), (PageId(2), 2)]);
    bench.file.write_out().unwrap();
    assert_eq!(bench.writes(), [(offset_of(4), PAGE_SIZE)]);
    bench.check(kept);
    let again = bench.publish(1, 1).unwrap();
    bench.check(again);
}

#[test]
fn runs_are_found_dirty_cached_and_on_disk() {
    let bench = Bench::new(64, 64);
    let pointer = bench.publish(1, 3).unwrap();
    let large = bench.publish(10, 40).unwrap();
    for pointer in [pointer, large] {
        bench.check(pointer);
    }
    bench.file.write_out().unwrap();
    bench.check(pointer);
    assert_eq!(bench.file.stats().misses, 0);
    // Beyond a quarter of the budget: read every time.
    bench.check(large);
    bench.check(large);
    assert_eq!(bench.file.stats().misses, 2);
    bench.file.release(&[(PageId(1), 3)]);
    bench.check(pointer);
    bench.check(pointer);
    assert_eq!(bench.file.stats().misses, 3);
    assert_holds(&bench.pin(pointer).unwrap(), pointer);
}

#[test]
fn readers_of_far_more_than_the_budget_see_every_page_right() {
    let (pages, reads, threads) = if cfg!(miri) { (16, 12, 2) } else { (2000, 4000, 8) };
    let bench = Bench::new(if cfg!(miri) { 8 } else { 64 }, 16);
    let pointers = bench.publish_all(pages);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (bench, pointers) = (&bench, &pointers);
            scope.spawn(move || {
                let mut random = thread as u64 + 1;
                let mut pins = Vec::new();
                for i in 0..reads {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    // Two thirds of the reads go to one eighth of the pages.
                    let range = if random >> 33 & 3 == 0 { pages } else { pages / 8 };
                    let pointer = pointers[(random >> 40) as usize % range as usize];
                    if i % 7 == 0 {
                        pins.push((pointer, bench.pin(pointer).unwrap()));
                        if pins.len() > 5 {
                            let (pointer, page) = pins.remove(0);
                            assert_holds(&page, pointer);
                        }
                    } else {
                        bench.check(pointer);
                    }
                }
                for (pointer, page) in pins {
                    assert_holds(&page, pointer);
                }
            });
        }
    });
    let stats = bench.file.stats();
    assert_within_budgets(&stats);
    assert!(stats.evictions > 0 && stats.misses > 0 && stats.hits > 0, "{stats:?}");
    assert!(stats.hits + stats.misses <= (threads * reads) as u64 * 2, "{stats:?}");
}

#[test]
fn a_merge_beside_readers_disturbs_none_of_them() {
    let (pages, rounds, batch) = if cfg!(miri) { (10, 2, 3) } else { (400, 30, 50) };
    let bench = Bench::new(if cfg!(miri) { 8 } else { 32 }, 16);
    let pointers = bench.publish_all(pages);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let done = &done;
        let (bench, pointers) = (&bench, &pointers);
        for thread in 0..if cfg!(miri) { 1 } else { 3 } {
            scope.spawn(move || {
                let mut at = thread;
                while !done.load(Ordering::Relaxed) {
                    at = (at * 31 + 7) % pages as usize;
                    bench.check(pointers[at]);
                }
            });
        }
        for round in 0..rounds {
            // New pages beside the old ones; those of two rounds ago are released and their numbers used
            // again.
            let base = pages + round % 3 * batch;
            let written: Vec<_> = (base..base + batch).map(|page| bench.publish(page, 1).unwrap()).collect();
            written.iter().for_each(|&pointer| bench.check(pointer));
            let oldest = pages + (round + 1) % 3 * batch;
            let released: Vec<_> = (oldest..oldest + batch).map(|page| (PageId(page), 1)).collect();
            bench.file.release(&released);
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_reader_that_holds_more_than_the_budget_gets_memory_of_its_own() {
    let bench = Bench::new(16, 16);
    let pointers = bench.publish_all(if cfg!(miri) { 20 } else { 100 });
    let pinned: Vec<_> = pointers.iter().map(|&pointer| (pointer, bench.pin(pointer).unwrap())).collect();
    for (pointer, page) in &pinned {
        assert_holds(&page.clone(), *pointer);
    }
    let stats = bench.file.stats();
    assert_within_budgets(&stats);
}

#[test]
fn a_merge_finds_memory_while_a_reader_holds_all_frames() {
    let bench = Bench::new(8, 4);
    let pointers = bench.publish_all(8);
    let pins: Vec<_> = pointers.iter().map(|&pointer| (pointer, bench.pin(pointer).unwrap())).collect();
    let (leave, leaves) = std::sync::mpsc::channel::<()>();
    let (entered, is_in) = std::sync::mpsc::channel::<()>();
    let reader = std::thread::spawn(move || {
        let guard = epoch::pin();
        entered.send(()).unwrap();
        leaves.recv().unwrap_err();
        drop(guard);
    });
    is_in.recv().unwrap();
    let more: Vec<_> = (100..200).map(|page| bench.publish(page, 1).unwrap()).collect();
    bench.file.write_out().unwrap();
    for (pointer, page) in &pins {
        assert_holds(page, *pointer);
    }
    drop(leave);
    reader.join().unwrap();
    more.into_iter().for_each(|pointer| bench.check(pointer));
}

#[test]
fn pages_outlive_the_cache_that_they_came_from() {
    let bench = Bench::new(16, 16);
    let pointers = bench.publish_all(4);
    let pinned = bench.pin(pointers[0]).unwrap();
    drop(bench);
    assert_holds(&pinned, pointers[0]);
}

#[test]
fn what_is_read_once_pushes_nothing_out_of_a_full_cache() {
    let bench = Bench::new(16, 4);
    let pointers = bench.publish_all(64);
    bench.empty_cache();
    let misses = |pointer: PagePointer| {
        let before = bench.file.stats().misses;
        bench.check(pointer);
        bench.file.stats().misses - before
    };
    // Their frames are free once the threads of other tests, too, have left the epoch in which they were
    // released.
    let until = |what: &str, done: &dyn Fn() -> bool| {
        let tries = (0..100_000).find(|_| {
            done() || {
                std::thread::yield_now();
                false
            }
        });
        assert!(tries.is_some(), "{what}");
    };
    until("no frames get free", &|| pointers[..13].iter().all(|&pointer| misses(pointer) == 0));
    let evictions = bench.file.stats().evictions;
    assert!(pointers[13..50].iter().all(|&pointer| misses(pointer) == 1));
    assert!(pointers[..13].iter().all(|&pointer| misses(pointer) == 0), "those that came first have left");
    assert_eq!(bench.file.stats().evictions, evictions);
    // At its second miss a page enters, as soon as a frame is free, and another leaves.
    for &pointer in &pointers[60..] {
        let before = bench.file.stats().misses;
        until("the page does not enter", &|| misses(pointer) == 0);
        assert!(bench.file.stats().misses - before >= 2);
    }
    assert!(bench.file.stats().evictions > evictions);
    assert_within_budgets(&bench.file.stats());
}

#[test]
fn a_run_that_is_read_once_pushes_nothing_out_of_a_full_cache() {
    let bench = Bench::new(32, 4);
    let runs: Vec<PagePointer> = (0..40).map(|n| bench.publish(3 * n, 3).unwrap()).collect();
    bench.empty_cache();
    let misses = |pointer: PagePointer| {
        let before = bench.file.stats().misses;
        bench.check(pointer);
        bench.file.stats().misses - before
    };
    // Each enters at its second miss at the latest; then they are all there that there is room for.
    for &run in &runs[..30] {
        bench.check(run);
        bench.check(run);
    }
    let is_there = |run: &PagePointer| !bench.file.is_absent(*run, &epoch::pin());
    let entered: Vec<PagePointer> = runs[..30].iter().copied().filter(is_there).collect();
    assert!((3..=10).contains(&entered.len()), "{} runs of three pages", entered.len());
    // A long scan of the others.
    let evictions = bench.file.stats().evictions;
    assert!(runs[30..].iter().all(|&run| misses(run) == 1));
    assert_eq!(bench.file.stats().evictions, evictions);
    assert!(entered.iter().all(|&run| misses(run) == 0), "those that came first have left");
    // At its second miss a run enters.
    assert_eq!((misses(runs[39]), misses(runs[39])), (1, 0));
    assert_within_budgets(&bench.file.stats());
}

#[test]
fn smaller_budgets_take_effect_at_once() {
    let bench = Bench::new(256, 16);
    let pointers = bench.publish_all(200);
    assert!(bench.file.stats().resident_bytes >= 200 * PAGE_SIZE as u64);
    bench.set_budgets(16, 4);
    for &pointer in &pointers {
        bench.check(pointer);
    }
    let stats = bench.file.stats();
    assert_eq!((stats.budget_bytes, stats.dirty_budget_bytes), (16 * PAGE_SIZE as u64, 4 * PAGE_SIZE as u64));
    // Other tests' guards may hold up the grace period of some frames, but not keep what was evicted in the
    // table.
    assert!(stats.evictions >= 180, "{stats:?}");
    bench.set_budgets(256, 16);
    pointers.iter().for_each(|&pointer| bench.check(pointer));
}

#[test]
fn a_failed_write_is_reported_with_its_place_and_everything_stays_dirty() {
    let bench = Bench::new(16, 16);
    let pointer = bench.publish(3, 1).unwrap();
    bench.disk.watch.failing.store(true, Ordering::Relaxed);
    let error = bench.file.write_out().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let place = error.location();
    assert_eq!(place.file.as_deref(), Some("data"));
    assert_eq!((place.offset, place.family, place.page), (Some(offset_of(3)), Some(3), Some(3)));
    assert_eq!(bench.file.stats().dirty_bytes, PAGE_SIZE as u64);
    bench.check(pointer);
}

#[test]
fn damage_in_any_field_is_found_and_located() {
    let bench = Bench::new(16, 16);
    let pointer = bench.publish(3, 1).unwrap();
    bench.empty_cache();
    let disk = bench.pool.permanent();
    for at in (0..HEADER_LEN).chain([HEADER_LEN, PAGE_SIZE - 1]) {
        let mut byte = [0];
        let offset = offset_of(3) + at as u64;
        disk.read_at(&mut byte, offset).unwrap();
        disk.write_at(&[byte[0] ^ 0x10], offset).unwrap();
        let mut buffer = Vec::new();
        for error in [
            bench.pin(pointer).unwrap_err(),
            bench.file.read_uncached(pointer, offset_of(3), &mut buffer).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Corruption, "byte {at}");
            let place = error.location();
            assert_eq!(place.file.as_deref(), Some("data"));
            assert_eq!((place.offset, place.family, place.page), (Some(offset_of(3)), Some(3), Some(3)));
        }
        disk.write_at(&byte, offset).unwrap();
    }
    bench.check(pointer);
}

#[test]
fn a_lost_write_is_found_by_the_pointer() {
    let bench = Bench::new(16, 16);
    let old = bench.publish(3, 1).unwrap();
    bench.file.write_out().unwrap();
    let mut before = vec![0; PAGE_SIZE];
    bench.pool.permanent().read_at(&mut before, offset_of(3)).unwrap();
    bench.file.release(&[(PageId(3), 1)]);
    let mut page = bench.file.new_page(PageId(3), 1, offset_of(3));
    page[HEADER_LEN..].fill(9);
    let (new, _) = bench.file.publish(page, PageKind::Leaf, 0, 2, PAGE_SIZE as u64).unwrap();
    bench.empty_cache();
    bench.pool.permanent().write_at(&before, offset_of(3)).unwrap();
    let error = bench.file.load(new, offset_of(3)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    bench.check(old);
}

#[test]
fn a_page_behind_the_end_of_the_file_is_corruption() {
    let bench = Bench::new(16, 16);
    let pointer = PagePointer { page: PageId(9), pages: 1, checksum: 1 };
    let error = bench.file.load(pointer, offset_of(9)).unwrap_err();
    assert_eq!((error.kind(), error.location().offset), (ErrorKind::Corruption, Some(offset_of(9))));
}

#[test]
fn a_pointer_to_another_state_of_a_cached_page_is_not_served_from_memory() {
    let bench = Bench::new(16, 16);
    let pointer = bench.publish(3, 1).unwrap();
    bench.file.write_out().unwrap();
    bench.check(pointer);
    let wrong = PagePointer { checksum: pointer.checksum ^ 1, ..pointer };
    assert_eq!(bench.pin(wrong).unwrap_err().kind(), ErrorKind::Corruption);
    assert!(bench.file.find_pinned(wrong).is_none());
}

#[test]
fn a_new_page_that_is_dropped_is_reported_once() {
    let bench = Bench::new(16, 16);
    drop(bench.file.new_page(PageId(4), 1, offset_of(4)));
    drop(bench.file.new_page(PageId(5), 3, offset_of(5)));
    bench.publish(9, 1).unwrap();
    assert_eq!(bench.file.take_unpublished(), [(PageId(4), 1), (PageId(5), 3)]);
    assert!(bench.file.take_unpublished().is_empty());
}

#[test]
fn one_familys_locks_do_not_hold_up_another() {
    let bench = Bench::new(16, 16);
    let other = PagedCachedFile::new(FamilyId(4), PAGE_SIZE, Arc::clone(&bench.pool), budgets(16, 16));
    let locks = bench.file.lock_all();
    let bench = Bench { file: other, ..bench };
    let pointers = {
        let pointers: Vec<_> = (0..40).map(|page| bench.publish(page, 1).unwrap()).collect();
        bench.publish(50, 2).unwrap();
        bench.file.write_out().unwrap();
        pointers
    };
    pointers.into_iter().for_each(|pointer| bench.check(pointer));
    bench.set_budgets(8, 8);
    drop(locks);
}

mod model {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Publish { slot: u32, run: bool },
        Release { slot: u32 },
        Read { slot: u32 },
        Hold { slot: u32 },
        LetGo,
        WriteOut,
        Budgets { read: u64, write: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        let slot = 0u32..40;
        prop_oneof![
            6 => (slot.clone(), prop::bool::weighted(0.2)).prop_map(|(slot, run)| Step::Publish { slot, run }),
            3 => slot.clone().prop_map(|slot| Step::Release { slot }),
            8 => slot.clone().prop_map(|slot| Step::Read { slot }),
            2 => slot.prop_map(|slot| Step::Hold { slot }),
            1 => Just(Step::LetGo),
            1 => Just(Step::WriteOut),
            1 => (0u64..40, 0u64..20).prop_map(|(read, write)| Step::Budgets { read, write }),
        ]
    }

    proptest! {
        #![proptest_config(crate::sampling::config(200))]

        #[test]
        fn every_page_reads_as_it_was_published(steps in prop::collection::vec(step(), 1..150)) {
            let bench = Bench::new(12, 6);
            let mut live = BTreeMap::<u32, PagePointer>::new();
            let mut held = Vec::new();
            for step in steps {
                match step {
                    // Slots are four pages apart, so that runs of up to four fit.
                    Step::Publish { slot, run } => {
                        if let std::collections::btree_map::Entry::Vacant(entry) = live.entry(slot) {
                            entry.insert(bench.publish(slot * 4, if run { 1 + slot % 4 } else { 1 }).unwrap());
                        }
                    }
                    Step::Release { slot } => {
                        if let Some(pointer) = live.remove(&slot) {
                            bench.file.release(&[(pointer.page, pointer.pages)]);
                        }
                    }
                    Step::Read { slot } => {
                        if let Some(&pointer) = live.get(&slot) {
                            bench.check(pointer);
                            let mut buffer = Vec::new();
                            bench.file.read_uncached(pointer, offset_of(pointer.page.0), &mut buffer).unwrap();
                            assert_holds(&buffer, pointer);
                        }
                    }
                    Step::Hold { slot } => {
                        if let Some(&pointer) = live.get(&slot) {
                            held.push((pointer, bench.pin(pointer).unwrap()));
                        }
                    }
                    Step::LetGo => held.truncate(held.len() / 2),
                    Step::WriteOut => {
                        bench.file.write_out().unwrap();
                        prop_assert_eq!(bench.file.stats().dirty_bytes, 0);
                    }
                    Step::Budgets { read, write } => bench.set_budgets(read, write),
                }
                for (pointer, page) in &held {
                    assert_holds(page, *pointer);
                }
            }
            live.values().for_each(|&pointer| bench.check(pointer));
        }
    }
}
