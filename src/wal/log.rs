//! The log that is written to.
//!
//! An append sums its payload, takes the tail's lock for as long as it takes to assign a number and a place,
//! copies the record there in parallel with others, and marks its number written. Numbers become written in order
//! ([`Sequencer`]) and durable in groups ([`GroupSync`]).

use crossbeam_utils::CachePadded;
use std::collections::VecDeque;

use super::DIRECTORY;
use super::group_sync::{Failed, GroupSync};
use super::record::{ALIGNMENT, RecordHeader, record_len};
use super::replay::LogEnd;
use super::segment::{self, HEADER_LEN, Segment, SegmentHeader};
use super::stock::{Refusal, Retired, Stock};
use crate::codec::checksum::crc32;
use crate::codec::ids::SequenceNumber;
use crate::codec::log_mark::LogMark;
use crate::error::{Error, Result};
use crate::storage::{FileMode, StorageBackend};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::sequencer::{Ended, Sequencer};
use crate::sync::{Arc, Mutex};

/// How a log is kept.
#[derive(Debug, Clone)]
pub(crate) struct LogOptions {
    pub(crate) database_id: [u8; 16],
    /// Length of the first segment after a start; each next one is twice as long.
    pub(crate) first_segment_bytes: u64,
    /// Where the doubling ends. Only a record that needs more gets a longer segment, of its own.
    pub(crate) max_segment_bytes: u64,
    /// Segments of the maximal length that are kept for reuse.
    pub(crate) spare_segments: usize,
    /// Whether small records that no sync follows are stored into a shared mapping of the segment.
    pub(crate) use_mapping: bool,
}

impl LogOptions {
    /// The defaults: segments of 256 KiB to 64 MiB, two spares, with mappings.
    pub(crate) fn new(database_id: [u8; 16]) -> Self {
        Self {
            database_id,
            first_segment_bytes: 256 << 10,
            max_segment_bytes: 64 << 20,
            spare_segments: 2,
            use_mapping: true,
        }
    }
}

/// What the log did since it was started, and what it holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogStats {
    /// Bytes of records appended, with their headers.
    pub bytes_appended: u64,
    /// Records appended.
    pub records: u64,
    /// Times that a segment was synced.
    pub syncs: u64,
    /// Segments that hold records, the current one included.
    pub segments: u64,
    /// Times that a used segment was taken into use again.
    pub segments_recycled: u64,
    /// Segments kept for reuse.
    pub spare_segments: u64,
    /// Length of all files of the log, in bytes.
    pub bytes_on_disk: u64,
}

pub(crate) struct Log {
    tail: CachePadded<Mutex<Tail>>,
    written: CachePadded<Sequencer>,
    group: CachePadded<GroupSync>,
    options: LogOptions,
    stock: Stock,
    /// The first failure, set once.
    failure: Mutex<Option<Error>>,
    /// Id of the tail's segment, at some moment.
    current: AtomicU64,
    /// The current segment is filled so far that the next one should be made.
    wants_next: AtomicBool,
    /// The newest place up to which everything is known to be durable.
    durable_place: Mutex<Place>,
    /// The first segment that the last mark named: nothing from it on is let go.
    marked: AtomicU64,
    syncs: AtomicU64,
}

/// Where the next record goes.
struct Tail {
    segment: Arc<Segment>,
    offset: u64,
    /// The number assigned last.
    last: u64,
    /// Numbers up to this one have a slot in `written`.
    admitted: u64,
    /// Segments before `segment` that were not synced since their last record, oldest first.
    unsynced: Vec<Arc<Segment>>,
    /// `offset` at which `wants_next` is set.
    wants_next_at: u64,
    failed: bool,
    records: u64,
    bytes: u64,
}

impl Tail {
    fn fits(&self, record_len: u64) -> bool {
        record_len <= self.segment.body.len - self.offset
    }

    fn go_to(&mut self, segment: Arc<Segment>) {
        self.wants_next_at = (segment.body.len / 4).max(HEADER_LEN + 1);
        self.offset = HEADER_LEN;
        self.segment = segment;
    }
}

