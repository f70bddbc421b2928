//! Replays the log: follows the chain of segments to the first place that holds no valid record.
//!
//! The successor of a segment is the newest segment that names it as its predecessor, and the segment is read
//! no further than where the successor says that it ends. So after a start that cut off a torn tail, the
//! tail, and the segments that once followed it, stay cut off, whether or not they have been removed.
//!
//! Where the reading stops, the log should end. Three things say that it does not, and make the stop a
//! corruption:
//! 1. the superblock's mark lies beyond the stop;
//! 2. a record beyond the stop, in this segment or a later one, was appended when more was known to be
//!    durable;
//! 3. a later segment's predecessor is missing, or the segment that a note behind the last record names
//!    (`end.rs`). Directory entries are durable before a segment is written to, and segments are removed from
//!    the front, or after a newer start is durable, so that no crash leaves such a hole.

//!
//! Who asks for it ([`Plan::load`]) has a damaged log read up to there; the report says what lies beyond.

use std::collections::BTreeMap;

use super::reader::{Found, SegmentReader};
use super::segment::{self, DIRECTORY, SHORT_HEADER_LEN, SegmentHeader, path};
use crate::codec::ids::SequenceNumber;
use crate::codec::log_mark::LogMark;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{FileMode, StorageBackend, StorageFile};

/// Where the log resumes: what replay ended with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LogEnd {
    /// The segment in which the reading stopped; 0 if there is none.
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) last_sequence: SequenceNumber,
    /// The highest id seen on disk.
    pub(crate) newest_segment: u64,
}

/// What replay did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ReplayReport {
    pub(crate) records: u64,
    /// Bytes of the payloads.
    pub(crate) bytes: u64,
    /// Segments read.
    pub(crate) segments: u64,
    /// Segment and offset at which the log was cut, if something that was appended is known to lie beyond.
    pub(crate) torn_tail: Option<(u64, u64)>,
    pub(crate) end: LogEnd,
    pub(crate) last_sequence: SequenceNumber,
    /// The segments read, by id.
    pub(crate) read: Vec<Read>,
    /// Why reading stopped, if what lies beyond is given up.
    stopped_by: Option<String>,
    pub(crate) given_up: Option<GivenUp>,
}

/// What of a damaged log is not replayed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GivenUp {
    /// What is damaged, and where.
    pub(crate) reason: String,
    /// Where it begins; segment 0 if nothing of the log was read.
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    /// Records beyond of which the headers are whole, their bytes, and the highest of their numbers.
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) last_sequence: SequenceNumber,
}

/// What replay read of one segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Read {
    pub(super) id: u64,
    /// Where the reading stopped.
    pub(super) end: u64,
    /// Bytes that are known to be durable. Not zero only if the segments before are durable as well.
    durable: u64,
}

/// Reads the log from `mark` on and gives every record's number and payload to `apply`, in order. Changes
/// nothing on disk.
///
/// # Errors
/// As of [`Plan::replay`].
#[cfg(any(test, fuzzing))]
pub(crate) fn replay(
    backend: &dyn StorageBackend,
    database_id: &[u8; 16],
    mark: LogMark,
    apply: &mut dyn FnMut(SequenceNumber, &[u8]) -> Result<()>,
) -> Result<ReplayReport> {
    Plan::load(backend, database_id, mark, false)?
        .replay(backend, &mut |_, sequence, payload| apply(sequence, payload))
}

/// Takes a record: its segment, its number, its payload.
pub(crate) type Apply<'a> = dyn FnMut(u64, SequenceNumber, &[u8]) -> Result<()> + 'a;

/// What the headers of segments say of the log, before any record is read.
pub(crate) struct Plan {
    chain: Chain,
    mark: LogMark,
    newest_segment: u64,
    /// Whether a damaged log is read as far as it is whole.
    gives_up: bool,
    /// Why nothing can be read, and the segments that are there.
    unread: Option<(String, Chain)>,
}

