//! How a log is kept, and what it says of itself.

use std::time::Duration;

#[cfg(any(test, fuzzing))]
use super::reserve::AlwaysRoom;
use super::reserve::Room;
use super::weight::Weight;

/// How a log is kept.
#[derive(Debug, Clone)]
pub(crate) struct LogOptions {
    pub(crate) database_id: [u8; 16],
    /// Length of the first segment after a start; each next one is eight times as long.
    pub(crate) first_segment_bytes: u64,
    /// Where the growth ends. Only a record that needs more gets a longer segment, of its own. Also the most
    /// that a segment weighs, unless one record weighs more.
    pub(crate) max_segment_bytes: u64,
    /// Segments of the maximal length that are kept for reuse.
    pub(crate) spare_segments: usize,
    /// The log's limit: as long as nothing is appended that is charged beyond it, the files come to no more
    /// than that and one segment, beside those that are kept for a full disk.
    pub(crate) limit_bytes: u64,
    /// Weight of all that recovery would replay from which on [`Log::watched`](super::Log::watched) tells it.
    pub(crate) watched_from: Weight,
    /// Whether small records that no sync follows are stored into a shared mapping of the segment.
    pub(crate) use_mapping: bool,
    /// Files that are kept for a full disk, and bytes of each.
    pub(crate) reserve_files: usize,
    pub(crate) reserve_file_bytes: u64,
    /// Asked before a segment is made whose records may need room when they are merged.
    pub(crate) room: std::sync::Arc<dyn Room>,
}

impl LogOptions {
    /// The defaults: segments of 256 KiB to 64 MiB, two spares, with mappings.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn new(database_id: [u8; 16]) -> Self {
        Self {
            database_id,
            first_segment_bytes: 256 << 10,
            max_segment_bytes: 64 << 20,
            spare_segments: 2,
            limit_bytes: u64::MAX,
            watched_from: Weight::MAX,
            use_mapping: true,
            reserve_files: 0,
            reserve_file_bytes: 0,
            room: std::sync::Arc::new(AlwaysRoom),
        }
    }
}

/// What the log did since it was started, and what it holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) struct LogStats {
    /// Bytes of records appended, with their headers.
    pub(crate) bytes_appended: u64,
    /// Records appended.
    pub(crate) records: u64,
    /// Times that a segment was synced.
    pub(crate) syncs: u64,
    /// Segments that hold records, the current one included.
    pub(crate) segments: u64,
    /// Times that a used segment was taken into use again.
    pub(crate) segments_recycled: u64,
    /// Segments kept for reuse.
    pub(crate) spare_segments: u64,
    /// Weight of what recovery would replay.
    pub(crate) weight: Weight,
    /// Bytes in use in segments that recovery would read, and in those that wait to be let go.
    pub(crate) bytes_live: u64,
    /// Length of files that hold nothing that recovery would read, and of removed ones.
    pub(crate) bytes_spare: u64,
    /// Length of files that stay for copies alone.
    pub(crate) bytes_held: u64,
    /// Length of all files of the log, in bytes; also of removed ones whose room the disk does not have back.
    pub(crate) bytes_on_disk: u64,
    /// How often an append waited for a segment to be made, and for how long in all.
    pub(crate) segment_waits: (u64, Duration),
}
