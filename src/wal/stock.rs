//! The stock of segment files: makes them ahead of need, keeps those that recovery may still read, and
//! recycles them.
//!
//! A segment that was made is a file under its final name whose directory entry is durable, and that holds
//! nothing valid under its id: zeros, or what it held as an older segment, all of it bound to the older id.
//! (An id whose entry could still be lost must not be written to: after the loss it would be given out again,
//! and what was written under it first could pass for what is written under it later.) Spares keep the name
//! under which they last served: recovery begins beyond them, and reusing one is a single rename.

use std::collections::VecDeque;
use std::io;

use super::end::END_LEN;
use super::options::LogOptions;
use super::reserve::{Kept, Reserve};
use super::segment::{DIRECTORY, HEADER_LEN, Segment, SegmentFile, path, segment_len};
use super::weight::Weight;
use crate::error::{Error, ErrorKind};
use crate::storage::{FileMode, StorageBackend, StorageFile};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard};

/// How many times longer than the segment before it the next one is, up to the maximum. Each going on costs
/// syncs of a directory, so the start of a busy database should see few of them. On a disk that has no room
/// for it, it is shorter by as much.
pub(super) const GROWTH: u64 = 8;

/// Why no segment could be made or let go.
pub(super) enum Refusal {
    /// There is no room, no descriptor or no memory. Nothing was changed.
    Refused(Error),
    /// The disk failed; what it holds is not known any more.
    Broken(Error),
}

impl Refusal {
    fn of(error: Error) -> Self {
        if error.is_refusal() { Self::Refused(error) } else { Self::Broken(error) }
    }
}

/// What came of making a segment ahead of need.
pub(super) enum Ahead {
    IsThere,
    /// It is there, filled with zeros, so that the caller can sync it: otherwise the first sync of a record
    /// in it has to write them all.
    Filled(Arc<Segment>),
    /// The log's files take as much as they may: once some were let go of.
    Later,
}

/// Names the failed operation.
fn refusal(operation: &str, id: u64) -> impl Fn(io::Error) -> Refusal {
    move |error| Refusal::of(Error::io(operation, error).in_file(path(id)))
}

/// Where a segment may come from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The disk, and what is kept for reuse. The reserve only if it is not room that is lacking: for want of
    /// a descriptor, what is open already serves.
    Disk,
    /// On a full disk from the reserve: for deletions, and for whatever makes room.
    Reserve,
}

/// A segment before the current one that recovery may still need.
pub(super) struct Retired {
    pub(super) id: u64,
    /// Bytes in use; of a segment that an earlier process wrote and replay did not read, the length of the
    /// file.
    pub(super) used: u64,
    /// Length of the file.
    pub(super) len: u64,
    /// What replaying it takes.
    pub(super) weight: Weight,
    /// Bytes by which the file is longer than that: what counts against the log's limit besides, so that this
    /// bounds the files as well. 0 if an earlier process wrote it.
    pub(super) slack: u64,
    /// Highest number in it or before it.
    pub(super) last_sequence: u64,
    /// `None` if an earlier process wrote it: whether all of its bytes are really on disk is not known then.
    pub(super) body: Option<Arc<SegmentFile>>,
}

impl Retired {
    /// A file that holds no record that anybody needs.
    pub(super) fn unused(id: u64, len: u64, body: Option<Arc<SegmentFile>>) -> Self {
        Self { id, used: 0, len, weight: 0, slack: 0, last_sequence: 0, body }
    }

    /// What it counts against the log's limit.
    pub(super) fn charge(&self) -> Weight {
        self.weight + self.slack
    }
}

/// Removed files: the disk gets their room back when they are dropped, which may take a tenth of a second
/// each, and until then they take it though no name shows them.
#[derive(Default)]
struct Removed {
    files: Vec<Arc<SegmentFile>>,
    /// Of these, and of those that are being dropped.
    bytes: u64,
}

