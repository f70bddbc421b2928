//! The life of segments: taken into use, made ahead of need, let go.

use std::collections::VecDeque;
use std::time::Duration;

use super::group_sync::Failed;
use super::log::Log;
use super::segment::{self, HEADER_LEN, SegmentHeader, segment_len};
use super::stock::{Ahead, GROWTH, Length, Refusal, Retired, Source};
use super::tail::{Behind, Needs, READY_AHEAD};
use super::weight::Weight;
use crate::codec::features::Features;
use crate::error::{Error, Result};
use crate::sync::atomic::Ordering;
use crate::sync::sequencer::Ended;
use crate::sync::{Arc, Instant, MutexGuard};

/// What who goes on to a segment that is there waits at most without its being counted.
const LONG: Duration = Duration::from_millis(1);

impl Log {
    /// Goes on to the next segment, unless the record goes into this one by now.
    #[cold]
    pub(super) fn rotate(&self, needs: Needs) -> Result<()> {
        let since = Instant::now();
        let is_there = self.stock.has_prepared(needs.len);
        let rotated = self.rotate_now(needs);
        // To go on to one that is there is no wait, unless somebody else is at making another.
        let took = since.elapsed();
        if !is_there || took >= LONG {
            self.segment_waits.note(took);
            tracing::debug!(?took, "a writer waited for the next segment of the log");
        }
        rotated
    }

    fn rotate_now(&self, needs: Needs) -> Result<()> {
        let making = self.stock.making();
        let (len, weight) = {
            let tail = self.tail.lock();
            if tail.failed || tail.fits(needs, self.options.max_segment_bytes) {
                return Ok(());
            }
            (self.next_len(tail.segment.body.len, needs.len), tail.weight_in_all())
        };
        let least = self.least_len(needs.len);
        // There was room for the one made ahead.
        let is_there = self.stock.has_prepared(needs.len);
        let len = if is_there { Length::of(len) } else { self.len_with_room(len, least, weight)? };
        self.go_on(&making, len, needs.len, Source::Disk)
    }

    /// The most bytes, up to `wanted` and down to `least`, that a segment may have after so much log, so that
    /// there is room to merge what it holds. A file that is kept for reuse may hold more than is wanted:
    /// where there is no room for that, what is kept gives back its own.
    fn len_with_room(&self, mut wanted: u64, least: u64, weight: Weight) -> Result<Length> {
        loop {
            let most = self.stock.len_of_next(wanted);
            match self.options.room.keep(weight + most) {
                Err(error) if error.is_refusal() && self.stock.free_all() => {}
                Err(error) if error.is_refusal() && wanted > least => {
                    wanted = (wanted / GROWTH).max(least);
                }
                kept => return kept.map(|()| Length { wanted, least, most }),
            }
        }
    }

    /// Goes on to a segment of the smallest size for a record that may be written on a full disk, be it one
    /// of the reserve, unless the record goes into the present one. `false` if there is none.
    pub(crate) fn go_on_from_reserve(&self, payload: &[u8], operations: u64) -> Result<bool> {
        let needs = Needs::of(payload, operations);
        let making = self.stock.making();
        {
            let tail = self.tail.lock();
            if tail.failed {
                drop(tail);
                return Err(self.failure());
            }
            if tail.fits(needs, self.options.max_segment_bytes) {
                return Ok(true);
            }
        }
        let least = self.least_len(needs.len);
        match self.go_on(&making, Length::of(least), needs.len, Source::Reserve) {
            Err(error) if error.is_refusal() => Ok(false),
            gone_on => gone_on.map(|()| true),
        }
    }

    /// Makes good what was taken of what is kept for a full disk, as far as there is room. Says whether it is
    /// whole.
    pub(crate) fn fill_reserve(&self) -> Result<bool> {
        // The files first: they are small, and without them nothing goes on.
        let files = self.fill_files()?;
        Ok(self.options.room.fill() && files)
    }

    /// Whether the disk has little room left beside what merges of the log, and of `unlogged` bytes besides,
    /// take.
    pub(crate) fn is_tight(&self, unlogged: u64) -> bool {
        self.options.room.is_tight(self.weight() + unlogged)
    }

    /// The same for the log's own files.
    pub(crate) fn fill_files(&self) -> Result<bool> {
        if self.stock.has_whole_reserve() {
            return Ok(true);
        }
        let making = self.stock.making();
        self.stock.fill_reserve(&making).map_err(|refusal| self.refused(refusal))
    }

