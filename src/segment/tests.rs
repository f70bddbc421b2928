//! A family's storage as a whole, and the space map, against models.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::codec::ids::{FamilyId, PageId};
use crate::error::ErrorKind;
use crate::page::{CacheBudgets, HEADER_LEN, PageKind, PagePointer};
use crate::storage::{FileHandlePool, FileMode, MemoryStorage, StorageBackend, StorageFile, StorageLock};
use crate::sync::epoch;
use crate::sync::{Arc, Mutex};

const PAGE_SIZE: usize = 4096;
fn budgets() -> CacheBudgets {
    CacheBudgets::fixed(64 << 10, 32 << 10)
}

/// A disk in memory with room for so many bytes.
#[derive(Debug, Clone)]
struct SmallDisk {
    memory: MemoryStorage,
    room: Arc<Mutex<u64>>,
    /// Bytes that it says it has left.
    free: Arc<Mutex<Option<u64>>>,
    /// Pages given back and not allocated since.
    holes: Arc<Mutex<BTreeSet<u64>>>,
}

#[derive(Debug)]
struct SmallDiskFile(std::sync::Arc<dyn StorageFile>, SmallDisk);

impl SmallDisk {
    fn new() -> Self {
        Self {
            memory: MemoryStorage::new(),
            room: Arc::new(Mutex::new(u64::MAX)),
            free: Arc::default(),
            holes: Arc::default(),
        }
    }

    /// It says that it has so many pages left.
    fn set_free(&self, pages: u64) {
        *self.free.lock() = Some(pages * PAGE_SIZE as u64);
    }

    /// The numbers of the pages that a range of bytes touches.
    fn pages(offset: u64, len: u64) -> std::ops::Range<u64> {
        offset / PAGE_SIZE as u64..(offset + len).div_ceil(PAGE_SIZE as u64)
    }

    fn pool(&self, mode: FileMode) -> FileHandlePool {
        FileHandlePool::new(std::sync::Arc::new(self.clone()), "data", mode, 4).unwrap()
    }

    fn file(&self, mode: FileMode) -> Arc<dyn StorageFile> {
        StorageBackend::open(self, "data", mode).unwrap()
    }
}

impl StorageBackend for SmallDisk {
    fn open(&self, path: &str, mode: FileMode) -> std::io::Result<std::sync::Arc<dyn StorageFile>> {
        Ok(std::sync::Arc::new(SmallDiskFile(self.memory.open(path, mode)?, self.clone())))
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
    fn free_bytes(&self) -> std::io::Result<Option<u64>> {
        Ok(*self.free.lock())
    }
}

/// A file that keeps what it got before the disk was full, unless that is beyond its end.
#[derive(Debug)]
struct Greedy(std::sync::Arc<dyn StorageFile>);

impl StorageFile for Greedy {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        self.0.write_at(bytes, offset)
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
        let end = self.len()?;
        let allocated = self.0.allocate(offset, len);
        if allocated.is_err() {
            let pieces = (offset..end.min(offset + len)).step_by(PAGE_SIZE);
            let _ = pieces.map(|piece| self.0.allocate(piece, PAGE_SIZE as u64)).find(Result::is_err);
        }
        allocated
    }
    fn deallocate(&self, offset: u64, len: u64) -> std::io::Result<()> {
        self.0.deallocate(offset, len)
    }
}

impl StorageFile for SmallDiskFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        let len = bytes.len() as u64;
        let hole = self.1.holes.lock().range(SmallDisk::pages(offset, len)).next().copied();
        let allocated = offset + len <= self.len()? && hole.is_none();
        assert!(allocated, "a write of {len} bytes to {offset}, outside of what was allocated");
        self.0.write_at(bytes, offset)
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
        if offset + len > *self.1.room.lock() {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.1.holes.lock().retain(|page| !SmallDisk::pages(offset, len).contains(page));
        self.0.allocate(offset, len)
    }
    fn deallocate(&self, offset: u64, len: u64) -> std::io::Result<()> {
        // Harsher than a real one, so that a mistake shows.
        self.0.write_at(&vec![0xdd; len as usize], offset)?;
        self.1.holes.lock().extend(SmallDisk::pages(offset, len));
        Ok(())
    }
}

fn data_file(disk: &SmallDisk) -> Arc<DataFile> {
    let pool = disk.pool(FileMode::Create);
    let space = SpaceMap::new(Arc::clone(pool.permanent()), "data", PAGE_SIZE);
    DataFile::new(pool, PAGE_SIZE, space)
}

