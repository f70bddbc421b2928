//! The log that is written to.
//!
//! An append sums its payload, takes the tail's lock for as long as it takes to assign a number and a place,
//! copies the record there in parallel with others, and marks its number written. Numbers become written in
//! order ([`Sequencer`]) and durable in groups ([`GroupSync`]).

use std::collections::VecDeque;

use crossbeam_utils::CachePadded;

use super::group_sync::{Failed, GroupSync};
use super::options::LogOptions;
use super::record::RecordHeader;
use super::segment::{self, HEADER_LEN, MAPPED_RECORD, Segment};
use super::stock::{Refusal, Stock};
use super::tail::{Behind, Needs, Tail};
use super::weight::Weight;
use crate::codec::checksum::crc32;
use crate::codec::ids::SequenceNumber;
use crate::codec::log_mark::LogMark;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::sequencer::{Ended, Sequencer};
use crate::sync::waits::Waits;
use crate::sync::{Arc, Mutex, MutexGuard, lock_spinning};

/// The log of an open database: `start.rs` makes it, `rotation.rs` leads it from segment to segment.
pub(crate) struct Log {
    pub(super) tail: CachePadded<Mutex<Tail>>,
    pub(super) written: CachePadded<Sequencer>,
    group: CachePadded<GroupSync>,
    pub(super) options: LogOptions,
    pub(super) stock: Stock,
    /// The first failure, set once.
    failure: Mutex<Option<Error>>,
    /// Id of the tail's segment, at some moment.
    pub(super) current: AtomicU64,
    /// There is something to do for [`prepare_memory`](Self::prepare_memory).
    pub(super) wants_prepare: AtomicBool,
    /// There is something to do for [`prepare_next`](Self::prepare_next).
    pub(super) wants_next: AtomicBool,
    /// The newest place up to which everything is known to be durable.
    durable_place: Mutex<Place>,
    /// The first segment that the last mark named: nothing from it on is let go.
    pub(super) marked: AtomicU64,
    /// Memory that is to be let go, in the order in which that was found.
    pub(super) behind: Mutex<VecDeque<Behind>>,
    /// Held while memory of a mapping is made ready, and while files go into their next life.
    pub(super) preparing: Mutex<()>,
    /// What counts against the log's limit, once it is at least `options.watched_from`; 0 below.
    pub(super) watched: AtomicU64,
    /// The files may be another log's from now on: what is not needed stays where it is.
    pub(super) given_up: Mutex<bool>,
    pub(super) syncs: AtomicU64,
    /// Appends that waited for a segment to be made.
    pub(super) segment_waits: Waits,
}

/// Syncs of records up to this long are worth a segment that was filled with zeros before; of longer ones the
/// data is what takes the time.
const SHORT_FOR_SYNC: u64 = 16 << 10;

/// Bytes that whoever finds nothing ready makes ready himself: few enough to be waited for, and enough for a
/// thousand short records.
const READY_LATE: u64 = 256 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    segment: u64,
    offset: u64,
}

/// What a round of group sync has to do.
pub(super) struct SyncWork {
    sequence: u64,
    unsynced: Vec<Arc<Segment>>,
    segment: Arc<Segment>,
    offset: u64,
}

impl Log {
    /// A log whose first segment has been started: the number before it is `last`, and everything so far is
    /// durable.
    pub(super) fn new(options: LogOptions, stock: Stock, segment: Arc<Segment>, last: u64) -> Self {
        let current = segment.id;
        stock.shelf().current_len = segment.body.len;
        let mut tail = Tail::new(&segment, last, options.max_segment_bytes);
        tail.go_to(segment);
        Self {
            tail: CachePadded::new(Mutex::new(tail)),
            written: CachePadded::new(Sequencer::new(last)),
            group: CachePadded::new(GroupSync::new(last)),
            options,
            stock,
            failure: Mutex::new(None),
            current: AtomicU64::new(current),
            wants_prepare: AtomicBool::new(false),
            wants_next: AtomicBool::new(false),
            durable_place: Mutex::new(Place { segment: current, offset: HEADER_LEN }),
            marked: AtomicU64::new(u64::MAX),
            behind: Mutex::default(),
            preparing: Mutex::new(()),
            watched: AtomicU64::new(0),
            given_up: Mutex::new(false),
            syncs: AtomicU64::new(0),
            segment_waits: Waits::default(),
        }
    }

    /// Tells of what counts against the log's limit.
    #[inline]
    pub(super) fn watch(&self, charge: Weight) {
        if charge >= self.options.watched_from {
            self.watched.store(charge, Ordering::Relaxed);
        } else if self.watched.load(Ordering::Relaxed) != 0 {
            self.watched.store(0, Ordering::Relaxed);
        }
    }

    /// What counts against the log's limit, if it is that much that the options have it watched; 0 otherwise.
    #[inline]
    pub(crate) fn watched(&self) -> Weight {
        self.watched.load(Ordering::Relaxed)
    }