/// What there is. Lock order: `Stock::making`, then this, then the log's tail.
pub(super) struct Shelf {
    pub(super) retired: VecDeque<Retired>,
    /// Length of the current segment's file.
    pub(super) current_len: u64,
    removed: Removed,
    /// For each copy under way the first segment that it needs: see `held.rs`.
    pub(super) holds: Vec<u64>,
    /// Segments that were let go of and that a copy needs.
    pub(super) held: Vec<Retired>,
    prepared: Option<Arc<Segment>>,
    spares: Vec<Kept>,
    reserve: Reserve,
    /// The highest id ever given out.
    newest_id: u64,
    pub(super) recycled: u64,
}

impl Shelf {
    pub(super) fn spares(&self) -> usize {
        self.spares.len()
    }

    /// Bytes of all files, those included that are removed and not given back to the disk yet.
    pub(super) fn bytes_on_disk(&self) -> u64 {
        self.bytes_for_records() + self.reserve.bytes_in_all() + self.held_bytes()
    }

    /// Bytes of files that stay for copies alone.
    pub(super) fn held_bytes(&self) -> u64 {
        self.held.iter().map(|held| held.len).sum()
    }

    /// The same without files that are kept for a full disk, and those that copies keep.
    fn bytes_for_records(&self) -> u64 {
        let retired = self.retired.iter().map(|retired| retired.len);
        retired.sum::<u64>() + self.current_len + self.reserve_bytes() + self.removed.bytes
    }

    /// The same without removed files and what is kept for reuse.
    fn bytes_in_use(&self) -> u64 {
        self.bytes_for_records() - self.removed.bytes - self.reserve_bytes()
    }

    /// Bytes of removed files whose room the disk does not have back.
    pub(super) fn removed_bytes(&self) -> u64 {
        self.removed.bytes
    }

    /// Bytes of files that hold no record that recovery needs, but for those that are kept for a full disk.
    pub(super) fn reserve_bytes(&self) -> u64 {
        let spares = self.spares.iter().map(|spare| spare.body.len);
        spares.chain(self.prepared.iter().map(|segment| segment.body.len)).sum()
    }

    /// Bytes of the smallest spare that holds `len` bytes.
    fn spare_for(&self, len: u64) -> Option<u64> {
        self.spares.iter().map(|spare| spare.body.len).filter(|&spare| spare >= len).min()
    }

    /// The smallest spare that holds `len` bytes, and no more than `most`.
    fn take_spare(&mut self, len: u64, most: u64) -> Option<Kept> {
        let wanted = self.spare_for(len).filter(|&spare| spare <= most)?;
        let index = self.spares.iter().position(|spare| spare.body.len == wanted)?;
        Some(self.spares.swap_remove(index))
    }
}

/// How many bytes a segment is to have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Length {
    pub(super) wanted: u64,
    /// If there is no room for as many.
    pub(super) least: u64,
    /// Bytes that a file which was kept for reuse may have at most to serve.
    pub(super) most: u64,
}

impl Length {
    pub(super) fn of(len: u64) -> Self {
        Self { wanted: len, least: len, most: len }
    }
}

pub(super) struct Stock {
    backend: Arc<dyn StorageBackend>,
    max_segment_bytes: u64,
    max_spares: usize,
    limit_bytes: u64,
    use_mapping: bool,
    /// Whether short commits wait for syncs: then new segments are filled with zeros, so that a sync writes
    /// data and no metadata.
    fills: AtomicBool,
    making: Mutex<()>,
    shelf: Mutex<Shelf>,
}

