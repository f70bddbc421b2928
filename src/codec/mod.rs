//! Pure encodings: no I/O, no state. The lowest floor; every other module may use it.

pub(crate) mod checksum;
pub(crate) mod entry;
pub(crate) mod expiry;
pub(crate) mod features;
pub(crate) mod ids;
pub(crate) mod key;
pub(crate) mod key_bounds;
pub(crate) mod key_range;
pub(crate) mod log_mark;
pub(crate) mod operands;
pub(crate) mod prefetch;
pub(crate) mod varint;
