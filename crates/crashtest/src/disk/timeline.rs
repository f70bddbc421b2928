//! Goes through the log of a disk and knows at every operation what is durable and what is not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::decision::{Decisions, Everything, Fate, Grain, Unsynced, Unwritten};
use super::operation::{FileId, Honesty, Operation};
use super::{Content, Image};

/// What was on the disk when its log began.
#[derive(Debug, Clone, Default)]
pub(super) struct Base {
    pub(super) files: Vec<Arc<Content>>,
    pub(super) entries: BTreeMap<String, FileId>,
    pub(super) directories: BTreeSet<String>,
}

impl From<&Image> for Base {
    fn from(image: &Image) -> Self {
        let entries = image.files.keys().enumerate().map(|(id, path)| (path.clone(), FileId(id)));
        Self {
            files: image.files.values().cloned().collect(),
            entries: entries.collect(),
            directories: image.directories.clone(),
        }
    }
}

/// Files that are gone whose content may come to light again.
const OLD_FILES: usize = 4;

/// A disk at one moment of its log: what is durable, and what was done since.
#[derive(Debug, Clone)]
pub struct Timeline {
    operations: Arc<[Operation]>,
    at: usize,
    files: Vec<FileState>,
    entries: BTreeMap<String, FileId>,
    directories: BTreeSet<String>,
    changes: Vec<Change>,
    old: Vec<Arc<Content>>,
}

#[derive(Debug, Clone, Default)]
struct FileState {
    durable: Arc<Content>,
    pending: Vec<Pending>,
    /// Length as the process sees it.
    len: u64,
}

#[derive(Debug, Clone)]
enum Pending {
    Write { offset: u64, bytes: Arc<[u8]> },
    Length(u64),
    Hole { offset: u64, len: u64 },
}

impl Pending {
    fn describe(&self, grain: Grain) -> Unsynced {
        match self {
            Self::Write { offset, bytes } => {
                let grain = grain.bytes();
                let end = offset + bytes.len() as u64;
                Unsynced::Data { grains: (end.div_ceil(grain) - offset / grain) as usize }
            }
            Self::Length(_) => Unsynced::Length,
            Self::Hole { .. } => Unsynced::Hole,
        }
    }

    fn apply(&self, content: &mut Content, fate: Fate, grain: Grain) {
        if fate == Fate::Dropped {
            return;
        }
        match self {
            Self::Write { offset, bytes } => write(content, bytes, *offset, fate, grain),
            Self::Length(len) if *len < content.len() => content.set_len(*len),
            Self::Length(len) => content.extend(*len),
            Self::Hole { offset, len } => content.clear(*offset, *len),
        }
    }
}

/// Writes the grains that `fate` keeps.
fn write(content: &mut Content, bytes: &[u8], offset: u64, fate: Fate, grain: Grain) {
    if fate == Fate::Kept {
        return content.write_beyond(bytes, offset);
    }
    let grain = grain.bytes();
    let (first, end) = (offset / grain, offset + bytes.len() as u64);
    for index in first..end.div_ceil(grain) {
        if fate.keeps((index - first) as usize) {
            let start = (index * grain).max(offset);
            let stop = ((index + 1) * grain).min(end);
            content.write_beyond(&bytes[(start - offset) as usize..(stop - offset) as usize], start);
        }
    }
}

#[derive(Debug, Clone)]
enum Change {
    Directory(String),
    Create(String, FileId),
    Rename(String, FileId),
    Remove(String, FileId),
}

impl Change {
    /// The directory whose sync makes it durable.
    fn directory(&self) -> &str {
        let (Self::Directory(path) | Self::Create(path, _) | Self::Rename(path, _) | Self::Remove(path, _)) =
            self;
        parent(path)
    }

    fn apply(&self, entries: &mut BTreeMap<String, FileId>, directories: &mut BTreeSet<String>) {
        match self {
            Self::Directory(path) => drop(directories.insert(path.clone())),
            Self::Create(path, file) => drop(entries.insert(path.clone(), *file)),
            Self::Rename(to, file) => {
                entries.retain(|_, other| other != file);
                entries.insert(to.clone(), *file);
            }
            Self::Remove(path, file) => {
                if entries.get(path) == Some(file) {
                    entries.remove(path);
                }
            }
        }
    }
}