    /// Appends one record and returns its sequence number once it is written: it then survives a killed
    /// process, if every record before it has been written too.
    ///
    /// `operations` says how many entries a replay inserts for it. `sync_soon` says that a sync follows,
    /// which is cheaper after a write than after a store into a mapping.
    ///
    /// # Errors
    /// [`OutOfSpace`](ErrorKind::OutOfSpace): there is no room for the segment that the record needs; nothing
    /// was assigned. Any other: the log has failed for good.
    pub(crate) fn append(&self, payload: &[u8], operations: u64, sync_soon: bool) -> Result<SequenceNumber> {
        let payload_len = payload.len() as u64;
        if sync_soon && payload_len <= SHORT_FOR_SYNC {
            self.stock.expect_short_syncs();
        }
        let payload_checksum = crc32(&[payload]);
        let (segment, offset, sequence, stored) = self.reserve(Needs::of(payload, operations), !sync_soon)?;
        let mut pending = Pending { log: self, is_open: true };
        let header = RecordHeader { payload_checksum, payload_len, sequence, durable: segment.durable() };
        let header = header.encode(segment.id, offset);
        let written = segment.write_record(&header, payload, offset, stored);
        pending.is_open = false;
        written.map_err(|error| self.fail(write_failed(error, segment.id, offset)))?;
        self.written.complete(sequence);
        Ok(SequenceNumber(sequence))
    }

    /// Appends one record of one operation, which should be short, and calls `apply` with its sequence
    /// number, both before any other number is assigned. So short commits that come one by one meet at one
    /// lock and nowhere else.
    ///
    /// # Errors
    /// As of [`append`](Self::append); `apply` was not called then.
    #[inline]
    pub(crate) fn append_in_turn<R>(
        &self,
        payload: &[u8],
        apply: impl FnOnce(SequenceNumber) -> R,
    ) -> Result<R> {
        let payload_len = payload.len() as u64;
        let payload_checksum = crc32(&[payload]);
        let needs = Needs::of(payload, 1);
        // Before the lock, so that it is dropped after it.
        let mut pending = Pending { log: self, is_open: false };
        let mut tail = self.tail_with_room(needs)?;
        let sequence = self.assign_next(&mut tail)?;
        pending.is_open = true;
        tail.expect_stores();
        let offset = self.take_place(&mut tail, needs);
        let segment = &tail.segment;
        let id = segment.id;
        let header = RecordHeader { payload_checksum, payload_len, sequence, durable: segment.durable() };
        let stored = self.is_stored(segment, offset, needs.len);
        let written = segment.write_record(&header.encode(id, offset), payload, offset, stored);
        if let Err(error) = written {
            drop(tail);
            pending.is_open = false;
            return Err(self.fail(write_failed(error, id, offset)));
        }
        if !self.written.complete_in_turn(sequence) {
            self.written.complete(sequence);
        }
        let applied = apply(SequenceNumber(sequence));
        pending.is_open = false;
        Ok(applied)
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

    /// Assigns a number and a place, and says whether the record is stored into the mapping: never unless it
    /// `may_store`.
    #[inline]
    fn reserve(&self, needs: Needs, may_store: bool) -> Result<(Arc<Segment>, u64, u64, bool)> {
        let mut tail = self.tail_with_room(needs)?;
        let sequence = self.assign_next(&mut tail)?;
        let may_store = may_store && needs.len <= MAPPED_RECORD;
        if may_store {
            tail.expect_stores();
        }
        let offset = self.take_place(&mut tail, needs);
        let stored = may_store && self.is_stored(&tail.segment, offset, needs.len);
        Ok((Arc::clone(&tail.segment), offset, sequence, stored))
    }

    /// Whether a record, whose place was just taken, is stored. To be asked under the tail's lock.
    #[inline]
    fn is_stored(&self, segment: &Segment, offset: u64, len: u64) -> bool {
        segment.takes_store(offset, len) || self.make_ready_late(segment, offset, len)
    }

    /// The thread that makes memory ready ahead of need was kept from running: whoever needs some makes a
    /// little ready, unless that thread is at it, since otherwise each record would be written by a call of
    /// the system.
    #[cold]
    fn make_ready_late(&self, segment: &Segment, offset: u64, len: u64) -> bool {
        if segment.takes_no_stores() {
            return false;
        }
        let Some(_preparing) = self.preparing.try_lock() else { return false };
        segment.make_ready(offset, offset + READY_LATE);
        segment.takes_store(offset, len)
    }

    /// The tail, in a segment into which a record goes.
    #[inline]
    fn tail_with_room(&self, needs: Needs) -> Result<MutexGuard<'_, Tail>> {
        loop {
            let tail = lock_spinning(&self.tail);
            if tail.failed {
                drop(tail);
                return Err(self.failure());
            }
            if tail.fits(needs, self.options.max_segment_bytes) {
                return Ok(tail);
            }
            drop(tail);
            self.rotate(needs)?;
        }
    }

