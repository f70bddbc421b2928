//! Stretches of the log: what one thread reads and sums while another inserts what was read before.
//!
//! Stretches are handed over in the order of the log, and each comes back, empty, once all of it is inserted.
//! So who inserts has inserted a prefix of the log at every moment, and who reads is ahead by a few stretches
//! at most.

use crate::codec::ids::SequenceNumber;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::mpsc::{Receiver, Sender, channel};

/// Bytes of payload that make a stretch; a longer record is one of its own.
const STRETCH_LEN: usize = if cfg!(any(test, fuzzing)) { 256 } else { 512 << 10 };
/// Bytes of memory that an empty stretch keeps.
const KEPT_LEN: usize = 4 * STRETCH_LEN;

/// Records that follow each other in the log.
#[derive(Default)]
pub(super) struct Stretch {
    /// Their payloads.
    bytes: Vec<u8>,
    /// The number of each, and where its payload ends.
    ends: Vec<(SequenceNumber, usize)>,
}

impl Stretch {
    /// Numbers and payloads.
    pub(super) fn records(&self) -> impl Iterator<Item = (SequenceNumber, &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|&(_, end)| end));
        self.ends.iter().zip(starts).map(|(&(sequence, end), start)| (sequence, &self.bytes[start..end]))
    }

    fn has_room(&self, len: usize) -> bool {
        self.ends.is_empty() || len <= STRETCH_LEN.saturating_sub(self.bytes.len())
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_LEN);
        self.ends.clear();
    }
}

/// The end at which records are read.
pub(super) struct Reading {
    filling: Stretch,
    full: Sender<Stretch>,
    empty: Receiver<Stretch>,
    /// Bytes of payload that were handed over and did not come back yet, and how many may be.
    away: usize,
    most_away: usize,
}

/// The end at which records are inserted.
pub(super) struct Inserting {
    full: Receiver<Stretch>,
    empty: Sender<Stretch>,
}

/// The two ends. Reading is ahead by `most_away` bytes of payload at most, or by one record, if that is
/// longer.
pub(super) fn hand_over(most_away: usize) -> (Reading, Inserting) {
    let (full, to_insert) = channel();
    let (inserted, empty) = channel();
    let reading = Reading { filling: Stretch::default(), full, empty, away: 0, most_away };
    (reading, Inserting { full: to_insert, empty: inserted })
}

impl Reading {
    /// Takes one record. Says whether a stretch was handed over.
    ///
    /// # Errors
    /// If the other end is gone: whoever inserted knows why.
    pub(super) fn push(&mut self, sequence: SequenceNumber, payload: &[u8]) -> Result<bool> {
        let is_full = !self.filling.has_room(payload.len());
        if is_full {
            self.send()?;
        }
        self.filling.bytes.extend_from_slice(payload);
        self.filling.ends.push((sequence, self.filling.bytes.len()));
        Ok(is_full)
    }

    /// Hands over what is left.
    ///
    /// # Errors
    /// As of [`push`](Self::push).
    pub(super) fn finish(mut self) -> Result<()> {
        self.send()
    }

    fn send(&mut self) -> Result<()> {
        let gone = || Error::new(ErrorKind::Closed, "nobody inserts what is read from the log any more");
        self.away += self.filling.bytes.len();
        self.full.send(std::mem::take(&mut self.filling)).map_err(|_| gone())?;
        while self.away > self.most_away {
            self.take_back(self.empty.recv().map_err(|_| gone())?);
        }
        if let Ok(inserted) = self.empty.try_recv() {
            self.take_back(inserted);
        }
        Ok(())
    }

    fn take_back(&mut self, mut inserted: Stretch) {
        self.away -= inserted.bytes.len();
        inserted.clear();
        self.filling = inserted;
    }
}

impl Inserting {
    /// Gives all records to `insert`, in order, until there are no more or it fails.
    pub(super) fn for_each(self, mut insert: impl FnMut(SequenceNumber, &[u8]) -> Result<()>) -> Result<()> {
        for stretch in self.full {
            stretch.records().try_for_each(|(sequence, payload)| insert(sequence, payload))?;
            // Nobody takes the last ones back.
            let _ = self.empty.send(stretch);
        }
        Ok(())
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::sync::thread;

    fn payload(number: u64) -> Vec<u8> {
        vec![number as u8; (number as usize * 37) % (3 * STRETCH_LEN)]
    }

    #[test]
    fn every_record_arrives_whole_and_in_order_however_long_it_is() {
        for most_away in [0, STRETCH_LEN, 10 * STRETCH_LEN] {
            let (mut reading, inserting) = hand_over(most_away);
            thread::scope(|scope| {
                scope.spawn(move || {
                    for number in 1..200 {
                        reading.push(SequenceNumber(number), &payload(number)).unwrap();
                        assert!(reading.away <= most_away, "{} bytes are away", reading.away);
                    }
                    reading.finish().unwrap();
                });
                let mut next = 1;
                let arrived = inserting.for_each(|sequence, found| {
                    assert_eq!((sequence, found), (SequenceNumber(next), &payload(next)[..]));
                    next += 1;
                    Ok(())
                });
                arrived.unwrap();
                assert_eq!(next, 200);
            });
        }
    }

    #[test]
    fn who_reads_is_told_when_nobody_inserts_any_more() {
        let (mut reading, inserting) = hand_over(STRETCH_LEN);
        thread::scope(|scope| {
            scope.spawn(move || {
                let fails_on = |sequence: SequenceNumber, _: &[u8]| match sequence.0 {
                    3 => Err(Error::new(ErrorKind::Io, "the third")),
                    _ => Ok(()),
                };
                assert_eq!(inserting.for_each(fails_on).unwrap_err().kind(), ErrorKind::Io);
            });
            let told = (1..).find_map(|number| reading.push(SequenceNumber(number), &[1; 100]).err());
            assert_eq!(told.unwrap().kind(), ErrorKind::Closed);
        });
    }
}
