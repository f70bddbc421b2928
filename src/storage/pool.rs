//! The pool of descriptors onto the data file.
//!
//! A family reads and writes through a descriptor of its own while there are enough of them, so that the
//! operating system's bookkeeping for one (readahead, its count of users) is not shared with others. Families
//! beyond that share: all descriptors lead to the same file, and nothing that is done through one depends on
//! where it stands.
//!
//! Invariants:
//! 1. At no instant are more than `cap` descriptors open, the permanent one included. `open` counts those
//!    that are open or about to be; a descriptor is closed before the count goes down. The one that holds the
//!    file's lock (`db/place.rs`) is none of the pool's.
//! 2. A descriptor stays open for as long as a [`FileHandle`] uses it. Handles are counted under the table's
//!    lock: one that left the table can gain no more of them.
//! 3. A handle asks the pool once, before its first use. From then on it meets nobody: no lock, and but for
//!    the counter of uses of a shared descriptor nothing that other families write to.
//! 4. Nobody waits for a descriptor: where none can be opened, be it for the cap or for what the system says,
//!    one is shared.
//!
//! The rejected alternative, closing what was used the longest ago, has families beyond the cap open a
//! descriptor at nearly every read.

use std::fmt;
use std::sync::OnceLock;

use super::backend::{FileMode, StorageBackend, StorageFile};
use crate::codec::ids::FamilyId;
use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, epoch};

/// Descriptors onto one file, shared among the families.
pub(crate) struct FileHandlePool {
    backend: Arc<dyn StorageBackend>,
    path: String,
    mode: FileMode,
    cap: usize,
    permanent: Arc<Descriptor>,
    table: Mutex<Table>,
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
    /// But for the permanent one.
    descriptors: Vec<Shared>,
    /// Handles that use the permanent one.
    on_permanent: usize,
    open: usize,
    peak: usize,
    misses: u64,
    /// Uses of descriptors that were closed.
    past_uses: u64,
}

/// A descriptor and how many handles use it.
struct Shared {
    descriptor: Arc<Descriptor>,
    handles: usize,
}

struct Descriptor {
    file: Arc<dyn StorageFile>,
    /// Orders nothing, so no checker looks at it.
    uses: std::sync::atomic::AtomicU64,
}

impl Descriptor {
    fn new(file: Arc<dyn StorageFile>) -> Arc<Self> {
        Arc::new(Self { file, uses: Default::default() })
    }
}

/// How the descriptors onto the data file were used so far. The one that holds the file's lock is not among
/// them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileHandlePoolStats {
    /// Descriptors that are open now.
    pub open: usize,
    /// The most that may be open at once.
    pub cap: usize,
    /// The most that were open at once.
    pub peak: usize,
    /// Requests that found an open descriptor.
    pub hits: u64,
    /// Requests that opened a descriptor.
    pub misses: u64,
    /// Families that use a descriptor which others use, too.
    pub sharing: usize,
}

