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
use super::segment::{DIRECTORY, HEADER_LEN, Segment, SegmentFile, path};
use super::weight::Weight;
use crate::error::{Error, ErrorKind};
use crate::storage::{FileMode, StorageBackend, StorageFile};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard};

/// Removed files whose room may wait to be given back.
const MOST_REMOVED: usize = 16;

/// Why no segment could be made or let go.
pub(super) enum Refusal {
    /// There is no room. Nothing was changed.
    Full(Error),
    /// The disk failed; what it holds is not known any more.
    Broken(Error),
}

/// Names the failed operation.
fn refusal(operation: &str, id: u64) -> impl Fn(io::Error) -> Refusal {
    move |error| {
        let error = Error::io(operation, error).in_file(path(id));
        if error.kind() == ErrorKind::OutOfSpace { Refusal::Full(error) } else { Refusal::Broken(error) }
    }
}

/// A segment before the current one that recovery may still need.
pub(super) struct Retired {
    pub(super) id: u64,
    /// Bytes in use; of a segment that an earlier process wrote and replay did not read, the length of the
    /// file.
    pub(super) used: u64,
    /// What replaying it takes.
    pub(super) weight: Weight,
    /// Highest number in it or before it.
    pub(super) last_sequence: u64,
    /// `None` if an earlier process wrote it: whether all of its bytes are really on disk is not known then.
    pub(super) body: Option<Arc<SegmentFile>>,
}

struct Spare {
    /// Under which the file stands in the directory.
    id: u64,
    body: Arc<SegmentFile>,
}

/// What there is. Lock order: `Stock::making`, then this, then the log's tail.
pub(super) struct Shelf {
    pub(super) retired: VecDeque<Retired>,
    prepared: Option<Arc<Segment>>,
    spares: Vec<Spare>,
    /// The highest id ever given out.
    newest_id: u64,
    pub(super) recycled: u64,
}

impl Shelf {
    pub(super) fn spares(&self) -> usize {
        self.spares.len()
    }

    /// Bytes of files beside the current segment.
    pub(super) fn bytes_on_disk(&self) -> u64 {
        let retired =
            self.retired.iter().map(|retired| retired.body.as_ref().map_or(retired.used, |body| body.len));
        retired.sum::<u64>() + self.reserve_bytes()
    }

    /// Bytes of files that hold no record that recovery needs.
    pub(super) fn reserve_bytes(&self) -> u64 {
        let spares = self.spares.iter().map(|spare| spare.body.len);
        spares.chain(self.prepared.iter().map(|segment| segment.body.len)).sum()
    }

    /// The smallest spare that holds `len` bytes.
    fn take_spare(&mut self, len: u64) -> Option<Spare> {
        let fitting = self.spares.iter().enumerate().filter(|(_, spare)| spare.body.len >= len);
        let (index, _) = fitting.min_by_key(|(_, spare)| spare.body.len)?;
        Some(self.spares.swap_remove(index))
    }
}

pub(super) struct Stock {
    backend: Arc<dyn StorageBackend>,
    max_segment_bytes: u64,
    max_spares: usize,
    use_mapping: bool,
    /// Whether short commits wait for syncs: then new segments are filled with zeros, so that a sync writes
    /// data and no metadata.
    fills: AtomicBool,
    making: Mutex<()>,
    shelf: Mutex<Shelf>,
    /// Removed files: the disk gets their room back when they are dropped, which may take long.
    removed: Mutex<Vec<Arc<SegmentFile>>>,
}

