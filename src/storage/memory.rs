//! A database in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::backend::{FileMode, StorageBackend, StorageFile, StorageLock};
use crate::sync::{Mutex, RwLock};

/// Unit in which a file takes up space.
const CHUNK: usize = 4096;

/// A directory in memory, for databases that need not outlive the process, and for tests.
///
/// Clones share the directory: a database that was closed can be opened again through any of them. A file
/// that was removed lives on for those who have it open.
#[derive(Clone)]
pub struct MemoryStorage {
    directory: Arc<Directory>,
}

struct Directory {
    entries: Mutex<Entries>,
    space: Arc<Space>,
}

#[derive(Default)]
struct Entries {
    directories: BTreeSet<String>,
    files: BTreeMap<String, Arc<Content>>,
    /// Holders of each lock that is held.
    locks: BTreeMap<String, Holders>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holders {
    Exclusive,
    Shared(usize),
}

impl MemoryStorage {
    /// An empty directory.
    pub fn new() -> Self {
        Self::with_capacity_limit(u64::MAX)
    }

    /// An empty directory whose files take up at most `bytes`, counted in units of 4 KiB that were written or
    /// allocated. What needs more fails with [`StorageFull`](ErrorKind::StorageFull) and changes nothing.
    pub fn with_capacity_limit(bytes: u64) -> Self {
        let space = Arc::new(Space { limit: AtomicU64::new(bytes), used: AtomicU64::new(0) });
        let entries = Entries { directories: BTreeSet::from([String::new()]), ..Entries::default() };
        Self { directory: Arc::new(Directory { entries: Mutex::new(entries), space }) }
    }

    /// Changes the limit. One below what is in use leaves that as it is and refuses more.
    pub fn set_capacity_limit(&self, bytes: u64) {
        self.directory.space.limit.store(bytes, Ordering::Relaxed);
    }

    /// Bytes in use, in units of 4 KiB; files that were removed count for as long as they are open.
    pub fn used_bytes(&self) -> u64 {
        self.directory.space.used.load(Ordering::Relaxed)
    }

    fn new_content(&self) -> Arc<Content> {
        let blocks = Blocks { len: 0, chunks: BTreeMap::new() };
        Arc::new(Content { blocks: RwLock::new(blocks), space: Arc::clone(&self.directory.space) })
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStorage").field("used_bytes", &self.used_bytes()).finish_non_exhaustive()
    }
}

impl Entries {
    /// `NotFound` unless the directory that holds `path` exists.
    fn check_parent(&self, path: &str) -> io::Result<()> {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        if self.directories.contains(parent) { Ok(()) } else { Err(ErrorKind::NotFound.into()) }
    }
}

impl StorageBackend for MemoryStorage {
    fn open(&self, path: &str, mode: FileMode) -> io::Result<Arc<dyn StorageFile>> {
        let mut entries = self.directory.entries.lock();
        let content = if mode == FileMode::Create {
            entries.check_parent(path)?;
            if entries.files.contains_key(path) || entries.directories.contains(path) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            let content = self.new_content();
            entries.files.insert(path.to_owned(), Arc::clone(&content));
            content
        } else {
            Arc::clone(entries.files.get(path).ok_or(ErrorKind::NotFound)?)
        };
        Ok(Arc::new(MemoryFile { content, writable: mode != FileMode::Read }))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let entries = self.directory.entries.lock();
        if !entries.directories.contains(directory) {
            return Err(ErrorKind::NotFound.into());
        }
        let holds = |path: &str| {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            (parent == directory).then(|| name.to_owned())
        };
        Ok(entries.files.keys().filter_map(|path| holds(path)).collect())
    }

    fn create_directory(&self, directory: &str) -> io::Result<()> {
        let mut entries = self.directory.entries.lock();
        let ends = directory.match_indices('/').map(|(at, _)| at).chain([directory.len()]);
        for end in ends {
            let path = &directory[..end];
            if entries.files.contains_key(path) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            entries.directories.insert(path.to_owned());
        }
        Ok(())
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        let entries = self.directory.entries.lock();
        if entries.directories.contains(directory) { Ok(()) } else { Err(ErrorKind::NotFound.into()) }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut entries = self.directory.entries.lock();
        entries.check_parent(to)?;
        if entries.directories.contains(to) {
            return Err(ErrorKind::IsADirectory.into());
        }
        let content = entries.files.remove(from).ok_or(ErrorKind::NotFound)?;
        entries.files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let removed = self.directory.entries.lock().files.remove(path);
        removed.map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn lock(&self, path: &str, shared: bool) -> io::Result<Box<dyn StorageLock>> {
        let mut entries = self.directory.entries.lock();
        entries.check_parent(path)?;
        if !entries.files.contains_key(path) {
            if shared {
                return Ok(Box::new(MemoryLock { held: None }));
            }
            let content = self.new_content();
            entries.files.insert(path.to_owned(), content);
        }
        let holders = match (entries.locks.get(path), shared) {
            (None, false) => Holders::Exclusive,
            (None, true) => Holders::Shared(1),
            (Some(Holders::Shared(n)), true) => Holders::Shared(n + 1),
            _ => return Err(ErrorKind::WouldBlock.into()),
        };
        entries.locks.insert(path.to_owned(), holders);
        Ok(Box::new(MemoryLock { held: Some((self.clone(), path.to_owned())) }))
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        let space = &self.directory.space;
        Ok(Some(space.limit.load(Ordering::Relaxed).saturating_sub(self.used_bytes())))
    }
}

#[derive(Debug)]
struct MemoryLock {
    /// `None`: a shared lock where there is no lock file.
    held: Option<(MemoryStorage, String)>,
}

impl StorageLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let Some((storage, path)) = &self.held else { return };
        let mut entries = storage.directory.entries.lock();
        match entries.locks.get_mut(path) {
            Some(Holders::Shared(n)) if *n > 1 => *n -= 1,
            _ => {
                entries.locks.remove(path);
            }
        }
    }
}