    /// The offset of the next record in the segment, into which it goes.
    #[inline]
    fn take_place(&self, tail: &mut Tail, needs: Needs) -> u64 {
        let offset = tail.offset;
        tail.offset += needs.len;
        tail.weight += needs.weight;
        tail.records += 1;
        tail.bytes += needs.len;
        if tail.offset >= tail.prepare_at || tail.weight >= tail.next_at_weight {
            tail.prepare_at = u64::MAX;
            tail.next_at_weight = u64::MAX;
            self.wants_prepare.store(true, Ordering::Relaxed);
        }
        let charge = tail.charge();
        if charge >= self.options.watched_from {
            self.watched.store(charge, Ordering::Relaxed);
        }
        offset
    }

    /// Assigns the next number, as soon as it has a slot. Waiting for the slot under the lock is safe: the
    /// slot's last number is completed, or the sequencer ended, by a thread that needs no lock for it.
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

    /// Bytes of the present segment's mapping that were made ready and not let go.
    pub(crate) fn mapped_bytes(&self) -> u64 {
        let segment = Arc::clone(&self.tail.lock().segment);
        segment.mapped_bytes()
    }

    /// Whether [`prepare_memory`](Self::prepare_memory) has something to do.
    #[inline]
    pub(crate) fn wants_prepare(&self) -> bool {
        self.wants_prepare.load(Ordering::Relaxed)
    }

    /// Whether [`prepare_next`](Self::prepare_next) has something to do.
    pub(crate) fn wants_next(&self) -> bool {
        self.wants_next.load(Ordering::Relaxed)
    }

    /// Returns when everything up to `sequence`, which was assigned before, is durable.
    pub(crate) fn sync_through(&self, sequence: SequenceNumber) -> Result<()> {
        let begin = || {
            let work = self.unsynced();
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

    /// What a sync has to make durable now.
    pub(super) fn unsynced(&self) -> SyncWork {
        let tail = self.tail.lock();
        SyncWork {
            sequence: tail.last,
            unsynced: tail.unsynced.clone(),
            segment: Arc::clone(&tail.segment),
            offset: tail.offset,
        }
    }

    pub(super) fn sync_now(&self, work: SyncWork) -> std::result::Result<(), Failed> {
        self.written.wait_for(work.sequence).map_err(|Ended| Failed)?;
        for segment in &work.unsynced {
            self.sync_segment(segment)?;
        }
        // Numbers without records need no sync of their own.
        if work.segment.durable() < work.offset {
            self.sync_segment(&work.segment)?;
        }
        work.segment.set_durable(work.offset);
        if let Some(newest) = work.unsynced.last() {
            self.tail.lock().unsynced.retain(|segment| segment.id > newest.id);
        }
        let mut durable = self.durable_place.lock();
        *durable = Place { segment: work.segment.id, offset: work.offset }.max(*durable);
        Ok(())
    }

    pub(super) fn sync_segment(&self, segment: &Segment) -> std::result::Result<(), Failed> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        segment.body.sync().map_err(|error| {
            self.fail(Error::lost("syncing the log", error).in_file(segment::path(segment.id)));
            Failed
        })
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
    /// A mark names segments only that are known to be durable, so its `first_segment` may be an older one.
    /// Segments from there on are kept whatever [`release_before`](Self::release_before) is told.
    pub(crate) fn mark(&self, first_segment: u64) -> LogMark {
        let place = *self.durable_place.lock();
        let first_segment = first_segment.min(place.segment);
        self.marked.store(first_segment, Ordering::Release);
        LogMark { first_segment, newest_segment: place.segment, durable_bytes: place.offset }
    }

    /// The first failure.
    pub(crate) fn failed(&self) -> Option<Error> {
        self.failure.lock().clone()
    }

    /// Ends the log: nothing is assigned and nothing becomes durable from now on. Returns what every writer
    /// is told.
    #[cold]
    pub(super) fn fail(&self, error: Error) -> Error {
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
    pub(super) fn failure(&self) -> Error {
        match self.failed() {
            Some(error) => error.as_first_cause(),
            None => unreachable!("the log ended without a cause"),
        }
    }

    pub(super) fn refused(&self, refusal: Refusal) -> Error {
        match refusal {
            Refusal::Refused(error) => error,
            Refusal::Broken(error) => self.fail(error),
        }
    }
}

fn write_failed(error: std::io::Error, segment: u64, offset: u64) -> Error {
    Error::lost("writing the log", error).in_file(segment::path(segment)).at_offset(offset)
}

/// Held while a number may be assigned and not complete. Until it is complete nobody can get past it, so a
/// panic on the way must not leave others waiting.
struct Pending<'l> {
    log: &'l Log,
    is_open: bool,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if self.is_open {
            self.log.fail(Error::new(ErrorKind::WriteFailed, "a thread panicked while it wrote the log"));
        }
    }
}