fn family(shared: &Arc<DataFile>) -> Arc<PartitionedStorageBackend> {
    PartitionedStorageBackend::new(FamilyId(3), Arc::clone(shared), budgets())
}

/// Publishes a page or run that holds `tag`.
fn publish(store: &PartitionedStorageBackend, pages: u32, tag: u64) -> crate::error::Result<PagePointer> {
    let mut page = store.new_page(pages)?;
    let end = page.len();
    page[HEADER_LEN..].fill(tag as u8);
    page[HEADER_LEN..HEADER_LEN + 8].copy_from_slice(&tag.to_le_bytes());
    store.publish(page, PageKind::Leaf, 0, 1, end as u64)
}

fn assert_holds(store: &PartitionedStorageBackend, pointer: PagePointer, tag: u64) {
    let page = store.pin(pointer).unwrap();
    assert_eq!(page[HEADER_LEN..HEADER_LEN + 8], tag.to_le_bytes(), "page {}", pointer.page);
    assert_eq!(page[page.len() - 1], tag as u8);
}

fn run_of(pointer: PagePointer) -> (PageId, u32) {
    (pointer.page, pointer.pages)
}

/// A checkpoint of the one family. Returns what its superblock would record.
fn checkpoint(shared: &DataFile, store: &PartitionedStorageBackend) -> (Vec<Segment>, PageSet) {
    shared.space().begin_checkpoint();
    let recorded = store.begin_checkpoint();
    store.write_dirty().unwrap();
    store.end_checkpoint(true);
    shared.space().checkpoint_durable();
    recorded
}

#[test]
fn segments_start_with_a_page_and_double_and_neighbours_are_one() {
    let disk = SmallDisk::new();
    let shared = data_file(&disk);
    let store = family(&shared);
    assert_eq!(store.space(), super::partitioned::SegmentSpace::default());
    let mut sizes = Vec::new();
    let mut publish_one = |tag| {
        let pointer = publish(&store, 1, tag).unwrap();
        sizes.extend(store.segments().iter().map(|segment| segment.pages));
        pointer
    };
    let pointers: Vec<_> = (0..100).map(&mut publish_one).collect();
    sizes.dedup();
    assert_eq!(sizes, [1, 2, 4, 8, 16, 32, 64, 128]);
    assert_eq!(shared.pool().permanent().len().unwrap(), EXTENTS_START + 128 * PAGE_SIZE as u64);
    for (tag, &pointer) in pointers.iter().enumerate() {
        assert_eq!(pointer.page.0 as usize, tag);
        assert_holds(&store, pointer, tag as u64);
        let offset = EXTENTS_START + (tag * PAGE_SIZE) as u64;
        assert_eq!(store.file_offset(pointer.page), Some(offset));
    }
    let run = publish(&store, 200, 7).unwrap();
    assert_eq!(store.segments().last().unwrap().pages, 328);
    assert_holds(&store, run, 7);
}

#[test]
fn a_full_disk_refuses_the_page_and_changes_nothing() {
    let disk = SmallDisk::new();
    let shared = data_file(&disk);
    let store = family(&shared);
    let pointers: Vec<_> = (0..32).map(|tag| publish(&store, 1, tag).unwrap()).collect();
    *disk.room.lock() = shared.pool().permanent().len().unwrap();
    let before = (store.space(), shared.space().file_pages());
    for pages in [1, 5] {
        let error = store.new_page(pages).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfSpace);
        assert_eq!(error.location().family, Some(3));
    }
    assert_eq!((store.space(), shared.space().file_pages()), before);
    // Room for less than the family would like is used.
    *disk.room.lock() += PAGE_SIZE as u64;
    let last = publish(&store, 1, 99).unwrap();
    assert_holds(&store, last, 99);
    assert_eq!(store.new_page(1).unwrap_err().kind(), ErrorKind::OutOfSpace);
    // What is given back serves again without growth.
    store.abandon(&[run_of(pointers[4])]);
    assert_eq!(publish(&store, 1, 100).unwrap().page, pointers[4].page);
}

#[test]
fn pages_of_new_pages_that_were_dropped_are_used_again() {
    let shared = data_file(&SmallDisk::new());
    let store = family(&shared);
    let first = store.new_page(1).unwrap().page();
    assert_eq!(store.new_page(1).unwrap().page(), first);
    drop(store.new_page(3).unwrap());
    store.begin_checkpoint();
    assert_eq!(store.space().pages_in_use, 0);
}