/// Whether `error` says that the log is damaged.
fn is_damage(error: &Error) -> bool {
    error.kind() == ErrorKind::Corruption || error.is_of_reading()
}

/// Where a reading stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoppedAt {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

impl StoppedAt {
    /// Before the first record of a segment.
    pub(crate) fn before(segment: u64) -> Self {
        Self { segment, offset: 0 }
    }
}

impl Plan {
    /// Reads the headers of all segments from `mark` on. If it `gives_up` on what is damaged, a replay reads
    /// the log as far as it is whole, and reports the rest.
    pub(crate) fn load(
        backend: &dyn StorageBackend,
        database_id: &[u8; 16],
        mark: LogMark,
        gives_up: bool,
    ) -> Result<Self> {
        let ids = segment::list(backend)?;
        let newest_segment = ids.last().copied().unwrap_or(0).max(mark.newest_segment);
        let chain = Chain::load(backend, database_id, ids, mark.first_segment, gives_up)?;
        let mut plan = Self { chain, mark, newest_segment, gives_up, unread: None };
        if gives_up
            && mark.first_segment != 0
            && let Err(error) = plan.chain.first(mark.first_segment)
        {
            let chain = std::mem::take(&mut plan.chain);
            plan.unread = Some((error.to_string(), chain));
            plan.mark = LogMark::default();
        }
        Ok(plan)
    }

    /// Fails if a segment needs features to be written to that this engine does not know.
    pub(crate) fn check_writing(&self) -> Result<()> {
        let unread = self.unread.iter().map(|(_, chain)| chain);
        for header in unread.chain([&self.chain]).flat_map(|chain| chain.segments.values().flatten()) {
            let checked = header.features.check_writing("a segment of the log");
            checked.map_err(|error| error.in_file(path(header.id)))?;
        }
        Ok(())
    }

    /// The segments that a replay reads if all of them are whole, and the bytes in use of each; of the last
    /// one, the length of the file.
    pub(crate) fn segments(&self, backend: &dyn StorageBackend) -> Result<Vec<(u64, u64)>> {
        let mut segments = Vec::new();
        let mut segment = self.mark.first_segment;
        if segment != 0 {
            self.chain.first(segment)?;
        }
        loop {
            let successor = self.chain.successor(segment);
            if segment != 0 {
                let bytes = match successor {
                    Some(header) => header.previous_end,
                    None => SegmentReader::open(backend, segment)?.file_len(),
                };
                segments.push((segment, bytes));
            }
            match successor {
                Some(header) => segment = header.id,
                None => return Ok(segments),
            }
        }
    }

    /// Reads the log and gives every record to `apply`, in order. Changes nothing on disk.
    ///
    /// # Errors
    /// [`Corruption`](crate::error::ErrorKind::Corruption) if the log stops where more was known to be
    /// durable, `apply`'s error, or the disk's. What was applied until then is a prefix of the log.
    pub(crate) fn replay(&self, backend: &dyn StorageBackend, apply: &mut Apply<'_>) -> Result<ReplayReport> {
        let Self { chain, mark, .. } = self;
        let mut report = ReplayReport::default();
        let (segment, stop) = self.follow(backend, mark.first_segment, None, &mut report, apply)?;
        for read in report.read.iter_mut().filter(|read| read.id == mark.newest_segment) {
            read.durable = read.durable.max(mark.durable_bytes);
        }
        let torn = match chain.check_stop(backend, segment, stop.offset, *mark) {
            Err(error) if self.gives_up && is_damage(&error) => {
                report.stopped_by.get_or_insert(error.to_string());
                true
            }
            torn => stop.torn | torn?,
        };
        let torn = match chain.damaged.range(segment + 1..).next() {
            Some((_, error)) => {
                report.stopped_by.get_or_insert(error.to_string());
                true
            }
            None => torn,
        };
        self.look_beyond(backend, segment, stop.offset, &mut report);
        report.torn_tail = torn.then_some((segment, stop.offset));
        report.end = LogEnd {
            segment,
            offset: stop.offset,
            last_sequence: report.last_sequence,
            newest_segment: self.newest_segment,
        };
        tracing::debug!(
            records = report.records,
            bytes = report.bytes,
            segments = report.segments,
            torn_tail = ?report.torn_tail,
            "replayed the log"
        );
        Ok(report)
    }