impl Stock {
    /// A stock whose next segment gets an id above `newest_id`.
    pub(super) fn new(
        backend: Arc<dyn StorageBackend>,
        options: &LogOptions,
        newest_id: u64,
        retired: VecDeque<Retired>,
    ) -> Self {
        Self {
            backend,
            max_segment_bytes: options.max_segment_bytes,
            max_spares: options.spare_segments,
            use_mapping: options.use_mapping,
            fills: AtomicBool::new(false),
            making: Mutex::new(()),
            shelf: Mutex::new(Shelf { retired, prepared: None, spares: Vec::new(), newest_id, recycled: 0 }),
            removed: Mutex::default(),
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

    /// Makes a segment of `len` bytes ahead of need, unless there is one, and memory ready for its first
    /// `ready` bytes. Returns it if it was filled with zeros, so that the caller can sync it: otherwise the
    /// first sync of a record in it has to write them all.
    pub(super) fn prepare(
        &self,
        _making: &MutexGuard<'_, ()>,
        len: u64,
        ready: u64,
    ) -> Result<Option<Arc<Segment>>, Refusal> {
        if self.shelf().prepared.is_some() {
            return Ok(None);
        }
        let recycled = self.shelf().recycled;
        let filled = self.fills.load(Ordering::Relaxed);
        let segment = self.make(len)?;
        segment.make_ready(0, ready);
        let mut shelf = self.shelf();
        shelf.prepared = Some(Arc::clone(&segment));
        Ok((filled && shelf.recycled == recycled).then_some(segment))
    }

    /// A segment that holds a record of `record_len` bytes: the prepared one if it does, else a new one of
    /// at least `len` bytes.
    pub(super) fn take(
        &self,
        _making: &MutexGuard<'_, ()>,
        len: u64,
        record_len: u64,
    ) -> Result<Arc<Segment>, Refusal> {
        let prepared = self.shelf().prepared.take();
        if let Some(segment) = &prepared
            && HEADER_LEN + record_len + END_LEN <= segment.body.len
        {
            return Ok(Arc::clone(segment));
        }
        let made = self.make(len);
        if made.is_err() {
            self.shelf().prepared = prepared;
        } else if let Some(passed_over) = prepared {
            // Its id is below the one that enters the chain now, so the file can serve only under another. If
            // it cannot be removed, the next start does it.
            let body = Some(Arc::clone(&passed_over.body));
            let _ = self.let_go(Retired { id: passed_over.id, used: 0, weight: 0, last_sequence: 0, body });
        }
        made
    }

    /// Makes a segment of `len` bytes or more.
    pub(super) fn make(&self, len: u64) -> Result<Arc<Segment>, Refusal> {
        let (id, spare) = {
            let mut shelf = self.shelf();
            shelf.newest_id += 1;
            (shelf.newest_id, shelf.take_spare(len))
        };
        let body = match spare {
            Some(spare) => {
                if let Err(error) = self.backend.rename(&path(spare.id), &path(id)) {
                    self.shelf().spares.push(spare);
                    return Err(refusal("recycling a segment of the log", id)(error));
                }
                self.shelf().recycled += 1;
                spare.body
            }
            None => Arc::new(match self.create(id, len) {
                // Removed files may still take the room.
                Err(Refusal::Full(_)) if self.free_one() => {
                    while self.free_one() {}
                    self.create(id, len)?
                }
                created => created?,
            }),
        };
        self.sync_directory()?;
        Ok(Arc::new(Segment::new(id, body)))
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
        let ahead = shelf.prepared.take().map(|segment| (segment.id, Arc::clone(&segment.body)));
        let kept: Vec<_> = shelf.spares.drain(..).map(|spare| (spare.id, spare.body)).chain(ahead).collect();
        drop(shelf);
        let any = !kept.is_empty();
        for (id, body) in kept {
            self.remove(id, Some(body))?;
        }
        Ok(any)
    }

    /// Keeps the file for reuse if that is allowed, else removes it. Says whether it was removed.
    pub(super) fn let_go(&self, retired: Retired) -> Result<bool, Refusal> {
        if let Some(body) = &retired.body
            && body.len == self.max_segment_bytes
        {
            let mut shelf = self.shelf();
            if shelf.spares.len() < self.max_spares {
                shelf.spares.push(Spare { id: retired.id, body: Arc::clone(body) });
                return Ok(false);
            }
        }
        self.remove(retired.id, retired.body).map(|()| true)
    }

    /// Removes the name of a file. The room goes back with the `body`, see [`free_one`](Self::free_one);
    /// here, if many wait for that.
    fn remove(&self, id: u64, body: Option<Arc<SegmentFile>>) -> Result<(), Refusal> {
        match self.backend.remove(&path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(refusal("removing a segment of the log", id)(error));
            }
            _ => self.removed.lock().extend(body),
        }
        if self.removed.lock().len() > MOST_REMOVED {
            self.free_one();
        }
        Ok(())
    }

    /// Gives the room of a removed file back to the disk. Says whether there was any.
    pub(super) fn free_one(&self) -> bool {
        let body = self.removed.lock().pop();
        body.is_some()
    }

    pub(super) fn sync_directory(&self) -> Result<(), Refusal> {
        let synced = self.backend.sync_directory(DIRECTORY);
        synced.map_err(|error| {
            Refusal::Broken(Error::io("syncing the log's directory", error).in_file(DIRECTORY))
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
