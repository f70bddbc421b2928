//! The disk that an engine runs on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use peristyle::{FileMode, StorageBackend, StorageFile, StorageLock};

use super::fault::{Call, Faults};
use super::file::SimulatedFile;
use super::operation::{FileId, Honesty, Operation};
use super::room::Room;
use super::timeline::Base;
use super::{Content, Decisions, Fault, FaultKind, Image, Sickness, SyncFailure, Timeline};

/// A disk in memory with a log. Clones share it.
#[derive(Clone)]
pub struct SimulatedDisk {
    pub(super) state: Arc<Mutex<State>>,
}

pub(super) struct State {
    base: Arc<Base>,
    operations: Vec<Operation>,
    /// Whether operations are logged.
    logs: bool,
    pub(super) maps: bool,
    pub(super) files: Vec<Arc<Content>>,
    entries: BTreeMap<String, FileId>,
    directories: BTreeSet<String>,
    /// Holders of each lock that is held; `None` stands for an exclusive one.
    locks: BTreeMap<String, Option<usize>>,
    pub(super) faults: Faults,
    /// Files whose next sync reports an earlier failure.
    owing: BTreeSet<FileId>,
    /// Length of the log when a sync succeeded that had not written everything.
    lied_at: Option<usize>,
    /// Writes until the one that is not carried out as it should be, and what becomes of it.
    dishonest: Option<(u64, Honesty)>,
    /// What is wrong with a range of a file.
    pub(super) sick: Option<(FileId, Range<u64>, Sickness)>,
    /// Counts what files take up, if that is limited.
    pub(super) room: Option<Room>,
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("SimulatedDisk")
            .field("files", &state.entries.len())
            .field("operations", &state.operations.len())
            .finish_non_exhaustive()
    }
}

impl Default for SimulatedDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimulatedDisk {
    /// An empty disk.
    pub fn new() -> Self {
        let mut image = Image::default();
        image.directories.insert(String::new());
        Self::from_image(&image)
    }

