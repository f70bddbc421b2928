//! The life of segments: taken into use, made ahead of need, let go.

use std::collections::VecDeque;

use super::end::END_LEN;
use super::group_sync::Failed;
use super::log::{Behind, Log, Needs, READY_AHEAD};
use super::record::ALIGNMENT;
use super::segment::{self, HEADER_LEN, SegmentHeader};
use super::stock::{Refusal, Retired};
use super::weight::Weight;
use crate::error::{Error, Result};
use crate::sync::atomic::Ordering;
use crate::sync::sequencer::Ended;
use crate::sync::{Arc, MutexGuard};

/// How many times longer than the segment before it the next one is, up to the maximum. Each going on costs
/// syncs of a directory, so the start of a busy database should see few of them.
const GROWTH: u64 = 8;

impl Log {
    /// Goes on to the next segment, unless the record goes into this one by now.
    #[cold]
    pub(super) fn rotate(&self, needs: Needs) -> Result<()> {
        let making = self.stock.making();
        let len = {
            let tail = self.tail.lock();
            if tail.failed || tail.fits(needs, self.options.max_segment_bytes) {
                return Ok(());
            }
            self.next_len(tail.segment.body.len, needs.len)
        };
        self.go_on(&making, len, needs.len)
    }

    /// Takes a segment of `len` bytes, or the one made ahead if a record of `record_len` bytes fits into it,
    /// into use.
    fn go_on(&self, making: &MutexGuard<'_, ()>, len: u64, record_len: u64) -> Result<()> {
        let next = self.stock.take(making, len, record_len).map_err(|refusal| self.refused(refusal))?;
        // Both locks at once, so that the old segment is at every moment found in one of the two places.
        let mut shelf = self.stock.shelf();
        let mut tail = self.tail.lock();
        let header = SegmentHeader {
            id: next.id,
            database_id: self.options.database_id,
            previous: tail.segment.id,
            previous_end: tail.offset,
            last_sequence: tail.last,
            records_at: HEADER_LEN,
        };
        let noted = tail.segment.write_end(tail.offset, next.id);
        if let Err(error) = noted.and_then(|()| next.write_header(&header)) {
            drop(tail);
            drop(shelf);
            let error = Error::io("starting a segment of the log", error).in_file(segment::path(next.id));
            return Err(self.fail(error));
        }
        let old = Arc::clone(&tail.segment);
        shelf.retired.push_back(Retired {
            id: old.id,
            used: tail.offset,
            weight: tail.weight,
            last_sequence: tail.last,
            body: Some(Arc::clone(&old.body)),
        });
        tail.unsynced.push(Arc::clone(&old));
        self.current.store(next.id, Ordering::Release);
        self.wants_prepare.store(false, Ordering::Relaxed);
        tail.go_to(next);
        let sequence = tail.last;
        drop(tail);
        drop(shelf);
        self.leave_behind(Behind { sequence, segment: old, end: None });
        Ok(())
    }

    /// Length of the segment after one of `len` bytes.
    fn next_len(&self, len: u64, record_len: u64) -> u64 {
        segment_len(len.saturating_mul(GROWTH).min(self.options.max_segment_bytes), record_len)
    }

    /// Makes memory ready for the stores that come next, lets go of memory behind them, and says when the
    /// next segment is wanted. Waits for no sync and for no segment. For one background thread.
    pub(crate) fn prepare_memory(&self) {
        let _preparing = self.preparing.lock();
        self.wants_prepare.store(false, Ordering::Relaxed);
        let mut tail = self.tail.lock();
        if tail.is_stored_into {
            let (segment, offset, sequence) = (Arc::clone(&tail.segment), tail.offset, tail.last);
            drop(tail);
            segment.make_ready(offset, offset + READY_AHEAD);
            self.leave_behind(Behind { sequence, segment: Arc::clone(&segment), end: Some(offset) });
            tail = self.tail.lock();
            if !Arc::ptr_eq(&tail.segment, &segment) {
                let sequence = tail.last;
                drop(tail);
                // Some of it was perhaps made ready after the segment was left.
                self.leave_behind(Behind { sequence, segment, end: None });
                tail = self.tail.lock();
            }
        }
        if tail.is_next_due() {
            tail.next_asked = true;
            self.wants_next.store(true, Ordering::Relaxed);
        }
        tail.plan();
    }

    /// Lets go of memory behind the records once nothing is stored there any more: of `behind`, and of what
    /// waits for that.
    fn leave_behind(&self, behind: Behind) {
        let mut waiting = self.behind.lock();
        waiting.push_back(behind);
        self.let_go_of(&mut waiting);
    }

    fn let_go_of(&self, waiting: &mut VecDeque<Behind>) {
        let written = self.written.watermark();
        while waiting.front().is_some_and(|behind| behind.sequence <= written)
            && let Some(Behind { segment, end, .. }) = waiting.pop_front()
        {
            match end {
                Some(end) => segment.let_go(end),
                None => segment.let_go_of_all(),
            }
        }
    }

