//! Recovery: the log's commits go back into the memtables they were lost from.
//!
//! A family takes only commits beyond the one it is merged through, so what is in its tree is not applied
//! twice; operations on families that the catalog does not know were made on families that are dropped.
//!
//! The log is divided into *parts*, at segments, of about as many bytes each
//! ([`replay_part`](super::replay_part)). One thread reads and sums all of it, and hands the first part to
//! another that inserts it. Each of the other parts is read once more, and inserted, by a thread of its own,
//! into memtables of its own, which come in front of those of the part before when that is done. So one
//! family's log is inserted by as many threads as the log of many.
//!
//! Invariants:
//! 1. What is made of a part is younger than what is made of those before, for every family, and so are its
//!    memtables.
//! 2. Of a part to which the one thread that reads all of the log does not come nothing is used. Where it
//!    comes, both read the same.
//! 3. Before anything is made of what was read it is inserted whole, or opening fails and nothing is left of
//!    it. Merges meanwhile are of prefixes of the log.

use crate::codec::ids::SequenceNumber;
use crate::db::replay_part::{Part, Turns};
use crate::db::replayer::{Known, Replayed, Replayer};
use crate::db::stretch::{Reading, hand_over};
use crate::error::{Error, Result};
use crate::storage::StorageBackend;
use crate::sync::{Arc, spawn_scoped, thread};
use crate::wal::{self, GivenUp, Plan, ReplayReport, StoppedAt};

/// Bytes of log from which on it is divided.
const WORTH_DIVIDING: u64 = 16 << 10;
/// Parts at most: each may leave a memtable of every family, and a family has places for few.
const MOST_PARTS: usize = 3;

/// What opening a database replayed from its log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Records read from the log, each a commit.
    pub records: u64,
    /// Commits of which something was not merged yet and went into a memtable.
    pub records_applied: u64,
    /// Bytes of the records read.
    pub bytes: u64,
    /// Log segments read.
    pub segments: u64,
    /// Where a torn tail was cut off: number of the log segment and byte offset in it. `None` if the log
    /// ended in good order.
    pub torn_tail: Option<(u64, u64)>,
    /// Position of the last commit that the database holds, or that was lost.
    pub last_sequence: SequenceNumber,
    /// What was given up of a damaged log, see
    /// [`skip_damaged_log`](crate::DatabaseBuilder::skip_damaged_log).
    pub lost: Option<LostLog>,
}

/// What was given up of a damaged log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostLog {
    /// What is damaged, and where.
    pub reason: String,
    /// The log is replayed up to here: number of the segment and byte offset in it; segment 0 if nothing of
    /// the log could be read.
    pub from: (u64, u64),
    /// The last commit that was replayed, or was in the trees before: those after it are lost, as far as they
    /// were in no tree.
    pub through: SequenceNumber,
    /// The last commit of which a trace was found beyond.
    pub last_seen: Option<SequenceNumber>,
    /// Records beyond of which traces were found; there may have been more.
    pub records: u64,
    /// Bytes of these records.
    pub bytes: u64,
    /// The directory, in that of the database, into which the log was copied from the segment in `from` on.
    /// It stays until somebody removes it. `None` if the database was opened for reading only: then the log
    /// stays as it is.
    pub kept_in: Option<String>,
}

impl LostLog {
    /// Keeps what is given up, unless nothing is to change, and says what it is.
    pub(super) fn keep(
        backend: &dyn StorageBackend,
        given_up: &GivenUp,
        through: SequenceNumber,
        read_only: bool,
    ) -> Result<Self> {
        let GivenUp { segment, offset, .. } = *given_up;
        let kept_in = (!read_only).then(|| format!("wal.damaged-{segment}-{offset}"));
        if let Some(directory) = &kept_in {
            wal::keep_aside(backend, segment.max(1), directory)?;
        }
        let last_seen = Some(given_up.last_sequence).filter(|last| last.0 > 0);
        let lost = Self {
            reason: given_up.reason.clone(),
            from: (segment, offset),
            through,
            last_seen,
            records: given_up.records,
            bytes: given_up.bytes,
            kept_in,
        };
        tracing::error!(?lost, "the log is damaged, and was replayed up to there alone");
        Ok(lost)
    }
}

