//! A disk in memory that a test can copy at one instant, and make fail.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
#[cfg(not(shuttle))]
use std::sync::{Mutex, RwLock};

use peristyle::{FileMode, MemoryStorage, StorageBackend, StorageFile, StorageLock};
#[cfg(shuttle)]
use shuttle::sync::{Mutex, RwLock};

/// The error number of a failed disk.
const EIO: i32 = 5;

/// What a planned failure strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strike {
    /// Writes into files: half of the bytes arrive.
    Write,
    /// Syncs of files and directories.
    Sync,
    /// Reads.
    Read,
}

/// What the system lacks for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lack {
    /// Descriptors: of the process, or of the system.
    ProcessDescriptors,
    SystemDescriptors,
    Memory,
    /// Files may not become longer.
    Length,
    Quota,
}

impl Lack {
    pub(crate) const ALL: [Self; 5] =
        [Self::ProcessDescriptors, Self::SystemDescriptors, Self::Memory, Self::Length, Self::Quota];

    fn error_number(self) -> i32 {
        match self {
            Self::ProcessDescriptors => 24,
            Self::SystemDescriptors => 23,
            Self::Memory => 12,
            Self::Length => 27,
            Self::Quota => 122,
        }
    }

    /// Whether a call that needs this can be refused.
    fn refuses(self, need: Need) -> bool {
        match self {
            Self::ProcessDescriptors | Self::SystemDescriptors => need == Need::Descriptor,
            Self::Memory => true,
            Self::Length => need == Need::Room,
            Self::Quota => matches!(need, Need::Room | Need::Entry),
        }
    }
}

/// What a call needs besides memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Descriptor,
    Room,
    Entry,
    Nothing,
}

#[derive(Debug, Default)]
struct Refusals {
    lack: Option<Lack>,
    /// Calls until the first that is refused.
    left: u32,
    /// Calls that are refused then.
    times: u32,
    struck: u32,
}

#[derive(Debug, Default)]
struct Plan {
    /// Calls until the one that fails; negative: none does.
    left: AtomicI64,
    /// Whether all later ones fail, too.
    lasting: std::sync::atomic::AtomicBool,
    /// Calls that failed.
    struck: AtomicI64,
    /// Calls in all.
    calls: AtomicI64,
}

impl Plan {
    fn check(&self) -> io::Result<()> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        if left == 0 || left < 0 && self.lasting.load(Ordering::SeqCst) {
            self.struck.fetch_add(1, Ordering::SeqCst);
            return Err(io::Error::from_raw_os_error(EIO));
        }
        Ok(())
    }
}

/// A read that is not let through.
#[derive(Debug, Default)]
struct Hold {
    state: std::sync::Mutex<HoldState>,
    let_go: std::sync::Condvar,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum HoldState {
    #[default]
    Nothing,
    /// The read after so many is to be held.
    After(u32),
    Holding,
}

impl Hold {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        match *state {
            HoldState::After(0) => {
                *state = HoldState::Holding;
                drop(self.let_go.wait_while(state, |state| *state == HoldState::Holding).unwrap());
            }
            HoldState::After(reads) => *state = HoldState::After(reads - 1),
            HoldState::Nothing | HoldState::Holding => {}
        }
    }
}

#[derive(Debug)]
struct Shared {
    hold: Hold,
    refusals: std::sync::Mutex<Refusals>,
    /// Held for reading by every change to the disk, for writing while it is copied.
    changing: RwLock<()>,
    writes: Plan,
    syncs: Plan,
    reads: Plan,
    /// Held for reading by every sync of a file, for writing while all of them are held up.
    syncing: RwLock<()>,
    /// Offsets and lengths of what was said to be read soon.
    announced: Mutex<Vec<(u64, u64)>>,
    /// Bytes written in all.
    bytes_written: AtomicI64,
    /// Whether the disk takes no more.
    full: std::sync::atomic::AtomicBool,
}

/// A directory in memory; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct TestStorage {
    memory: MemoryStorage,
    shared: Arc<Shared>,
}

impl TestStorage {
    pub(crate) fn new() -> Self {
        Self::over(MemoryStorage::new())
    }

