//! A disk that counts, fails when told to, and loses power.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::storage::{FileMode, StorageBackend, StorageFile, StorageLock};
use crate::sync::Mutex;

const SECTOR: u64 = 512;

/// Pseudo-random numbers (xorshift); the seed is what a failing test prints.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}

/// A write that no sync has covered yet.
#[derive(Debug, Clone)]
struct Write {
    offset: u64,
    bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Write>,
}

fn apply(content: &mut Vec<u8>, write: &Write) {
    let end = write.offset as usize + write.bytes.len();
    content.resize(content.len().max(end), 0);
    content[write.offset as usize..end].copy_from_slice(&write.bytes);
}

#[derive(Debug, Clone)]
enum NameChange {
    Create(String, Arc<Mutex<Inode>>),
    Rename(String, String),
    Remove(String),
}

type Names = BTreeMap<String, Arc<Mutex<Inode>>>;

fn change(names: &mut Names, change: &NameChange) {
    match change {
        NameChange::Create(path, inode) => {
            names.insert(path.clone(), Arc::clone(inode));
        }
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        NameChange::Remove(path) => {
            names.remove(path);
        }
    }
}

/// Lets go whenever the count is a multiple of this.
#[derive(Debug, Clone)]
pub(super) struct Hold {
    pub(super) count: Arc<AtomicU64>,
    pub(super) multiple: u64,
}

#[derive(Debug, Default)]
struct State {
    names: Names,
    durable_names: Names,
    pending: Vec<NameChange>,
    syncs: u64,
    failing_syncs: bool,
    failing_writes: bool,
    hold: Option<Hold>,
    /// Changes until the power fails.
    powered_for: Option<u64>,
}