#[test]
fn a_pointer_out_of_the_familys_segments_is_corruption() {
    let shared = data_file(&SmallDisk::new());
    let store = family(&shared);
    let pointer = publish(&store, 1, 1).unwrap();
    for (page, pages) in [(16, 1), (15, 2), (0, 0), (0, u32::MAX), (u32::MAX, u32::MAX)] {
        let wrong = PagePointer { page: PageId(page), pages, ..pointer };
        assert!(store.find(wrong, &epoch::pin()).is_none());
        let error = store.load(wrong).unwrap_err();
        assert_eq!((error.kind(), error.location().page), (ErrorKind::Corruption, Some(page)));
        assert!(store.pin(wrong).is_err());
        assert!(store.read_uncached(wrong, &mut Vec::new()).is_err());
    }
}

#[test]
fn compaction_moves_to_fresh_segments_and_the_file_shrinks() {
    let disk = SmallDisk::new();
    let shared = data_file(&disk);
    let store = family(&shared);
    let old: Vec<_> = (0..500).map(|tag| publish(&store, 1, tag).unwrap()).collect();
    let written: Vec<_> = old.iter().map(|&pointer| run_of(pointer)).collect();
    store.install(&written, &[]).unwrap();
    // Three in four are deleted.
    let (kept, gone): (Vec<_>, Vec<_>) = old.iter().enumerate().partition(|(tag, _)| tag % 4 == 0);
    let gone: Vec<_> = gone.into_iter().map(|(_, &pointer)| run_of(pointer)).collect();
    store.install(&[], &gone).unwrap();
    store.release(&gone);
    checkpoint(&shared, &store);
    let before = shared.pool().permanent().len().unwrap();
    assert!(store.give_back(1), "what is behind the last page was never used");

    store.place_afresh(Vec::new());
    let moved: Vec<_> =
        kept.iter().map(|&(tag, _)| (tag as u64, publish(&store, 1, tag as u64).unwrap())).collect();
    let retired: Vec<_> = kept.iter().map(|&(_, &pointer)| run_of(pointer)).collect();
    let written: Vec<_> = moved.iter().map(|&(_, pointer)| run_of(pointer)).collect();
    store.install(&written, &retired).unwrap();
    store.place_anywhere();
    store.release(&retired);
    assert!(!store.give_back(1), "the durable superblock still reaches the old pages");
    checkpoint(&shared, &store);
    assert!(store.give_back(1));
    assert_eq!(store.space().pages_total, 125);
    checkpoint(&shared, &store);
    assert!(shared.space().shrink().unwrap());
    for &(tag, pointer) in &moved {
        store.release(&[]);
        assert_holds(&store, pointer, tag);
    }
    // The pages stand behind the old ones; a second round brings them to the front, and the tail goes.
    store.place_afresh(Vec::new());
    let again: Vec<_> = moved.iter().map(|&(tag, _)| (tag, publish(&store, 1, tag).unwrap())).collect();
    let retired = written;
    let written: Vec<_> = again.iter().map(|&(_, pointer)| run_of(pointer)).collect();
    store.install(&written, &retired).unwrap();
    store.release(&retired);
    store.place_anywhere();
    checkpoint(&shared, &store);
    store.give_back(1);
    checkpoint(&shared, &store);
    shared.space().shrink().unwrap();
    let after = shared.pool().permanent().len().unwrap();
    assert_eq!(after, EXTENTS_START + 125 * PAGE_SIZE as u64, "was {before}");
    again.iter().for_each(|&(tag, pointer)| assert_holds(&store, pointer, tag));
}

