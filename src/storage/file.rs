//! A database in a directory of the operating system.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::backend::{FileMode, SharedMapping, StorageBackend, StorageFile, StorageLock};
use super::mapping::FileMapping;
use crate::sync::Mutex;
use crate::system::Process;

/// A directory of the operating system: where a database normally lives.
///
/// Files and directories that it creates can be read by their owner alone. A relative path is resolved when
/// the value is made, so that a later change of the working directory does not lead elsewhere.
#[derive(Debug, Clone)]
pub struct FileStorage {
    directory: PathBuf,
    /// Directories that were created for this one and are there to be removed with it, the topmost first.
    created: Arc<Mutex<Vec<PathBuf>>>,
    /// Directories that were synced, and their paths within: for when no descriptor is to be had.
    synced: Arc<Mutex<HashMap<PathBuf, Arc<File>>>>,
}

impl FileStorage {
    /// Storage in `directory`, which need not exist yet.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        Self {
            directory: std::path::absolute(&directory).unwrap_or(directory),
            created: Arc::default(),
            synced: Arc::default(),
        }
    }

    /// The directory, as an absolute path.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn resolve(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.directory.clone() } else { self.directory.join(path) }
    }
}

impl StorageBackend for FileStorage {
    fn open(&self, path: &str, mode: FileMode) -> io::Result<Arc<dyn StorageFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            FileMode::Read => {}
            FileMode::Write => {
                options.write(true);
            }
            FileMode::Create => {
                options.write(true).create_new(true);
            }
        }
        Ok(Arc::new(RealFile { file: open_file(options, &self.resolve(path))? }))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.resolve(directory))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                continue;
            }
            // The engine gives no file a name that is not UTF-8: such a file is not its own.
            if let Ok(name) = entry.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn list_others(&self, directory: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.resolve(directory))? {
            let entry = entry?;
            let kind = match entry.file_type()? {
                kind if kind.is_symlink() => {
                    fs::metadata(entry.path()).map_or(kind, |found| found.file_type())
                }
                kind => kind,
            };
            if !kind.is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    fn create_directory(&self, directory: &str) -> io::Result<()> {
        let path = self.resolve(directory);
        let created = create_directories(&path)?;
        if directory.is_empty() {
            self.created.lock().extend(created);
        }
        if directory.is_empty() {
            // The entry of the database's own directory lies outside of what `sync_directory` can name. It is
            // synced even if it existed: whoever created it may have been killed before it was durable.
            if let Some(parent) = fs::canonicalize(&path)?.parent() {
                match sync_directory(parent) {
                    // A directory above that may not be read cannot be one in which this process created the
                    // entry.
                    Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
                    outcome => outcome?,
                }
            }
        }
        Ok(())
    }

    fn remove_directory(&self, directory: &str) -> io::Result<()> {
        if !directory.is_empty() {
            return fs::remove_dir(self.resolve(directory));
        }
        let mut created = self.created.lock();
        while let Some(path) = created.pop() {
            fs::remove_dir(&path)?;
            if let Some(parent) = path.parent() {
                sync_directory(parent)?;
            }
        }
        Ok(())
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        let path = self.resolve(directory);
        let Some(opened) = open_directory(&path)? else { return Ok(()) };
        let opened = match opened {
            Ok(opened) => {
                let opened = Arc::new(opened);
                self.synced.lock().insert(path, Arc::clone(&opened));
                opened
            }
            Err(error) => {
                let kept = self.synced.lock().get(&path).cloned();
                kept.filter(|kept| is_at(kept, &path)).ok_or(error)?
            }
        };
        sync_opened(&opened)
    }

    #[cfg(unix)]
    fn free_bytes(&self) -> io::Result<Option<u64>> {
        let space = rustix::fs::statvfs(&self.directory)?;
        Ok(Some(space.f_bavail.saturating_mul(space.f_frsize)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.resolve(from), self.resolve(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.resolve(path))
    }

    fn lock(&self, path: &str, shared: bool) -> io::Result<Box<dyn StorageLock>> {
        let mut options = OpenOptions::new();
        options.read(true);
        if !shared {
            options.write(true).create(true).truncate(false);
        }
        match self.lock_with(options, path, shared) {
            // Nobody has ever opened it for writing, or it lies on a disk that nobody can write.
            Err(error) if shared && error.kind() == ErrorKind::NotFound => {
                Ok(Box::new(FileLock { file: None, path: self.resolve(path), process: Process::this() }))
            }
            outcome => outcome,
        }
    }

    fn lock_existing(&self, path: &str, shared: bool) -> io::Result<Box<dyn StorageLock>> {
        let mut options = OpenOptions::new();
        // Some file systems lend an exclusive lock only to those who may write.
        options.read(true).write(!shared);
        self.lock_with(options, path, shared)
    }
}

impl FileStorage {
    fn lock_with(&self, options: OpenOptions, path: &str, shared: bool) -> io::Result<Box<dyn StorageLock>> {
        let path = self.resolve(path);
        let file = open_file(options, &path)?;
        // The lock belongs to the descriptor and not to the process, so this refuses a second opener in this
        // process as well.
        let outcome = if shared { file.try_lock_shared() } else { file.try_lock() };
        match outcome {
            Ok(()) => {
                let lock = FileLock { file: Some(file), path, process: Process::this() };
                // Between opening and locking another may have put a file of its own there.
                if lock.is_in_place()? { Ok(Box::new(lock)) } else { Err(ErrorKind::WouldBlock.into()) }
            }
            Err(TryLockError::WouldBlock) => Err(ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Opens what must be a regular file. Does not wait for the other end of a pipe, and gives it up again.
#[cfg_attr(not(unix), allow(unused_mut, reason = "there are no flags to set"))]
fn open_file(mut options: OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    }
    let file = options.open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(ErrorKind::InvalidInput, "it is a directory, a pipe or a device, and no file"))
}

#[derive(Debug)]
struct FileLock {
    /// `None`: a shared lock where there is no lock file.
    file: Option<File>,
    path: PathBuf,
    process: Process,
}

impl StorageLock for FileLock {
    fn is_in_place(&self) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(true) };
        match fs::metadata(&self.path) {
            Ok(found) => Ok(is_same_file(&found, &file.metadata()?)),
            Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(unix)]
fn is_same_file(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// A file that is open can be neither removed nor replaced here.
#[cfg(not(unix))]
fn is_same_file(_a: &fs::Metadata, _b: &fs::Metadata) -> bool {
    true
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing alone would leave the lock with a child process that was forked and has not yet called
        // exec. In such a child closing is right: unlocking would take the lock from its parent.
        if let Some(file) = &self.file
            && self.process.is_this()
        {
            let _ = file.unlock();
        }
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
}

impl StorageFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        positioned::read(&self.file, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        positioned::write(&self.file, bytes, offset)
    }

    fn write_parts_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        positioned::write_parts(&self.file, parts, offset)
    }

    #[cfg(target_os = "linux")]
    fn begin_writing(&self, offset: u64, len: u64) {
        use std::os::fd::AsRawFd;
        // Offsets that the system cannot take leave everything to the sync, as do failures: it meets them,
        // too.
        let (Ok(offset), Ok(len)) = (offset.try_into(), len.try_into()) else { return };
        // SAFETY: the call takes a descriptor, which is open, and numbers.
        unsafe { libc::sync_file_range(self.file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
    }

    #[cfg(target_os = "linux")]
    fn begin_reading(&self, offset: u64, len: u64) {
        // The system may cut off what is longer than a device reads ahead.
        const MOST: u64 = 128 << 10;

        let end = offset.saturating_add(len);
        for start in (offset..end).step_by(MOST as usize) {
            let part = MOST.min(end - start).try_into().ok();
            // What cannot be read is met by who reads it.
            let _ = rustix::fs::fadvise(&self.file, start, part, rustix::fs::Advice::WillNeed);
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = end_of(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let old_len = self.len()?;
        if end > old_len {
            may_be_so_long(end)?;
        }
        match space::allocate(&self.file, offset, len) {
            Err(error) if error.kind() == ErrorKind::Unsupported => self.fill(old_len.max(offset), end),
            Err(error) => {
                // What was reserved before the disk was full would stay reserved, for nobody.
                let fresh = old_len.max(offset);
                if fresh < end {
                    let _ = space::deallocate(&self.file, fresh, end - fresh);
                }
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    fn deallocate(&self, offset: u64, len: u64) -> io::Result<()> {
        end_of(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        match space::deallocate(&self.file, offset, len) {
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
            outcome => outcome,
        }
    }

    fn map(&self, len: u64) -> io::Result<Option<Box<dyn SharedMapping>>> {
        if !overwrites_in_place(&self.file)? {
            return Ok(None);
        }
        Ok(Some(Box::new(FileMapping::new(&self.file, len)?)))
    }
}

/// Whether the file system is one that writes bytes where they stand or where room is reserved for them.
/// Where a write may need new room, a store into a mapping on a full disk would kill the process instead of
/// failing.
#[cfg(target_os = "linux")]
fn overwrites_in_place(file: &File) -> io::Result<bool> {
    const EXT: i128 = 0xef53;
    const TMPFS: i128 = 0x0102_1994;
    Ok([EXT, TMPFS].contains(&i128::from(rustix::fs::fstatfs(file)?.f_type)))
}

#[cfg(not(target_os = "linux"))]
fn overwrites_in_place(_file: &File) -> io::Result<bool> {
    Ok(false)
}

impl RealFile {
    /// Writes zeros from `start` to `end`: the allocation of file systems that know no other. Only bytes
    /// beyond the old end are written, since what stands before it may be data.
    fn fill(&self, start: u64, end: u64) -> io::Result<()> {
        const ZEROS: &[u8] = &[0; 64 << 10];
        let mut offset = start;
        while offset < end {
            let len = (end - offset).min(ZEROS.len() as u64);
            self.write_at(&ZEROS[..len as usize], offset)?;
            offset += len;
        }
        Ok(())
    }
}

/// Refuses what is longer than the process may make a file. Whoever tried it would be sent a signal that ends
/// the process, unless it is handled or ignored.
#[cfg(unix)]
fn may_be_so_long(len: u64) -> io::Result<()> {
    let most = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    if most.is_some_and(|most| len > most) { Err(ErrorKind::FileTooLarge.into()) } else { Ok(()) }
}

#[cfg(not(unix))]
fn may_be_so_long(_len: u64) -> io::Result<()> {
    Ok(())
}

fn end_of(offset: u64, len: u64) -> io::Result<u64> {
    offset.checked_add(len).ok_or_else(|| ErrorKind::FileTooLarge.into())
}

/// Creates `path` and what is missing above it, and gives what it created, the topmost first. What is created
/// above it is made durable.
fn create_directories(path: &Path) -> io::Result<Vec<PathBuf>> {
    if path.is_dir() {
        return Ok(Vec::new());
    }
    let mut created = Vec::new();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir());
    if let Some(parent) = parent {
        created = create_directories(parent)?;
        if let Some(above) = parent.parent() {
            sync_directory(above)?;
        }
    }
    #[cfg_attr(not(unix), allow(unused_mut, reason = "there is no mode to set"))]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
        outcome => {
            outcome?;
            created.push(path.to_owned());
        }
    }
    Ok(created)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    match open_directory(path)? {
        Some(opened) => sync_opened(&opened?),
        None => Ok(()),
    }
}

fn sync_opened(directory: &File) -> io::Result<()> {
    // What it lacks at this point is no refusal any more.
    directory.sync_all().map_err(|error| match error.kind() {
        ErrorKind::OutOfMemory => io::Error::other(error),
        _ => error,
    })
}

/// A directory, opened to be synced; within, why it could not be for the moment. `None` where that is not
/// possible.
#[cfg(unix)]
fn open_directory(path: &Path) -> io::Result<Option<io::Result<File>>> {
    match File::open(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Err(error),
        opened => Ok(Some(opened)),
    }
}

/// Directories cannot be opened as files here, and their entries are the business of the file system's own
/// log.
#[cfg(not(unix))]
fn open_directory(_path: &Path) -> io::Result<Option<io::Result<File>>> {
    Ok(None)
}

/// Whether `directory` is what stands at `path`.
#[cfg(unix)]
fn is_at(directory: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;

    let (Ok(kept), Ok(there)) = (directory.metadata(), fs::metadata(path)) else { return false };
    (kept.dev(), kept.ino()) == (there.dev(), there.ino())
}

#[cfg(not(unix))]
fn is_at(_directory: &File, _path: &Path) -> bool {
    false
}

#[cfg(unix)]
mod positioned {
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::FileExt;

    // Both of these go on after an interruption and after a short count.
    pub(super) fn read(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        file.read_exact_at(buffer, offset)
    }

    pub(super) fn write(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) fn write_parts(file: &File, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        use std::io::IoSlice;

        /// As many buffers as one call takes (`IOV_MAX`).
        const MOST: usize = 1024;

        let mut offset = offset;
        let mut vector = Vec::with_capacity(parts.len().min(MOST));
        for chunk in parts.chunks(MOST) {
            vector.clear();
            vector.extend(chunk.iter().filter(|part| !part.is_empty()).map(|part| IoSlice::new(part)));
            let mut rest = &mut vector[..];
            while !rest.is_empty() {
                match rustix::io::pwritev(file, rest, offset) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => {
                        offset += written as u64;
                        IoSlice::advance_slices(&mut rest, written);
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(super) use super::write_each as write_parts;
}

#[cfg(windows)]
mod positioned {
    use std::fs::File;
    use std::io::{self, ErrorKind};
    use std::os::windows::fs::FileExt;

    pub(super) fn read(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match file.seek_read(buffer, offset) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    buffer = &mut buffer[read..];
                    offset += read as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn write(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match file.seek_write(bytes, offset) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    offset += written as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) use super::write_each as write_parts;
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn write_each(file: &File, parts: &[&[u8]], offset: u64) -> io::Result<()> {
    let mut offset = offset;
    for part in parts {
        positioned::write(file, part, offset)?;
        offset += part.len() as u64;
    }
    Ok(())
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod space {
    use std::fs::File;
    use std::io;

    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::{Errno, retry_on_intr};

    pub(super) fn allocate(file: &File, offset: u64, len: u64) -> io::Result<()> {
        call(file, FallocateFlags::empty(), offset, len)
    }

    pub(super) fn deallocate(file: &File, offset: u64, len: u64) -> io::Result<()> {
        call(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len)
    }

    fn call(file: &File, flags: FallocateFlags, offset: u64, len: u64) -> io::Result<()> {
        match retry_on_intr(|| fallocate(file, flags, offset, len)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Err(io::ErrorKind::Unsupported.into()),
            outcome => Ok(outcome?),
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod space {
    use std::fs::File;
    use std::io;

    pub(super) fn allocate(_file: &File, _offset: u64, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn deallocate(_file: &File, _offset: u64, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(all(test, not(loom), not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn missing_directories_above_the_database_are_created() {
        let directory = tempfile::tempdir().unwrap();
        let storage = FileStorage::new(directory.path().join("a/b/c"));
        assert_eq!(storage.list("").unwrap_err().kind(), ErrorKind::NotFound);
        storage.create_directory("").unwrap();
        storage.create_directory("").unwrap();
        storage.open("data", FileMode::Create).unwrap();
        assert!(directory.path().join("a/b/c/data").is_file());
    }

    #[test]
    fn a_relative_path_is_made_absolute() {
        let storage = FileStorage::new("somewhere");
        assert_eq!(storage.directory(), std::env::current_dir().unwrap().join("somewhere"));
    }

    #[test]
    fn filling_leaves_what_stands_before_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        let file =
            RealFile { file: File::options().read(true).write(true).create_new(true).open(path).unwrap() };
        file.write_at(b"data", 0).unwrap();
        file.fill(4, 200_000).unwrap();
        assert_eq!(file.len().unwrap(), 200_000);
        let mut bytes = vec![1; 200_000];
        file.read_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes[..4], b"data");
        assert!(bytes[4..].iter().all(|&byte| byte == 0));
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_neither_opened_nor_locked() {
        use std::os::unix::ffi::OsStrExt;

        let directory = tempfile::tempdir().unwrap();
        let pipe = std::ffi::CString::new(directory.path().join("pipe").as_os_str().as_bytes()).unwrap();
        // SAFETY: the path ends with a zero byte.
        assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
        std::os::unix::fs::symlink("/dev/zero", directory.path().join("device")).unwrap();
        let storage = FileStorage::new(directory.path());
        for name in ["pipe", "device"] {
            for mode in [FileMode::Read, FileMode::Write] {
                assert_eq!(storage.open(name, mode).unwrap_err().kind(), ErrorKind::InvalidInput, "{name}");
            }
            for shared in [false, true] {
                assert_eq!(storage.lock(name, shared).unwrap_err().kind(), ErrorKind::InvalidInput, "{name}");
                assert!(storage.lock_existing(name, shared).is_err(), "{name}");
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn files_and_directories_belong_to_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("database");
        let storage = FileStorage::new(&root);
        storage.create_directory("").unwrap();
        storage.create_directory("wal").unwrap();
        storage.open("wal/1.log", FileMode::Create).unwrap();
        drop(storage.lock("LOCK", false).unwrap());
        let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode(""), mode("wal"), mode("wal/1.log"), mode("LOCK")], [0o700, 0o700, 0o600, 0o600]);
    }

    #[cfg(unix)]
    #[test]
    fn files_whose_name_is_not_utf8_are_not_listed() {
        use std::os::unix::ffi::OsStrExt;

        let directory = tempfile::tempdir().unwrap();
        let name = std::ffi::OsStr::from_bytes(b"\xff");
        // Some file systems refuse such names.
        let _ = File::create(directory.path().join(name));
        assert!(FileStorage::new(directory.path()).list("").unwrap().is_empty());
    }
}