#[derive(Debug, Clone, Copy)]
struct Place {
    segment: u64,
    offset: u64,
}

/// What a round of group sync has to do.
struct SyncWork {
    sequence: u64,
    unsynced: Vec<Arc<Segment>>,
    segment: Arc<Segment>,
    offset: u64,
}

impl Log {
    /// Starts a new segment after `end`, chained to it; removes orphans (segments beyond the end) once that is durable.
    ///
    /// What was replayed must be durable ([`make_durable`](super::make_durable)): the new segment's records will say so.
    pub(crate) fn start(backend: Arc<dyn StorageBackend>, options: LogOptions, end: LogEnd) -> Result<Self> {
        let directory_failed = |error| Error::io("creating the log's directory", error).in_file(DIRECTORY);
        backend.create_directory(DIRECTORY).map_err(directory_failed)?;
        backend.sync_directory("").map_err(directory_failed)?;

        let mut ids = segment_ids(&*backend)?;
        let newest_id = ids.last().copied().unwrap_or(0).max(end.newest_segment).max(end.segment);
        let orphans = ids.split_off(ids.partition_point(|&id| id <= end.segment));
        let mut retired = VecDeque::with_capacity(ids.len());
        for id in ids {
            let opened = backend.open(&segment::path(id), FileMode::Read).and_then(|file| file.len());
            let used =
                opened.map_err(|error| Error::io("opening the log", error).in_file(segment::path(id)))?;
            retired.push_back(Retired { id, used, last_sequence: end.last_sequence.0, body: None });
        }

        let stock = Stock::new(backend, &options, newest_id, retired);
        let len = segment_len(options.first_segment_bytes, 0).min(segment_len(options.max_segment_bytes, 0));
        let unlatched = |refusal| match refusal {
            Refusal::Full(error) | Refusal::Broken(error) => error,
        };
        let segment = stock.make(len, false).map_err(unlatched)?;
        let header = SegmentHeader {
            id: segment.id,
            database_id: options.database_id,
            previous: end.segment,
            previous_end: end.offset,
            last_sequence: end.last_sequence.0,
        };
        segment.write_header(&header).and_then(|()| segment.body.file.sync()).map_err(|error| {
            Error::io("starting a segment of the log", error).in_file(segment::path(segment.id))
        })?;
        segment.set_durable(HEADER_LEN);
        if !orphans.is_empty() {
            for &id in &orphans {
                let orphan = Retired { id, used: 0, last_sequence: 0, body: None };
                stock.let_go(orphan).map_err(unlatched)?;
            }
            stock.sync_directory().map_err(unlatched)?;
        }

        let last = end.last_sequence.0;
        let current = segment.id;
        let mut tail = Tail {
            segment: Arc::clone(&segment),
            offset: HEADER_LEN,
            last,
            admitted: last + Sequencer::CAPACITY as u64,
            unsynced: Vec::new(),
            wants_next_at: 0,
            failed: false,
            records: 0,
            bytes: 0,
        };
        tail.go_to(segment);
        Ok(Self {
            tail: CachePadded::new(Mutex::new(tail)),
            written: CachePadded::new(Sequencer::new(last)),
            group: CachePadded::new(GroupSync::new(last)),
            options,
            stock,
            failure: Mutex::new(None),
            current: AtomicU64::new(current),
            wants_next: AtomicBool::new(false),
            durable_place: Mutex::new(Place { segment: current, offset: HEADER_LEN }),
            marked: AtomicU64::new(u64::MAX),
            syncs: AtomicU64::new(1),
        })
    }