    /// A disk that holds `image`, all of it durable, with an empty log.
    pub fn from_image(image: &Image) -> Self {
        let base = Base::from(image);
        let state = State {
            operations: Vec::new(),
            logs: true,
            maps: true,
            files: base.files.clone(),
            entries: base.entries.clone(),
            directories: base.directories.clone(),
            base: Arc::new(base),
            locks: BTreeMap::new(),
            faults: Faults::default(),
            owing: BTreeSet::new(),
            lied_at: None,
            dishonest: None,
            sick: None,
            room: None,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The disk without a log: it cannot crash, only be looked at. Faster, for recoveries that are the last.
    #[must_use]
    pub fn without_log(self) -> Self {
        self.state.lock().logs = false;
        self
    }

    /// The disk with mappings, as it is made, or without.
    #[must_use]
    pub fn with_mappings(self, yes: bool) -> Self {
        self.state.lock().maps = yes;
        self
    }

    /// Operations logged so far.
    pub fn operations(&self) -> usize {
        self.state.lock().operations.len()
    }

    /// The log so far, from its beginning.
    pub fn timeline(&self) -> Timeline {
        let state = self.state.lock();
        assert!(state.logs, "a disk without a log has no past");
        Timeline::new(&state.base, state.operations.as_slice().into())
    }

    /// What the disk holds after a crash behind the first `operations` of its log.
    pub fn crash(&self, operations: usize, decisions: &mut dyn Decisions) -> Image {
        let mut timeline = self.timeline();
        timeline.advance(operations);
        timeline.image(decisions)
    }

    /// What processes see now.
    pub fn cached(&self) -> Image {
        let state = self.state.lock();
        let content = |id: &FileId| Arc::clone(&state.files[id.0]);
        Image {
            directories: state.directories.clone(),
            files: state.entries.iter().map(|(path, id)| (path.clone(), content(id))).collect(),
        }
    }

    /// The disk as the next process finds it when this one is killed now: the memory of the system stays,
    /// what is not durable still is not, locks are gone, and nothing fails any more. What the killed process
    /// still does happens elsewhere.
    pub fn restart(&self) -> Self {
        let state = self.state.lock();
        let next = State {
            base: Arc::clone(&state.base),
            operations: state.operations.clone(),
            files: state.files.clone(),
            entries: state.entries.clone(),
            directories: state.directories.clone(),
            locks: BTreeMap::new(),
            faults: Faults::default(),
            owing: BTreeSet::new(),
            dishonest: None,
            sick: state.sick.clone(),
            room: None,
            ..*state
        };
        Self { state: Arc::new(Mutex::new(next)) }
    }

    /// Lets calls fail from now on; replaces what was asked for before.
    pub fn fail(&self, fault: Fault) {
        self.state.lock().faults = Faults { fault: Some(fault), ..Faults::default() };
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.faults.fault = None;
        state.owing.clear();
    }

    /// A range of the file at `path` is sick from now on, until any of it is written anew.
    pub fn sicken(&self, path: &str, range: Range<u64>, sickness: Sickness) {
        let mut state = self.state.lock();
        let id = state.entries.get(path).copied();
        state.sick = id.map(|id| (id, range, sickness));
    }

    /// Files can take up so many blocks of 4 KiB more from now on; what they took before is theirs, and what
    /// they give back can be taken again.
    pub fn limit(&self, blocks: u64) {
        let mut state = self.state.lock();
        let lens: Vec<u64> = state.files.iter().map(|content| content.len()).collect();
        let room = state.room.get_or_insert_with(|| {
            let mut room = Room::default();
            lens.iter().enumerate().for_each(|(id, &len)| room.has_taken(FileId(id), len));
            room
        });
        room.set_left(blocks);
    }

    /// Calls since [`fail`](Self::fail) that could have failed in its way.
    pub fn calls(&self) -> u64 {
        self.state.lock().faults.calls
    }

    /// Calls since [`fail`](Self::fail) that did.
    pub fn struck(&self) -> u64 {
        self.state.lock().faults.struck
    }

    /// Length of the log when a sync first succeeded that had not made everything durable.
    pub fn lied_at(&self) -> Option<usize> {
        self.state.lock().lied_at
    }

    /// The write behind `writes` more ones is not carried out as it should be. A killed process does not
    /// notice: the memory of the system holds the right bytes.
    pub fn deceive(&self, writes: u64, honesty: Honesty) {
        self.state.lock().dishonest = Some((writes, honesty));
    }

    /// Whether the write that [`deceive`](Self::deceive) asked for has happened.
    pub fn has_deceived(&self) -> bool {
        self.state.lock().dishonest.is_none()
    }
}

/// The directory that holds the entry `path`.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl State {
    pub(super) fn log(&mut self, operation: impl FnOnce() -> Operation) {
        if self.logs {
            self.operations.push(operation());
        }
    }

    /// Fails if it is this call's turn.
    pub(super) fn meet(&mut self, call: Call) -> io::Result<()> {
        match self.faults.meet(call) {
            None => Ok(()),
            Some(kind) => Err(kind.error()),
        }
    }

    /// Takes room for a range of a file, where that is limited.
    pub(super) fn take_room(&mut self, id: FileId, offset: u64, len: u64) -> io::Result<()> {
        self.room.as_mut().map_or(Ok(()), |room| room.take(id, offset, len))
    }

    fn check_parent(&self, path: &str) -> io::Result<()> {
        if self.directories.contains(parent(path)) { Ok(()) } else { Err(ErrorKind::NotFound.into()) }
    }

    fn create(&mut self, path: &str) -> FileId {
        let id = FileId(self.files.len());
        self.files.push(Arc::default());
        self.entries.insert(path.to_owned(), id);
        self.log(|| Operation::Create(path.to_owned(), id));
        id
    }

    pub(super) fn content(&mut self, id: FileId) -> &mut Content {
        Arc::make_mut(&mut self.files[id.0])
    }

    pub(super) fn write(&mut self, id: FileId, bytes: &[u8], offset: u64, mapped: bool) {
        if bytes.is_empty() {
            return;
        }
        let honesty = match &mut self.dishonest {
            Some((0, honesty)) => {
                let honesty = *honesty;
                self.dishonest = None;
                honesty
            }
            Some((left, _)) => {
                *left -= 1;
                Honesty::Honest
            }
            None => Honesty::Honest,
        };
        if self.sick_part(id, offset, bytes.len()).is_some() {
            self.sick = None;
        }
        self.content(id).write(bytes, offset);
        self.log(|| Operation::Write { file: id, offset, bytes: bytes.into(), mapped, honesty });
    }

    /// How a read or a write meets the range that is sick, if it does, and where in the bytes from `offset`
    /// on the middle of it stands.
    pub(super) fn sick_part(&self, id: FileId, offset: u64, len: usize) -> Option<(Sickness, Option<usize>)> {
        let (sick, range, sickness) = self.sick.as_ref()?;
        if *sick != id || offset >= range.end || offset + len as u64 <= range.start {
            return None;
        }
        let middle = range.start + (range.end - range.start) / 2;
        let place = middle.checked_sub(offset).map(|place| place as usize).filter(|place| *place < len);
        Some((*sickness, place))
    }

    pub(super) fn sync(&mut self, id: FileId) -> io::Result<()> {
        if self.owing.remove(&id) {
            self.log(|| Operation::SyncFailed(id, None));
            return Err(FaultKind::Io.error());
        }
        let Some(kind) = self.faults.meet(Call::Sync) else {
            self.log(|| Operation::Sync(id));
            return Ok(());
        };
        match kind {
            FaultKind::Sync(SyncFailure::ReportedLate, chosen) => {
                self.log(|| Operation::SyncFailed(id, chosen));
                if self.lied_at.is_none() {
                    self.lied_at = Some(self.operations.len());
                    self.owing.insert(id);
                    return Ok(());
                }
            }
            FaultKind::Sync(SyncFailure::Reverted, chosen) => {
                self.log(|| Operation::SyncFailed(id, chosen));
                assert!(self.logs, "only the log knows what is on the disk");
                let mut timeline = Timeline::new(&self.base, self.operations.as_slice().into());
                timeline.advance(self.operations.len());
                self.files[id.0] = Arc::new(timeline.without_writes(id));
            }
            FaultKind::Sync(SyncFailure::MarkedClean, chosen) => {
                self.log(|| Operation::SyncFailed(id, chosen));
            }
            // An interrupted sync has done nothing, and forgotten nothing.
            FaultKind::Interrupted => {}
            _ => self.log(|| Operation::SyncFailed(id, None)),
        }
        Err(kind.error())
    }
}

impl StorageBackend for SimulatedDisk {
    fn open(&self, path: &str, mode: FileMode) -> io::Result<Arc<dyn StorageFile>> {
        let mut state = self.state.lock();
        state.meet(if mode == FileMode::Create { Call::Create } else { Call::Open })?;
        let id = if mode == FileMode::Create {
            state.check_parent(path)?;
            if state.entries.contains_key(path) || state.directories.contains(path) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            state.create(path)
        } else {
            *state.entries.get(path).ok_or(ErrorKind::NotFound)?
        };
        Ok(Arc::new(SimulatedFile { disk: self.clone(), id, writable: mode != FileMode::Read }))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let mut state = self.state.lock();
        state.meet(Call::Open)?;
        if !state.directories.contains(directory) {
            return Err(ErrorKind::NotFound.into());
        }
        let name = |path: &str| path.rsplit_once('/').map_or(path, |(_, name)| name).to_owned();
        let here = state.entries.keys().filter(|path| parent(path) == directory);
        Ok(here.map(|path| name(path)).collect())
    }

