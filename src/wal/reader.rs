//! Reads one segment from front to back, through a window.

use super::end::{self, END_LEN};
use super::record::{ALIGNMENT, HEADER_LEN, RecordHeader, record_len, what_is_unknown};
use super::segment::{self, path};
use crate::codec::checksum::crc32;
use crate::codec::features::newer;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{FileMode, StorageBackend, StorageFile};
use crate::sync::Arc;

/// What the window holds at least, unless the file ends before.
const WINDOW_LEN: u64 = if cfg!(any(test, fuzzing)) { 256 } else { 512 << 10 };

/// A segment's file, opened for reading.
pub(super) struct SegmentReader {
    id: u64,
    file: Arc<dyn StorageFile>,
    len: u64,
    /// Bytes of the file from `start` on.
    window: Vec<u8>,
    start: u64,
}

/// What stands at a place of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A whole record.
    Record { header: RecordHeader, end: u64 },
    /// A record's header, but its payload is not what was appended, or lies beyond the end of the file.
    Torn { header: RecordHeader },
    /// Nothing that was written here as a record.
    Nothing,
}

/// What the rest of a segment says of the past.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Traces {
    /// Headers of records that stand there, the bytes of these records, and the highest number of them.
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) last_sequence: u64,
    /// The largest "known to be durable" of any record, and where that record stands.
    pub(super) durable: u64,
    pub(super) durable_at: u64,
}

impl SegmentReader {
    pub(super) fn open(backend: &dyn StorageBackend, id: u64) -> Result<Self> {
        let opened = backend.open(&path(id), FileMode::Read).and_then(|file| Ok((file.len()?, file)));
        let (len, file) = opened.map_err(|error| Error::io("opening the log", error).in_file(path(id)))?;
        Ok(Self { id, file, len, window: Vec::new(), start: 0 })
    }

    pub(super) fn file_len(&self) -> u64 {
        self.len
    }

    /// The `wanted` bytes from `offset` on, and what the window holds beyond them; `None` if the file ends
    /// before.
    pub(super) fn bytes(&mut self, offset: u64, wanted: u64) -> Result<Option<&[u8]>> {
        if offset > self.len || wanted > self.len - offset {
            return Ok(None);
        }
        let held = self.start + self.window.len() as u64;
        if offset < self.start || offset + wanted > held {
            let len = wanted.max(WINDOW_LEN).min(self.len - offset);
            self.fill(offset, len)?;
        }
        let skip = (offset - self.start) as usize;
        Ok(Some(&self.window[skip..]))
    }

    fn fill(&mut self, offset: u64, len: u64) -> Result<()> {
        let located = |error: Error| error.in_file(path(self.id)).at_offset(offset);
        let too_large = || {
            located(Error::new(
                ErrorKind::OutOfResources,
                format!("there is no memory to read a log record of {len} bytes"),
            ))
        };
        self.window.clear();
        self.start = offset;
        let len = usize::try_from(len).map_err(|_| too_large())?;
        self.window.try_reserve(len).map_err(|_| too_large())?;
        self.window.resize(len, 0);
        if let Err(error) = self.file.read_at(&mut self.window, offset) {
            self.window.clear();
            return Err(located(Error::reading("reading the log", error)));
        }
        Ok(())
    }

    /// The bytes at which a segment has its header, as many as there are.
    pub(super) fn header(&mut self) -> Result<&[u8]> {
        let len = segment::HEADER_LEN.min(self.len);
        Ok(self.bytes(0, len)?.unwrap_or_default())
    }

    /// What stands at `offset`. `NewerFormat` if it is a whole record that only a newer engine understands.
    pub(super) fn find(&mut self, offset: u64) -> Result<Found> {
        let id = self.id;
        let bytes = self.bytes(offset, HEADER_LEN)?.and_then(|bytes| bytes.first_chunk());
        let decoded =
            bytes.and_then(|bytes| Some((RecordHeader::decode(bytes, id, offset)?, what_is_unknown(bytes))));
        let Some((header, unknown)) = decoded else {
            return Ok(Found::Nothing);
        };
        let Some(payload) = self.payload(offset, &header)? else {
            return Ok(Found::Torn { header });
        };
        if crc32(&[payload]) != header.payload_checksum {
            return Ok(Found::Torn { header });
        }
        if let Some(unknown) = unknown {
            let error = newer(format_args!("a record of the log {unknown}"));
            return Err(error.in_file(path(id)).at_offset(offset));
        }
        Ok(Found::Record { header, end: offset + record_len(header.payload_len) })
    }

    /// The segment in which the log goes on, if a note at `offset` says so. `NewerFormat` if it says more.
    pub(super) fn end(&mut self, offset: u64) -> Result<Option<u64>> {
        let id = self.id;
        let Some(bytes) = self.bytes(offset, END_LEN)?.and_then(|bytes| bytes.first_chunk()) else {
            return Ok(None);
        };
        end::decode(bytes, id, offset).map_err(|error| error.in_file(path(id)).at_offset(offset))
    }

    /// The payload of the record at `offset`; `None` if the file ends before.
    pub(super) fn payload(&mut self, offset: u64, header: &RecordHeader) -> Result<Option<&[u8]>> {
        let bytes = self.bytes(offset, HEADER_LEN + header.payload_len)?;
        Ok(bytes.map(|bytes| &bytes[HEADER_LEN as usize..][..header.payload_len as usize]))
    }

    /// Looks for headers of records from `offset` to the end of the file. Goes forward only: what a header
    /// says is its payload is passed over, and nothing else but headers is summed.
    pub(super) fn traces(&mut self, mut offset: u64) -> Result<Traces> {
        let (id, len) = (self.id, self.len);
        let mut traces = Traces::default();
        while let Some(mut bytes) = self.bytes(offset, HEADER_LEN)? {
            while let Some(header) = bytes.first_chunk() {
                let step = match RecordHeader::decode(header, id, offset) {
                    Some(header) => {
                        traces.records += 1;
                        traces.bytes = traces.bytes.saturating_add(record_len(header.payload_len));
                        traces.last_sequence = traces.last_sequence.max(header.sequence);
                        if header.durable > traces.durable {
                            traces.durable = header.durable;
                            traces.durable_at = offset;
                        }
                        let whole = record_len(header.payload_len);
                        // A payload that the file has no room for was cut off with the file's end.
                        if whole <= len - offset { whole } else { HEADER_LEN }
                    }
                    None => ALIGNMENT,
                };
                offset += step;
                match usize::try_from(step).ok().and_then(|step| bytes.get(step..)) {
                    Some(rest) => bytes = rest,
                    None => break,
                }
            }
        }
        Ok(traces)
    }
}