impl Replayer<'_> {
    /// Replays the log, and calls `meanwhile` when it is read to its end, while the last commits are
    /// inserted. If any of that fails nothing may be made of what was applied.
    pub(super) fn replay(
        &self,
        backend: &dyn StorageBackend,
        plan: &Plan,
        meanwhile: impl FnOnce(&ReplayReport) -> Result<()>,
    ) -> Result<(ReplayReport, Replayed)> {
        let segments = plan.segments(backend)?;
        let starts = divide(&segments, parts());
        let turns = Turns::default();
        let (report, replayed) = thread::scope(|scope| {
            let no_thread = |error| Error::io("starting a thread for the replay", error);
            let (reading, inserting) = hand_over(self.budget.ahead as usize);
            let mut first = Part::new(self, &turns, 0, &starts);
            let insert = || {
                let turn = turns.hold();
                inserting.for_each(|sequence, payload| first.apply(sequence, payload))?;
                turn.finish();
                Ok(first.replayed())
            };
            let inserting = spawn_scoped(scope, "peristyle-replay", insert).map_err(no_thread)?;
            let mut others = Vec::new();
            // If one cannot be started, those that were wait for no turn.
            let turn = turns.hold();
            for number in 1..starts.len() {
                let part = Part::new(self, &turns, number, &starts);
                let read = move || part.read(backend, plan);
                others.push(spawn_scoped(scope, "peristyle-replay", read).map_err(no_thread)?);
            }
            let report = self.read_all(backend, plan, reading, &turns, &starts);
            let report = report.and_then(|report| meanwhile(&report).map(|()| report));
            match report {
                Ok(_) => turn.keep(),
                Err(_) => drop(turn),
            }
            let first = inserting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let mut replayed: Vec<Result<Option<_>>> = Vec::new();
            for other in others {
                replayed.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            // Whoever inserts knows better than whoever reads why it was not to be gone on.
            let mut sum: Replayed = first?;
            let mut stops = Vec::new();
            for part in replayed {
                if let Some((part, stop)) = part? {
                    sum.applied += part.applied;
                    sum.operations += part.operations;
                    stops.push(stop);
                }
            }
            let report = report?;
            check_stops(&report, &starts, &stops)?;
            Ok::<_, Error>((report, sum))
        })?;
        self.make_room()?;
        self.progress.finish(report.bytes);
        Ok((report, replayed))
    }

    /// Reads all of the log, and hands on what the first part is to insert.
    fn read_all(
        &self,
        backend: &dyn StorageBackend,
        plan: &Plan,
        reading: Reading,
        turns: &Turns,
        starts: &[u64],
    ) -> Result<ReplayReport> {
        let mut reading = Some(reading);
        let mut confirmed = 0;
        let report = plan.replay(backend, &mut |segment, sequence, payload| {
            let part = starts.partition_point(|&start| start <= segment).saturating_sub(1);
            if part > confirmed {
                confirmed = part;
                reading.take().map_or(Ok(()), Reading::finish)?;
                turns.confirm(part);
            }
            if let Some(reading) = &mut reading
                && reading.push(sequence, payload)?
            {
                // Reading takes a fraction of the time that inserting takes.
                self.views.load_full().families().for_each(|family| family.active.make_ready());
            }
            Ok(())
        })?;
        reading.take().map_or(Ok(()), Reading::finish)?;
        let part = starts.partition_point(|&start| start <= report.end.segment).saturating_sub(1);
        turns.confirm(part);
        turns.end();
        Ok(report)
    }

    /// Merges the largest memtables until the others are within what the open database may have.
    fn make_room(&self) -> Result<()> {
        if self.budget.is_unlimited() {
            return Ok(());
        }
        let bytes = |known: &Known| (self.memtable_bytes(&known.family), Arc::clone(&known.family));
        let mut families: Vec<_> = self.families.values().map(bytes).collect();
        families.sort_by_key(|(bytes, _)| *bytes);
        let mut sum: u64 = families.iter().map(|(bytes, _)| bytes).sum();
        while sum > self.budget.open
            && let Some((bytes, family)) = families.pop()
        {
            // What stays is what cannot be written.
            self.merge(&family)?;
            sum -= bytes;
        }
        Ok(())
    }
}