    /// Reports what lies beyond the place where the reading stopped, if that is given up.
    fn look_beyond(
        &self,
        backend: &dyn StorageBackend,
        segment: u64,
        offset: u64,
        report: &mut ReplayReport,
    ) {
        let (reason, chain) = match (&self.unread, report.stopped_by.take()) {
            (Some((reason, chain)), _) => (reason.clone(), chain),
            (None, Some(reason)) => (reason, &self.chain),
            (None, None) => return,
        };
        let mut given_up = GivenUp { reason, segment, offset, ..GivenUp::default() };
        for &id in chain.segments.range(segment.max(1)..).map(|(id, _)| id) {
            let from = if id == segment { offset } else { chain.records_at(id) };
            // What cannot be read says nothing.
            let Ok(traces) = SegmentReader::open(backend, id).and_then(|mut reader| reader.traces(from))
            else {
                continue;
            };
            given_up.records += traces.records;
            given_up.bytes = given_up.bytes.saturating_add(traces.bytes);
            given_up.last_sequence = given_up.last_sequence.max(SequenceNumber(traces.last_sequence));
        }
        report.given_up = Some(given_up);
    }

    /// Reads a part of the log: from the segment `first` on, up to the segment `before`, if the reading comes
    /// to it. What it gives is part of the log only if a [`replay`](Self::replay) comes to `first`; then both
    /// stop at the same place.
    pub(crate) fn read_part(
        &self,
        backend: &dyn StorageBackend,
        first: u64,
        before: Option<u64>,
        apply: &mut Apply<'_>,
    ) -> Result<StoppedAt> {
        let mut report = ReplayReport::default();
        let (segment, stop) = self.follow(backend, first, before, &mut report, apply)?;
        Ok(StoppedAt { segment, offset: stop.offset })
    }

    /// Follows the chain from the segment `first` on, and not beyond the beginning of `before`. Gives the
    /// segment in which the reading stopped, and how.
    fn follow(
        &self,
        backend: &dyn StorageBackend,
        first: u64,
        before: Option<u64>,
        report: &mut ReplayReport,
        apply: &mut Apply<'_>,
    ) -> Result<(u64, Stop)> {
        let mut segment = first;
        if segment != 0 {
            report.last_sequence = SequenceNumber(self.chain.first(segment)?.last_sequence);
        }
        loop {
            if Some(segment) == before {
                return Ok((segment, Stop { offset: 0, torn: false }));
            }
            let successor = self.chain.successor(segment);
            let limit = successor.map(|header| header.previous_end);
            let stop = if segment == 0 {
                Stop::default()
            } else {
                let start = self.chain.records_at(segment);
                match read_segment(backend, (segment, start), limit, report, apply) {
                    Err(error) if self.gives_up && error.is_of_reading() => {
                        report.stopped_by = Some(error.to_string());
                        let read = report.read.last().filter(|read| read.id == segment);
                        let offset = read.map_or(start, |read| read.end);
                        return Ok((segment, Stop { offset, torn: true }));
                    }
                    stop => stop?,
                }
            };
            match successor {
                Some(header) if header.previous_end == stop.offset => {
                    if header.last_sequence < report.last_sequence.0 {
                        let error = Error::corruption(format!(
                            "a segment of the log says that it follows number {}, but its predecessor reaches {}",
                            header.last_sequence, report.last_sequence
                        ))
                        .in_file(path(header.id));
                        if !self.gives_up {
                            return Err(error);
                        }
                        report.stopped_by = Some(error.to_string());
                        return Ok((segment, Stop { torn: true, ..stop }));
                    }
                    report.last_sequence = SequenceNumber(header.last_sequence);
                    segment = header.id;
                }
                // A successor says that the segment went on beyond the stop.
                _ => return Ok((segment, Stop { torn: stop.torn | successor.is_some(), ..stop })),
            }
        }
    }
}