impl FileHandlePool {
    /// Opens the permanent descriptor on the file at `path`, through which it is synced. It counts as one of
    /// the `cap`.
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
            permanent: Descriptor::new(permanent),
            table: Mutex::new(Table {
                descriptors: Vec::new(),
                on_permanent: 0,
                open: 1,
                peak: 1,
                misses: 0,
                past_uses: 0,
            }),
            expecting: AtomicUsize::new(0),
        })
    }

    /// Somebody waits for what is being written to be synced, and for nothing else: the disk is to begin with
    /// it. Otherwise that is left to the sync or to the system, since it would hold up syncs of the log.
    pub(crate) fn expect_sync(&self) -> SyncExpected<'_> {
        self.expecting.fetch_add(1, Ordering::Relaxed);
        SyncExpected(self)
    }

    /// `len` bytes were written at `offset` through `file`.
    pub(crate) fn wrote(&self, file: &dyn StorageFile, offset: u64, len: u64) {
        if len >= LONG_WRITE && self.expecting.load(Ordering::Relaxed) > 0 {
            file.begin_writing(offset, len);
        }
    }

    /// The descriptor for one more handle: a new one while there is room, else the one that the fewest use.
    fn lease(&self, family: FamilyId) -> Arc<Descriptor> {
        let mut table = self.table.lock();
        if table.open < self.cap {
            table.open += 1;
            table.peak = table.peak.max(table.open);
            drop(table);
            // Without the lock: the disk may be slow.
            let opened = self.backend.open(&self.path, self.mode);
            table = self.table.lock();
            match opened {
                Ok(file) => {
                    let descriptor = Descriptor::new(file);
                    table.misses += 1;
                    table.descriptors.push(Shared { descriptor: Arc::clone(&descriptor), handles: 1 });
                    return descriptor;
                }
                Err(error) => {
                    table.open -= 1;
                    tracing::warn!(%error, family = family.0, "no descriptor could be opened: one is shared");
                }
            }
        }
        match table.descriptors.iter_mut().min_by_key(|shared| shared.handles) {
            Some(shared) => {
                shared.handles += 1;
                Arc::clone(&shared.descriptor)
            }
            None => {
                table.on_permanent += 1;
                Arc::clone(&self.permanent)
            }
        }
    }

    /// A handle is gone. The descriptor is closed if no other uses it.
    fn give_back(&self, descriptor: Arc<Descriptor>) {
        let mut table = self.table.lock();
        let place = table.descriptors.iter().position(|shared| Arc::ptr_eq(&shared.descriptor, &descriptor));
        let Some(place) = place else {
            table.on_permanent -= 1;
            return;
        };
        table.descriptors[place].handles -= 1;
        if table.descriptors[place].handles > 0 {
            return;
        }
        let closed = table.descriptors.swap_remove(place);
        table.past_uses += descriptor.uses.load(Ordering::Relaxed);
        drop(table);
        // Both: the count goes down after the descriptor is closed.
        drop((closed, descriptor));
        self.table.lock().open -= 1;
    }

    /// Makes all that was written to the file durable. The permanent descriptor, being open for as long as
    /// the pool, sees every error of the operating system's own writing, whichever descriptor the bytes went
    /// through.
    pub(crate) fn sync(&self) -> Result<()> {
        epoch::assert_left();
        self.permanent().sync().map_err(|error| Error::lost("syncing the file", error).in_file(&self.path))
    }

    /// The descriptor that stays open for as long as the pool: for syncs and for what belongs to no family.
    pub(crate) fn permanent(&self) -> &Arc<dyn StorageFile> {
        &self.permanent.file
    }

    /// Nobody else gets at the list of descriptors meanwhile.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> impl Sized + '_ {
        self.table.lock()
    }

    pub(crate) fn stats(&self) -> FileHandlePoolStats {
        let table = self.table.lock();
        let shared = table.descriptors.iter().filter(|shared| shared.handles > 1);
        let permanent = (&self.permanent, table.on_permanent);
        let all = table.descriptors.iter().map(|shared| &shared.descriptor).chain([permanent.0]);
        let uses: u64 = all.map(|descriptor| descriptor.uses.load(Ordering::Relaxed)).sum();
        FileHandlePoolStats {
            open: table.open,
            cap: self.cap,
            peak: table.peak,
            // A handle that opened its descriptor is about to use it, if it did not already.
            hits: (table.past_uses + uses).saturating_sub(table.misses),
            misses: table.misses,
            sharing: shared.map(|shared| shared.handles).sum::<usize>() + permanent.1,
        }
    }

    /// The directory that the file stands in.
    pub(crate) fn backend(&self) -> &Arc<dyn StorageBackend> {
        &self.backend
    }

    /// The file's path within the database's directory.
    pub(crate) fn path(&self) -> &str {
        &self.path
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

/// A family's way to the file: a descriptor from the pool, which it has from its first use until it is
/// dropped.
pub(crate) struct FileHandle {
    pool: Arc<FileHandlePool>,
    family: FamilyId,
    descriptor: OnceLock<Arc<Descriptor>>,
    /// Whether there is one, where a checker of interleavings sees it.
    asked: AtomicBool,
    /// Held by the one thread that asks the pool.
    asking: Mutex<()>,
}

impl FileHandle {
    /// Opens nothing yet.
    pub(crate) fn new(pool: Arc<FileHandlePool>, family: FamilyId) -> Self {
        let (descriptor, asked) = (OnceLock::new(), AtomicBool::new(false));
        Self { pool, family, descriptor, asked, asking: Mutex::new(()) }
    }

    /// The file. The caller holds no epoch.
    #[inline]
    pub(crate) fn file(&self) -> &dyn StorageFile {
        epoch::assert_left();
        let known = if self.asked.load(Ordering::Acquire) { self.descriptor.get() } else { None };
        let descriptor = known.unwrap_or_else(|| self.ask());
        descriptor.uses.fetch_add(1, Ordering::Relaxed);
        &*descriptor.file
    }

    #[cold]
    fn ask(&self) -> &Arc<Descriptor> {
        let _turn = self.asking.lock();
        let descriptor = self.descriptor.get_or_init(|| self.pool.lease(self.family));
        self.asked.store(true, Ordering::Release);
        descriptor
    }

    pub(crate) fn pool(&self) -> &Arc<FileHandlePool> {
        &self.pool
    }
}

impl Drop for FileHandle {
    fn drop(&mut self) {
        if let Some(descriptor) = self.descriptor.take() {
            self.pool.give_back(descriptor);
        }
    }
}

impl fmt::Debug for FileHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileHandle").field("path", &self.pool.path).field("family", &self.family).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::io;

    use super::*;
    use crate::storage::{MemoryStorage, StorageLock};

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

    fn handles(pool: &Arc<FileHandlePool>, families: u32) -> Vec<FileHandle> {
        (0..families).map(|family| FileHandle::new(Arc::clone(pool), FamilyId(family))).collect()
    }

    fn use_all(handles: &[FileHandle]) {
        handles.iter().for_each(|handle| handle.file().write_at(b"x", 0).unwrap());
    }

    /// Threads write through all families' handles in scattered order; each family lives for a while.
    fn hammer(families: u32, cap: usize, threads: u32, rounds: u32) {
        let backend = Counting::new();
        let pool = Arc::new(backend.pool(cap));
        for generation in 0..3 {
            let handles = handles(&pool, families);
            std::thread::scope(|scope| {
                for thread in 0..threads {
                    let handles = &handles;
                    scope.spawn(move || {
                        let mut random = u64::from(thread) + 1;
                        for round in 0..rounds {
                            random =
                                random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                            let family = (random >> 33) as u32 % families;
                            let offset = u64::from(thread * rounds + round) * 4;
                            let handle = &handles[family as usize];
                            handle.file().write_at(&family.to_le_bytes(), offset).unwrap();
                            let mut back = [0; 4];
                            handle.file().read_at(&mut back, offset).unwrap();
                            assert_eq!(u32::from_le_bytes(back), family);
                        }
                    });
                }
            });
            let stats = pool.stats();
            let peak = backend.peak.load(Ordering::SeqCst);
            assert!(peak <= cap, "{peak} descriptors were open at once, with a cap of {cap}");
            assert!(stats.peak <= cap, "the pool counted a peak of {} with a cap of {cap}", stats.peak);
            assert_eq!(stats.open, backend.open_now());
            assert_eq!(stats.hits + stats.misses, u64::from(threads * rounds) * 2 * (generation + 1));
            assert!(stats.misses <= (cap as u64 - 1) * (generation + 1), "{} were opened", stats.misses);
            std::thread::scope(|scope| {
                handles.into_iter().for_each(|handle| {
                    scope.spawn(|| drop(handle));
                });
            });
            assert_eq!((backend.open_now(), pool.stats().open), (1, 1));
        }
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
    fn a_family_opens_its_descriptor_once_and_keeps_it() {
        let backend = Counting::new();
        let pool = Arc::new(backend.pool(4));
        let handles = handles(&pool, 3);
        assert_eq!(backend.open_now(), 1, "nothing is opened before it is used");
        (0..3).for_each(|_| use_all(&handles));
        let expected = FileHandlePoolStats { open: 4, cap: 4, peak: 4, hits: 6, misses: 3, sharing: 0 };
        assert_eq!(pool.stats(), expected);
    }

    #[test]
    fn families_beyond_the_cap_share_evenly_and_open_nothing() {
        let backend = Counting::new();
        let pool = Arc::new(backend.pool(4));
        let handles = handles(&pool, 9);
        (0..100).for_each(|_| use_all(&handles));
        let expected = FileHandlePoolStats { open: 4, cap: 4, peak: 4, hits: 897, misses: 3, sharing: 9 };
        assert_eq!(pool.stats(), expected);
        assert!(pool.table.lock().descriptors.iter().all(|shared| shared.handles == 3));
    }

    #[test]
    fn a_descriptor_is_closed_after_its_last_handle() {
        let backend = Counting::new();
        let pool = Arc::new(backend.pool(3));
        let mut handles = handles(&pool, 4);
        use_all(&handles);
        handles.remove(0);
        use_all(&handles);
        assert_eq!((backend.open_now(), pool.stats().sharing), (3, 2));
        // The one that shared it.
        handles.remove(1);
        use_all(&handles);
        assert_eq!((backend.open_now(), pool.stats().open, pool.stats().sharing), (2, 2, 2));
        drop(handles);
        assert_eq!((backend.open_now(), pool.stats().open), (1, 1));
        use_all(&self::handles(&pool, 1));
        assert_eq!(pool.stats().misses, 3);
    }

    #[test]
    fn where_none_can_be_opened_one_is_shared() {
        let backend = Counting::new();
        let pool = Arc::new(backend.pool(8));
        let handles = handles(&pool, 4);
        backend.refuse.store(true, Ordering::SeqCst);
        use_all(&handles[..1]);
        assert_eq!((backend.open_now(), pool.stats().open, pool.stats().sharing), (1, 1, 1));
        backend.refuse.store(false, Ordering::SeqCst);
        use_all(&handles[..2]);
        backend.refuse.store(true, Ordering::SeqCst);
        use_all(&handles);
        assert_eq!((backend.open_now(), pool.stats().open, pool.stats().sharing), (2, 2, 4));
        drop(handles);
        assert_eq!((backend.open_now(), pool.stats().open, pool.stats().sharing), (1, 1, 0));
    }

    #[test]
    fn creating_a_pool_on_a_file_that_exists_fails() {
        let backend = Counting::new();
        backend.pool(2);
        let again: Arc<dyn StorageBackend> = backend.clone();
        assert!(FileHandlePool::new(again, "data", FileMode::Create, 2).is_err());
    }
}