/// What all files of a directory take up together.
struct Space {
    limit: AtomicU64,
    used: AtomicU64,
}

impl Space {
    fn take(&self, chunks: usize) -> io::Result<()> {
        let bytes = (chunks * CHUNK) as u64;
        let limit = self.limit.load(Ordering::Relaxed);
        let grown = |used: u64| used.checked_add(bytes).filter(|&used| bytes == 0 || used <= limit);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown) {
            Ok(_) => Ok(()),
            Err(_) => Err(ErrorKind::StorageFull.into()),
        }
    }

    fn give_back(&self, chunks: usize) {
        self.used.fetch_sub((chunks * CHUNK) as u64, Ordering::Relaxed);
    }
}

/// A file, apart from the names and descriptors through which it is reached.
struct Content {
    blocks: RwLock<Blocks>,
    space: Arc<Space>,
}

impl Drop for Content {
    fn drop(&mut self) {
        self.space.give_back(self.blocks.get_mut().chunks.len());
    }
}

/// Bytes of a file: chunks that are not there read as zeros. In each chunk the bytes beyond `len` are zeros.
struct Blocks {
    len: u64,
    chunks: BTreeMap<u64, Box<[u8; CHUNK]>>,
}

/// Cuts a range of bytes at the borders of chunks: (chunk, start within it, length).
fn pieces(offset: u64, len: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let (mut offset, end) = (offset, offset + len);
    std::iter::from_fn(move || {
        let start = (offset % CHUNK as u64) as usize;
        let len = (end - offset).min((CHUNK - start) as u64) as usize;
        let chunk = offset / CHUNK as u64;
        offset += len as u64;
        (len > 0).then_some((chunk, start, len))
    })
}

impl Blocks {
    fn read(&self, buffer: &mut [u8], offset: u64) {
        let mut rest = buffer;
        for (chunk, start, len) in pieces(offset, rest.len() as u64) {
            let (piece, after) = rest.split_at_mut(len);
            match self.chunks.get(&chunk) {
                Some(bytes) => piece.copy_from_slice(&bytes[start..start + len]),
                None => piece.fill(0),
            }
            rest = after;
        }
    }

    /// Creates the chunks of a range that are missing, all or none.
    fn reserve(&mut self, offset: u64, len: u64, space: &Space) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let chunks = offset / CHUNK as u64..=(offset + len - 1) / CHUNK as u64;
        let wanted = chunks.end() - chunks.start() + 1;
        let missing = wanted - self.chunks.range(chunks.clone()).count() as u64;
        space.take(usize::try_from(missing).map_err(|_| ErrorKind::StorageFull)?)?;
        if missing > 0 {
            for chunk in chunks {
                self.chunks.entry(chunk).or_insert_with(|| Box::new([0; CHUNK]));
            }
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], offset: u64) {
        let mut rest = bytes;
        for (chunk, start, len) in pieces(offset, bytes.len() as u64) {
            let (piece, after) = rest.split_at(len);
            let chunk = self.chunks.get_mut(&chunk).expect("the range was reserved");
            chunk[start..start + len].copy_from_slice(piece);
            rest = after;
        }
        if !bytes.is_empty() {
            self.len = self.len.max(offset + bytes.len() as u64);
        }
    }

    /// Zeros a range that ends at or before `u64::MAX`; chunks that lie in it whole are given back.
    fn clear(&mut self, offset: u64, end: u64, space: &Space) {
        if offset >= end {
            return;
        }
        let first = offset / CHUNK as u64;
        let affected: Vec<u64> =
            self.chunks.range(first..=(end - 1) / CHUNK as u64).map(|(&n, _)| n).collect();
        for chunk in affected {
            let base = chunk * CHUNK as u64;
            let start = offset.saturating_sub(base) as usize;
            let stop = (end - base).min(CHUNK as u64) as usize;
            if (start, stop) == (0, CHUNK) {
                self.chunks.remove(&chunk);
                space.give_back(1);
            } else if let Some(bytes) = self.chunks.get_mut(&chunk) {
                bytes[start..stop].fill(0);
            }
        }
    }
}