impl Stock {
    /// A stock whose next segment gets an id above `newest_id`.
    pub(super) fn new(
        backend: Arc<dyn StorageBackend>,
        options: &LogOptions,
        newest_id: u64,
        retired: VecDeque<Retired>,
    ) -> Self {
        let least = segment_len(options.first_segment_bytes.min(options.max_segment_bytes), 0);
        let (files, bytes) = (options.reserve_files, options.reserve_file_bytes);
        let reserve = Reserve::find(&*backend, files, bytes, least);
        Self {
            backend,
            max_segment_bytes: options.max_segment_bytes,
            max_spares: options.spare_segments,
            limit_bytes: options.limit_bytes,
            use_mapping: options.use_mapping,
            fills: AtomicBool::new(false),
            making: Mutex::new(()),
            shelf: Mutex::new(Shelf {
                retired,
                current_len: 0,
                removed: Removed::default(),
                holds: Vec::new(),
                held: Vec::new(),
                prepared: None,
                spares: Vec::new(),
                reserve,
                newest_id,
                recycled: 0,
            }),
        }
    }

    /// A short commit waits for a sync: from now on new segments are filled with zeros.
    #[inline]
    pub(super) fn expect_short_syncs(&self) {
        if !self.fills.load(Ordering::Relaxed) {
            self.fills.store(true, Ordering::Relaxed);
        }
    }

