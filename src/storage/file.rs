//! A database in a directory of the operating system.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::backend::{FileMode, StorageBackend, StorageFile, StorageLock};
use super::directory::{create_directories, is_at, open_directory, sync_directory, sync_opened};
use super::file_lock::FileLock;
use super::real_file::{RealFile, open_file};
use crate::sync::Mutex;

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
        Ok(Arc::new(RealFile::new(open_file(options, &self.resolve(path))?)))
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
                Ok(Box::new(FileLock::of_nothing(self.resolve(path))))
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
        Ok(Box::new(FileLock::take(file, path, shared)?))
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
