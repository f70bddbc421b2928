//! The pool of descriptors onto the data file.
//!
//! Every family reads and writes through a descriptor of its own, so that the operating system's bookkeeping for one
//! (readahead, position locks) is not shared with others; the pool keeps those that were used last.
//!
//! Invariants:
//! 1. At no instant are more than `cap` descriptors open, the permanent one included. `open` counts those that are open or
//!    about to be; a descriptor is closed before the count goes down or its place is taken.
//! 2. A descriptor is closed only when no handle to it is left. Handles are counted by the [`Counted`] of their descriptor:
//!    one that is out of the table can gain no more of them.
//! 3. Nobody waits for ever if every thread holds at most one handle: a miss that finds no room takes a descriptor
//!    out of the table for itself, an idle one if there is one, and waits only for the I/O that is under way on it.
//!
//! The rejected alternative to 3, waiting until some descriptor happens to be idle, starves a miss for as long as
//! overlapping hits keep all descriptors busy.

use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Deref;

use lru::LruCache;

use super::{FileMode, StorageBackend, StorageFile};
use crate::codec::ids::FamilyId;
use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicUsize, Ordering, fence};
use crate::sync::{Arc, Condvar, Counted, Mutex, MutexGuard};

/// Descriptors onto one file, one for each of the families that used it last.
pub(crate) struct FileHandlePool {
    backend: Arc<dyn StorageBackend>,
    path: String,
    mode: FileMode,
    cap: usize,
    permanent: Arc<dyn StorageFile>,
    table: Mutex<Table>,
    /// Threads that wait for a change of the table or for the end of some I/O.
    waiters: AtomicUsize,
    changed: Condvar,
    /// Who waits for a sync that is to come.
    expecting: AtomicUsize,
}

/// While it lives, the disk begins with long writes at once.
pub(crate) struct SyncExpected<'p>(&'p FileHandlePool);

impl Drop for SyncExpected<'_> {
    fn drop(&mut self) {
        self.0.expecting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes of a write with which the disk may as well begin.
const LONG_WRITE: u64 = 256 << 10;

struct Table {
    entries: LruCache<FamilyId, Entry, BuildHasherDefault<FamilyHasher>>,
    open: usize,
    peak: usize,
    hits: u64,
    misses: u64,
    evictions: u64,
}

enum Entry {
    /// A thread is opening it, and the others that want it wait.
    Opening,
    Open(Counted<Descriptor>),
}

/// A box of its own around what the backend gave, because the backend may keep references to that.
struct Descriptor(Arc<dyn StorageFile>);

/// How the descriptors onto the data file were used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileHandlePoolStats {
    /// Descriptors that are open now.
    pub open: usize,
    /// The most that may be open at once.
    pub cap: usize,
    /// The most that were open at once.
    pub peak: usize,
    /// Requests that found their family's descriptor open.
    pub hits: u64,
    /// Requests that opened a descriptor.
    pub misses: u64,
    /// Descriptors that were closed to make room.
    pub evictions: u64,
}

impl FileHandlePool {
    /// Opens the permanent descriptor on the file at `path`, through which it is synced. It counts as one of the `cap`.
    ///
    /// With [`FileMode::Create`] the file is created here, and all other descriptors open what is then there.
    pub(crate) fn new(
        backend: Arc<dyn StorageBackend>,
        path: &str,
        mode: FileMode,
        cap: usize,
    ) -> Result<Self> {
        assert!(cap >= 2, "a pool of {cap} descriptors has none for families: at least 2 are needed");
        let operation = if mode == FileMode::Create { "creating the file" } else { "opening the file" };
        let permanent =
            backend.open(path, mode).map_err(|error| Error::io(operation, error).in_file(path))?;
        Ok(Self {
            backend,
            path: path.to_owned(),
            mode: if mode == FileMode::Create { FileMode::Write } else { mode },
            cap,
            permanent,
            table: Mutex::new(Table {
                entries: LruCache::unbounded_with_hasher(BuildHasherDefault::default()),
                open: 1,
                peak: 1,
                hits: 0,
                misses: 0,
                evictions: 0,
            }),
            waiters: AtomicUsize::new(0),
            changed: Condvar::new(),
            expecting: AtomicUsize::new(0),
        })
    }