    /// Held while segments are made and taken into use, so that ids enter the chain in ascending order.
    pub(super) fn making(&self) -> MutexGuard<'_, ()> {
        self.making.lock()
    }

    /// What there is at this moment; to be held for short.
    pub(super) fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock()
    }

    /// Whether there is a segment that was made ahead and holds a record of `record_len` bytes.
    pub(super) fn has_prepared(&self, record_len: u64) -> bool {
        let shelf = self.shelf();
        shelf.prepared.as_ref().is_some_and(|segment| HEADER_LEN + record_len + END_LEN <= segment.body.len)
    }

    /// Makes a segment ahead of need, unless there is one, and memory ready for its first `ready` bytes.
    pub(super) fn prepare(
        &self,
        _making: &MutexGuard<'_, ()>,
        len: Length,
        ready: u64,
    ) -> Result<Ahead, Refusal> {
        let has_spare = {
            let shelf = self.shelf();
            if shelf.prepared.is_some() {
                return Ok(Ahead::IsThere);
            }
            let has_spare = shelf.spare_for(len.wanted).is_some_and(|spare| spare <= len.most);
            if !has_spare && shelf.bytes_in_use().saturating_add(len.wanted) > self.most_bytes() {
                // To remove what is kept for reuse would be in vain.
                return Ok(Ahead::Later);
            }
            has_spare
        };
        if !has_spare && !self.make_way_for(len.wanted) {
            return Ok(Ahead::Later);
        }
        let recycled = self.shelf().recycled;
        let filled = self.fills.load(Ordering::Relaxed);
        let segment = self.make_down_to(len)?;
        segment.make_ready(0, ready);
        let mut shelf = self.shelf();
        shelf.prepared = Some(Arc::clone(&segment));
        Ok(if filled && shelf.recycled == recycled { Ahead::Filled(segment) } else { Ahead::IsThere })
    }

    /// A segment that holds a record of `record_len` bytes: the prepared one if it does, else a new one.
    pub(super) fn take(
        &self,
        _making: &MutexGuard<'_, ()>,
        len: Length,
        record_len: u64,
        source: Source,
    ) -> Result<Arc<Segment>, Refusal> {
        let prepared = self.shelf().prepared.take();
        if let Some(segment) = &prepared
            && HEADER_LEN + record_len + END_LEN <= segment.body.len
        {
            return Ok(Arc::clone(segment));
        }
        let made = self.make(len, source);
        let Ok(segment) = &made else {
            self.shelf().prepared = prepared;
            return made;
        };
        if let Some(passed_over) = prepared {
            // Its id is below the one that enters the chain now, so the file can serve only under another. If
            // it cannot be removed, the next start does it.
            let body = Arc::clone(&passed_over.body);
            let _ = self.let_go(Retired::unused(passed_over.id, body.len, Some(body)));
            self.make_way_for(segment.body.len);
        }
        made
    }

    /// Makes a segment, of as many bytes as there is room for; at last of what the reserve has, if it may be.
    pub(super) fn make(&self, len: Length, source: Source) -> Result<Arc<Segment>, Refusal> {
        let refused = match self.make_down_to(len) {
            Err(Refusal::Refused(error)) => error,
            made => return made,
        };
        let may_serve = source == Source::Reserve || refused.kind() == ErrorKind::OutOfResources;
        let mut shelf = self.shelf();
        let kept = if may_serve { shelf.reserve.take(len.least) } else { None };
        let Some(kept) = kept else { return Err(Refusal::Refused(refused)) };
        shelf.newest_id += 1;
        let id = shelf.newest_id;
        drop(shelf);
        self.reuse(kept, id, |shelf, kept| shelf.reserve.add(kept))
    }

    /// Makes a segment, of as many bytes as there is room for.
    fn make_down_to(&self, len: Length) -> Result<Arc<Segment>, Refusal> {
        let Length { mut wanted, least, most } = len;
        loop {
            match self.make_one(wanted, most) {
                Err(Refusal::Refused(error)) if wanted > least => {
                    // Where no descriptor is to be had, only what is there already helps.
                    let is_room = error.kind() == ErrorKind::OutOfSpace;
                    wanted = if is_room { (wanted / GROWTH).max(least) } else { least };
                }
                made => return made,
            }
        }
    }

    /// Makes a segment of `len` bytes, or of a file of up to `most` that is kept for reuse.
    fn make_one(&self, len: u64, most: u64) -> Result<Arc<Segment>, Refusal> {
        let (id, spare) = {
            let mut shelf = self.shelf();
            shelf.newest_id += 1;
            (shelf.newest_id, shelf.take_spare(len, most))
        };
        if let Some(spare) = spare {
            return self.reuse(spare, id, |shelf, spare| shelf.spares.push(spare));
        }
        self.make_way_for(len);
        let body = Arc::new(match self.create(id, len) {
            // Removed files may still take the room, and those that are too long. Under another id: what was
            // begun may be there still.
            Err(Refusal::Refused(_)) if self.free_all() => return self.make_one(len, most),
            created => created?,
        });
        self.enter(id, body, |shelf, body| shelf.spares.push(body))
    }

    /// Makes a file that was kept the segment `id`. If that is refused it is put `back`.
    fn reuse(
        &self,
        kept: Kept,
        id: u64,
        back: impl FnOnce(&mut Shelf, Kept),
    ) -> Result<Arc<Segment>, Refusal> {
        if let Err(error) = self.backend.rename(&kept.path, &path(id)) {
            back(&mut self.shelf(), kept);
            return Err(refusal("recycling a segment of the log", id)(error));
        }
        self.shelf().recycled += 1;
        self.enter(id, kept.body, back)
    }

    /// Makes the entry of the segment `id` durable: only then it may be written to. If that is refused it is
    /// put `back`.
    fn enter(
        &self,
        id: u64,
        body: Arc<SegmentFile>,
        back: impl FnOnce(&mut Shelf, Kept),
    ) -> Result<Arc<Segment>, Refusal> {
        if let Err(refusal) = self.sync_directory() {
            back(&mut self.shelf(), Kept { path: path(id), body });
            return Err(refusal);
        }
        Ok(Arc::new(Segment::new(id, body)))
    }

    /// Whether no file of the reserve is missing.
    pub(super) fn has_whole_reserve(&self) -> bool {
        !self.shelf().reserve.is_short()
    }

    /// Makes what is missing of the reserve, as far as there is room. Says whether it is whole.
    pub(super) fn fill_reserve(&self, _making: &MutexGuard<'_, ()>) -> Result<bool, Refusal> {
        let mut made = false;
        loop {
            let shelf = self.shelf();
            if !shelf.reserve.is_short() {
                break;
            }
            let (path, len) = (shelf.reserve.free_path(), shelf.reserve.bytes_of_each());
            drop(shelf);
            match self.create_kept(&path, len) {
                Ok(file) => {
                    let body = Arc::new(SegmentFile::new(file, None, len));
                    let mut shelf = self.shelf();
                    shelf.reserve.is_refused = false;
                    shelf.reserve.add(Kept { path, body });
                    made = true;
                }
                Err(error) => {
                    tracing::debug!(%error, "the log's reserve is not whole");
                    self.shelf().reserve.is_refused = true;
                    break;
                }
            }
        }
        if made && let Err(Refusal::Broken(error)) = self.sync_directory() {
            return Err(Refusal::Broken(error));
        }
        Ok(self.has_whole_reserve())
    }

    fn create_kept(&self, path: &str, len: u64) -> io::Result<Arc<dyn StorageFile>> {
        let file = match self.backend.open(path, FileMode::Create) {
            // What a process left that was killed at it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.backend.remove(path)?;
                self.backend.open(path, FileMode::Create)?
            }
            created => created?,
        };
        match file.allocate(0, len) {
            Ok(()) => Ok(file),
            Err(error) => {
                drop(file);
                let _ = self.backend.remove(path);
                Err(error)
            }
        }
    }

    fn create(&self, id: u64, len: u64) -> Result<SegmentFile, Refusal> {
        let file = self
            .backend
            .open(&path(id), FileMode::Create)
            .map_err(refusal("creating a segment of the log", id))?;
        // A segment beyond the largest regular size is made for one record that fills it.
        let regular = len <= self.max_segment_bytes;
        if let Err(error) = make_room(&*file, len, regular && self.fills.load(Ordering::Relaxed)) {
            drop(file);
            // It holds nothing under its id: if it cannot be removed now, it is when the log next starts.
            let _ = self.backend.remove(&path(id));
            return Err(refusal("making room for a segment of the log", id)(error));
        }
        // Without a mapping the log is slower but no less right, so a system that refuses one is not asked
        // why.
        let mapping = if self.use_mapping && regular { file.map(len).ok().flatten() } else { None };
        Ok(SegmentFile::new(file, mapping, len))
    }

    /// Removes what is kept for later: spares, and the segment that was made ahead. Says whether there was
    /// anything.
    pub(super) fn clear(&self, _making: &MutexGuard<'_, ()>) -> Result<bool, Refusal> {
        let mut shelf = self.shelf();
        let ahead = shelf.prepared.take();
        let ahead = ahead.map(|segment| Kept { path: path(segment.id), body: Arc::clone(&segment.body) });
        let kept: Vec<_> = shelf.spares.drain(..).chain(ahead).collect();
        drop(shelf);
        let any = !kept.is_empty();
        for Kept { path, body } in kept {
            self.remove(&path, Some(body))?;
        }
        Ok(any)
    }

    /// Keeps the file for reuse or for the reserve if that is allowed, else removes it. Says whether the
    /// directory was changed.
    pub(super) fn let_go(&self, retired: Retired) -> Result<bool, Refusal> {
        {
            let mut shelf = self.shelf();
            if shelf.holds.iter().any(|&first| first <= retired.id) {
                shelf.held.push(retired);
                return Ok(false);
            }
        }
        if let Some(body) = &retired.body {
            let mut shelf = self.shelf();
            if shelf.reserve.lacks(body.len) {
                let to = shelf.reserve.free_path();
                // One that could not be renamed is removed.
                if self.backend.rename(&path(retired.id), &to).is_ok() {
                    shelf.reserve.add(Kept { path: to, body: Arc::clone(body) });
                    return Ok(true);
                }
            }
            if body.len == self.max_segment_bytes && shelf.spares.len() < self.max_spares {
                shelf.spares.push(Kept { path: path(retired.id), body: Arc::clone(body) });
                return Ok(false);
            }
        }
        self.remove(&path(retired.id), retired.body).map(|()| true)
    }

    /// Removes what no copy needs any more. It is not reused: there may be much of it. To be called while the
    /// files are the log's.
    pub(super) fn remove_held(&self, held: Retired) -> crate::error::Result<()> {
        self.remove(&path(held.id), held.body).map_err(|refusal| match refusal {
            Refusal::Refused(error) | Refusal::Broken(error) => error,
        })
    }

    /// Removes the name of a file. The room goes back with the `body`, see [`free_one`](Self::free_one).
    fn remove(&self, path: &str, body: Option<Arc<SegmentFile>>) -> Result<(), Refusal> {
        match self.backend.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let error = Error::io("removing a segment of the log", error);
                return Err(Refusal::of(error.in_file(path)));
            }
            _ => {}
        }
        if let Some(body) = body {
            let mut shelf = self.shelf();
            shelf.removed.bytes += body.len;
            shelf.removed.files.push(body);
        }
        Ok(())
    }

    /// Gives the room of a removed file back to the disk. Says whether there was any.
    pub(super) fn free_one(&self) -> bool {
        let removed = self.shelf().removed.files.pop();
        let Some(body) = removed else { return false };
        let len = body.len;
        drop(body);
        self.shelf().removed.bytes -= len;
        true
    }

    /// Gives the room of everything that is kept for reuse back to the disk, and that of removed files. Says
    /// whether there was any.
    pub(super) fn free_all(&self) -> bool {
        let mut any = false;
        while self.remove_spare() || self.free_one() {
            any = true;
        }
        any
    }

    /// Bytes of the segment that is made where so many are wanted: of a file that is kept for reuse, if there
    /// is any.
    pub(super) fn len_of_next(&self, wanted: u64) -> u64 {
        self.shelf().spare_for(wanted).unwrap_or(wanted)
    }

    /// Gives the room of removed files back to the disk, but for that of one segment, which may wait until
    /// nobody writes. To be called without any lock that writers or readers take.
    pub(super) fn free_surplus(&self) {
        while self.shelf().removed_bytes() > self.max_segment_bytes {
            if !self.free_one() {
                break;
            }
        }
    }

    /// What the log's files come to at most, beside what is kept for a full disk.
    fn most_bytes(&self) -> u64 {
        self.limit_bytes.saturating_add(self.max_segment_bytes)
    }

    /// Sees to it that with `len` bytes more the log's files come to no more than its limit and one segment:
    /// removed ones give their room back, and what is kept for reuse is removed. Says whether that is enough.
    fn make_way_for(&self, len: u64) -> bool {
        while self.shelf().bytes_for_records().saturating_add(len) > self.most_bytes() {
            if !self.free_one() && !self.remove_spare() {
                return false;
            }
        }
        true
    }

    /// Removes a file that is kept for reuse. Says whether there was any.
    fn remove_spare(&self) -> bool {
        let spare = self.shelf().spares.pop();
        let Some(Kept { path, body }) = spare else { return false };
        // If it cannot be removed, the next start does it.
        let _ = self.remove(&path, Some(body));
        true
    }

    pub(super) fn sync_directory(&self) -> Result<(), Refusal> {
        let synced = self.backend.sync_directory(DIRECTORY);
        synced.map_err(|error| {
            Refusal::of(Error::of_directory("syncing the log's directory", error).in_file(DIRECTORY))
        })
    }
}

/// Reserves `len` bytes of a new file, and writes zeros into them if they are to be `filled`.
fn make_room(file: &dyn StorageFile, len: u64, filled: bool) -> io::Result<()> {
    const CHUNK: u64 = 1 << 20;

    file.allocate(0, len)?;
    if filled {
        let zeros = vec![0; len.min(CHUNK) as usize];
        let mut offset = 0;
        while offset < len {
            let part = &zeros[..(len - offset).min(CHUNK) as usize];
            file.write_at(part, offset)?;
            offset += part.len() as u64;
        }
    }
    Ok(())
}
