//! What replaying the log takes.
//!
//! A limit on the log's bytes alone would not bound the time of a recovery: an operation of a dozen bytes is
//! inserted as slowly as one of hundreds. So every record weighs its bytes, and more for each of its
//! operations.

use super::record::record_len;

/// What replaying takes, in bytes that are read, summed and inserted in the same time.
pub(crate) type Weight = u64;

/// What an operation weighs beside its bytes.
const OPERATION: Weight = 96;

/// Weight of a record of `operations`.
#[inline]
pub(crate) fn weight(payload_len: u64, operations: u64) -> Weight {
    record_len(payload_len) + operations * OPERATION
}

/// Weight of `bytes` of records that hold `operations` in all.
pub(crate) fn weight_of_records(bytes: u64, operations: u64) -> Weight {
    bytes.saturating_add(operations.saturating_mul(OPERATION))
}