    /// Somebody waits for what is being written to be synced, and for nothing else: the disk is to begin with it. Otherwise that is left to the sync
    /// or to the system, since it would hold up syncs of the log.
    pub(crate) fn expect_sync(&self) -> SyncExpected<'_> {
        self.expecting.fetch_add(1, Ordering::Relaxed);
        SyncExpected(self)
    }

    /// `len` bytes were written at `offset` through a handle.
    pub(crate) fn wrote(&self, file: &FileHandle<'_>, offset: u64, len: u64) {
        if len >= LONG_WRITE && self.expecting.load(Ordering::Relaxed) > 0 {
            file.begin_writing(offset, len);
        }
    }

    /// The family's descriptor, which stays open for as long as the handle lives.
    ///
    /// Waits while other families' I/O uses up the cap: so a thread must give back the handle that it has before it
    /// asks for another.
    pub(crate) fn get(&self, family: FamilyId) -> Result<FileHandle<'_>> {
        let mut table = self.table.lock();
        loop {
            match table.entries.get(&family) {
                Some(Entry::Open(descriptor)) => {
                    let descriptor = Counted::clone(descriptor);
                    table.hits += 1;
                    return Ok(FileHandle { pool: self, descriptor: Some(descriptor) });
                }
                Some(Entry::Opening) => {}
                None => {
                    if table.open < self.cap {
                        table.open += 1;
                        table.peak = table.peak.max(table.open);
                        return self.open(family, table, None);
                    }
                    if let Some(victim) = table.evict() {
                        return self.open(family, table, Some(victim));
                    }
                    // All places are with threads that open or close a descriptor, which they will soon have done.
                }
            }
            table = self.wait_until(table, |table| match table.entries.peek(&family) {
                Some(entry) => matches!(entry, Entry::Open(_)),
                None => table.open < self.cap || table.entries.iter().any(|(_, entry)| entry.is_open()),
            });
        }
    }

    /// Opens the family's descriptor in a place that is counted already, and that `victim` has to leave first.
    fn open<'pool>(
        &'pool self,
        family: FamilyId,
        mut table: MutexGuard<'pool, Table>,
        victim: Option<Counted<Descriptor>>,
    ) -> Result<FileHandle<'pool>> {
        table.misses += 1;
        table.entries.put(family, Entry::Opening);
        if let Some(victim) = &victim {
            table = self.wait_until(table, |_| is_idle(victim));
        }
        drop(table);
        drop(victim);
        let opened = self.backend.open(&self.path, self.mode);

        let mut table = self.table.lock();
        let outcome = match opened {
            Ok(file) => {
                let descriptor = Counted::new(Descriptor(file));
                table.entries.put(family, Entry::Open(Counted::clone(&descriptor)));
                Ok(FileHandle { pool: self, descriptor: Some(descriptor) })
            }
            Err(error) => {
                table.entries.pop(&family);
                table.open -= 1;
                Err(Error::io("opening the file", error).in_file(&self.path).of_family(family.0))
            }
        };
        drop(table);
        self.wake();
        outcome
    }

    /// Makes all that was written to the file durable. The permanent descriptor, being open for as long as the
    /// pool, sees every error of the operating system's own writing, whichever descriptor the bytes went through.
    pub(crate) fn sync(&self) -> Result<()> {
        self.permanent.sync().map_err(|error| Error::io("syncing the file", error).in_file(&self.path))
    }

    /// The descriptor that stays open for as long as the pool: for syncs and for what belongs to no family.
    pub(crate) fn permanent(&self) -> &Arc<dyn StorageFile> {
        &self.permanent
    }

    /// Closes a dropped family's descriptor, after the I/O that is under way on it.
    pub(crate) fn forget(&self, family: FamilyId) {
        let mut table = self.table.lock();
        table = self.wait_until(table, |table| !matches!(table.entries.peek(&family), Some(Entry::Opening)));
        if let Some(Entry::Open(descriptor)) = table.entries.pop(&family) {
            drop(self.wait_until(table, |_| is_idle(&descriptor)));
            drop(descriptor);
            self.table.lock().open -= 1;
            self.wake();
        }
    }

    pub(crate) fn stats(&self) -> FileHandlePoolStats {
        let table = self.table.lock();
        FileHandlePoolStats {
            open: table.open,
            cap: self.cap,
            peak: table.peak,
            hits: table.hits,
            misses: table.misses,
            evictions: table.evictions,
        }
    }

    /// The file's path within the database's directory.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Waits with the table unlocked until `ready`, which is asked again after each change.
    fn wait_until<'pool>(
        &'pool self,
        mut table: MutexGuard<'pool, Table>,
        ready: impl Fn(&Table) -> bool,
    ) -> MutexGuard<'pool, Table> {
        if ready(&table) {
            return table;
        }
        self.waiters.fetch_add(1, Ordering::Relaxed);
        // With the fence in `wake`: either `ready` sees what the waker changed, or the waker sees this waiter.
        fence(Ordering::SeqCst);
        while !ready(&table) {
            table = self.changed.wait(table);
        }
        self.waiters.fetch_sub(1, Ordering::Relaxed);
        table
    }

    /// Wakes those who wait, after a change of the table or of the number of handles.
    fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.waiters.load(Ordering::Relaxed) > 0 {
            // A waiter that found nothing has the table locked until it sleeps.
            drop(self.table.lock());
            self.changed.notify_all();
        }
    }
}