/// Makes what replay read durable. To be called before a log is started at the report's end: what was
/// replayed may come from the memory of the system, which survives a killed process and not the loss of
/// power.
///
/// What is not known to be durable is written again before it is synced: after a sync that failed the system
/// may take bytes for clean that are not on the disk, and a second sync would write nothing.
pub(crate) fn make_durable(backend: &dyn StorageBackend, report: &ReplayReport) -> Result<()> {
    for read in report.read.iter().rev() {
        let file = backend
            .open(&path(read.id), FileMode::Write)
            .map_err(|error| Error::io("opening the log", error).in_file(path(read.id)))?;
        rewrite(&*file, read.durable, read.end)
            .and_then(|()| file.sync())
            .map_err(|error| Error::io("syncing the log", error).in_file(path(read.id)))?;
        if read.durable > 0 {
            break;
        }
    }
    if !report.read.is_empty() {
        let synced = backend.sync_directory(DIRECTORY);
        synced.map_err(|error| Error::io("syncing the log's directory", error).in_file(DIRECTORY))?;
    }
    Ok(())
}

/// Writes the bytes from `start` to `end` over themselves.
fn rewrite(file: &dyn StorageFile, start: u64, end: u64) -> std::io::Result<()> {
    const STRIDE: u64 = 1 << 20;
    let mut buffer = vec![0; STRIDE.min(end.saturating_sub(start)) as usize];
    let mut offset = start;
    while offset < end {
        let part = &mut buffer[..STRIDE.min(end - offset) as usize];
        file.read_at(part, offset)?;
        file.write_at(part, offset)?;
        offset += part.len() as u64;
    }
    Ok(())
}

/// Where the reading of a segment stopped.
#[derive(Debug, Clone, Copy, Default)]
struct Stop {
    offset: u64,
    /// A record was appended here, and is not whole.
    torn: bool,
}

/// Applies the records of `segment`, the first of which stands at `offset`, up to `limit` at most.
fn read_segment(
    backend: &dyn StorageBackend,
    (segment, mut offset): (u64, u64),
    limit: Option<u64>,
    report: &mut ReplayReport,
    apply: &mut Apply<'_>,
) -> Result<Stop> {
    let mut reader = SegmentReader::open(backend, segment)?;
    report.segments += 1;
    report.read.push(Read { id: segment, end: offset, durable: 0 });
    loop {
        if limit == Some(offset) {
            return Ok(Stop { offset, torn: false });
        }
        match reader.find(offset)? {
            Found::Record { header, end }
                if header.sequence > report.last_sequence.0 && limit.is_none_or(|limit| end <= limit) =>
            {
                let payload = reader.payload(offset, &header)?.expect("its sum was right just now");
                let sequence = SequenceNumber(header.sequence);
                apply(segment, sequence, payload)?;
                if let Some(read) = report.read.last_mut() {
                    read.durable = read.durable.max(header.durable);
                    read.end = end;
                }
                report.last_sequence = sequence;
                report.records += 1;
                report.bytes += header.payload_len;
                offset = end;
            }
            Found::Record { .. } | Found::Torn { .. } => return Ok(Stop { offset, torn: true }),
            Found::Nothing => return Ok(Stop { offset, torn: false }),
        }
    }
}

