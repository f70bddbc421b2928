//! Inner parts, lent to the fuzz targets; compiled for them only and no part of the interface.

pub use crate::btree::fuzzing::{ModelledTree, read_node};

use crate::codec::ids::BEYOND_COUNTING;
use crate::codec::log_mark::LogMark;
use crate::error::Result;
use crate::storage::{MemoryStorage, StorageBackend};
use crate::sync::Arc;
use crate::txn::operation::Operations;
use crate::wal::{self, Log, LogOptions};

/// What the superblock says of the log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mark {
    /// The segment from which replay starts; 0 if there is none.
    pub first_segment: u64,
    /// The newest segment that is known to be durable.
    pub newest_segment: u64,
    /// Bytes of that segment that are known to be durable.
    pub durable_bytes: u64,
}

impl Mark {
    fn log_mark(self) -> LogMark {
        let Self { first_segment, newest_segment, durable_bytes } = self;
        LogMark { first_segment, newest_segment, durable_bytes }
    }
}

/// What a log holds: number and payload of every record, in order.
pub type Records = Vec<(u64, Vec<u8>)>;

/// Replays the log in `storage` and returns the last sequence number, of a record or of what a segment says
/// was before it. With `resume`, then starts it anew at the end, as opening a database does, and appends
/// those payloads.
///
/// # Errors
/// Those of replay and start. `records` then holds what was replayed before.
pub fn replay_log(
    storage: &MemoryStorage,
    database_id: [u8; 16],
    mark: Mark,
    records: &mut Records,
    resume: Option<&[Vec<u8>]>,
) -> Result<u64> {
    let report = wal::replay(storage, &database_id, mark.log_mark(), &mut |sequence, payload| {
        records.push((sequence.0, payload.to_vec()));
        Ok(())
    })?;
    assert_eq!(report.records, records.len() as u64);
    assert_eq!(report.bytes, records.iter().map(|(_, payload)| payload.len() as u64).sum::<u64>());
    if let Some(payloads) = resume {
        wal::make_durable(storage, &report)?;
        let backend: Arc<dyn StorageBackend> = Arc::new(storage.clone());
        let log = Log::start(backend, options(database_id), report.end)?;
        for payload in payloads {
            log.append(payload, 0, false)?;
        }
    }
    Ok(report.last_sequence.0)
}

/// Writes a log of its own into `storage`: small segments, one record for each payload, synced after those
/// whose index `is_synced` says.
pub fn write_log(
    storage: &MemoryStorage,
    database_id: [u8; 16],
    payloads: &[Vec<u8>],
    is_synced: impl Fn(usize) -> bool,
) -> Result<()> {
    let backend: Arc<dyn StorageBackend> = Arc::new(storage.clone());
    let log = Log::start(backend, options(database_id), Default::default())?;
    for (index, payload) in payloads.iter().enumerate() {
        let sequence = log.append(payload, 0, is_synced(index))?;
        if is_synced(index) {
            log.sync_through(sequence)?;
        }
    }
    Ok(())
}

fn options(database_id: [u8; 16]) -> LogOptions {
    LogOptions {
        first_segment_bytes: 4 << 10,
        max_segment_bytes: 8 << 10,
        spare_segments: 1,
        use_mapping: false,
        ..LogOptions::new(database_id)
    }
}

/// Number of operations in a record's payload.
///
/// # Errors
/// [`Corruption`](crate::ErrorKind::Corruption) if the payload is no batch,
/// [`NewerFormat`](crate::ErrorKind::NewerFormat) if it has an operation of a kind that is not known.
pub fn decode_batch(payload: &[u8]) -> Result<usize> {
    Operations::new(payload).try_fold(0, |count, operation| operation.map(|_| count + 1))
}

/// Sequence numbers, segments, checkpoints and generations end below this.
pub const COUNTERS_END: u64 = BEYOND_COUNTING;
