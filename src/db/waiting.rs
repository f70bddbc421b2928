//! Callbacks that wait for commits to be durable, by number. Calls nobody and syncs nothing:
//! [`synced`](super::synced) does.

use std::collections::BTreeMap;
use std::fmt;

use crate::codec::ids::SequenceNumber;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Condvar, Mutex};

pub(super) type Callback = Box<dyn FnOnce(Result<()>) + Send>;

/// Callbacks that wait until a commit is durable.
#[derive(Default)]
pub(super) struct Waiting {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By number, then by turn.
    callbacks: BTreeMap<(SequenceNumber, u64), Callback>,
    turns: u64,
    has_thread: bool,
    /// Nothing is synced any more, and nobody is taken in.
    ended: bool,
}

/// What the thread is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    SyncThrough(SequenceNumber),
    /// Tell all how it is, and end.
    End,
}

impl Waiting {
    /// Takes a callback in; `start` starts the thread that calls it if there is none yet. Whom it refuses it
    /// does not call.
    pub(super) fn add(
        &self,
        sequence: SequenceNumber,
        callback: Callback,
        start: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let mut state = self.state.lock();
        if state.ended {
            drop(state);
            return Err(closed());
        }
        if !state.has_thread {
            // Under the lock, so that whoever comes meanwhile does not count on a thread that could not be
            // started.
            start()?;
            state.has_thread = true;
        }
        state.turns += 1;
        let turn = state.turns;
        state.callbacks.insert((sequence, turn), callback);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    pub(super) fn next(&self) -> Next {
        let mut state = self.state.lock();
        loop {
            if state.ended {
                return Next::End;
            }
            if let Some(((highest, _), _)) = state.callbacks.last_key_value() {
                return Next::SyncThrough(*highest);
            }
            state = self.changed.wait(state);
        }
    }

    /// The first callback, if its number is at most `through`.
    pub(super) fn take(&self, through: SequenceNumber) -> Option<(SequenceNumber, Callback)> {
        let mut state = self.state.lock();
        let first = state.callbacks.first_entry()?;
        let sequence = first.key().0;
        (sequence <= through).then(|| (sequence, first.remove()))
    }

    /// The log is synced as far as it ever will be: whoever still waits is told how it is.
    pub(super) fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_one();
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting")
            .field("callbacks", &self.state.lock().callbacks.len())
            .finish_non_exhaustive()
    }
}

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the database was closed")
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn numbered(told: &mpsc::Sender<u64>, number: u64) -> Callback {
        let told = told.clone();
        Box::new(move |_| told.send(number).unwrap())
    }

    #[test]
    fn lower_numbers_come_first_and_of_equal_ones_whoever_asked_first() {
        let (told, tells) = mpsc::channel();
        let waiting = Waiting::default();
        for (place, sequence) in [7, 3, 7, 5, 3].into_iter().enumerate() {
            let callback = numbered(&told, place as u64);
            waiting.add(SequenceNumber(sequence), callback, || Ok(())).unwrap();
        }
        assert_eq!(waiting.next(), Next::SyncThrough(SequenceNumber(7)));
        while let Some((_, callback)) = waiting.take(SequenceNumber(6)) {
            callback(Ok(()));
        }
        assert_eq!(tells.try_iter().collect::<Vec<_>>(), [1, 4, 3]);
        while let Some((_, callback)) = waiting.take(SequenceNumber::MAX) {
            callback(Ok(()));
        }
        assert_eq!(tells.try_iter().collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn who_comes_while_there_is_no_thread_to_be_had_is_refused_and_the_next_one_starts_it() {
        let (told, _tells) = mpsc::channel();
        let waiting = Waiting::default();
        let refused = || Err(Error::io("starting a thread", std::io::ErrorKind::OutOfMemory.into()));
        waiting.add(SequenceNumber(1), numbered(&told, 1), refused).unwrap_err();
        assert!(waiting.take(SequenceNumber::MAX).is_none());
        let mut started = 0;
        for number in 1..3 {
            let start = || {
                started += 1;
                Ok(())
            };
            waiting.add(SequenceNumber(number), numbered(&told, number), start).unwrap();
        }
        assert_eq!(started, 1);
    }

    #[test]
    fn at_the_end_nobody_is_taken_in_and_who_waits_is_told() {
        let (told, _tells) = mpsc::channel();
        let waiting = Waiting::default();
        waiting.add(SequenceNumber(1), numbered(&told, 1), || Ok(())).unwrap();
        waiting.end();
        assert_eq!(waiting.next(), Next::End);
        let late = waiting.add(SequenceNumber(1), numbered(&told, 2), || Ok(()));
        assert_eq!(late.unwrap_err().kind(), ErrorKind::Closed);
        assert!(waiting.take(SequenceNumber::MAX).is_some());
        assert!(waiting.take(SequenceNumber::MAX).is_none());
    }
}
