//! How a family's cursor gets over many deleted entries in a row without a step for each.
//!
//! 1. What a memtable deletes matters where something older has the key. So its cursor goes from one deletion
//!    straight on to the next key that an older source stands on, unless there is a value in the memtable
//!    before. Where what was deleted is merged away, or came and went within the memtable, that is one leap
//!    over all of it.
//! 2. Where older sources still hold what is deleted, their entries are stepped over, once: the stretch is
//!    noted, see `gone`.
//!
//! Both only ever pass keys that have no value at the cursor's moment, so the cursor stands where it would
//! have come to step by step.

use crate::btree::TreeCursor;
use crate::codec::ids::SequenceNumber;
use crate::codec::key;
use crate::column_family::gone::{Gone, Stretch};
use crate::column_family::reading::recent::Source;
use crate::error::{Error, Result};

/// Steps over deleted entries after which a cursor looks for a way around more of them, and again after as
/// many.
const PATIENCE: u32 = 8;
/// Steps over deleted entries that are worth a note.
const WORTH_A_NOTE: u32 = 32;

/// Deleted entries that a cursor steps over on its way from one entry to another.
#[derive(Default)]
pub(super) struct Run {
    steps: u32,
    /// Those since the last leap with the help of a note.
    unnoted: u32,
    /// The first key for which patience was at its end: from here on the run is worth a note.
    begin: Option<Vec<u8>>,
}

/// What moves in a leap.
pub(super) struct Sources<'c> {
    pub(super) recent: &'c mut [Source],
    pub(super) tree: &'c mut TreeCursor,
    pub(super) forward: bool,
    pub(super) at: SequenceNumber,
}

impl Run {
    /// One more step, from `key`. Whether to look for a way around more of them.
    pub(super) fn step(&mut self, key: &[u8]) -> bool {
        self.steps += 1;
        self.unnoted += 1;
        let looks = self.steps.is_multiple_of(PATIENCE);
        if looks && self.begin.is_none() {
            self.begin = Some(key.to_vec());
        }
        looks
    }

    /// After a step from a deletion of source `present`, which all sources have passed: leaps as far as can
    /// be known.
    pub(super) fn leap(&mut self, mut sources: Sources<'_>, present: usize, gone: &Gone) -> Result<()> {
        sources.leave_deletions(present)?;
        let Some(key) = sources.nearest().map(<[u8]>::to_vec) else { return Ok(()) };
        if let Some(stretch) = gone.around(&key, sources.at) {
            sources.cross(&stretch)?;
            self.unnoted = 0;
        }
        Ok(())
    }

    /// Whether the next cursor that comes this way would better know of it.
    #[inline]
    pub(super) fn is_long(&self) -> bool {
        self.unnoted >= WORTH_A_NOTE
    }

    /// Notes a run that ended at `stop`: the first key on the way that may have a value, or the end of what
    /// was asked for; `None`: of all keys.
    pub(super) fn note(self, stop: Option<&[u8]>, forward: bool, at: SequenceNumber, gone: &Gone) {
        let Some(begin) = self.begin else { return };
        let stretch = if forward {
            Stretch { start: begin, end: stop.map(<[u8]>::to_vec), since: at }
        } else {
            let start = stop.map_or_else(Vec::new, right_behind);
            Stretch { start, end: Some(right_behind(&begin)), since: at }
        };
        gone.note(stretch);
    }
}

/// The first key behind `key`.
fn right_behind(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

impl Sources<'_> {
    /// Whether a walk meets `a` before `b`.
    fn precedes(&self, a: &[u8], b: &[u8]) -> bool {
        let order = key::compare(a, b);
        if self.forward { order.is_lt() } else { order.is_gt() }
    }

    /// The first key on the way that `recent` or the tree stand on.
    fn first_of<'k>(&'k self, recent: &'k [Source]) -> Option<&'k [u8]> {
        let recent = recent.iter().filter(|source| source.recent.valid()).map(|source| source.recent.key());
        let tree = self.tree.valid().then(|| self.tree.key());
        recent.chain(tree).reduce(|first, key| if self.precedes(key, first) { key } else { first })
    }

    fn nearest(&self) -> Option<&[u8]> {
        self.first_of(self.recent)
    }

    /// Has source `present` pass those of its deletions that hide nothing, since older sources have no such
    /// keys.
    fn leave_deletions(&mut self, present: usize) -> Result<()> {
        let source = &self.recent[present].recent;
        if !source.valid() || !source.is_deletion() {
            return Ok(());
        }
        let until = self.first_of(&self.recent[present + 1..]);
        if until.is_some_and(|until| !self.precedes(source.key(), until)) {
            return Ok(());
        }
        let until = until.map(<[u8]>::to_vec);
        self.recent[present].skip_deletions(until.as_deref(), self.forward)
    }

    /// Passes `stretch`, within which the nearest key lies, up to the first value in it that a memtable may
    /// have got since.
    fn cross(&mut self, stretch: &Stretch) -> Result<()> {
        let far = if self.forward { stretch.end.as_deref() } else { Some(&stretch.start[..]) };
        let mut first: Option<Vec<u8>> = None;
        for i in 0..self.recent.len() {
            let recent = &mut self.recent[i].recent;
            if !recent.valid() || !recent.may_hold_later_than(stretch.since) {
                continue;
            }
            if let Some(key) = recent.next_value(far, self.forward).map(<[u8]>::to_vec)
                && first.as_deref().is_none_or(|first| self.precedes(&key, first))
            {
                first = Some(key);
            }
        }
        match (first, far) {
            (Some(first), _) => self.seek(&first),
            // Backward the start itself is gone as well: one step more.
            (None, Some(far)) => self.seek(far),
            // Nothing comes any more: whatever is left is passed.
            (None, None) => self.finish(),
        }
    }

    /// Moves all sources that stand before `key` on the way to it, or behind it. They stand nowhere in
    /// between afterwards.
    fn seek(&mut self, key: &[u8]) -> Result<()> {
        let forward = self.forward;
        let precedes = |other: &[u8]| {
            let order = key::compare(other, key);
            if forward { order.is_lt() } else { order.is_gt() }
        };
        for source in self.recent.iter_mut() {
            if source.recent.valid() && precedes(source.recent.key()) {
                if forward { source.seek(key)? } else { source.seek_for_prev(key)? }
            }
        }
        if self.tree.valid() && precedes(self.tree.key()) {
            if forward {
                self.tree.seek(key)?
            } else {
                self.tree.seek_for_prev(key)?
            };
        }
        // In a tree whose keys are out of order, as only a crafted file has them, a search may end before the
        // place where it began.
        match self.nearest() {
            Some(nearest) if precedes(nearest) => {
                Err(Error::corruption("the keys of a tree are out of order"))
            }
            _ => Ok(()),
        }
    }

    /// Moves all sources past their last key on the way up.
    fn finish(&mut self) -> Result<()> {
        for source in self.recent.iter_mut() {
            source.last()?;
            source.next()?;
        }
        self.tree.last()?;
        self.tree.next()?;
        Ok(())
    }
}