#[test]
fn long_runs_of_free_pages_are_given_back_and_taken_again() {
    let disk = SmallDisk::new();
    let shared = data_file(&disk);
    let store = family(&shared);
    let pointers: Vec<_> = (0..400).map(|tag| publish(&store, 1, tag).unwrap()).collect();
    let all: Vec<_> = pointers.iter().map(|&pointer| run_of(pointer)).collect();
    store.install(&all, &[]).unwrap();
    checkpoint(&shared, &store);
    let total = store.space().pages_total;
    // Of these runs two are long enough.
    let gone = [&all[3..6], &all[40..44], &all[100..300]].concat();
    store.install(&[], &gone).unwrap();
    assert!(store.give_back(1), "behind the last page, nothing ever stood");
    let unused = total - store.space().pages_total;
    assert_eq!(store.space().pages_total, 400);
    store.release(&gone);
    assert!(!store.give_back(1), "the durable superblock still reaches the pages");
    checkpoint(&shared, &store);
    assert!(!store.give_back(205), "204 are free in long runs");
    assert!(store.give_back(204));
    assert!(!store.give_back(1));
    let space = store.space();
    assert_eq!((space.pages_total, space.pages_in_use), (400 - 204, 400 - 207));
    assert!(store.segments().len() <= 3, "{:?}", store.segments());
    assert!(store.pin(pointers[100]).is_err());
    checkpoint(&shared, &store);
    assert_eq!(shared.space().free_pages(), 204 + unused);
    shared.space().shrink().unwrap();
    assert_eq!((shared.space().kept_pages(), shared.space().free_pages()), (0, 204));
    // Both the places in the file and the numbers serve again.
    let again: Vec<_> = (0..190).map(|tag| publish(&store, 1, 1000 + tag).unwrap()).collect();
    assert!(again.iter().all(|pointer| pointer.page.0 < 500), "{again:?}");
    assert!(shared.space().file_pages() < 400 + 100, "{}", shared.space().file_pages());
    checkpoint(&shared, &store);
    for (tag, pointer) in again.iter().enumerate() {
        assert_holds(&store, *pointer, 1000 + tag as u64);
    }
    for (tag, pointer) in pointers.iter().enumerate().filter(|(tag, _)| !gone.contains(&all[*tag])) {
        assert_holds(&store, *pointer, tag as u64);
    }
}

#[test]
fn segments_stay_few_however_scattered_the_free_pages_are() {
    let shared = data_file(&SmallDisk::new());
    let store = family(&shared);
    let all: Vec<_> = (0..4000).map(|tag| run_of(publish(&store, 1, tag).unwrap())).collect();
    store.install(&all, &[]).unwrap();
    let gone: Vec<_> = all.chunks(17).flat_map(|chunk| &chunk[1..]).copied().collect();
    store.install(&[], &gone).unwrap();
    store.release(&gone);
    while store.give_back(1) {}
    let segments = store.segments().len();
    assert!((200..=256).contains(&segments), "{segments} segments");
    // A segment that is free whole goes nevertheless.
    let rest: Vec<_> = all.chunks(17).map(|chunk| chunk[0]).collect();
    store.install(&[], &rest).unwrap();
    store.release(&rest);
    while store.give_back(1) {}
    assert_eq!(store.space(), super::partitioned::SegmentSpace::default());
}

#[test]
fn on_a_disk_with_little_room_segments_are_no_smaller_than_they_must_be() {
    let disk = SmallDisk::new();
    let shared = data_file(&disk);
    let store = family(&shared);
    for tag in 0..512 {
        publish(&store, 1, tag).unwrap();
    }
    let before = store.segments().len();
    *disk.room.lock() = shared.pool().permanent().len().unwrap() + 100 * PAGE_SIZE as u64;
    let mut pages = 0;
    while publish(&store, 1, pages).is_ok() {
        pages += 1;
    }
    assert_eq!(pages, 100);
    assert!(store.segments().len() - before <= 4, "{:?}", store.segments());
}

#[test]
fn a_dropped_family_gives_everything_back() {
    let shared = data_file(&SmallDisk::new());
    let (store, other) = (family(&shared), family(&shared));
    let kept = publish(&other, 1, 5).unwrap();
    for tag in 0..100 {
        publish(&store, 1, tag).unwrap();
    }
    let run = publish(&store, 4, 7).unwrap();
    let unfinished = store.new_page(1).unwrap();
    store.discard();
    store.discard();
    assert_eq!(store.space(), super::partitioned::SegmentSpace::default());
    assert_eq!(store.cache_stats().dirty_bytes, 0);
    for error in [
        store.new_page(1).unwrap_err(),
        store.publish(unfinished, PageKind::Leaf, 0, 1, 100).unwrap_err(),
        store.install(&[run_of(run)], &[]).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::FamilyDropped);
    }
    store.release(&[run_of(run)]);
    store.write_dirty().unwrap();
    shared.space().begin_checkpoint();
    shared.space().checkpoint_durable();
    assert_eq!(shared.space().free_pages() + 1, shared.space().file_pages());
    assert_holds(&other, kept, 5);
}