    /// Takes a new segment, or the one made ahead if a record of `record_len` bytes fits into it, into use.
    fn go_on(&self, making: &MutexGuard<'_, ()>, len: Length, record_len: u64, source: Source) -> Result<()> {
        let next = self.stock.take(making, len, record_len, source);
        let next = next.map_err(|refusal| self.refused(refusal))?;
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
            features: Features::default(),
        };
        let noted = tail.segment.write_end(tail.offset, next.id);
        if let Err(error) = noted.and_then(|()| next.write_header(&header)) {
            drop(tail);
            drop(shelf);
            let error = Error::lost("starting a segment of the log", error).in_file(segment::path(next.id));
            return Err(self.fail(error));
        }
        let old = Arc::clone(&tail.segment);
        shelf.retired.push_back(Retired {
            id: old.id,
            used: tail.offset,
            len: old.body.len,
            weight: tail.weight,
            slack: tail.slack(),
            last_sequence: tail.last,
            body: Some(Arc::clone(&old.body)),
        });
        shelf.current_len = next.body.len;
        tail.slack_before += tail.slack();
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

    /// Length of the smallest segment that holds a record.
    fn least_len(&self, record_len: u64) -> u64 {
        segment_len(self.options.first_segment_bytes.min(self.options.max_segment_bytes), record_len)
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
        let weight = tail.weight_in_all() + (tail.segment.body.len - tail.offset);
        // Whoever had to make the segment himself has gone on to it, and the one after that is not wanted
        // yet.
        let is_wanted = tail.next_asked;
        drop(tail);
        if !is_wanted {
            return Ok(());
        }
        let least = self.least_len(0);
        let len = self.len_with_room(len, least, weight)?;
        let ready = if is_stored_into { READY_AHEAD / 2 } else { 0 };
        let made = self.stock.prepare(&making, len, ready);
        let made = made.map_err(|refusal| self.refused(refusal))?;
        // It can be taken into use already, so whoever waits for it need not wait for this sync.
        drop(making);
        match made {
            Ahead::IsThere => {}
            Ahead::Filled(segment) => self.sync_segment(&segment).map_err(|Failed| self.failure())?,
            Ahead::Later => self.wants_next.store(true, Ordering::Relaxed),
        }
        Ok(())
    }

    /// Goes on to another segment, so that the present one can be let go of, if there is anything in it and
    /// that is asked for in `any_case`; or if one record alone made it heavier than a segment is.
    pub(crate) fn leave_segment(&self, any_case: bool) -> Result<()> {
        let making = self.stock.making();
        let tail = self.tail.lock();
        if tail.failed {
            drop(tail);
            return Err(self.failure());
        }
        if !(tail.is_too_heavy() || any_case && tail.weight > 0) {
            return Ok(());
        }
        let least = self.least_len(0);
        let (len, weight) = (self.next_len(tail.segment.body.len, 0), tail.weight_in_all());
        drop(tail);
        let len = match any_case {
            false => self.len_with_room(len, least, weight),
            true => Ok(Length::of(least)),
        };
        let len = match len {
            Err(error) if error.is_refusal() => Length::of(least),
            len => len?,
        };
        self.go_on(&making, len, 0, Source::Reserve)?;
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

    /// The same of all removed segments but one, which may wait until nobody writes.
    pub(crate) fn free_surplus(&self) {
        self.stock.free_surplus();
    }

    /// Both, as the two threads do in their time.
    #[cfg(test)]
    pub(super) fn prepare(&self) -> Result<()> {
        self.prepare_memory();
        self.prepare_next()
    }

    /// Gives back to the disk what no record stands in: segments kept for reuse, and the one made ahead of
    /// need, which is made again when it is needed. Goes on to a segment of the smallest size and syncs it,
    /// so that a mark can name it and the present one be let go, too. Returns whether it did: then a
    /// checkpoint lets go of more.
    pub(crate) fn give_back(&self) -> Result<bool> {
        let making = self.stock.making();
        let removed = self.stock.clear(&making).map_err(|refusal| self.refused(refusal))?;
        let smallest = self.least_len(0);
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
            self.go_on(&making, Length::of(smallest), 0, Source::Reserve)?;
        }
        drop(making);
        if is_large {
            self.sync_now(self.unsynced()).map_err(|Failed| self.failure())?;
        }
        self.stock.free_surplus();
        if removed {
            self.stock.sync_directory().map_err(|refusal| self.refused(refusal))?;
        }
        Ok(is_large)
    }

    /// Bytes of files in which no record stands that recovery needs: spares, the segment made ahead of need,
    /// and the present one as far as it is longer than the smallest and not filled.
    pub(crate) fn reserve_bytes(&self) -> u64 {
        let shelf = self.stock.shelf();
        let tail = self.tail.lock();
        let smallest = self.least_len(0);
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
            tail.slack_before -= released.iter().map(|retired| retired.slack).sum::<u64>();
            self.watch(tail.charge());
        }
        let mut changed = false;
        for retired in released {
            match self.stock.let_go(retired) {
                Ok(gone) => changed |= gone,
                // A file that stays although it is not needed does no harm. It is tried again at the next
                // start.
                Err(Refusal::Refused(error) | Refusal::Broken(error)) => {
                    tracing::warn!(%error, "a segment of the log stays though it is not needed");
                }
            }
        }
        drop(preparing);
        if changed {
            self.stock.sync_directory().map_err(|refusal| self.refused(refusal))?;
        }
        Ok(())
    }
}
