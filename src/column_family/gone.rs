//! Stretches of keys in which nothing is there any more, though trees and memtables still hold what is
//! deleted.
//!
//! A cursor that stepped over many deleted entries in a row notes from where to where, and others need not
//! step over them again. A note belongs to one version of the trees, and goes with it.
//!
//! What a note of the moment *s* says of a later moment: a key of the stretch that has a value by then got it
//! from a commit after *s*, so a memtable that was written to after *s* has an entry for it. Nothing else has
//! to be asked: the trees are the same, they hold nothing that came after *s* (a merge that took it would
//! have made new ones), and what all memtables that were not written to since hold was deleted at *s* by
//! something that is still there.

use crate::codec::ids::SequenceNumber;
use crate::codec::key;
use crate::sync::Mutex;

/// Notes that are kept; the oldest goes.
const MOST_STRETCHES: usize = 8;

/// No key from `start` up to and without `end` had a value at `since`.
#[derive(Debug, Clone)]
pub(crate) struct Stretch {
    pub(crate) start: Vec<u8>,
    /// `None`: no key from `start` on.
    pub(crate) end: Option<Vec<u8>>,
    pub(crate) since: SequenceNumber,
}

impl Stretch {
    fn holds(&self, key: &[u8]) -> bool {
        key::compare(key, &self.start).is_ge() && self.ends_behind(Some(key))
    }

    /// Whether the stretch ends behind `end`.
    fn ends_behind(&self, end: Option<&[u8]>) -> bool {
        match (&self.end, end) {
            (None, _) => true,
            (Some(own), Some(end)) => key::compare(own, end).is_gt(),
            (Some(_), None) => false,
        }
    }

    fn covers(&self, other: &Self) -> bool {
        key::compare(&self.start, &other.start).is_le()
            && (self.end == other.end || self.ends_behind(other.end.as_deref()))
    }
}

/// What cursors over one version of the trees noted. Nobody waits for the lock: who does not get it at once
/// goes without.
#[derive(Debug, Default)]
pub(crate) struct Gone(Mutex<Vec<Stretch>>);

impl Gone {
    /// A stretch around `key` that a reader of the moment `at` may use.
    pub(crate) fn around(&self, key: &[u8], at: SequenceNumber) -> Option<Stretch> {
        let stretches = self.0.try_lock()?;
        stretches.iter().rev().find(|stretch| stretch.since <= at && stretch.holds(key)).cloned()
    }

    /// Notes `stretch`, in the place of those that lie within it.
    pub(crate) fn note(&self, stretch: Stretch) {
        let Some(mut stretches) = self.0.try_lock() else { return };
        if stretches.iter().any(|known| known.covers(&stretch) && known.since <= stretch.since) {
            return;
        }
        stretches.retain(|known| !stretch.covers(known));
        if stretches.len() == MOST_STRETCHES {
            stretches.remove(0);
        }
        stretches.push(stretch);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn stretch(start: &str, end: Option<&str>, since: u64) -> Stretch {
        let end = end.map(|end| end.as_bytes().to_vec());
        Stretch { start: start.into(), end, since: SequenceNumber(since) }
    }

    #[test]
    fn a_note_is_for_its_keys_and_for_its_moment_and_later_ones() {
        let gone = Gone::default();
        gone.note(stretch("b", Some("d"), 5));
        let found = |key: &str, at| gone.around(key.as_bytes(), SequenceNumber(at)).map(|found| found.end);
        assert_eq!(found("b", 5), Some(Some(b"d".to_vec())));
        assert_eq!([found("b", 4), found("a", 5), found("d", 5)], [None, None, None]);
        gone.note(stretch("a", None, 9));
        assert_eq!([found("z", 9), found("b", 8)], [Some(None), None]);
        // One that says less is no use.
        gone.note(stretch("b", Some("c"), 9));
        assert_eq!(found("b", 9), Some(None));
    }

    #[test]
    fn few_notes_are_kept() {
        let gone = Gone::default();
        for n in 0..20u8 {
            gone.note(Stretch { start: vec![n, 0], end: Some(vec![n, 9]), since: SequenceNumber(1) });
        }
        let kept = (0..20u8).filter(|&n| gone.around(&[n, 1], SequenceNumber(1)).is_some());
        assert!(kept.eq(20 - MOST_STRETCHES as u8..20));
    }
}