    fn create_directory(&self, directory: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.meet(Call::TakeRoom)?;
        let ends = directory.match_indices('/').map(|(at, _)| at).chain([directory.len()]);
        for end in ends {
            let path = &directory[..end];
            if state.entries.contains_key(path) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            if state.directories.insert(path.to_owned()) {
                state.log(|| Operation::CreateDirectory(path.to_owned()));
            }
        }
        Ok(())
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.meet(Call::Sync)?;
        if !state.directories.contains(directory) {
            return Err(ErrorKind::NotFound.into());
        }
        state.log(|| Operation::SyncDirectory(directory.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.meet(Call::TakeRoom)?;
        state.check_parent(to)?;
        if state.directories.contains(to) {
            return Err(ErrorKind::IsADirectory.into());
        }
        let file = state.entries.remove(from).ok_or(ErrorKind::NotFound)?;
        state.entries.insert(to.to_owned(), file);
        state.log(|| Operation::Rename { from: from.to_owned(), to: to.to_owned(), file });
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.meet(Call::GiveBack)?;
        let file = state.entries.remove(path).ok_or(ErrorKind::NotFound)?;
        if let Some(room) = &mut state.room {
            room.give_back(file, 0, u64::MAX);
        }
        state.log(|| Operation::Remove(path.to_owned(), file));
        Ok(())
    }

    fn lock(&self, path: &str, shared: bool) -> io::Result<Box<dyn StorageLock>> {
        let mut state = self.state.lock();
        state.meet(if shared { Call::Open } else { Call::Create })?;
        state.check_parent(path)?;
        if !state.entries.contains_key(path) {
            if shared {
                return Ok(Box::new(SimulatedLock { held: None }));
            }
            state.create(path);
        }
        let holders = match (state.locks.get(path), shared) {
            (None, false) => None,
            (None, true) => Some(1),
            (Some(Some(count)), true) => Some(count + 1),
            _ => return Err(ErrorKind::WouldBlock.into()),
        };
        state.locks.insert(path.to_owned(), holders);
        Ok(Box::new(SimulatedLock { held: Some((self.clone(), path.to_owned())) }))
    }

    fn lock_existing(&self, path: &str, shared: bool) -> io::Result<Box<dyn StorageLock>> {
        if !self.state.lock().entries.contains_key(path) {
            return Err(ErrorKind::NotFound.into());
        }
        self.lock(path, shared)
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        Ok(self.state.lock().room.as_ref().map(Room::bytes_left))
    }
}

struct SimulatedLock {
    /// `None`: a shared lock where there is no lock file.
    held: Option<(SimulatedDisk, String)>,
}

impl fmt::Debug for SimulatedLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedLock").finish_non_exhaustive()
    }
}

impl StorageLock for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        let Some((disk, path)) = &self.held else { return };
        let mut state = disk.state.lock();
        match state.locks.get_mut(path) {
            Some(Some(count)) if *count > 1 => *count -= 1,
            _ => drop(state.locks.remove(path)),
        }
    }
}
