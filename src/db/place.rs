//! The directory of a database: what it may hold, who has it, and whether it is still where it was.
//!
//! A directory is taken for a new database if it is missing, or holds nothing but what a crash leaves of one
//! that was never complete: `LOCK`, `data.new`, an empty `wal`. `lost+found`, which file systems make in
//! their root, counts for nothing. Whatever else it holds is somebody's, and the directory is refused. In one
//! that holds a database other files are left alone.
//!
//! Two files are locked, `LOCK` and `data`: who removes the first lets nobody in, and who puts another file
//! in the place of the second is noticed, since a lock knows its file. A first opening that fails before the
//! database is whole takes back what it made ([`Newborn`]).

use std::io;
use std::sync::Weak;

use crate::error::{Error, ErrorKind, Result};
use crate::segment::Superblock;
use crate::storage::{FileMode, StorageBackend, StorageFile, StorageLock};
use crate::sync::Arc;

pub(super) const DATA: &str = "data";
pub(super) const NEW_DATA: &str = "data.new";
pub(super) const WAL: &str = "wal";
const LOCK: &str = "LOCK";
/// Stands beside a copy that is not complete.
const UNFINISHED: &str = "copy.unfinished";
const LOST_AND_FOUND: &str = "lost+found";

/// What the directory holds.
#[derive(PartialEq)]
pub(super) enum Contents {
    Nothing,
    Database,
}

/// Looks what is there, and changes nothing.
pub(super) fn look(backend: &Arc<dyn StorageBackend>) -> Result<Contents> {
    let refuse = |message: String| Err(Error::new(ErrorKind::NotADatabase, message));
    // The logs first: another opener may be creating the database, and its log comes after its data.
    let listed = list(backend, WAL).and_then(|logs| Ok((logs, backend.list("")?, backend.list_others("")?)));
    let (logs, names, others) = match listed {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contents::Nothing),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return refuse(format!(
                "the path is that of a file, or of a directory with a file {WAL:?} in it"
            ));
        }
        Err(error) => return Err(Error::io("reading the database's directory", error)),
    };
    if let Some(name) = others.iter().find(|name| [DATA, NEW_DATA, LOCK].contains(&name.as_str())) {
        return refuse(format!("the directory holds a {name:?} that is no file"));
    }
    if names.iter().any(|name| name == DATA) {
        if !names.iter().any(|name| name == LOCK) {
            // Before a lock is made for a copy that came without, the data must be a database's.
            let data = backend
                .open(DATA, FileMode::Read)
                .map_err(|error| Error::io("opening the data file", error).in_file(DATA))?;
            Superblock::load(&*data, DATA)?;
        }
        return Ok(Contents::Database);
    }
    let foreign = names.into_iter().filter(|name| ![NEW_DATA, LOCK].contains(&name.as_str()));
    let others = others.into_iter().filter(|name| ![WAL, LOST_AND_FOUND].contains(&name.as_str()));
    let logs = logs.into_iter().map(|log| format!("{WAL}/{log}"));
    match foreign.chain(others).chain(logs).next() {
        None => Ok(Contents::Nothing),
        Some(name) => {
            refuse(format!("the directory holds {name:?} and no database; give an empty or a new one"))
        }
    }
}

/// A copy of a database that is being made in a directory: until its data file has its name, a file says that
/// it is unfinished, so that an opening refuses the directory, and whatever fails takes all of it away again.
pub(super) struct Unfinished {
    backend: Arc<dyn StorageBackend>,
    is_done: bool,
}

