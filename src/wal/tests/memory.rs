//! What of a mapped segment is in memory, and that nothing is stored anywhere else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::storage::{FileMode, SharedMapping, StorageFile, StorageLock};
use crate::sync::Mutex;
use crate::system::page_size;
use crate::wal::segment::{Segment, SegmentFile, path};
use crate::wal::stock::Stock;
use crate::wal::tail::{Behind, READY_AHEAD};

const SEGMENT: u64 = 64 << 20;

#[derive(Debug, Default)]
struct Resident {
    pages: BTreeSet<u64>,
    /// How many there were at most.
    most: usize,
}

/// A mapping that knows which pages are in memory and stay there, and lets nobody store elsewhere.
#[derive(Debug, Clone, Default)]
struct Pages {
    resident: Arc<Mutex<Resident>>,
    /// Where the bytes go, if anybody reads them.
    file: Option<Arc<dyn StorageFile>>,
    /// No memory is kept any more.
    refuses: Arc<AtomicBool>,
    stored: Arc<AtomicU64>,
}

impl SharedMapping for Pages {
    fn store(&self, offset: u64, bytes: &[u8]) {
        let page = page_size() as u64;
        let resident = self.resident.lock();
        for page in offset / page..(offset + bytes.len() as u64).div_ceil(page) {
            assert!(resident.pages.contains(&page), "a store at {offset} would have page {page} read");
        }
        drop(resident);
        self.stored.fetch_add(1, Ordering::Relaxed);
        if let Some(file) = &self.file {
            let mut words = bytes.to_vec();
            words.resize(bytes.len().next_multiple_of(8), 0);
            file.write_at(&words, offset).unwrap();
        }
    }

    fn make_ready(&self, offset: u64, len: u64) -> bool {
        if self.refuses.load(Ordering::Relaxed) {
            return false;
        }
        let page = page_size() as u64;
        let mut resident = self.resident.lock();
        resident.pages.extend(offset / page..(offset + len).div_ceil(page));
        resident.most = resident.most.max(resident.pages.len());
        true
    }

    fn let_go(&self, offset: u64, len: u64) {
        let page = page_size() as u64;
        let gone = offset.div_ceil(page)..(offset + len) / page;
        self.resident.lock().pages.retain(|page| !gone.contains(page));
    }
}

#[test]
fn only_what_lies_around_the_newest_record_is_in_memory_whatever_the_page_size() {
    let backend: Arc<dyn StorageBackend> = Arc::new(MemoryStorage::new());
    let options = LogOptions { max_segment_bytes: SEGMENT, ..LogOptions::new(DATABASE) };
    let pages = Pages::default();
    backend.create_directory("wal").unwrap();
    let file = backend.open(&segment::path(1), FileMode::Create).unwrap();
    file.set_len(SEGMENT).unwrap();
    let body = SegmentFile::new(file, Some(Box::new(pages.clone())), SEGMENT);
    let stock = Stock::new(backend, &options, 1, VecDeque::new());
    let log = Log::new(options, stock, Arc::new(Segment::new(1, Arc::new(body))), 0);

    // Long records are written past the mapping, whatever comes before them.
    let (long, short) = (vec![1; 1 << 20], vec![2; 20 << 10]);
    for _ in 0..12 {
        log.append(&long, 0, false).unwrap();
    }
    let page = page_size() as u64;
    assert!(pages.resident.lock().pages.is_empty());
    while log.current_segment() == 1 && log.stats().bytes_appended < 40 << 20 {
        log.append(&short, 0, false).unwrap();
        if log.wants_prepare() {
            log.prepare_memory();
            let ahead = log.stats().bytes_appended / page + (256 << 10) / page;
            assert!(pages.resident.lock().pages.contains(&ahead), "not made ready");
        }
    }
    assert!(log.stats().bytes_appended >= 40 << 20);
    let most = pages.resident.lock().most as u64 * page;
    assert!(most <= 3 * READY_AHEAD, "{most} bytes in memory");
    assert!(pages.stored.load(Ordering::Relaxed) > 1000);
}

/// Memory whose files can be mapped: one set of [`Pages`] for each.
#[derive(Debug, Clone)]
struct Mapped {
    inner: MemoryStorage,
    pages: Arc<Mutex<BTreeMap<u64, Pages>>>,
    refuses: Arc<AtomicBool>,
    stored: Arc<AtomicU64>,
}

impl Mapped {
    fn new() -> Self {
        Self {
            inner: MemoryStorage::new(),
            pages: Arc::default(),
            refuses: Arc::default(),
            stored: Arc::default(),
        }
    }

    fn bytes_in_memory(&self) -> usize {
        let pages = self.pages.lock();
        pages.values().map(|pages| pages.resident.lock().pages.len()).sum::<usize>() * page_size()
    }
}

#[derive(Debug)]
struct MappedFile {
    inner: Arc<dyn StorageFile>,
    storage: Mapped,
}

impl StorageBackend for Mapped {
    fn open(&self, path: &str, mode: FileMode) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(MappedFile { inner: self.inner.open(path, mode)?, storage: self.clone() }))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.inner.list(directory)
    }

    fn create_directory(&self, directory: &str) -> io::Result<()> {
        self.inner.create_directory(directory)
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        self.inner.sync_directory(directory)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn lock(&self, path: &str, shared: bool) -> io::Result<Box<dyn StorageLock>> {
        self.inner.lock(path, shared)
    }
}