impl fmt::Debug for FileHandlePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileHandlePool")
            .field("path", &self.path)
            .field("cap", &self.cap)
            .finish_non_exhaustive()
    }
}

impl Table {
    /// Takes out the descriptor that was used the longest ago, among the idle ones if there are any.
    fn evict(&mut self) -> Option<Counted<Descriptor>> {
        let mut open = self.entries.iter().rev().filter_map(|(&family, entry)| match entry {
            Entry::Open(descriptor) => Some((family, is_idle(descriptor))),
            Entry::Opening => None,
        });
        let (oldest, idle) = open.next()?;
        let victim =
            if idle { oldest } else { open.find(|&(_, idle)| idle).map_or(oldest, |(family, _)| family) };
        let Some(Entry::Open(descriptor)) = self.entries.pop(&victim) else {
            unreachable!("family {victim} was found open under the same lock");
        };
        self.evictions += 1;
        Some(descriptor)
    }
}

impl Entry {
    fn is_open(&self) -> bool {
        matches!(self, Entry::Open(_))
    }
}

/// Whether no handle is left. Asked under the table's lock, or of a descriptor that left the table: then it stays so.
fn is_idle(descriptor: &Counted<Descriptor>) -> bool {
    Counted::strong_count(descriptor) == 1
}

/// A family's descriptor, open for as long as this lives.
pub(crate) struct FileHandle<'pool> {
    pool: &'pool FileHandlePool,
    /// Gone only while this is dropped.
    descriptor: Option<Counted<Descriptor>>,
}

impl<'pool> Deref for FileHandle<'pool> {
    type Target = dyn StorageFile;

    fn deref(&self) -> &(dyn StorageFile + 'static) {
        let descriptor = self.descriptor.as_ref().expect("a handle keeps its descriptor until it is dropped");
        &*descriptor.0
    }
}

impl Drop for FileHandle<'_> {
    fn drop(&mut self) {
        // Before the waiters look: they count what is left.
        self.descriptor = None;
        self.pool.wake();
    }
}

impl fmt::Debug for FileHandle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileHandle").field("path", &self.pool.path).finish_non_exhaustive()
    }
}

/// Families are numbered by the engine itself, so spreading them is all that hashing has to do.
#[derive(Default)]
struct FamilyHasher(u64);