    /// Appends one record and returns its sequence number once it is written: it then survives a killed process, if
    /// every record before it has been written too.
    ///
    /// `sync_soon` says that a sync follows, which is cheaper after a write than after a store into a mapping.
    ///
    /// # Errors
    /// [`OutOfSpace`](crate::error::ErrorKind::OutOfSpace): there is no room for the segment that the record needs; nothing was
    /// assigned. Any other: the log has failed for good.
    pub(crate) fn append(&self, payload: &[u8], sync_soon: bool) -> Result<SequenceNumber> {
        let payload_len = payload.len() as u64;
        let payload_checksum = crc32(&[payload]);
        let (segment, offset, sequence) = self.reserve(record_len(payload_len))?;
        // Until the number is complete nobody can get past it: a panic in between must not leave others waiting.
        let pending = Pending { log: self };
        let header = RecordHeader { payload_checksum, payload_len, sequence, durable: segment.durable() };
        let header = header.encode(segment.id, offset);
        let written = segment.write_record(&header, payload, offset, !sync_soon);
        std::mem::forget(pending);
        if let Err(error) = written {
            let error =
                Error::io("writing the log", error).in_file(segment::path(segment.id)).at_offset(offset);
            return Err(self.fail(error));
        }
        self.written.complete(sequence);
        Ok(SequenceNumber(sequence))
    }

    /// Assigns the next sequence number, for a commit without a record.
    pub(crate) fn assign(&self) -> Result<SequenceNumber> {
        let mut tail = self.tail.lock();
        if tail.failed {
            drop(tail);
            return Err(self.failure());
        }
        let sequence = self.assign_next(&mut tail)?;
        drop(tail);
        self.written.complete(sequence);
        Ok(SequenceNumber(sequence))
    }

    /// Assigns a number and a place of `record_len` bytes.
    #[inline]
    fn reserve(&self, record_len: u64) -> Result<(Arc<Segment>, u64, u64)> {
        let mut tail = self.tail.lock();
        loop {
            if tail.failed {
                drop(tail);
                return Err(self.failure());
            }
            if tail.fits(record_len) {
                break;
            }
            drop(tail);
            self.rotate(record_len)?;
            tail = self.tail.lock();
        }
        let sequence = self.assign_next(&mut tail)?;
        let offset = tail.offset;
        tail.offset += record_len;
        tail.records += 1;
        tail.bytes += record_len;
        if tail.offset >= tail.wants_next_at {
            tail.wants_next_at = u64::MAX;
            self.wants_next.store(true, Ordering::Relaxed);
        }
        Ok((Arc::clone(&tail.segment), offset, sequence))
    }

    /// Assigns the next number, as soon as it has a slot. Waiting for the slot under the lock is safe: the slot's last
    /// number is completed, or the sequencer ended, by a thread that needs no lock for it.
    #[inline]
    fn assign_next(&self, tail: &mut Tail) -> Result<u64> {
        let next = tail.last + 1;
        if next > tail.admitted {
            if let Err(Ended) = self.written.admit(next) {
                return Err(self.failure());
            }
            tail.admitted = self.written.watermark() + Sequencer::CAPACITY as u64;
        }
        tail.last = next;
        Ok(next)
    }

    /// Goes on to the next segment, unless a record of `record_len` bytes fits by now.
    #[cold]
    fn rotate(&self, record_len: u64) -> Result<()> {
        let making = self.stock.making();
        let len = {
            let tail = self.tail.lock();
            if tail.failed || tail.fits(record_len) {
                return Ok(());
            }
            self.next_len(tail.segment.body.len, record_len)
        };
        let next = self.stock.take(&making, len, record_len).map_err(|refusal| self.refused(refusal))?;
        // Both locks at once, so that the old segment is at every moment found in one of the two places.
        let mut shelf = self.stock.shelf();
        let mut tail = self.tail.lock();
        let header = SegmentHeader {
            id: next.id,
            database_id: self.options.database_id,
            previous: tail.segment.id,
            previous_end: tail.offset,
            last_sequence: tail.last,
        };
        if let Err(error) = next.write_header(&header) {
            drop(tail);
            drop(shelf);
            let error = Error::io("starting a segment of the log", error).in_file(segment::path(next.id));
            return Err(self.fail(error));
        }
        let old = Arc::clone(&tail.segment);
        shelf.retired.push_back(Retired {
            id: old.id,
            used: tail.offset,
            last_sequence: tail.last,
            body: Some(Arc::clone(&old.body)),
        });
        tail.unsynced.push(old);
        self.current.store(next.id, Ordering::Release);
        self.wants_next.store(false, Ordering::Relaxed);
        tail.go_to(next);
        Ok(())
    }