#[test]
fn a_catalog_that_contradicts_itself_is_refused() {
    let shared = data_file(&SmallDisk::new());
    let segment = |first_page, pages| Segment { first_page, pages, file_page: 0 };
    let restore = |segments: Vec<Segment>, pages: &[(u32, u32)]| {
        let reachable = pages.iter().map(|&(first, pages)| (PageId(first), pages)).collect();
        PartitionedStorageBackend::restore(FamilyId(3), Arc::clone(&shared), budgets(), segments, &reachable)
            .map(|_| ())
            .map_err(|error| (error.kind(), error.location().family))
    };
    let corrupt = Err((ErrorKind::Corruption, Some(3)));
    assert_eq!(restore(vec![segment(0, 8), segment(8, 8)], &[(0, 16)]), Ok(()));
    assert_eq!(restore(vec![segment(0, 8), segment(7, 8)], &[]), corrupt);
    assert_eq!(restore(vec![segment(0, 8)], &[(7, 2)]), corrupt);
    assert_eq!(restore(vec![], &[(0, 1)]), corrupt);
    assert_eq!(restore(vec![segment(u32::MAX, 1)], &[(u32::MAX, 1)]), Ok(()));
}

mod family_model {
    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        /// A merge writes and retires so many pages or runs, and may fail.
        Merge {
            written: Vec<u32>,
            retired: usize,
            fails: bool,
        },
        /// The view that is held longest is let go.
        LetGo,
        Checkpoint,
        GiveBack,
        Place(bool),
        Budgets(u64),
        /// The process is killed, and the database opened again.
        Crash,
    }

    fn step() -> impl Strategy<Value = Step> {
        let sizes = prop::collection::vec(prop_oneof![4 => Just(1u32), 1 => 2u32..9], 0..12);
        prop_oneof![
            6 => (sizes, 0usize..12, prop::bool::weighted(0.1))
                .prop_map(|(written, retired, fails)| Step::Merge { written, retired, fails }),
            4 => Just(Step::LetGo),
            2 => Just(Step::Checkpoint),
            1 => Just(Step::GiveBack),
            1 => any::<bool>().prop_map(Step::Place),
            1 => (0u64..100_000).prop_map(Step::Budgets),
            1 => Just(Step::Crash),
        ]
    }

    type Tree = BTreeMap<PageId, (PagePointer, u64)>;

    proptest! {
        #![proptest_config(crate::sampling::config(150))]

        #[test]
        fn what_views_and_superblocks_reach_stays_as_it_was(steps in prop::collection::vec(step(), 1..60)) {
            let disk = SmallDisk::new();
            let mut shared = data_file(&disk);
            let mut store = family(&shared);
            let mut tree = Tree::new();
            let mut views: Vec<(Tree, Vec<(PageId, u32)>)> = Vec::new();
            let mut durable = (Tree::new(), (Vec::new(), PageSet::new()));
            let mut tag = 0;
            for step in steps {
                match step {
                    Step::Merge { written, retired, fails } => {
                        let mut new = Vec::new();
                        for pages in written {
                            tag += 1;
                            new.push((publish(&store, pages, tag).unwrap(), tag));
                        }
                        let runs: Vec<_> = new.iter().map(|&(pointer, _)| run_of(pointer)).collect();
                        if fails {
                            store.abandon(&runs);
                            continue;
                        }
                        let gone: Vec<_> = tree.values().take(retired).map(|&(pointer, _)| run_of(pointer)).collect();
                        store.install(&runs, &gone).unwrap();
                        let before = tree.clone();
                        gone.iter().for_each(|run| { tree.remove(&run.0); });
                        tree.extend(new.into_iter().map(|(pointer, tag)| (pointer.page, (pointer, tag))));
                        views.push((before, gone));
                    }
                    Step::LetGo => {
                        if !views.is_empty() {
                            store.release(&views.remove(0).1);
                        }
                    }
                    Step::Checkpoint => durable = (tree.clone(), checkpoint(&shared, &store)),
                    Step::GiveBack => {
                        store.give_back(1);
                        shared.space().shrink().unwrap();
                    }
                    Step::Place(true) => store.place_afresh(Vec::new()),
                    Step::Place(false) => drop(store.place_anywhere()),
                    Step::Budgets(bytes) => store.cache().set_budgets(bytes, bytes / 2),
                    Step::Crash => {
                        let (segments, reachable) = durable.1.clone();
                        let pool = disk.pool(FileMode::Write);
                        let used = segments.iter().map(|segment| (segment.file_page, u64::from(segment.pages)));
                        let file = Arc::clone(pool.permanent());
                        let space = SpaceMap::restore(file, "data", PAGE_SIZE, used).unwrap();
                        shared = DataFile::new(pool, PAGE_SIZE, space);
                        store = PartitionedStorageBackend::restore(
                            FamilyId(3), Arc::clone(&shared), budgets(), segments, &reachable,
                        ).unwrap();
                        tree = durable.0.clone();
                        views.clear();
                        prop_assert_eq!(store.reachable(), reachable);
                    }
                }
                for (tree, _) in views.iter().chain([&(tree.clone(), Vec::new())]) {
                    tree.values().for_each(|&(pointer, tag)| assert_holds(&store, pointer, tag));
                }
                let reachable: u64 = tree.values().map(|&(pointer, _)| u64::from(pointer.pages)).sum();
                let retired: u64 = views.iter().flat_map(|view| &view.1).map(|run| u64::from(run.1)).sum();
                let space = store.space();
                prop_assert_eq!((space.pages_reachable, space.pages_in_use), (reachable, reachable + retired));
            }
        }
    }
}

