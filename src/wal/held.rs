//! Segments that somebody copies: they stay as they are while the log goes on without them.
//!
//! A hold keeps the segments from the one that recovery of the copy begins with up to the place where the log
//! ended when it was taken. What the log lets go of meanwhile is set aside instead of being recycled: it
//! counts neither against the log's limit nor as a spare, so that nobody waits for a copy, and is removed
//! when the last hold that covers it ends, if the files are the database's then: afterwards names in its
//! directory may be those of another log. What is left is removed when the database is opened again.

use std::io;

use super::end::END_LEN;
use super::log::Log;
use super::segment::{self, HEADER_LEN, SegmentHeader};
use super::stock::Retired;
use crate::codec::ids::SequenceNumber;
use crate::codec::log_mark::LogMark;
use crate::error::{Error, Result};
use crate::storage::{FileMode, StorageBackend, Taken};

/// Segments of a log that stay until this is dropped.
pub(crate) struct HeldSegments<'l> {
    log: &'l Log,
    first: u64,
    /// Those before the last one: id, and bytes in use.
    retired: Vec<(u64, u64)>,
    /// The last one, and where the log ended in it.
    last: (u64, u64),
    sequence: SequenceNumber,
}

impl Log {
    /// Keeps the segments from `first` on as they are now. The caller sees to it that no checkpoint lets go
    /// of any of them meanwhile.
    pub(crate) fn hold(&self, first: u64) -> HeldSegments<'_> {
        let mut shelf = self.stock.shelf();
        let tail = self.tail.lock();
        shelf.holds.push(first);
        let retired = shelf.retired.iter().filter(|retired| retired.id >= first && retired.used > 0);
        HeldSegments {
            log: self,
            first,
            retired: retired.map(|retired| (retired.id, retired.used)).collect(),
            last: (tail.segment.id, tail.offset),
            sequence: SequenceNumber(tail.last),
        }
    }

    /// The files may be another log's from now on: what copies held of this one stays where it is.
    pub(crate) fn give_up(&self) {
        *self.given_up.lock() = true;
    }
}

impl HeldSegments<'_> {
    /// The number of the last commit whose record may stand in the segments.
    pub(crate) fn sequence(&self) -> SequenceNumber {
        self.sequence
    }

    /// What the superblock of the copy is to say of its log.
    pub(crate) fn mark(&self) -> LogMark {
        let (newest_segment, durable_bytes) = self.last;
        LogMark { first_segment: self.first.min(newest_segment), newest_segment, durable_bytes }
    }

    /// Makes everything in the segments durable, then copies them from `source`, as the log of the database
    /// with the id `database_id`, into a directory in which there is no log yet, and syncs them. `count` is
    /// told of what was copied.
    pub(crate) fn copy(
        &self,
        source: &dyn StorageBackend,
        target: &dyn StorageBackend,
        database_id: &[u8; 16],
        count: &mut dyn FnMut(u64, Taken),
    ) -> Result<()> {
        self.log.sync_through(self.sequence)?;
        for &(id, used) in &self.retired {
            // With the note that says where the log goes on.
            self.copy_segment(source, target, id, used + END_LEN, database_id, count)?;
        }
        let (id, end) = self.last;
        self.copy_segment(source, target, id, end, database_id, count)?;
        let synced = target.sync_directory(segment::DIRECTORY);
        synced.map_err(|error| Error::io("copying the log", error).in_file(segment::DIRECTORY))
    }

    fn copy_segment(
        &self,
        source: &dyn StorageBackend,
        target: &dyn StorageBackend,
        id: u64,
        end: u64,
        database_id: &[u8; 16],
        count: &mut dyn FnMut(u64, Taken),
    ) -> Result<()> {
        let path = segment::path(id);
        let failed = |error: io::Error| Error::io("copying the log", error).in_file(path.clone());
        let from = source.open(&path, FileMode::Read).map_err(failed)?;
        let end = end.min(from.len().map_err(failed)?);
        let mut header = vec![0; HEADER_LEN.min(end) as usize];
        from.read_at(&mut header, 0).map_err(failed)?;
        let own = &self.log.options.database_id;
        let Some(header_len) = SegmentHeader::move_to(&mut header, id, own, database_id)? else {
            let error = Error::corruption("the header of a segment of the log is damaged");
            return Err(error.in_file(path));
        };
        let to = target.open(&path, FileMode::Create).map_err(failed)?;
        to.write_at(&header[..header_len as usize], 0).map_err(failed)?;
        let len = end.saturating_sub(header_len);
        let taken = if id == self.last.0 {
            // To share bytes with a file that is written to would have its writers wait.
            to.copy_from(&*from, header_len, header_len, len).map(|()| Taken::Copied)
        } else {
            to.take_from(&*from, header_len, header_len, len)
        };
        count(header_len, Taken::Copied);
        count(len, taken.map_err(failed)?);
        to.sync().map_err(failed)
    }
}

impl Drop for HeldSegments<'_> {
    fn drop(&mut self) {
        let free: Vec<Retired> = {
            let mut shelf = self.log.stock.shelf();
            if let Some(at) = shelf.holds.iter().position(|&first| first == self.first) {
                shelf.holds.swap_remove(at);
            }
            let least = shelf.holds.iter().copied().min().unwrap_or(u64::MAX);
            let (kept, free) = std::mem::take(&mut shelf.held).into_iter().partition(|held| held.id >= least);
            shelf.held = kept;
            free
        };
        for held in free {
            let given_up = self.log.given_up.lock();
            if *given_up {
                break;
            }
            // It is found and removed when the database is opened again, as what a crash leaves.
            if let Err(error) = self.log.stock.remove_held(held) {
                tracing::warn!(%error, "a segment of the log stays though it is not needed");
            }
            drop(given_up);
            // Here, where nobody waits for it: it would count against the log's limit.
            self.log.free_surplus();
        }
    }
}