/// Threads that insert.
fn parts() -> usize {
    if cfg!(any(test, fuzzing)) {
        return MOST_PARTS;
    }
    std::thread::available_parallelism().map_or(2, |threads| threads.get().clamp(2, MOST_PARTS))
}

/// The first segments of up to `parts` parts of about as many bytes. There is always one, of 0 if there is no
/// log.
fn divide(segments: &[(u64, u64)], parts: usize) -> Vec<u64> {
    let mut starts = vec![segments.first().map_or(0, |&(id, _)| id)];
    // What headers say of lengths is not trusted.
    let all = segments.iter().fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
    if all < WORTH_DIVIDING {
        return starts;
    }
    let mut before = 0u64;
    for pair in segments.windows(2) {
        let half_of_next = pair[1].1 / 2;
        before = before.saturating_add(pair[0].1);
        // What is nearest to the place where the next part should begin.
        let place = u128::from(all) * starts.len() as u128 / parts as u128;
        if starts.len() < parts && u128::from(before) + u128::from(half_of_next) >= place {
            starts.push(pair[1].0);
        }
    }
    starts
}

/// Makes sure that what was read twice was read alike.
fn check_stops(report: &ReplayReport, starts: &[u64], stops: &[StoppedAt]) -> Result<()> {
    for (index, &stop) in stops.iter().enumerate() {
        let is_last = index + 1 == stops.len();
        let end = StoppedAt { segment: report.end.segment, offset: report.end.offset };
        let expected = if is_last { end } else { StoppedAt::before(starts[index + 2]) };
        if stop != expected {
            let message = format!(
                "the log was read twice and ended at byte {} of segment {} the first time, at byte {} of segment {} the second",
                expected.offset, expected.segment, stop.offset, stop.segment
            );
            return Err(Error::corruption(message).in_file("wal"));
        }
    }
    Ok(())
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn parts_are_about_alike_and_begin_with_segments() {
        assert_eq!(divide(&[], 2), [0]);
        assert_eq!(divide(&[(3, 1 << 30)], 2), [3]);
        assert_eq!(divide(&[(3, 100), (4, 100)], 2), [3]);
        let even: Vec<_> = (1..=8).map(|id| (id, 64 << 20)).collect();
        assert_eq!(divide(&even, 2), [1, 5]);
        assert_eq!(divide(&even[..6], 3), [1, 3, 5]);
        assert_eq!(divide(&[(1, 16 << 10), (2, 128 << 10), (3, 1 << 20), (9, 8 << 20)], 2), [1, 9]);
        assert_eq!(divide(&[(1, 8 << 20), (2, 16 << 10)], 3), [1, 2]);
    }

    #[test]
    fn what_is_read_twice_has_to_be_read_alike() {
        let mut report = ReplayReport::default();
        (report.end.segment, report.end.offset) = (7, 500);
        let at = |segment, offset| StoppedAt { segment, offset };
        let starts = [1, 3, 6];
        check_stops(&report, &starts, &[]).unwrap();
        check_stops(&report, &starts, &[StoppedAt::before(6), at(7, 500)]).unwrap();
        for stops in
            [[at(5, 90), at(7, 500)], [StoppedAt::before(6), at(7, 460)], [StoppedAt::before(6), at(6, 500)]]
        {
            assert!(check_stops(&report, &starts, &stops).is_err());
        }
    }
}
