//! The traits behind which disks stand.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

/// How [`StorageBackend::open`] opens a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A new file, readable and writable by its owner alone; fails with `AlreadyExists` if there is one.
    Create,
}

/// A directory that holds one database.
///
/// Paths are relative to it and use `/`. Nothing that a method did to a *directory* (create, rename, remove)
/// is durable before [`sync_directory`](Self::sync_directory) of the directory that holds the entry returns;
/// nothing that was written to a *file* is durable before [`StorageFile::sync`] returns. The engine relies on
/// no other ordering.
pub trait StorageBackend: Debug + Send + Sync + 'static {
    /// Opens a file. Each call gives a descriptor of its own. What is no file, but a directory, a pipe or a
    /// device, is an error, and nothing waits for it.
    fn open(&self, path: &str, mode: FileMode) -> io::Result<Arc<dyn StorageFile>>;

    /// Names (without the directory) of the files in `directory` (`""` is the database's own), in no order.
    /// `NotFound` if there is no such directory.
    fn list(&self, directory: &str) -> io::Result<Vec<String>>;

    /// Names (without the directory) of what is in `directory` and is no file: directories, pipes, devices,
    /// in no order. Names that are no text are given as what comes next to them. By default there is none.
    fn list_others(&self, directory: &str) -> io::Result<Vec<String>> {
        let _ = directory;
        Ok(Vec::new())
    }

    /// Creates a directory that its owner alone may enter, and those above it that are missing. One that
    /// exists is left as it is. The database's own directory (`""`) is durable when this returns: its entry
    /// lies in a directory that no path names.
    fn create_directory(&self, directory: &str) -> io::Result<()>;

    /// Removes a directory that is empty; the database's own (`""`) with those above it that were created for
    /// it. May do nothing, as by default.
    fn remove_directory(&self, directory: &str) -> io::Result<()> {
        let _ = directory;
        Ok(())
    }

    /// Makes the entries of a directory durable. An error that says that no descriptor or no memory was to be
    /// had means that nothing was begun; any other is final.
    fn sync_directory(&self, directory: &str) -> io::Result<()>;

    /// Renames a file, replacing one that has the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Takes the lock of the file at `path`, creating the file unless `shared`. `WouldBlock` if another
    /// opener, in this process or another, holds it. A shared lock excludes only exclusive ones.
    fn lock(&self, path: &str, shared: bool) -> io::Result<Box<dyn StorageLock>>;

    /// As [`lock`](Self::lock) of a file that exists; `NotFound` if it does not, where the backend can tell.
    fn lock_existing(&self, path: &str, shared: bool) -> io::Result<Box<dyn StorageLock>> {
        self.lock(path, shared)
    }

    /// Bytes that files can still take up, if that is known. Where little is left, room is reserved for what
    /// was accepted, before more is.
    fn free_bytes(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }
}

/// Held while a database is open; dropping it gives the lock back.
pub trait StorageLock: Debug + Send + Sync {
    /// Whether the path still leads to the file that was locked: it was neither removed nor replaced
    /// meanwhile, nor was a directory above it. An error says that nobody knows. By default it does.
    fn is_in_place(&self) -> io::Result<bool> {
        Ok(true)
    }
}

/// How bytes went from one file to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Both share them until one of them is written to there.
    Shared,
    /// The operating system copied them by itself, at least in part.
    InSystem,
    /// They were read and written.
    Copied,
}