    /// Makes the next segment if it is wanted, so that going on to it is only a swap. For a background thread
    /// that may wait for the disk; appends that need the segment meanwhile wait for it.
    pub(crate) fn prepare_next(&self) -> Result<()> {
        if !self.wants_next.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let making = self.stock.making();
        let tail = self.tail.lock();
        if tail.failed {
            drop(tail);
            return Err(self.failure());
        }
        let (len, is_stored_into) = (self.next_len(tail.segment.body.len, 0), tail.is_stored_into);
        // Whoever had to make the segment himself has gone on to it, and the one after that is not wanted
        // yet.
        let is_wanted = tail.next_asked;
        drop(tail);
        if !is_wanted {
            return Ok(());
        }
        let made = self.stock.prepare(&making, len, if is_stored_into { READY_AHEAD / 2 } else { 0 });
        let made = made.map_err(|refusal| self.refused(refusal))?;
        // It can be taken into use already, so whoever waits for it need not wait for this sync.
        drop(making);
        if let Some(segment) = made {
            self.sync_segment(&segment).map_err(|Failed| self.failure())?;
        }
        Ok(())
    }

    /// Goes on to another segment if one record alone made the present one heavier than a segment is, so that
    /// it can be let go of.
    pub(crate) fn leave_heavy_segment(&self) -> Result<()> {
        let making = self.stock.making();
        let tail = self.tail.lock();
        if tail.failed {
            drop(tail);
            return Err(self.failure());
        }
        if !tail.is_too_heavy() {
            return Ok(());
        }
        let len = self.next_len(tail.segment.body.len, 0);
        drop(tail);
        self.go_on(&making, len, 0)?;
        drop(making);
        // A mark names segments only that are known to be durable, and no record may come that has this one
        // synced.
        self.sync_now(self.unsynced()).map_err(|Failed| self.failure())
    }

    /// Gives the room of one removed segment back to the disk, which may take a tenth of a second. Says
    /// whether there was any.
    pub(crate) fn free_one(&self) -> bool {
        self.stock.free_one()
    }

    /// Both, as the two threads do in their time.
    #[cfg(test)]
    pub(super) fn prepare(&self) -> Result<()> {
        self.prepare_memory();
        self.prepare_next()
    }

    /// Gives back to the disk what no record stands in: segments kept for reuse, and the one made ahead of
    /// need, which is made again when it is needed. Goes on to a segment of the smallest size and syncs it,
    /// so that a mark can name it and the present one be let go, too. Returns whether there was anything.
    pub(crate) fn give_back(&self) -> Result<bool> {
        let making = self.stock.making();
        let removed = self.stock.clear(&making).map_err(|refusal| self.refused(refusal))?;
        let smallest = segment_len(self.options.first_segment_bytes, 0);
        let mut tail = self.tail.lock();
        if tail.failed {
            drop(tail);
            return Err(self.failure());
        }
        tail.next_asked = false;
        tail.plan();
        let is_large = tail.segment.body.len > smallest;
        drop(tail);
        if is_large {
            self.go_on(&making, smallest, 0)?;
        }
        drop(making);
        if is_large {
            self.sync_now(self.unsynced()).map_err(|Failed| self.failure())?;
        }
        if removed {
            self.stock.sync_directory().map_err(|refusal| self.refused(refusal))?;
        }
        Ok(removed || is_large)
    }

    /// Bytes of files in which no record stands that recovery needs: spares, the segment made ahead of need,
    /// and the present one as far as it is longer than the smallest and not filled.
    pub(crate) fn reserve_bytes(&self) -> u64 {
        let shelf = self.stock.shelf();
        let tail = self.tail.lock();
        let smallest = segment_len(self.options.first_segment_bytes, 0);
        shelf.reserve_bytes() + (tail.segment.body.len - tail.offset).saturating_sub(smallest)
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
        // Nor is memory to be let go that was made ready for it.
        let preparing = self.preparing.lock();
        self.let_go_of(&mut self.behind.lock());
        {
            let mut tail = self.tail.lock();
            tail.unsynced.retain(|segment| segment.id >= limit);
            tail.weight_before -= released.iter().map(|retired| retired.weight).sum::<Weight>();
            self.watch(tail.weight_in_all());
        }
        let mut removed = false;
        let mut outcome = Ok(());
        for retired in released {
            match self.stock.let_go(retired) {
                Ok(gone) => removed |= gone,
                // A file that stays although it is not needed does no harm. It is tried again at the next
                // start.
                Err(Refusal::Full(error) | Refusal::Broken(error)) => outcome = outcome.and(Err(error)),
            }
        }
        drop(preparing);
        if removed {
            self.stock.sync_directory().map_err(|refusal| self.refused(refusal))?;
        }
        outcome
    }
}

/// Length of a segment of `wanted` bytes, or of more if the record that is to stand in it needs more.
pub(super) fn segment_len(wanted: u64, record_len: u64) -> u64 {
    wanted.max(HEADER_LEN + record_len + END_LEN).next_multiple_of(ALIGNMENT)
}