mod space_model {
    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Allocate(u64),
        Free(usize),
        Begin,
        Durable,
        Shrink,
        Full(bool),
        Reopen,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            5 => (1u64..20).prop_map(Step::Allocate),
            4 => any::<usize>().prop_map(Step::Free),
            2 => Just(Step::Begin),
            2 => Just(Step::Durable),
            1 => Just(Step::Shrink),
            1 => any::<bool>().prop_map(Step::Full),
            1 => Just(Step::Reopen),
        ]
    }

    fn pages(extents: &[(u64, u64)]) -> BTreeSet<u64> {
        extents.iter().flat_map(|&(first, pages)| first..first + pages).collect()
    }

    proptest! {
        #![proptest_config(crate::sampling::config(200))]

        #[test]
        fn an_extent_is_reused_only_after_a_later_checkpoint_is_durable(steps in prop::collection::vec(step(), 1..100)) {
            let disk = SmallDisk::new();
            let mut space = SpaceMap::new(disk.file(FileMode::Create), "data", PAGE_SIZE);
            let (mut used, mut waiting, mut closing) = (Vec::new(), Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Allocate(length) => {
                        let before = (space.file_pages(), space.free_pages());
                        match space.allocate(length, length) {
                            Ok((first, _)) => {
                                let taken: BTreeSet<u64> = [&used, &waiting, &closing].into_iter().flat_map(|extents| pages(extents)).collect();
                                prop_assert!((first..first + length).all(|page| !taken.contains(&page)));
                                used.push((first, length));
                            }
                            Err(error) => {
                                prop_assert_eq!(error.kind(), ErrorKind::OutOfSpace);
                                prop_assert_eq!((space.file_pages(), space.free_pages()), before);
                            }
                        }
                    }
                    Step::Free(index) => {
                        if !used.is_empty() {
                            let (first, length) = used.swap_remove(index % used.len());
                            space.free(first, length);
                            waiting.push((first, length));
                        }
                    }
                    Step::Begin => {
                        space.begin_checkpoint();
                        closing.append(&mut waiting);
                    }
                    Step::Durable => {
                        space.checkpoint_durable();
                        closing.clear();
                    }
                    Step::Shrink => {
                        space.shrink().unwrap();
                        let taken: BTreeSet<u64> = [&used, &waiting, &closing].into_iter().flat_map(|extents| pages(extents)).collect();
                        prop_assert_eq!(space.file_pages(), taken.last().map_or(0, |last| last + 1));
                        prop_assert!(!space.shrink().unwrap());
                    }
                    Step::Full(full) => {
                        let len = disk.file(FileMode::Read).len().unwrap();
                        *disk.room.lock() = if full { len } else { u64::MAX };
                    }
                    Step::Reopen => {
                        space = SpaceMap::restore(disk.file(FileMode::Write), "data", PAGE_SIZE, used.iter().copied()).unwrap();
                        waiting.clear();
                        closing.clear();
                    }
                }
                let used_pages = pages(&used).len() as u64;
                let waiting_pages = (pages(&waiting).len() + pages(&closing).len()) as u64;
                prop_assert_eq!(space.waiting_pages(), waiting_pages);
                prop_assert_eq!(space.free_pages() + used_pages + waiting_pages, space.file_pages());
            }
        }
    }

    #[test]
    fn extents_that_overlap_or_leave_the_file_are_refused() {
        let disk = SmallDisk::new();
        let file = disk.file(FileMode::Create);
        file.set_len(EXTENTS_START + 100 * PAGE_SIZE as u64 + 17).unwrap();
        let restore = |used: &[(u64, u64)]| {
            SpaceMap::restore(Arc::clone(&file), "data", PAGE_SIZE, used.iter().copied())
                .map(|space| space.free_pages())
                .map_err(|error| error.kind())
        };
        assert_eq!(restore(&[(90, 10), (0, 5), (5, 5)]), Ok(80));
        assert_eq!(restore(&[]), Ok(100));
        for used in
            [&[(0, 5), (4, 5)][..], &[(90, 11)], &[(101, 1)], &[(0, 0)], &[(u64::MAX, 2)], &[(1, u64::MAX)]]
        {
            assert_eq!(restore(used), Err(ErrorKind::Corruption), "{used:?}");
        }
    }
}