/// An open file. All methods may be called from several threads at once.
pub trait StorageFile: Debug + Send + Sync {
    /// Fills `buffer` from `offset`; `UnexpectedEof` if the file ends before.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Writes the concatenation of `parts` at `offset`.
    fn write_parts_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        let mut offset = offset;
        for part in parts {
            self.write_at(part, offset)?;
            offset += part.len() as u64;
        }
        Ok(())
    }

    /// Has the disk begin with what was written there, and waits for nothing: a sync that is to come soon
    /// then finds less left to do.
    fn begin_writing(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }

    /// Has the disk begin to read what stands there into the memory of the system, and does not wait for it:
    /// it will be read soon.
    fn begin_reading(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }

    /// Makes everything written through any descriptor of the file durable, with the length needed to read
    /// it. An error is final: what was written may be lost whatever a later call says.
    fn sync(&self) -> io::Result<()>;

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the length is 0.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file, or extends it with a hole.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Reserves the range on the disk, extending the file if it is shorter, so that a write into it cannot
    /// meet a full disk. What was never written reads as zeros. `StorageFull` if there is no room: then
    /// nothing stays reserved beyond the old end, but the file may have grown by a hole.
    ///
    /// The range is the caller's own meanwhile: nobody else writes or allocates there.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Gives the range back to the file system where it can; it then reads as zeros or as before.
    fn deallocate(&self, offset: u64, len: u64) -> io::Result<()>;

    /// The file of the operating system that this is, if it is one and nothing stands between.
    fn as_file(&self) -> Option<&std::fs::File> {
        None
    }

    /// Reads `len` bytes at `from` of `source`, and writes them at `offset`. `UnexpectedEof` if the source
    /// ends before.
    fn copy_from(&self, source: &dyn StorageFile, from: u64, offset: u64, len: u64) -> io::Result<()> {
        const PIECE: u64 = 256 << 10;
        let mut bytes = vec![0; PIECE.min(len) as usize];
        let mut done = 0;
        while done < len {
            let piece = &mut bytes[..PIECE.min(len - done) as usize];
            source.read_at(piece, from + done)?;
            self.write_at(piece, offset + done)?;
            done += piece.len() as u64;
        }
        Ok(())
    }

    /// As [`copy_from`](Self::copy_from), in the cheapest way that there is between the two: by default in
    /// that one. The bytes stay as they are in both, whatever becomes of those of the other.
    fn take_from(&self, source: &dyn StorageFile, from: u64, offset: u64, len: u64) -> io::Result<Taken> {
        self.copy_from(source, from, offset, len).map(|()| Taken::Copied)
    }

    /// A shared mapping of the first `len` bytes, which must be written or [reserved](Self::allocate):
    /// storing into it is a write that survives a killed process. `None` where the backend has no mappings,
    /// or where a store into reserved bytes could meet a full disk.
    ///
    /// A store cannot fail as a write can: the system ends a process that stores where a page cannot be had.
    /// So the engine stores only where the mapping said that memory is [ready](SharedMapping::make_ready) and
    /// stays.
    fn map(&self, len: u64) -> io::Result<Option<Box<dyn SharedMapping>>> {
        let _ = len;
        Ok(None)
    }
}

/// A shared mapping of a file, into which disjoint ranges may be stored from several threads at once.
pub trait SharedMapping: Debug + Send + Sync {
    /// Copies `bytes` to `offset`, a multiple of eight. The caller keeps the range, up to the next multiple
    /// of eight, inside of what was [made ready](Self::make_ready) and not let go, and to itself: what lies
    /// between the last byte and there may become zero. Panics if it is not inside the mapping.
    fn store(&self, offset: u64, bytes: &[u8]);

    /// Makes memory ready behind `len` bytes from `offset`, as far as the mapping reaches, and keeps it until
    /// it is [let go](Self::let_go), so that stores there neither wait for a page nor need to read one. The
    /// bytes stay as they are, but may count as written. Says whether it could: if not, nothing may be stored
    /// there. By default it cannot.
    fn make_ready(&self, offset: u64, len: u64) -> bool {
        let _ = (offset, len);
        false
    }

    /// Takes the memory behind `len` bytes from `offset` out of the process, but for pages of the system of
    /// which a part lies outside: nothing is stored there any more unless it is made ready again. The bytes
    /// stay as they are, in the file. May do nothing.
    fn let_go(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }
}