struct MemoryFile {
    content: Arc<Content>,
    writable: bool,
}

impl fmt::Debug for MemoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryFile").field("writable", &self.writable).finish_non_exhaustive()
    }
}

impl MemoryFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(ErrorKind::PermissionDenied.into()) }
    }
}

/// The end of a range, within what the offsets of real files can express.
fn end_of(offset: u64, len: u64) -> io::Result<u64> {
    let end = offset.checked_add(len).filter(|&end| end <= i64::MAX as u64);
    end.ok_or_else(|| ErrorKind::FileTooLarge.into())
}

impl StorageFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let blocks = self.content.blocks.read();
        match offset.checked_add(buffer.len() as u64) {
            _ if buffer.is_empty() => Ok(()),
            Some(end) if end <= blocks.len => {
                blocks.read(buffer, offset);
                Ok(())
            }
            _ => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        end_of(offset, bytes.len() as u64)?;
        let mut blocks = self.content.blocks.write();
        blocks.reserve(offset, bytes.len() as u64, &self.content.space)?;
        blocks.write(bytes, offset);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.content.blocks.read().len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        end_of(len, 0)?;
        let mut blocks = self.content.blocks.write();
        blocks.clear(len, u64::MAX / CHUNK as u64 * CHUNK as u64, &self.content.space);
        blocks.len = len;
        Ok(())
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let end = end_of(offset, len)?;
        if len > 0 {
            let mut blocks = self.content.blocks.write();
            blocks.reserve(offset, len, &self.content.space)?;
            blocks.len = blocks.len.max(end);
        }
        Ok(())
    }

    fn deallocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let end = end_of(offset, len)?;
        self.content.blocks.write().clear(offset, end, &self.content.space);
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const UNIT: u64 = CHUNK as u64;

    #[test]
    fn a_full_disk_refuses_whole_writes_and_allocations() {
        let storage = MemoryStorage::with_capacity_limit(3 * UNIT);
        let file = storage.open("data", FileMode::Create).unwrap();
        file.allocate(0, 2 * UNIT).unwrap();
        assert_eq!(file.allocate(UNIT, 3 * UNIT).unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(file.len().unwrap(), 2 * UNIT);
        let grown = file.write_at(&[1; 3 * CHUNK], 2 * UNIT - 1);
        assert_eq!(grown.unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(file.len().unwrap(), 2 * UNIT);
        assert_eq!(storage.used_bytes(), 2 * UNIT);
        file.write_at(&[1], 2 * UNIT).unwrap();
        assert_eq!(storage.used_bytes(), 3 * UNIT);
    }

    #[test]
    fn writes_into_an_allocated_range_succeed_on_a_full_disk() {
        let storage = MemoryStorage::with_capacity_limit(2 * UNIT);
        let file = storage.open("data", FileMode::Create).unwrap();
        file.allocate(0, 2 * UNIT).unwrap();
        storage.set_capacity_limit(0);
        file.write_at(&[1; 2 * CHUNK], 0).unwrap();
        file.allocate(0, 2 * UNIT).unwrap();
        assert!(file.write_at(&[1], 2 * UNIT).is_err());
        storage.set_capacity_limit(3 * UNIT);
        file.write_at(&[1], 2 * UNIT).unwrap();
    }

    #[test]
    fn a_hole_takes_up_nothing_until_it_is_written() {
        let storage = MemoryStorage::with_capacity_limit(UNIT);
        let file = storage.open("data", FileMode::Create).unwrap();
        file.set_len(1 << 50).unwrap();
        assert_eq!(storage.used_bytes(), 0);
        file.write_at(&[1], 1 << 49).unwrap();
        assert!(file.write_at(&[1], 1 << 48).is_err());
        let mut byte = [9];
        file.read_at(&mut byte, 1 << 48).unwrap();
        assert_eq!(byte, [0]);
    }

    #[test]
    fn space_comes_back_by_cutting_giving_back_and_closing() {
        let storage = MemoryStorage::new();
        let file = storage.open("data", FileMode::Create).unwrap();
        file.allocate(0, 8 * UNIT).unwrap();
        file.set_len(5 * UNIT + 1).unwrap();
        assert_eq!(storage.used_bytes(), 6 * UNIT);
        file.deallocate(1, 3 * UNIT).unwrap();
        assert_eq!(storage.used_bytes(), 4 * UNIT);
        storage.remove("data").unwrap();
        assert_eq!(storage.used_bytes(), 4 * UNIT);
        drop(file);
        assert_eq!(storage.used_bytes(), 0);
    }

    #[test]
    fn clones_share_files_and_locks() {
        let storage = MemoryStorage::new();
        let clone = storage.clone();
        let _lock = storage.lock("LOCK", false).unwrap();
        assert_eq!(clone.lock("LOCK", true).unwrap_err().kind(), ErrorKind::WouldBlock);
        storage.open("data", FileMode::Create).unwrap().write_at(b"x", 0).unwrap();
        assert_eq!(clone.open("data", FileMode::Read).unwrap().len().unwrap(), 1);
    }
}