/// The directory that holds the entry `path`.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl FileState {
    fn new(content: Arc<Content>) -> Self {
        Self { len: content.len(), durable: content, pending: Vec::new() }
    }

    fn lengthen(&mut self, len: u64) {
        if len > self.len {
            self.len = len;
            self.pending.push(Pending::Length(len));
        }
    }

    /// All that is pending reaches the disk.
    fn sync(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let durable = Arc::make_mut(&mut self.durable);
        for pending in self.pending.drain(..) {
            pending.apply(durable, Fate::Kept, Grain::Byte);
        }
        durable.cut_beyond(durable.len());
    }

    /// Of the writes, those that `chosen` picks reach the disk and the others are forgotten. Lengths and
    /// holes stay pending.
    fn forget_writes(&mut self, chosen: Option<u64>) {
        let durable = Arc::make_mut(&mut self.durable);
        let mut index = 0;
        self.pending.retain(|pending| {
            let Pending::Write { offset, bytes } = pending else { return true };
            if chosen.is_some_and(|seed| Fate::Subset(seed).keeps(index)) {
                durable.write_beyond(bytes, *offset);
            }
            index += 1;
            false
        });
    }
}

impl Timeline {
    pub(super) fn new(base: &Base, operations: Arc<[Operation]>) -> Self {
        Self {
            operations,
            at: 0,
            files: base.files.iter().map(|content| FileState::new(Arc::clone(content))).collect(),
            entries: base.entries.clone(),
            directories: base.directories.clone(),
            changes: Vec::new(),
            old: Vec::new(),
        }
    }

    /// Operations in the log.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether the log is empty.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Operations gone through.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The log.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Goes on to the moment after `count` operations, which must not lie behind.
    pub fn advance(&mut self, count: usize) {
        assert!(self.at <= count && count <= self.operations.len(), "from {} to {count}", self.at);
        let operations = Arc::clone(&self.operations);
        for operation in &operations[self.at..count] {
            self.take(operation);
        }
        self.at = count;
    }

    fn take(&mut self, operation: &Operation) {
        match operation {
            Operation::CreateDirectory(path) => self.changes.push(Change::Directory(path.clone())),
            Operation::Create(path, file) => {
                self.files.resize_with(self.files.len().max(file.0 + 1), FileState::default);
                self.changes.push(Change::Create(path.clone(), *file));
            }
            Operation::Rename { to, file, .. } => self.changes.push(Change::Rename(to.clone(), *file)),
            Operation::Remove(path, file) => {
                if self.old.len() == OLD_FILES {
                    self.old.remove(0);
                }
                self.old.push(Arc::clone(&self.files[file.0].durable));
                self.changes.push(Change::Remove(path.clone(), *file));
            }
            Operation::SyncDirectory(directory) => {
                let (synced, rest) = std::mem::take(&mut self.changes)
                    .into_iter()
                    .partition(|change| change.directory() == directory);
                self.changes = rest;
                let synced: Vec<Change> = synced;
                for change in &synced {
                    change.apply(&mut self.entries, &mut self.directories);
                }
            }
            Operation::Write { file, offset, bytes, honesty, .. } => {
                let file = &mut self.files[file.0];
                let lands = match honesty {
                    Honesty::Honest => Some(*offset),
                    Honesty::Misdirected(offset) => Some(*offset),
                    Honesty::Lost => None,
                };
                if let Some(offset) = lands {
                    file.pending.push(Pending::Write { offset, bytes: Arc::clone(bytes) });
                }
                file.lengthen(offset + bytes.len() as u64);
            }
            Operation::SetLen(file, len) => {
                let file = &mut self.files[file.0];
                file.len = *len;
                file.pending.push(Pending::Length(*len));
            }
            Operation::Allocate(file, offset, len) => self.files[file.0].lengthen(offset + len),
            Operation::Deallocate(file, offset, len) => {
                let hole = Pending::Hole { offset: *offset, len: *len };
                self.files[file.0].pending.push(hole);
            }
            Operation::Sync(file) => self.files[file.0].sync(),
            Operation::SyncFailed(file, chosen) => self.files[file.0].forget_writes(*chosen),
        }
    }

    /// Everything that was done and not synced, in the order in which [`Decisions`] count it.
    pub fn unsynced(&self, grain: Grain) -> Vec<Unsynced> {
        let of_files = self.files.iter().flat_map(|file| &file.pending);
        let of_files = of_files.map(|pending| pending.describe(grain));
        of_files.chain(self.changes.iter().map(|_| Unsynced::Entry)).collect()
    }