impl Unfinished {
    /// Makes the directory, which must be missing or empty, and a folder for the log in it.
    pub(super) fn begin(backend: &Arc<dyn StorageBackend>) -> Result<Self> {
        let failed = |error| Error::io("making the directory of a copy", error);
        if list(backend, "").map_err(failed)?.iter().any(|name| name == DATA) {
            return Err(Error::new(ErrorKind::DatabaseExists, "the directory of a copy holds a database"));
        }
        let foreign = |name: String| {
            let message = format!("the directory of a copy must be missing or empty, and holds {name:?}");
            Error::new(ErrorKind::NotADatabase, message)
        };
        if let Some(name) = other_than(backend, &[LOST_AND_FOUND]).map_err(failed)? {
            return Err(foreign(name));
        }
        backend.create_directory("").map_err(failed)?;
        match backend.open(UNFINISHED, FileMode::Create) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(foreign(UNFINISHED.to_owned()));
            }
            made => drop(made.map_err(failed)?),
        }
        // Whoever was at work here until it stood has the directory: an opening makes its lock before it
        // looks again, so that one of the two sees the other.
        let other = match other_than(backend, &[UNFINISHED, LOST_AND_FOUND]) {
            Ok(None) => None,
            Ok(Some(name)) => Some(foreign(name)),
            Err(error) => Some(failed(error)),
        };
        if let Some(refused) = other {
            let _ = backend.remove(UNFINISHED);
            return Err(refused);
        }
        let unfinished = Self { backend: Arc::clone(backend), is_done: false };
        // Before anything of what an opening takes for the beginning of a database.
        backend.sync_directory("").map_err(failed)?;
        backend.create_directory(WAL).map_err(failed)?;
        Ok(unfinished)
    }

    /// All of the copy is durable but the names in its directory: it becomes a database.
    pub(super) fn end(mut self) -> Result<()> {
        let failed = |error| Error::io("naming the data file of a copy", error).in_file(DATA);
        self.backend.sync_directory("").map_err(failed)?;
        self.backend.rename(NEW_DATA, DATA).map_err(failed)?;
        self.is_done = true;
        self.backend.sync_directory("").map_err(failed)?;
        self.backend.remove(UNFINISHED).map_err(failed)?;
        self.backend.sync_directory("").map_err(failed)
    }

    fn remove(&self) -> io::Result<()> {
        for log in list(&self.backend, WAL)? {
            self.backend.remove(&format!("{WAL}/{log}"))?;
        }
        let _ = self.backend.remove_directory(WAL);
        let _ = self.backend.remove(NEW_DATA);
        self.backend.sync_directory("")?;
        self.backend.remove(UNFINISHED)?;
        self.backend.remove_directory("")
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_done
            && let Err(error) = self.remove()
        {
            tracing::warn!(%error, "a copy that could not be made left traces");
        }
    }
}

/// Something in the directory of a database, or in that of its log, that has none of these names.
fn other_than(backend: &Arc<dyn StorageBackend>, names: &[&str]) -> io::Result<Option<String>> {
    let (all, logs) = (list(backend, "")?, list(backend, WAL)?);
    Ok(all.into_iter().chain(logs).find(|name| !names.contains(&name.as_str())))
}

/// Everything in a directory that may be missing.
fn list(backend: &Arc<dyn StorageBackend>, directory: &str) -> io::Result<Vec<String>> {
    let listed = backend.list(directory).and_then(|mut names| {
        names.extend(backend.list_others(directory)?);
        Ok(names)
    });
    match listed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed,
    }
}

/// The locks of an open database.
#[derive(Debug)]
pub(super) struct Locks {
    lock: Box<dyn StorageLock>,
    data: Option<Box<dyn StorageLock>>,
}

impl Locks {
    /// Takes the first, which is there before there is any data.
    pub(super) fn take(backend: &dyn StorageBackend, read_only: bool) -> Result<Self> {
        let lock = backend.lock(LOCK, read_only).map_err(|error| refused(error, LOCK))?;
        Ok(Self { lock, data: None })
    }

    /// Takes the one of the data file, which exists.
    pub(super) fn take_data(&mut self, backend: &dyn StorageBackend, read_only: bool) -> Result<()> {
        let data = backend.lock_existing(DATA, read_only).map_err(|error| refused(error, DATA))?;
        self.data = Some(data);
        Ok(())
    }

