//! How long the log is, and what it did.

use super::log::Log;
use super::options::LogStats;
use super::stock::Retired;
use super::weight::Weight;
use crate::sync::atomic::Ordering;

impl Log {
    /// Bytes of log in segments at or above `segment`.
    pub(crate) fn bytes_since(&self, segment: u64) -> u64 {
        let shelf = self.stock.shelf();
        let current = self.tail.lock().offset;
        let retired = shelf.retired.iter().rev().take_while(|retired| retired.id >= segment);
        current + retired.map(|retired| retired.used).sum::<u64>()
    }

    /// Weight of all that recovery would replay.
    pub(crate) fn weight(&self) -> Weight {
        self.tail.lock().weight_in_all()
    }

    /// What counts against the log's limit: the weight of all that recovery would replay, and where the file
    /// of a segment is longer than its records weigh, the difference.
    pub(crate) fn charge(&self) -> Weight {
        self.tail.lock().charge()
    }

    /// The same of segments at or above `segment`.
    pub(crate) fn charge_since(&self, segment: u64) -> Weight {
        let shelf = self.stock.shelf();
        let current = self.tail.lock().weight;
        let retired = shelf.retired.iter().rev().take_while(|retired| retired.id >= segment);
        current + retired.map(Retired::charge).sum::<Weight>()
    }

    /// The oldest segment from which on the log counts no more than `most` against its limit; the current
    /// one, if that does.
    pub(crate) fn segment_within(&self, most: Weight) -> u64 {
        let shelf = self.stock.shelf();
        let tail = self.tail.lock();
        let (mut within, mut weight) = (tail.segment.id, tail.weight);
        for retired in shelf.retired.iter().rev() {
            weight += retired.charge();
            if weight > most {
                break;
            }
            within = retired.id;
        }
        within
    }

    /// Whether there is anything that can be let go of: segments before the current one, or this one, if one
    /// record alone made it heavier than a segment is.
    pub(crate) fn can_be_shorter(&self) -> bool {
        let tail = self.tail.lock();
        tail.weight_before + tail.slack_before > 0 || tail.is_too_heavy()
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
            weight: tail.weight_in_all(),
            bytes_live: shelf.retired.iter().map(|retired| retired.used).sum::<u64>() + tail.offset,
            bytes_spare: shelf.reserve_bytes() + shelf.removed_bytes(),
            bytes_held: shelf.held_bytes(),
            bytes_on_disk: shelf.bytes_on_disk(),
            segment_waits: self.segment_waits.totals(),
        }
    }
}
