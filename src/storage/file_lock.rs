//! A lock on a file of the operating system.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use super::backend::StorageLock;
use crate::system::Process;

/// A lock that is held.
#[derive(Debug)]
pub(super) struct FileLock {
    /// `None`: a shared lock where there is no lock file.
    file: Option<File>,
    path: PathBuf,
    process: Process,
}

impl FileLock {
    /// Locks `file`, which was opened at `path`. `WouldBlock` if somebody else has it.
    pub(super) fn take(file: File, path: PathBuf, shared: bool) -> io::Result<Self> {
        // The lock belongs to the descriptor and not to the process, so this refuses a second opener in this
        // process as well.
        let outcome = if shared { file.try_lock_shared() } else { file.try_lock() };
        match outcome {
            Ok(()) => {
                let lock = Self { file: Some(file), path, process: Process::this() };
                // Between opening and locking another may have put a file of its own there.
                if lock.is_in_place()? { Ok(lock) } else { Err(ErrorKind::WouldBlock.into()) }
            }
            Err(TryLockError::WouldBlock) => Err(ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// A shared lock on what is not there.
    pub(super) fn of_nothing(path: PathBuf) -> Self {
        Self { file: None, path, process: Process::this() }
    }
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