    /// Whether the data file is still where it was when it was locked. The other one may go: `data` keeps
    /// others out as well.
    pub(super) fn are_in_place(&self) -> bool {
        let held = self.data.as_ref().unwrap_or(&self.lock);
        held.is_in_place().unwrap_or_else(|error| {
            tracing::warn!(%error, "whether the database is still in its place is not known");
            true
        })
    }
}

fn refused(error: io::Error, file: &str) -> Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => {
            Error::new(ErrorKind::Locked, "the database is open already, here or in another process")
        }
        _ => Error::io("locking the database", error).in_file(file),
    }
}

/// What is said once the data file is not where it was.
pub(super) const GONE: &str =
    "the data file, or a directory above it, was moved, removed or replaced while the database was open";

/// The directory of an open database, in which names change only as long as its data file is where it was:
/// else they would in what stands there now.
#[derive(Debug)]
pub(super) struct InPlace {
    backend: Arc<dyn StorageBackend>,
    /// They are given back when the database ends.
    locks: Weak<Locks>,
}

impl InPlace {
    pub(super) fn of(backend: &Arc<dyn StorageBackend>, locks: &Arc<Locks>) -> Arc<dyn StorageBackend> {
        Arc::new(Self { backend: Arc::clone(backend), locks: Arc::downgrade(locks) })
    }

    fn check(&self) -> io::Result<()> {
        let is_gone = self.locks.upgrade().is_some_and(|locks| !locks.are_in_place());
        if is_gone { Err(io::Error::other(GONE)) } else { Ok(()) }
    }
}

impl StorageBackend for InPlace {
    fn open(&self, path: &str, mode: FileMode) -> io::Result<Arc<dyn StorageFile>> {
        if mode == FileMode::Create {
            self.check()?;
        }
        self.backend.open(path, mode)
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.backend.list(directory)
    }

    fn create_directory(&self, directory: &str) -> io::Result<()> {
        self.check()?;
        self.backend.create_directory(directory)
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        self.backend.sync_directory(directory)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.check()?;
        self.backend.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.check()?;
        self.backend.remove(path)
    }

    fn lock(&self, path: &str, shared: bool) -> io::Result<Box<dyn StorageLock>> {
        self.backend.lock(path, shared)
    }
}

/// A database that is being created: until its data file has its name, whatever fails takes all of it away
/// again. From then on it is whole, empty, and stays: its log may have begun, and numbers of log files must
/// not be given twice where nobody knows whether their removal lasts.
pub(super) struct Newborn {
    backend: Arc<dyn StorageBackend>,
    stage: Stage,
}

#[derive(PartialEq, PartialOrd)]
enum Stage {
    /// Nothing is ours to remove.
    Others,
    /// The directory, if it was missing.
    Directory,
    /// What is in it, since we have the lock.
    Parts,
}

impl Newborn {
    /// Nothing was made yet.
    pub(super) fn new(backend: &Arc<dyn StorageBackend>) -> Self {
        Self { backend: Arc::clone(backend), stage: Stage::Others }
    }

    /// The database's directory is about to be made.
    pub(super) fn makes_directory(&mut self) {
        self.stage = Stage::Directory;
    }

    /// We have the lock, and are about to make what the directory holds.
    pub(super) fn makes_parts(&mut self) {
        self.stage = Stage::Parts;
    }

    /// The database is whole, or another's: it stays.
    pub(super) fn stays(&mut self) {
        self.stage = Stage::Others;
    }

    fn remove(&self) -> io::Result<()> {
        if self.stage >= Stage::Parts {
            if self.backend.list("")?.iter().any(|name| name == DATA) {
                // All but the sync of its name came about.
                return Ok(());
            }
            let _ = self.backend.remove_directory(WAL);
            let _ = self.backend.remove(NEW_DATA);
            self.backend.sync_directory("")?;
            self.backend.remove(LOCK)?;
        }
        if self.stage >= Stage::Directory { self.backend.remove_directory("") } else { Ok(()) }
    }
}

impl Drop for Newborn {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!(%error, "a database that could not be created left traces");
        }
    }
}