#[test]
fn a_look_at_a_page_that_is_not_in_memory_leaves_the_epoch() {
    let disk = SmallDisk::new();
    let store = family(&data_file(&disk));
    let pointer = publish(&store, 1, 5).unwrap();
    let look =
        |guard: &mut Option<epoch::Guard>| store.look(pointer, guard, |page| page[HEADER_LEN]).unwrap();
    let mut guard = None;
    assert_eq!(
        (look(&mut guard), guard.is_some()),
        (5, true),
        "what is in memory is looked at under a guard"
    );
    guard = None;
    store.write_dirty().unwrap();
    store.cache_forget(pointer);
    guard.get_or_insert_with(epoch::pin);
    assert_eq!((look(&mut guard), guard.is_some()), (5, false));
    assert_eq!((look(&mut guard), guard.is_some()), (5, true));
}

/// A map that keeps eight pages, on a disk with room for so many pages in all.
fn map_with_reserve(pages: u64) -> (SmallDisk, SpaceMap) {
    let disk = SmallDisk::new();
    let space = SpaceMap::new(disk.file(FileMode::Create), "data", PAGE_SIZE);
    space.set_reserve(ReserveSize::Bytes(8 * PAGE_SIZE as u64), Arc::new(disk.clone()));
    *disk.room.lock() = EXTENTS_START + pages * PAGE_SIZE as u64;
    (disk, space)
}

fn take(space: &SpaceMap, pages: u64) -> Result<u64, ErrorKind> {
    space.allocate(pages, pages).map(|(first, _)| first).map_err(|error| error.kind())
}

#[test]
fn what_is_kept_for_a_full_disk_is_for_who_has_it_open() {
    let (disk, space) = map_with_reserve(30);
    assert!(space.fill_reserve());
    let taken: Vec<u64> = (0..11).map(|_| take(&space, 2).unwrap()).collect();
    assert_eq!(take(&space, 2), Err(ErrorKind::OutOfSpace));
    assert!(space.fill_reserve(), "nothing was taken of it");
    {
        let _open = space.open_reserve();
        (0..2).for_each(|_| _ = take(&space, 2).unwrap());
        assert_eq!(take(&space, 1), Err(ErrorKind::OutOfSpace), "half of it is left to memtables");
        let _merging = space.for_memtables();
        (0..2).for_each(|_| _ = take(&space, 2).unwrap());
        assert_eq!(take(&space, 1), Err(ErrorKind::OutOfSpace));
    }
    assert!(!space.fill_reserve() && space.is_short());
    // What is given back makes it good before anything else is taken.
    taken[..4].iter().for_each(|&first| space.free_unused(first, 2));
    assert!(space.fill_reserve());
    assert_eq!(take(&space, 1), Err(ErrorKind::OutOfSpace));
    *disk.room.lock() = u64::MAX;
    take(&space, 1).unwrap();
    assert!(space.fill_reserve() && !space.is_short());
}