    /// What the disk holds if it crashes now and `decisions` say what of the unsynced is there.
    pub fn image(&self, decisions: &mut dyn Decisions) -> Image {
        let grain = decisions.grain();
        let mut index = 0;
        let mut fate = |decisions: &mut dyn Decisions, what: Unsynced| {
            index += 1;
            decisions.fate(index - 1, what)
        };
        let mut contents: BTreeMap<FileId, Arc<Content>> = BTreeMap::new();
        for (id, file) in self.files.iter().enumerate().filter(|(_, file)| !file.pending.is_empty()) {
            let fates: Vec<Fate> =
                file.pending.iter().map(|pending| fate(decisions, pending.describe(grain))).collect();
            contents.insert(FileId(id), Arc::new(self.crashed(file, &fates, grain, decisions)));
        }
        let (mut entries, mut directories) = (self.entries.clone(), self.directories.clone());
        for change in &self.changes {
            if fate(decisions, Unsynced::Entry) != Fate::Dropped {
                change.apply(&mut entries, &mut directories);
            }
        }
        let content = |id: FileId| match contents.get(&id) {
            Some(content) => Arc::clone(content),
            None => Arc::clone(&self.files[id.0].durable),
        };
        let files = entries
            .into_iter()
            .filter(|(path, _)| directories.contains(parent(path)))
            .map(|(path, id)| (path, content(id)))
            .collect();
        Image { directories, files }
    }

    /// The file with its pending changes, as they fared.
    fn crashed(
        &self,
        file: &FileState,
        fates: &[Fate],
        grain: Grain,
        decisions: &mut dyn Decisions,
    ) -> Content {
        let mut content = (*file.durable).clone();
        let changes: Vec<(&Pending, Fate)> = file.pending.iter().zip(fates.iter().copied()).collect();
        let grown = changes.iter().filter(|(_, fate)| *fate != Fate::Dropped).fold(
            content.len(),
            |len, (pending, _)| if let Pending::Length(to) = pending { *to } else { len },
        );
        if grown > content.len() {
            self.fill_unwritten(&mut content, grown, decisions.unwritten());
        }
        let writes = changes.iter().filter(|(pending, _)| matches!(pending, Pending::Write { .. })).count();
        match decisions.order(writes) {
            None => changes.iter().for_each(|(pending, fate)| pending.apply(&mut content, *fate, grain)),
            Some(order) => {
                // Lengths keep their order; writes change places with each other.
                let writes: Vec<_> =
                    changes.iter().filter(|(pending, _)| matches!(pending, Pending::Write { .. })).collect();
                let mut order = order.into_iter();
                for change in &changes {
                    let (pending, fate) = match change.0 {
                        Pending::Write { .. } => writes[order.next().expect("a place for each write")],
                        _ => change,
                    };
                    pending.apply(&mut content, *fate, grain);
                }
            }
        }
        content.cut_beyond(content.len());
        content
    }

    fn fill_unwritten(&self, content: &mut Content, end: u64, unwritten: Unwritten) {
        let start = content.len();
        let mut bytes = vec![0; (end - start) as usize];
        match unwritten {
            Unwritten::Zeros => return,
            Unwritten::Noise(seed) => {
                use rand::{RngCore, SeedableRng};
                rand_chacha::ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
            }
            Unwritten::Old(number) => {
                let Some(old) = self.old.len().checked_sub(1).map(|last| &self.old[number % (last + 1)])
                else {
                    return;
                };
                old.read(&mut bytes, start);
            }
        }
        content.write_beyond(&bytes, start);
    }

    /// Whether the write that is operation `index` went to a file in `directory`, by the names that files had
    /// when they were made.
    pub fn is_in_directory(&self, index: usize, directory: &str) -> bool {
        let Some(Operation::Write { file, .. }) = self.operations.get(index) else { return false };
        let made = self.operations.iter().filter_map(|operation| match operation {
            Operation::Create(path, made) => Some((path, made)),
            _ => None,
        });
        let mut names = self.entries.iter().chain(made);
        names.any(|(path, named)| named == file && parent(path) == directory)
    }

    /// What a process sees now, all of it from the memory of the system.
    pub fn cached(&self) -> Image {
        self.image(&mut Everything)
    }

    /// The durable content of `file`, with what of lengths and holes is pending.
    pub(super) fn without_writes(&self, file: FileId) -> Content {
        let file = &self.files[file.0];
        let mut content = (*file.durable).clone();
        for pending in file.pending.iter().filter(|pending| !matches!(pending, Pending::Write { .. })) {
            pending.apply(&mut content, Fate::Kept, Grain::Byte);
        }
        content.cut_beyond(content.len());
        content
    }
}