    /// Length of the segment after one of `len` bytes.
    fn next_len(&self, len: u64, record_len: u64) -> u64 {
        segment_len(len.saturating_mul(2).min(self.options.max_segment_bytes), record_len)
    }

    /// Whether [`prepare`](Self::prepare) has something to do.
    #[inline]
    pub(crate) fn wants_prepare(&self) -> bool {
        self.wants_next.load(Ordering::Relaxed)
    }

    /// Makes the next segment ready if the current one is filled by a quarter, so that going on to it is only a swap. For a
    /// background thread; appends that need the next segment meanwhile wait for it.
    pub(crate) fn prepare(&self) -> Result<()> {
        let making = self.stock.making();
        let len = {
            let tail = self.tail.lock();
            if tail.failed {
                drop(tail);
                return Err(self.failure());
            }
            if tail.wants_next_at != u64::MAX {
                return Ok(());
            }
            self.wants_next.store(false, Ordering::Relaxed);
            self.next_len(tail.segment.body.len, 0)
        };
        self.stock.prepare(&making, len).map_err(|refusal| self.refused(refusal))
    }

    /// Returns when everything up to `sequence`, which was assigned before, is durable.
    pub(crate) fn sync_through(&self, sequence: SequenceNumber) -> Result<()> {
        let begin = || {
            let tail = self.tail.lock();
            let work = SyncWork {
                sequence: tail.last,
                unsynced: tail.unsynced.clone(),
                segment: Arc::clone(&tail.segment),
                offset: tail.offset,
            };
            (work.sequence, work)
        };
        let synced = self.group.sync_through(sequence.0, begin, |work| self.sync_now(work));
        synced.map_err(|Failed| self.failure())
    }

    /// Makes everything durable that was assigned so far, and returns the last number of it.
    pub(crate) fn sync(&self) -> Result<SequenceNumber> {
        let last = self.last_assigned();
        self.sync_through(last)?;
        Ok(last)
    }

    fn sync_now(&self, work: SyncWork) -> std::result::Result<(), Failed> {
        self.written.wait_for(work.sequence).map_err(|Ended| Failed)?;
        let sync = |segment: &Segment| {
            self.syncs.fetch_add(1, Ordering::Relaxed);
            segment.body.file.sync().map_err(|error| {
                self.fail(Error::io("syncing the log", error).in_file(segment::path(segment.id)));
                Failed
            })
        };
        for segment in &work.unsynced {
            sync(segment)?;
        }
        // Numbers without records need no sync of their own.
        if work.segment.durable() < work.offset {
            sync(&work.segment)?;
        }
        work.segment.set_durable(work.offset);
        if let Some(newest) = work.unsynced.last() {
            self.tail.lock().unsynced.retain(|segment| segment.id > newest.id);
        }
        *self.durable_place.lock() = Place { segment: work.segment.id, offset: work.offset };
        Ok(())
    }

    /// The number assigned last.
    pub(crate) fn last_assigned(&self) -> SequenceNumber {
        SequenceNumber(self.tail.lock().last)
    }

    /// The number up to which all is durable.
    pub(crate) fn durable(&self) -> SequenceNumber {
        SequenceNumber(self.group.durable())
    }

    /// Id of the segment into which the next record goes, or a lower bound of it.
    pub(crate) fn current_segment(&self) -> u64 {
        self.current.load(Ordering::Acquire)
    }

    /// A lower bound for the segment of any record appended after this call.
    pub(crate) fn segment_of_next(&self) -> u64 {
        self.current_segment()
    }

    /// What the superblock is to say of the log, if recovery has to begin at `first_segment`.
    ///
    /// A mark names segments only that are known to be durable, so its `first_segment` may be an older one. Segments from there on
    /// are kept whatever [`release_before`](Self::release_before) is told.
    pub(crate) fn mark(&self, first_segment: u64) -> LogMark {
        let place = *self.durable_place.lock();
        let first_segment = first_segment.min(place.segment);
        self.marked.store(first_segment, Ordering::Release);
        LogMark { first_segment, newest_segment: place.segment, durable_bytes: place.offset }
    }