impl State {
    /// One change to the disk, unless the power has failed.
    fn step(&mut self) -> io::Result<()> {
        match &mut self.powered_for {
            Some(0) => return Err(io::Error::other("the power has failed")),
            Some(changes) => *changes -= 1,
            None => {}
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    state: Arc<Mutex<State>>,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Syncs of files so far, those that failed included.
    pub(super) fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    pub(super) fn fail_syncs(&self, fail: bool) {
        self.state.lock().failing_syncs = fail;
    }

    pub(super) fn fail_writes(&self, fail: bool) {
        self.state.lock().failing_writes = fail;
    }

    /// Lets the power fail after so many changes: everything fails from then on.
    pub(super) fn power_for(&self, changes: u64) {
        self.state.lock().powered_for = Some(changes);
    }

    /// Lets every sync of a file last until `hold` lets go.
    pub(super) fn hold_syncs(&self, hold: Hold) {
        self.state.lock().hold = Some(hold);
    }

    /// The disk as a restarted machine finds it: what was synced, and of the rest any sectors and any names.
    pub(super) fn after_power_loss(&self, random: &mut Random) -> Self {
        let state = self.state.lock();
        let mut names = state.durable_names.clone();
        for pending in &state.pending {
            if random.below(2) == 0 {
                change(&mut names, pending);
            }
        }
        let names = names.into_iter().map(|(path, inode)| {
            let inode = inode.lock();
            let mut content = inode.durable.clone();
            for write in &inode.pending {
                let mut offset = write.offset;
                let end = offset + write.bytes.len() as u64;
                while offset < end {
                    let next = ((offset / SECTOR + 1) * SECTOR).min(end);
                    if random.below(2) == 0 {
                        let range = (offset - write.offset) as usize..(next - write.offset) as usize;
                        apply(&mut content, &Write { offset, bytes: write.bytes[range].to_vec() });
                    }
                    offset = next;
                }
            }
            let survivor = Inode { durable: content.clone(), content, pending: Vec::new() };
            (path, Arc::new(Mutex::new(survivor)))
        });
        let names: Names = names.collect();
        let state = State { durable_names: names.clone(), names, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// A copy with everything that was written, as a new process finds it after the old one was killed.
    pub(super) fn after_kill(&self) -> Self {
        let state = self.state.lock();
        let copy = |names: &Names, copies: &mut BTreeMap<*const Mutex<Inode>, Arc<Mutex<Inode>>>| -> Names {
            let copied = names.iter().map(|(path, inode)| {
                let twin = copies.entry(Arc::as_ptr(inode)).or_insert_with(|| {
                    let inode = inode.lock();
                    let (content, durable) = (inode.content.clone(), inode.durable.clone());
                    Arc::new(Mutex::new(Inode { content, durable, pending: inode.pending.clone() }))
                });
                (path.clone(), Arc::clone(twin))
            });
            copied.collect()
        };
        let mut copies = BTreeMap::new();
        let names = copy(&state.names, &mut copies);
        let durable_names = copy(&state.durable_names, &mut copies);
        let pending = state.pending.iter().map(|pending| match pending {
            NameChange::Create(path, inode) => {
                let single = Names::from([(path.clone(), Arc::clone(inode))]);
                let twin = copy(&single, &mut copies).remove(path).expect("it was copied");
                NameChange::Create(path.clone(), twin)
            }
            other => other.clone(),
        });
        let state = State { names, durable_names, pending: pending.collect(), ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Changes a file behind the engine's back.
    pub(super) fn tamper(&self, path: &str, with: impl FnOnce(&mut Vec<u8>)) {
        let inode = Arc::clone(&self.state.lock().names[path]);
        let mut inode = inode.lock();
        with(&mut inode.content);
        inode.durable = inode.content.clone();
        inode.pending.clear();
    }

    pub(super) fn content(&self, path: &str) -> Vec<u8> {
        let inode = Arc::clone(&self.state.lock().names[path]);
        let inode = inode.lock();
        inode.content.clone()
    }

    /// Every file with its bytes.
    pub(super) fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let names = self.state.lock().names.clone();
        names.into_iter().map(|(path, inode)| (path, inode.lock().content.clone())).collect()
    }
}

#[derive(Debug)]
struct NoLock;

impl StorageLock for NoLock {}

impl StorageBackend for Disk {
    fn open(&self, path: &str, mode: FileMode) -> io::Result<Arc<dyn StorageFile>> {
        let mut state = self.state.lock();
        if mode == FileMode::Create {
            state.step()?;
            if state.names.contains_key(path) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            let inode = Arc::new(Mutex::new(Inode::default()));
            let created = NameChange::Create(path.to_owned(), inode);
            change(&mut state.names, &created);
            state.pending.push(created);
        }
        let inode = Arc::clone(state.names.get(path).ok_or(ErrorKind::NotFound)?);
        Ok(Arc::new(DiskFile { inode, disk: self.clone() }))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        let within = |path: &String| path.strip_prefix(directory)?.strip_prefix('/').map(str::to_owned);
        Ok(state.names.keys().filter_map(within).collect())
    }

    fn create_directory(&self, _directory: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&self, _directory: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        if state.failing_syncs {
            return Err(io::Error::other("the directory's sync was made to fail"));
        }
        state.durable_names = state.names.clone();
        state.pending.clear();
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        if !state.names.contains_key(from) {
            return Err(ErrorKind::NotFound.into());
        }
        let renamed = NameChange::Rename(from.to_owned(), to.to_owned());
        change(&mut state.names, &renamed);
        state.pending.push(renamed);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        if !state.names.contains_key(path) {
            return Err(ErrorKind::NotFound.into());
        }
        let removed = NameChange::Remove(path.to_owned());
        change(&mut state.names, &removed);
        state.pending.push(removed);
        Ok(())
    }

    fn lock(&self, _path: &str, _shared: bool) -> io::Result<Box<dyn StorageLock>> {
        Ok(Box::new(NoLock))
    }
}

#[derive(Debug)]
struct DiskFile {
    inode: Arc<Mutex<Inode>>,
    disk: Disk,
}

impl StorageFile for DiskFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let inode = self.inode.lock();
        let end = offset as usize + buffer.len();
        buffer.copy_from_slice(inode.content.get(offset as usize..end).ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.step()?;
        if state.failing_writes {
            return Err(io::Error::other("the write was made to fail"));
        }
        drop(state);
        let write = Write { offset, bytes: bytes.to_vec() };
        let mut inode = self.inode.lock();
        apply(&mut inode.content, &write);
        inode.pending.push(write);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let (failing, hold) = {
            let mut state = self.disk.state.lock();
            state.step()?;
            state.syncs += 1;
            (state.failing_syncs, state.hold.clone())
        };
        // What counts is what was written when the sync began.
        let (durable, covered) = {
            let inode = self.inode.lock();
            (inode.content.clone(), inode.pending.len())
        };
        if let Some(Hold { count, multiple }) = hold {
            while !count.load(Ordering::SeqCst).is_multiple_of(multiple) {
                std::thread::yield_now();
            }
        }
        if failing {
            return Err(io::Error::other("the sync was made to fail"));
        }
        let mut inode = self.inode.lock();
        inode.durable = durable;
        inode.pending.drain(..covered);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.inode.lock().content.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inode.lock().content.resize(len as usize, 0);
        Ok(())
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut inode = self.inode.lock();
        let end = (offset + len) as usize;
        let len = inode.content.len().max(end);
        inode.content.resize(len, 0);
        Ok(())
    }

    fn deallocate(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
}
