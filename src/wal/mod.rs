//! The write-ahead log: commits as opaque payloads, in the order of their sequence numbers.
//!
//! Start reading at [`Log::append`] (log.rs), then [`group_sync`], then [`replay`]. The bytes on disk are
//! drawn in DESIGN.md; `record.rs` and `segment.rs` hold their codecs. `rotation.rs` goes from segment to
//! segment; `stock.rs` makes, keeps and recycles their files, and `reserve.rs` has some for a full disk.
//!
//! Invariants:
//! 1. Sequence numbers are assigned under one lock together with the record's place, so that the order of
//!    records is the order of numbers. A number that was assigned is completed by whoever got it, or the log
//!    fails for good.
//! 2. A segment takes part in the log from the moment its header is written. Before that its directory entry
//!    is durable, and what stands in it is bound to another id, so that recovery takes it for nothing.
//! 3. A number counts as durable only when every segment up to the one of its record was synced after the
//!    record was written: the header that chains a segment to its predecessor is covered by the same sync as
//!    its records.
//! 4. After the first failed write or sync nothing is assigned and nothing more becomes durable. A segment
//!    that could not be made for want of space, of a descriptor or of memory is no such failure: the append
//!    is refused before it gets a number.
//! 5. A segment file is reused or removed only when every record in it has been copied and the caller has
//!    said that recovery begins beyond it.
//! 6. A segment weighs no more than the longest has bytes, one record apart, and a record weighs at least its
//!    bytes: the log's weight is the sum over the segments that recovery would read, and changes with each
//!    append and each release.
//! 7. Replay reads only. What it gives is a prefix of what was appended, unchanged and in order; where it
//!    stops although something on disk says that more was durable, it reports corruption.

mod aside;
mod end;
mod group_sync;
mod held;
mod log;
#[cfg(all(test, loom))]
mod loom_tests;
mod measure;
mod options;
mod reader;
mod record;
mod replay;
mod reserve;
mod rotation;
mod segment;
mod start;
mod stock;
mod tail;
#[cfg(all(test, not(loom)))]
mod testing;
#[cfg(all(test, not(loom)))]
mod tests;
mod weight;

pub(crate) use aside::keep_aside;
pub(crate) use held::HeldSegments;
pub(crate) use log::Log;
pub(crate) use options::LogOptions;
#[cfg(test)]
use replay::LogEnd;
#[cfg(any(test, fuzzing))]
pub(crate) use replay::replay;
pub(crate) use replay::{GivenUp, Plan, ReplayReport, StoppedAt, make_durable};
pub(crate) use reserve::Room;
pub(crate) use weight::{Weight, weight};