impl Hasher for FamilyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(byte.into());
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::io;
    use std::sync::atomic::AtomicBool;

    use super::super::{MemoryStorage, StorageLock};
    use super::*;

    /// Counts the descriptors that are open, and fails to open any when told to.
    #[derive(Debug)]
    struct Counting {
        inner: MemoryStorage,
        open: Arc<AtomicUsize>,
        peak: AtomicUsize,
        refuse: AtomicBool,
    }

    #[derive(Debug)]
    struct Counted {
        inner: Arc<dyn StorageFile>,
        open: Arc<AtomicUsize>,
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.open.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl Counting {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                inner: MemoryStorage::new(),
                open: Arc::new(AtomicUsize::new(0)),
                peak: AtomicUsize::new(0),
                refuse: AtomicBool::new(false),
            })
        }

        fn pool(self: &Arc<Self>, cap: usize) -> FileHandlePool {
            let backend: Arc<dyn StorageBackend> = self.clone();
            FileHandlePool::new(backend, "data", FileMode::Create, cap).unwrap()
        }

        fn open_now(&self) -> usize {
            self.open.load(Ordering::SeqCst)
        }
    }

    impl StorageBackend for Counting {
        fn open(&self, path: &str, mode: FileMode) -> io::Result<Arc<dyn StorageFile>> {
            if self.refuse.load(Ordering::SeqCst) {
                return Err(io::Error::other("no descriptor to be had"));
            }
            let inner = self.inner.open(path, mode)?;
            let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
            self.peak.fetch_max(open, Ordering::SeqCst);
            Ok(Arc::new(Counted { inner, open: Arc::clone(&self.open) }))
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

    impl StorageFile for Counted {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            self.inner.read_at(buffer, offset)
        }

        fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            // Lets other threads in while the descriptor is in use.
            std::thread::yield_now();
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
    }

    /// Threads write through all families' descriptors in scattered order, now and then forgetting a family.
    fn hammer(families: u32, cap: usize, threads: u32, rounds: u32) {
        let backend = Counting::new();
        let pool = backend.pool(cap);
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let pool = &pool;
                scope.spawn(move || {
                    let mut random = u64::from(thread) + 1;
                    for round in 0..rounds {
                        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                        let family = (random >> 33) as u32 % families;
                        let offset = u64::from(thread * rounds + round) * 4;
                        pool.get(FamilyId(family)).unwrap().write_at(&family.to_le_bytes(), offset).unwrap();
                        let mut back = [0; 4];
                        pool.get(FamilyId(family)).unwrap().read_at(&mut back, offset).unwrap();
                        assert_eq!(u32::from_le_bytes(back), family);
                        if random.is_multiple_of(17) {
                            pool.forget(FamilyId(family));
                        }
                    }
                });
            }
        });
        let stats = pool.stats();
        let peak = backend.peak.load(Ordering::SeqCst);
        assert!(peak <= cap, "{peak} descriptors were open at once, with a cap of {cap}");
        assert!(stats.peak <= cap, "the pool counted a peak of {} with a cap of {cap}", stats.peak);
        assert_eq!(stats.open, backend.open_now());
        assert_eq!(stats.hits + stats.misses, u64::from(threads * rounds) * 2);
        drop(pool);
        assert_eq!(backend.open_now(), 0);
    }

    #[test]
    fn two_hundred_families_and_eight_threads_never_open_more_than_the_cap() {
        if cfg!(miri) {
            hammer(20, 3, 3, 10);
        } else {
            hammer(200, 8, 8, 2000);
        }
    }

    #[test]
    fn more_threads_than_descriptors_all_get_their_turn() {
        let rounds = if cfg!(miri) { 10 } else { 2000 };
        hammer(5, 2, 8, rounds);
        hammer(3, 3, 4, rounds);
    }

    #[test]
    fn a_family_that_is_asked_for_again_keeps_its_descriptor() {
        let backend = Counting::new();
        let pool = backend.pool(4);
        for _ in 0..3 {
            for family in [1, 2, 3] {
                pool.get(FamilyId(family)).unwrap();
            }
        }
        let expected = FileHandlePoolStats { open: 4, cap: 4, peak: 4, hits: 6, misses: 3, evictions: 0 };
        assert_eq!(pool.stats(), expected);
    }

    #[test]
    fn the_family_that_was_used_the_longest_ago_makes_room() {
        let backend = Counting::new();
        let pool = backend.pool(3);
        for family in [1, 2, 1, 3, 1] {
            pool.get(FamilyId(family)).unwrap();
        }
        let expected = FileHandlePoolStats { open: 3, cap: 3, peak: 3, hits: 2, misses: 3, evictions: 1 };
        assert_eq!(pool.stats(), expected, "family 2 is the one that goes");
        assert_eq!(backend.open_now(), 3);
    }

    #[test]
    fn a_descriptor_in_use_is_passed_over_for_an_idle_one() {
        let backend = Counting::new();
        let pool = backend.pool(3);
        let held = pool.get(FamilyId(1)).unwrap();
        pool.get(FamilyId(2)).unwrap();
        pool.get(FamilyId(3)).unwrap();
        held.write_at(b"still open", 0).unwrap();
        drop(held);
        pool.get(FamilyId(1)).unwrap();
        assert_eq!(pool.stats().hits, 1);
    }

    #[test]
    fn a_miss_waits_until_the_io_in_flight_has_let_go() {
        let backend = Counting::new();
        let pool = backend.pool(2);
        let held = pool.get(FamilyId(1)).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| drop(pool.get(FamilyId(2)).unwrap()));
            while pool.waiters.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            assert_eq!(backend.open_now(), 2);
            drop(held);
            waiter.join().unwrap();
        });
        assert_eq!(backend.peak.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn forgetting_a_family_closes_its_descriptor_after_its_last_handle() {
        let backend = Counting::new();
        let pool = backend.pool(8);
        let held = pool.get(FamilyId(1)).unwrap();
        std::thread::scope(|scope| {
            let forgetter = scope.spawn(|| pool.forget(FamilyId(1)));
            while pool.waiters.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            held.write_at(b"x", 0).unwrap();
            drop(held);
            forgetter.join().unwrap();
        });
        assert_eq!((backend.open_now(), pool.stats().open), (1, 1));
        pool.forget(FamilyId(7));
        assert_eq!(pool.stats().open, 1);
    }

    #[test]
    fn a_refused_open_gives_its_place_back() {
        let backend = Counting::new();
        let pool = backend.pool(2);
        pool.get(FamilyId(1)).unwrap();
        backend.refuse.store(true, Ordering::SeqCst);
        let error = pool.get(FamilyId(2)).unwrap_err();
        assert_eq!(error.location().family, Some(2));
        assert_eq!(error.location().file.as_deref(), Some("data"));
        assert_eq!(pool.stats().open, 1);
        backend.refuse.store(false, Ordering::SeqCst);
        pool.get(FamilyId(2)).unwrap();
    }

    #[test]
    fn creating_a_pool_on_a_file_that_exists_fails() {
        let backend = Counting::new();
        backend.pool(2);
        let again: Arc<dyn StorageBackend> = backend.clone();
        assert!(FileHandlePool::new(again, "data", FileMode::Create, 2).is_err());
    }
}