/// The segments on disk from the first one of recovery on, by id: a header, or `None` where there is no valid
/// one.
#[derive(Default)]
struct Chain {
    segments: BTreeMap<u64, Option<SegmentHeader>>,
    /// Those whose headers cannot be read or are refused, and why: only where damage is given up.
    damaged: BTreeMap<u64, Error>,
}

impl Chain {
    fn load(
        backend: &dyn StorageBackend,
        database_id: &[u8; 16],
        ids: Vec<u64>,
        first: u64,
        gives_up: bool,
    ) -> Result<Self> {
        let mut chain = Self::default();
        for id in ids.into_iter().filter(|&id| id >= first) {
            let mut reader = SegmentReader::open(backend, id)?;
            let header = reader.header().and_then(|bytes| SegmentHeader::decode(bytes, id, database_id));
            let header = match header {
                // One of a newer format is whole, and not to be given up.
                Err(error) if gives_up && is_damage(&error) => {
                    chain.damaged.insert(id, error);
                    None
                }
                header => header?,
            };
            chain.segments.insert(id, header);
        }
        Ok(chain)
    }

    /// The segment from which recovery starts.
    fn first(&self, id: u64) -> Result<SegmentHeader> {
        if let Some(error) = self.damaged.get(&id) {
            return Err(error.clone());
        }
        let what = match self.segments.get(&id) {
            Some(Some(header)) => return Ok(*header),
            Some(None) => "has no valid header",
            None => "is missing",
        };
        let message = format!("segment {id} of the log, from which recovery starts, {what}");
        Err(Error::corruption(message).in_file(path(id)))
    }

    /// Where the first record of a segment stands, or the lowest place where it may if its header is not
    /// valid.
    fn records_at(&self, segment: u64) -> u64 {
        self.segments.get(&segment).copied().flatten().map_or(SHORT_HEADER_LEN, |header| header.records_at)
    }

    /// The newest segment that names `segment` as its predecessor; for 0, the newest that has none.
    fn successor(&self, segment: u64) -> Option<SegmentHeader> {
        let later = self.segments.range(segment + 1..).rev();
        later.filter_map(|(_, header)| *header).find(|header| header.previous == segment)
    }

    /// Makes sure that nothing says that more than what was read up to `offset` of `segment` was durable.
    /// Says whether records were appended beyond.
    fn check_stop(
        &self,
        backend: &dyn StorageBackend,
        segment: u64,
        offset: u64,
        mark: LogMark,
    ) -> Result<bool> {
        let stopped = |witness: String| {
            let message = format!(
                "the log ends at byte {offset} of segment {segment}, which holds no valid record, but {witness}"
            );
            Err(Error::corruption(message).in_file(path(segment)).at_offset(offset))
        };
        if (mark.newest_segment, mark.durable_bytes) > (segment, offset) {
            return stopped(format!(
                "the superblock says that it was durable up to byte {} of segment {}",
                mark.durable_bytes, mark.newest_segment
            ));
        }
        let mut torn = false;
        for (&id, header) in self.segments.range(segment.max(1)..) {
            if let Some(header) = header
                && id > segment
                && header.previous > segment
                && !self.segments.contains_key(&header.previous)
            {
                return stopped(format!(
                    "segment {id} follows segment {}, which is missing",
                    header.previous
                ));
            }
            let from = if id == segment { offset } else { self.records_at(id) };
            let mut reader = SegmentReader::open(backend, id)?;
            if id == segment
                && let Some(next) = reader.end(offset)?
                && !self.segments.contains_key(&next)
            {
                return stopped(format!(
                    "a note there says that it goes on in segment {next}, which is missing"
                ));
            }
            let traces = reader.traces(from)?;
            if traces.durable > if id == segment { offset } else { 0 } {
                return stopped(format!(
                    "the record at byte {} of segment {id} says that it was durable up to byte {} of that segment",
                    traces.durable_at, traces.durable
                ));
            }
            torn |= traces.records > 0;
        }
        Ok(torn)
    }
}
