//! The tail of the log: where the next record goes, and what a record takes.

use super::end::END_LEN;
use super::record::record_len;
use super::segment::{HEADER_LEN, Segment};
use super::weight::{Weight, weight};
use crate::sync::Arc;
use crate::sync::sequencer::Sequencer;

/// Bytes of a mapping that are made ready ahead of the records: what the busiest writers store in some
/// milliseconds.
pub(super) const READY_AHEAD: u64 = 2 << 20;

/// Where the next record goes.
pub(super) struct Tail {
    pub(super) segment: Arc<Segment>,
    pub(super) offset: u64,
    /// The number assigned last.
    pub(super) last: u64,
    /// Numbers up to this one have a slot in `written`.
    pub(super) admitted: u64,
    /// Segments before `segment` that were not synced since their last record, oldest first.
    pub(super) unsynced: Vec<Arc<Segment>>,
    /// Whether the next segment was asked for.
    pub(super) next_asked: bool,
    /// Whether records come that are stored into the mapping.
    pub(super) is_stored_into: bool,
    /// `offset` at which `wants_prepare` is set.
    pub(super) prepare_at: u64,
    pub(super) failed: bool,
    /// Weight of what stands in `segment`, and of the segments before it that recovery would read.
    pub(super) weight: Weight,
    pub(super) weight_before: Weight,
    /// Bytes by which those segments are longer than their records weigh.
    pub(super) slack_before: u64,
    /// `weight` at which `wants_prepare` is set.
    pub(super) next_at_weight: Weight,
    /// The most that a segment weighs.
    pub(super) most_weight: Weight,
    pub(super) records: u64,
    pub(super) bytes: u64,
}

/// What a record takes.
#[derive(Clone, Copy)]
pub(super) struct Needs {
    pub(super) len: u64,
    pub(super) weight: Weight,
}

impl Needs {
    #[inline]
    pub(super) fn of(payload: &[u8], operations: u64) -> Self {
        let len = record_len(payload.len() as u64);
        Self { len, weight: weight(payload.len() as u64, operations) }
    }
}

impl Tail {
    /// Where `segment` is about to be begun, with the next number after `last`.
    pub(super) fn new(segment: &Arc<Segment>, last: u64, most_weight: Weight) -> Self {
        Self {
            segment: Arc::clone(segment),
            offset: 0,
            last,
            admitted: last + Sequencer::CAPACITY as u64,
            unsynced: Vec::new(),
            next_asked: false,
            is_stored_into: false,
            prepare_at: 0,
            failed: false,
            weight: 0,
            weight_before: 0,
            slack_before: 0,
            next_at_weight: 0,
            most_weight,
            records: 0,
            bytes: 0,
        }
    }

    /// Whether a record goes into this segment: there are bytes left, and it does not become heavier than
    /// `most`, unless by one record.
    #[inline]
    pub(super) fn fits(&self, needs: Needs, most: Weight) -> bool {
        needs.len + END_LEN <= self.segment.body.len - self.offset
            && (self.weight == 0 || self.weight + needs.weight <= most)
    }

    /// Whether the segment weighs more than any does that holds several records.
    pub(super) fn is_too_heavy(&self) -> bool {
        self.weight > self.most_weight
    }

    /// Weight of all that recovery would replay.
    pub(super) fn weight_in_all(&self) -> Weight {
        self.weight_before + self.weight
    }

    /// What counts against the log's limit: weight, and where a segment's file is longer than its records
    /// weigh, the difference, so that this bounds the files as well.
    #[inline]
    pub(super) fn charge(&self) -> Weight {
        self.weight_in_all() + self.slack_before
    }

    /// Bytes by which the segment is longer than its records weigh.
    pub(super) fn slack(&self) -> u64 {
        self.segment.body.len.saturating_sub(self.weight)
    }

    pub(super) fn go_to(&mut self, segment: Arc<Segment>) {
        self.offset = HEADER_LEN;
        self.segment = segment;
        self.weight_before += std::mem::take(&mut self.weight);
        self.next_asked = false;
        self.plan();
    }

    /// Records are stored into the mapping from now on.
    #[inline]
    pub(super) fn expect_stores(&mut self) {
        if !self.is_stored_into {
            self.is_stored_into = true;
            self.plan();
        }
    }

    /// Offset at which the next segment is to be made.
    fn next_at(&self) -> u64 {
        (self.segment.body.len / 4).max(HEADER_LEN + 1)
    }

    /// Whether it is time to make the next segment.
    pub(super) fn is_next_due(&self) -> bool {
        !self.next_asked && (self.offset >= self.next_at() || self.weight >= self.most_weight / 4)
    }

    /// Says when there is something to prepare: the next segment when this one is filled by a quarter, memory
    /// for stores when half of what is ready was used.
    pub(super) fn plan(&mut self) {
        let len = self.segment.body.len;
        let ready = self.segment.ready();
        let next_at = if self.next_asked { u64::MAX } else { self.next_at() };
        self.next_at_weight = if self.next_asked { u64::MAX } else { self.most_weight / 4 };
        let ready_at =
            if self.is_stored_into && ready < len { ready.saturating_sub(READY_AHEAD / 2) } else { u64::MAX };
        self.prepare_at = next_at.min(ready_at);
    }
}

/// Memory of a mapping behind the records.
pub(super) struct Behind {
    /// Nothing is stored there once the records up to this number are written.
    pub(super) sequence: u64,
    pub(super) segment: Arc<Segment>,
    /// Where it ends; `None`: all that the segment has.
    pub(super) end: Option<u64>,
}
