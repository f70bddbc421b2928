//! Starts a log where replay ended.

use std::collections::VecDeque;

use super::log::Log;
use super::options::LogOptions;
use super::replay::{LogEnd, ReplayReport};
use super::segment::DIRECTORY;
use super::segment::{self, HEADER_LEN, SegmentHeader, segment_len};
use super::stock::{Length, Refusal, Retired, Source, Stock};
use super::weight::weight_of_records;
use crate::codec::features::Features;
use crate::codec::ids::BEYOND_COUNTING;
use crate::error::{Error, Result};
use crate::storage::{FileMode, StorageBackend};
use crate::sync::Arc;

/// Segments and sequence numbers that there must be room for: more than any log comes to.
const ROOM_TO_COUNT: u64 = 1 << 48;

impl Log {
    /// Starts a new segment after `end`, chained to it; removes orphans (segments beyond the end) once that
    /// is durable.
    ///
    /// What was replayed must be durable ([`make_durable`](super::make_durable)): the new segment's records
    /// will say so.
    ///
    /// # Errors
    /// [`Corruption`](crate::error::ErrorKind::Corruption) if segments or numbers are so high that counting
    /// on would lead to where no recovery reads; the disk's.
    pub(crate) fn start(backend: Arc<dyn StorageBackend>, options: LogOptions, end: LogEnd) -> Result<Self> {
        let directory_failed = |error| Error::io("creating the log's directory", error).in_file(DIRECTORY);
        backend.create_directory(DIRECTORY).map_err(directory_failed)?;
        backend.sync_directory("").map_err(directory_failed)?;

        let mut ids = segment::list(&*backend)?;
        let newest_id = ids.last().copied().unwrap_or(0).max(end.newest_segment).max(end.segment);
        let highest = newest_id.max(end.last_sequence.0);
        if highest >= BEYOND_COUNTING - ROOM_TO_COUNT {
            let message = format!("the log has come to segment {newest_id} and number {}", end.last_sequence);
            return Err(Error::corruption(message).in_file(DIRECTORY));
        }
        let orphans = ids.split_off(ids.partition_point(|&id| id <= end.segment));
        let mut retired = VecDeque::with_capacity(ids.len());
        for id in ids {
            let opened = backend.open(&segment::path(id), FileMode::Read).and_then(|file| file.len());
            let len =
                opened.map_err(|error| Error::io("opening the log", error).in_file(segment::path(id)))?;
            let last_sequence = end.last_sequence.0;
            retired.push_back(Retired { used: len, last_sequence, ..Retired::unused(id, len, None) });
        }

        let stock = Stock::new(backend, &options, newest_id, retired);
        let len = segment_len(options.first_segment_bytes, 0).min(segment_len(options.max_segment_bytes, 0));
        let unlatched = |refusal| match refusal {
            Refusal::Refused(error) | Refusal::Broken(error) => error,
        };
        let segment = stock.make(Length::of(len), Source::Reserve).map_err(unlatched)?;
        let header = SegmentHeader {
            id: segment.id,
            database_id: options.database_id,
            previous: end.segment,
            previous_end: end.offset,
            last_sequence: end.last_sequence.0,
            records_at: HEADER_LEN,
            features: Features::default(),
        };
        segment.write_header(&header).and_then(|()| segment.body.file.sync()).map_err(|error| {
            Error::io("starting a segment of the log", error).in_file(segment::path(segment.id))
        })?;
        segment.set_durable(HEADER_LEN);
        if !orphans.is_empty() {
            for &id in &orphans {
                stock.let_go(Retired::unused(id, 0, None)).map_err(unlatched)?;
            }
            stock.sync_directory().map_err(unlatched)?;
        }

        Ok(Self::new(options, stock, segment, end.last_sequence.0))
    }

    /// What replay read, `operations` in all, is part of the log's weight from now on. To be called once,
    /// before anything is appended.
    pub(crate) fn weigh(&self, report: &ReplayReport, operations: u64) {
        let mut shelf = self.stock.shelf();
        let all: u64 = report.read.iter().map(|read| read.end).sum();
        let mut sum = 0;
        for retired in &mut shelf.retired {
            let Ok(at) = report.read.binary_search_by_key(&retired.id, |read| read.id) else {
                // It was made ahead of need, and the records went on elsewhere.
                retired.used = 0;
                continue;
            };
            retired.used = report.read[at].end;
            // Which segment holds how many operations is not known: each its share.
            let share = u128::from(operations) * u128::from(retired.used) / u128::from(all.max(1));
            retired.weight = weight_of_records(retired.used, share as u64);
            sum += retired.weight;
        }
        let mut tail = self.tail.lock();
        tail.weight_before += sum;
        self.watch(tail.charge());
    }
}