#[test]
fn a_catalog_may_take_all_that_is_kept_and_segments_take_little_of_it() {
    let (_, space) = map_with_reserve(12);
    assert!(space.fill_reserve());
    take(&space, 4).unwrap();
    let _open = space.open_whole_reserve();
    assert_eq!(space.allocate(8, 1).unwrap().1, 4, "a segment that would like more");
    take(&space, 4).unwrap();
    assert_eq!(take(&space, 1), Err(ErrorKind::OutOfSpace));
}

#[test]
fn what_the_log_holds_has_room_beside_the_reserve_before_it_is_taken() {
    let (disk, space) = map_with_reserve(30);
    let page = PAGE_SIZE as u64;
    // Four pages for each page of log: there is room for five pages of log beside the reserve, and not for
    // six.
    disk.set_free(22);
    space.keep_room(5 * page).unwrap();
    disk.set_free(2);
    assert_eq!(space.keep_room(6 * page).unwrap_err().kind(), ErrorKind::OutOfSpace);
    assert!(space.file_pages() >= 28);
    // On a disk with plenty nothing is done for it.
    disk.set_free(1000);
    space.keep_room(6 * page).unwrap();
}

#[test]
fn room_that_is_owed_to_memtables_is_left_by_all_others() {
    let (disk, space) = map_with_reserve(40);
    let page = PAGE_SIZE as u64;
    disk.set_free(1000);
    space.keep_room(3 * page).unwrap();
    assert_eq!(space.file_pages(), 0, "there is plenty");
    take(&space, 10).unwrap();
    // Somebody else has taken the rest.
    disk.set_free(30);
    (0..10).for_each(|_| _ = take(&space, 1).unwrap());
    assert_eq!(take(&space, 1), Err(ErrorKind::OutOfSpace));
    {
        let _open = space.open_reserve();
        (0..4).for_each(|_| _ = take(&space, 1).unwrap());
        assert_eq!(take(&space, 1), Err(ErrorKind::OutOfSpace));
    }
    let merging = space.for_memtables();
    (0..8).for_each(|_| _ = take(&space, 1).unwrap());
    assert_eq!(take(&space, 1), Err(ErrorKind::OutOfSpace));
    drop(merging);
    // They are merged.
    space.keep_no_more(0);
    let _open = space.open_reserve();
    (0..4).for_each(|_| _ = take(&space, 1).unwrap());
    assert_eq!(take(&space, 1), Err(ErrorKind::OutOfSpace));
}

#[test]
fn a_hole_for_which_there_is_no_room_stays_one() {
    let storage = MemoryStorage::new();
    let page = PAGE_SIZE as u64;
    let file = Arc::new(Greedy(storage.open("data", FileMode::Create).unwrap()));
    let space = SpaceMap::new(file, "data", PAGE_SIZE);
    let first = take(&space, 20).unwrap();
    take(&space, 1).unwrap();
    space.free_unused(first, 20);
    assert!(space.shrink().unwrap());
    let used = storage.used_bytes();
    storage.set_capacity_limit(used + 10 * page);
    assert_eq!(take(&space, 20), Err(ErrorKind::OutOfSpace));
    assert_eq!(storage.used_bytes(), used);
}

#[test]
fn a_file_that_is_cut_keeps_the_reserve() {
    let (_, space) = map_with_reserve(1000);
    let first = take(&space, 100).unwrap();
    take(&space, 2).unwrap();
    space.free_unused(first + 50, 50);
    space.free_unused(100, 2);
    assert!(space.shrink().unwrap());
    assert_eq!(space.file_pages(), 58);
    assert!(space.fill_reserve());
}

#[test]
fn what_is_kept_in_pieces_moves_to_the_end() {
    let storage = MemoryStorage::new();
    let space = SpaceMap::new(storage.open("data", FileMode::Create).unwrap(), "data", PAGE_SIZE);
    space.set_reserve(ReserveSize::Bytes(8 * PAGE_SIZE as u64), Arc::new(SmallDisk::new()));
    let taken: Vec<u64> = (0..10).map(|_| take(&space, 2).unwrap()).collect();
    storage.set_capacity_limit(storage.used_bytes());
    let _open = space.open_whole_reserve();
    (0..4).for_each(|_| _ = take(&space, 2).unwrap());
    taken.iter().step_by(2).take(4).for_each(|&first| space.free_unused(first, 2));
    assert!(space.fill_reserve());
    assert_eq!(take(&space, 8), Err(ErrorKind::OutOfSpace));
    assert!(space.shrink().unwrap());
    assert!(space.fill_reserve());
    take(&space, 8).unwrap();
}
