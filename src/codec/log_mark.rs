//! What the superblock says of the log: written by checkpoints, read by replay.

/// Where recovery begins to read the log, and how far it was known to be durable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LogMark {
    /// The first segment that recovery reads; 0 if no checkpoint was made since the log first started.
    pub(crate) first_segment: u64,
    /// The newest segment that was known to be durable when this was written.
    pub(crate) newest_segment: u64,
    /// Bytes of that segment that were known to be durable.
    pub(crate) durable_bytes: u64,
}