    /// Recovery begins at `segment` or later from now on: those below are recycled or removed.
    pub(crate) fn release_before(&self, segment: u64) -> Result<()> {
        let limit = segment.min(self.marked.load(Ordering::Acquire)).min(self.current_segment());
        let released: Vec<Retired> = {
            let mut shelf = self.stock.shelf();
            let count = shelf.retired.partition_point(|retired| retired.id < limit);
            shelf.retired.drain(..count).collect()
        };
        let Some(newest) = released.last() else { return Ok(()) };
        // A record that is still being copied must not land in the segment's next life.
        self.written.wait_for(newest.last_sequence).map_err(|Ended| self.failure())?;
        self.tail.lock().unsynced.retain(|segment| segment.id >= limit);
        let mut removed = false;
        let mut outcome = Ok(());
        for retired in released {
            match self.stock.let_go(retired) {
                Ok(gone) => removed |= gone,
                // A file that stays although it is not needed does no harm. It is tried again at the next start.
                Err(Refusal::Full(error) | Refusal::Broken(error)) => outcome = outcome.and(Err(error)),
            }
        }
        if removed {
            self.stock.sync_directory().map_err(|refusal| self.refused(refusal))?;
        }
        outcome
    }

    /// Bytes of log in segments at or above `segment`.
    pub(crate) fn bytes_since(&self, segment: u64) -> u64 {
        let shelf = self.stock.shelf();
        let current = self.tail.lock().offset;
        let retired = shelf.retired.iter().rev().take_while(|retired| retired.id >= segment);
        current + retired.map(|retired| retired.used).sum::<u64>()
    }

    pub(crate) fn stats(&self) -> LogStats {
        let shelf = self.stock.shelf();
        let tail = self.tail.lock();
        LogStats {
            bytes_appended: tail.bytes,
            records: tail.records,
            syncs: self.syncs.load(Ordering::Relaxed),
            segments: shelf.retired.len() as u64 + 1,
            segments_recycled: shelf.recycled,
            spare_segments: shelf.spares() as u64,
            bytes_on_disk: shelf.bytes_on_disk() + tail.segment.body.len,
        }
    }

    /// The first failure.
    pub(crate) fn failed(&self) -> Option<Error> {
        self.failure.lock().clone()
    }

    /// Ends the log: nothing is assigned and nothing becomes durable from now on. Returns what every writer is told.
    #[cold]
    fn fail(&self, error: Error) -> Error {
        tracing::error!(%error, "the log has failed");
        let told = self.failure.lock().get_or_insert(error).as_first_cause();
        // The sequencer first: whoever waits for a slot holds the tail's lock.
        self.written.end();
        self.tail.lock().failed = true;
        self.group.fail();
        told
    }

    /// What every writer is told after the failure.
    #[cold]
    fn failure(&self) -> Error {
        match self.failed() {
            Some(error) => error.as_first_cause(),
            None => unreachable!("the log ended without a cause"),
        }
    }

    fn refused(&self, refusal: Refusal) -> Error {
        match refusal {
            Refusal::Full(error) => error,
            Refusal::Broken(error) => self.fail(error),
        }
    }
}

/// A number that was assigned and is not complete. Dropped only by a panic on the way.
struct Pending<'l> {
    log: &'l Log,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.log.fail(Error::new(
            crate::error::ErrorKind::WriteFailed,
            "a thread panicked while it wrote the log",
        ));
    }
}

/// Length of a segment of `wanted` bytes, or of more if the record that is to stand in it needs more.
fn segment_len(wanted: u64, record_len: u64) -> u64 {
    wanted.max(HEADER_LEN + record_len).next_multiple_of(ALIGNMENT)
}

/// The ids of the segments in the log's directory, ascending.
pub(super) fn segment_ids(backend: &dyn StorageBackend) -> Result<Vec<u64>> {
    let names = match backend.list(DIRECTORY) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        outcome => {
            outcome.map_err(|error| Error::io("listing the log's directory", error).in_file(DIRECTORY))?
        }
    };
    let mut ids: Vec<u64> = names.iter().filter_map(|name| segment::parse_name(name)).collect();
    ids.sort_unstable();
    Ok(ids)
}