impl StorageFile for MappedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.inner.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.inner.allocate(offset, len)
    }

    fn deallocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.inner.deallocate(offset, len)
    }

    fn map(&self, _len: u64) -> io::Result<Option<Box<dyn SharedMapping>>> {
        let Mapped { refuses, stored, .. } = self.storage.clone();
        let pages = Pages { file: Some(Arc::clone(&self.inner)), refuses, stored, ..Pages::default() };
        let mut all = self.storage.pages.lock();
        let number = all.len() as u64;
        all.insert(number, pages.clone());
        Ok(Some(Box::new(pages)))
    }
}

#[test]
#[cfg_attr(miri, ignore)]
fn records_are_stored_only_where_memory_is_ready_and_stays_whatever_the_page_size() {
    for round in 0..6u64 {
        let storage = Mapped::new();
        let backend: Arc<dyn StorageBackend> = Arc::new(storage.clone());
        let options = LogOptions {
            first_segment_bytes: 16 << 10,
            max_segment_bytes: 1 << 20,
            ..LogOptions::new(DATABASE)
        };
        let log = &Log::start(backend, options, LogEnd::default()).unwrap();
        let storage = &storage;
        // What a checkpoint does: files go into their next life.
        let release = |turn: u64| {
            log.prepare_next().unwrap();
            let next = log.segment_of_next();
            log.sync().unwrap();
            log.mark(next);
            log.release_before(next).unwrap();
            storage.refuses.store(round > 2 && turn.is_multiple_of(2), Ordering::Relaxed);
        };
        std::thread::scope(|scope| {
            for writer in 0..4u64 {
                scope.spawn(move || {
                    for n in 0..1500u64 {
                        let len = if n % 97 == writer { 80_000 } else { 50 + (n * 37 + writer * 11) % 3000 };
                        let payload = vec![writer as u8; len as usize];
                        if n % 3 == 0 {
                            log.append_in_turn(&payload[..len.min(300) as usize], |_| ()).unwrap();
                        } else {
                            log.append(&payload, 1, n % 50 == 49).unwrap();
                        }
                        if n % 16 == writer {
                            log.prepare_memory();
                        }
                        if n % 100 == 99 && writer == 0 {
                            release(n / 100);
                        }
                    }
                });
            }
        });
        assert!(log.stats().segments_recycled > 0);
        assert!(round > 2 || storage.stored.load(Ordering::Relaxed) > 1000, "hardly any record was stored");
        log.prepare_memory();
        let most = 3 * (1 << 20) + 16 * page_size();
        assert!(storage.bytes_in_memory() <= most, "{} bytes in memory", storage.bytes_in_memory());
    }
}

#[test]
fn memory_of_a_segments_last_life_is_let_go_before_its_next_one() {
    let storage = Mapped::new();
    let backend: Arc<dyn StorageBackend> = Arc::new(storage.clone());
    let options = LogOptions {
        first_segment_bytes: 256 << 10,
        max_segment_bytes: 256 << 10,
        ..LogOptions::new(DATABASE)
    };
    let log = Log::start(backend, options, LogEnd::default()).unwrap();
    let go_on = || {
        let segment = log.current_segment();
        while log.current_segment() == segment {
            log.append_in_turn(&[1; 300], |_| ()).unwrap();
        }
    };
    let first = Arc::clone(&log.tail.lock().segment);
    go_on();
    // As if a record in it had been written late.
    let sequence = log.last_assigned().0;
    log.behind.lock().push_back(Behind { sequence, segment: first, end: None });
    let next = log.segment_of_next();
    log.sync().unwrap();
    log.mark(next);
    log.release_before(next).unwrap();
    log.wants_next.store(true, Ordering::Relaxed);
    log.tail.lock().next_asked = true;
    log.prepare_next().unwrap();
    assert_eq!(log.stats().segments_recycled, 1);
    go_on();
    go_on();
    assert!(storage.stored.load(Ordering::Relaxed) > 1000);
}

#[test]
fn where_no_memory_is_kept_all_records_are_written() {
    let storage = Mapped::new();
    storage.refuses.store(true, Ordering::Relaxed);
    let backend: Arc<dyn StorageBackend> = Arc::new(storage.clone());
    let log = Log::start(backend, LogOptions::new(DATABASE), LogEnd::default()).unwrap();
    for n in 0..200u8 {
        log.append_in_turn(&[n; 100], |_| ()).unwrap();
        if log.wants_prepare() {
            log.prepare_memory();
        }
    }
    assert!(!log.wants_prepare());
    drop(log);
    assert_eq!(storage.stored.load(Ordering::Relaxed), 0);
}

#[test]
fn in_a_file_that_somebody_cut_no_more_memory_is_made_ready() {
    let storage = Mapped::new();
    let backend: Arc<dyn StorageBackend> = Arc::new(storage.clone());
    let options =
        LogOptions { first_segment_bytes: 4 << 20, max_segment_bytes: 4 << 20, ..LogOptions::new(DATABASE) };
    let log = Log::start(backend, options, LogEnd::default()).unwrap();
    log.append_in_turn(&[1; 300], |_| ()).unwrap();
    let segment = Arc::clone(&log.tail.lock().segment);
    let ready = segment.ready();
    assert!(ready < 1 << 20);
    let file = storage.inner.open(&path(segment.id), FileMode::Write).unwrap();
    file.set_len(1000).unwrap();
    for _ in 0..3000 {
        log.append_in_turn(&[2; 300], |_| ()).unwrap();
        log.prepare_memory();
    }
    assert!(segment.takes_no_stores());
    // A store for the header of a record, and one for what it holds.
    let stored = storage.stored.load(Ordering::Relaxed);
    assert!(stored <= 2 * ready / 300, "{stored} stores");
}