    pub(crate) fn over(memory: MemoryStorage) -> Self {
        let plan = || Plan { left: AtomicI64::new(-1), ..Plan::default() };
        let (changing, announced) = (RwLock::new(()), Mutex::default());
        let syncing = RwLock::new(());
        let (bytes_written, full) = Default::default();
        let shared = Shared {
            hold: Hold::default(),
            refusals: Default::default(),
            changing,
            writes: plan(),
            syncs: plan(),
            reads: plan(),
            syncing,
            announced,
            bytes_written,
            full,
        };
        Self { memory, shared: Arc::new(shared) }
    }

    fn plan(&self, strike: Strike) -> &Plan {
        match strike {
            Strike::Write => &self.shared.writes,
            Strike::Sync => &self.shared.syncs,
            Strike::Read => &self.shared.reads,
        }
    }

    /// Lets the call after `calls` more ones fail, and, if `lasting`, all after it.
    pub(crate) fn fail(&self, strike: Strike, calls: u32, lasting: bool) {
        let plan = self.plan(strike);
        plan.lasting.store(lasting, Ordering::SeqCst);
        plan.left.store(i64::from(calls), Ordering::SeqCst);
    }

    /// After `calls` more calls that could be, `times` are refused.
    pub(crate) fn refuse(&self, lack: Lack, calls: u32, times: u32) {
        *self.shared.refusals.lock().unwrap() = Refusals { lack: Some(lack), left: calls, times, struck: 0 };
    }

    /// Number of calls that were refused.
    pub(crate) fn refused(&self) -> u32 {
        self.shared.refusals.lock().unwrap().struck
    }

    /// Number of calls that were made to fail.
    pub(crate) fn struck(&self, strike: Strike) -> i64 {
        self.plan(strike).struck.load(Ordering::SeqCst)
    }

    /// Number of calls so far.
    pub(crate) fn calls(&self, strike: Strike) -> i64 {
        self.plan(strike).calls.load(Ordering::SeqCst)
    }

    /// The read after `reads` others waits, as for a slow disk, until it is let go.
    pub(crate) fn hold_read(&self, reads: u32) {
        *self.shared.hold.state.lock().unwrap() = HoldState::After(reads);
    }

    /// Whether a read is held.
    pub(crate) fn is_held(&self) -> bool {
        *self.shared.hold.state.lock().unwrap() == HoldState::Holding
    }

    /// Lets the read that is held go on, and holds no other.
    pub(crate) fn let_go(&self) {
        *self.shared.hold.state.lock().unwrap() = HoldState::Nothing;
        self.shared.hold.let_go.notify_all();
    }

    /// The memory in which it is.
    pub(crate) fn memory(&self) -> &MemoryStorage {
        &self.memory
    }

    /// Bytes written so far.
    pub(crate) fn bytes_written(&self) -> i64 {
        self.shared.bytes_written.load(Ordering::SeqCst)
    }

    /// Whether the disk has no room that was not given out before.
    pub(crate) fn set_full(&self, full: bool) {
        self.shared.full.store(full, Ordering::SeqCst);
    }

    /// Offset and length of all that was said to be read soon since this was asked for.
    pub(crate) fn take_announced(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut *self.shared.announced.lock().unwrap())
    }

    /// Nothing fails any more.
    pub(crate) fn heal(&self) {
        self.shared.refusals.lock().unwrap().lack = None;
        for plan in [&self.shared.writes, &self.shared.syncs, &self.shared.reads] {
            plan.lasting.store(false, Ordering::SeqCst);
            plan.left.store(-1, Ordering::SeqCst);
        }
    }

    /// Holds up every sync of a file that begins while `within` runs, until it returns.
    pub(crate) fn with_syncs_held_up<R>(&self, within: impl FnOnce() -> R) -> R {
        let _held = self.shared.syncing.write().unwrap();
        within()
    }

    /// What a process killed at this instant leaves behind, and no lock.
    pub(crate) fn copy(&self) -> Self {
        let _still = self.shared.changing.write().unwrap();
        let copy = MemoryStorage::new();
        for directory in ["", "wal"] {
            let Ok(names) = self.memory.list(directory) else { continue };
            copy.create_directory(directory).unwrap();
            for name in names {
                let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
                let file = self.memory.open(&path, FileMode::Read).unwrap();
                let mut bytes = vec![0; file.len().unwrap() as usize];
                file.read_at(&mut bytes, 0).unwrap();
                copy.open(&path, FileMode::Create).unwrap().write_at(&bytes, 0).unwrap();
            }
        }
        Self::over(copy)
    }

    fn change<T>(&self, change: impl FnOnce(&MemoryStorage) -> io::Result<T>) -> io::Result<T> {
        let _changing = self.shared.changing.read().unwrap();
        change(&self.memory)
    }
}

impl Shared {
    fn need(&self, need: Need) -> io::Result<()> {
        let mut refusals = self.refusals.lock().unwrap();
        let Some(lack) = refusals.lack.filter(|lack| lack.refuses(need)) else { return Ok(()) };
        if refusals.left > 0 {
            refusals.left -= 1;
        } else if refusals.times > 0 {
            refusals.times -= 1;
            refusals.struck += 1;
            return Err(io::Error::from_raw_os_error(lack.error_number()));
        }
        Ok(())
    }
}

impl StorageBackend for TestStorage {
    fn open(&self, path: &str, mode: FileMode) -> io::Result<Arc<dyn StorageFile>> {
        self.shared.need(Need::Descriptor)?;
        if mode == FileMode::Create {
            self.shared.need(Need::Entry)?;
        }
        let file = self.change(|memory| memory.open(path, mode))?;
        Ok(Arc::new(TestFile { file, shared: Arc::clone(&self.shared) }))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.shared.need(Need::Descriptor)?;
        self.memory.list(directory)
    }

    fn create_directory(&self, directory: &str) -> io::Result<()> {
        self.shared.need(Need::Entry)?;
        self.change(|memory| memory.create_directory(directory))
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        self.shared.need(Need::Descriptor)?;
        self.shared.syncs.check()?;
        self.memory.sync_directory(directory)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.shared.need(Need::Entry)?;
        self.change(|memory| memory.rename(from, to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.shared.need(Need::Nothing)?;
        self.change(|memory| memory.remove(path))
    }

    fn lock(&self, path: &str, shared: bool) -> io::Result<Box<dyn StorageLock>> {
        self.shared.need(Need::Descriptor)?;
        self.memory.lock(path, shared)
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        if self.shared.full.load(Ordering::SeqCst) { Ok(Some(0)) } else { self.memory.free_bytes() }
    }
}

#[derive(Debug)]
struct TestFile {
    file: Arc<dyn StorageFile>,
    shared: Arc<Shared>,
}

impl StorageFile for TestFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.shared.need(Need::Nothing)?;
        self.shared.reads.check()?;
        self.shared.hold.pass();
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let _changing = self.shared.changing.read().unwrap();
        if let Err(error) = self.shared.writes.check() {
            self.file.write_at(&bytes[..bytes.len() / 2], offset)?;
            return Err(error);
        }
        self.shared.bytes_written.fetch_add(bytes.len() as i64, Ordering::SeqCst);
        self.file.write_at(bytes, offset)
    }

    fn begin_reading(&self, offset: u64, len: u64) {
        self.shared.announced.lock().unwrap().push((offset, len));
    }

    fn sync(&self) -> io::Result<()> {
        self.shared.syncs.check()?;
        let _syncing = self.shared.syncing.read().unwrap();
        self.file.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.shared.need(Need::Nothing)?;
        let _changing = self.shared.changing.read().unwrap();
        self.file.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.shared.need(Need::Room)?;
        let _changing = self.shared.changing.read().unwrap();
        if self.shared.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let end = self.file.len()?;
        let allocated = self.file.allocate(offset, len);
        if allocated.is_err() {
            // Like ext4, it keeps what it got of a hole before the disk was full.
            let pieces = (offset..end.min(offset + len)).step_by(4096);
            let _ = pieces.map(|piece| self.file.allocate(piece, 4096)).find(Result::is_err);
        }
        allocated
    }

    fn deallocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.shared.need(Need::Nothing)?;
        let _changing = self.shared.changing.read().unwrap();
        self.file.deallocate(offset, len)
    }
}
