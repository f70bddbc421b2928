//! How a cursor finds the entry to stand on: past what is deleted, hidden, or another source's older version.

use std::cmp::Ordering;

use super::cursor::{FamilyCursor, Place, way};
use crate::btree::TreeCursor;
use crate::codec::key;
use crate::column_family::reading::hidden::TREE;
use crate::column_family::reading::leap::{Run, Sources};
use crate::column_family::reading::recent::Source;
use crate::error::{Error, Result};

impl FamilyCursor {
    /// Moves every source that stands on the present key to its next one, the present source last.
    pub(super) fn step_over_forward(&mut self) -> Result<()> {
        self.step_over(Source::next, TreeCursor::next)
    }

    pub(super) fn step_over_backward(&mut self) -> Result<()> {
        self.step_over(Source::prev, TreeCursor::prev)
    }

    fn step_over(
        &mut self,
        step: impl Fn(&mut Source) -> Result<()>,
        step_tree: impl Fn(&mut TreeCursor) -> Result<bool>,
    ) -> Result<()> {
        let Place::Recent(present) = self.place else {
            // No other source stands on the tree's key.
            return step_tree(&mut self.tree).map(|_| ());
        };
        // Newer ones do not stand on it, or the entry would be theirs.
        let (_, rest) = self.recent.split_at_mut(present);
        let Some((present, older)) = rest.split_first_mut() else {
            unreachable!("the cursor stands on source {present}, which is not there")
        };
        let key = present.recent.key();
        for source in older {
            if source.stands_on(present.head, key) {
                step(source)?;
            }
        }
        if self.tree.valid() && self.tree.key() == key {
            step_tree(&mut self.tree)?;
        }
        step(present)
    }

    /// Finds the entry to stand on: the lowest key of all sources, of the newest source that has it.
    pub(super) fn settle_forward(&mut self) -> Result<bool> {
        let mut run = Run::default();
        let stands = self.pass_deleted_forward(&mut run)?;
        self.note(run);
        Ok(stands)
    }

    fn pass_deleted_forward(&mut self, run: &mut Run) -> Result<bool> {
        loop {
            let Some(place) = self.choose(Ordering::Less) else {
                self.place = Place::End;
                return Ok(false);
            };
            self.place = place;
            self.passed += 1;
            match place {
                _ if self.skip_forward(place)? => {}
                Place::Recent(i) if self.is_gone(i)? => self.pass(i, run)?,
                _ => return Ok(self.stand()),
            }
        }
    }

    pub(super) fn settle_backward(&mut self) -> Result<bool> {
        let mut run = Run::default();
        let stands = self.pass_deleted_backward(&mut run)?;
        self.note(run);
        Ok(stands)
    }

    fn pass_deleted_backward(&mut self, run: &mut Run) -> Result<bool> {
        loop {
            let Some(place) = self.choose(Ordering::Greater) else {
                self.place = Place::Start;
                return Ok(false);
            };
            self.place = place;
            self.passed += 1;
            match place {
                _ if self.skip_backward(place)? => {}
                Place::Recent(i) if self.is_gone(i)? => self.pass(i, run)?,
                _ => return Ok(self.stand()),
            }
        }
    }

    /// Whether the entry of source `i` is deleted, or has expired.
    #[inline]
    fn is_gone(&self, i: usize) -> Result<bool> {
        let recent = &self.recent[i].recent;
        if self.now.judges() && recent.is_operands() {
            if let Some(expiry) = recent.operands_expiry()? {
                return Ok(self.now.is_past(expiry));
            }
            return self.view.is_folded_past(self.own.as_ref(), recent.key(), self.at, self.now);
        }
        Ok(recent.is_deletion())
    }

    /// Passes the deleted entry of source `i`, and more that follow if there is a way around them.
    fn pass(&mut self, i: usize, run: &mut Run) -> Result<()> {
        let looks = run.step(self.recent[i].recent.key());
        if self.forward {
            self.step_over_forward()?;
        } else {
            self.step_over_backward()?;
        }
        if !looks {
            return Ok(());
        }
        let Self { recent, tree, forward, at, view, .. } = self;
        let sources = Sources { recent, tree, forward: *forward, at: *at };
        run.leap(sources, i, &view.tree.gone).map_err(|error| error.of_family(view.family.id().0))
    }

    /// Deleted entries were passed to where the cursor stands now.
    #[inline]
    fn note(&self, run: Run) {
        // What is deleted for one is there for all others; and what has expired for this one has not for all.
        if run.is_long() && self.own.is_none() && !self.now.judges() {
            let stop = match self.place {
                Place::End => self.range.end(),
                Place::Start => Some(self.range.start()).filter(|start| !start.is_empty()),
                _ => Some(self.key()),
            };
            run.note(stop, self.forward, self.at, &self.view.tree.gone);
        }
    }

    /// Moves the source at `place` over keys that are hidden from it; `false` if the one that it stands on is
    /// not.
    fn skip_forward(&mut self, place: Place) -> Result<bool> {
        let Some((key, age)) = self.may_be_hidden(place) else { return Ok(false) };
        let Some(end) = self.hidden.end(key, age) else {
            if place == Place::Tree {
                self.clear = Some(self.hidden.next(key).map_or(u64::MAX, key::head8));
            }
            return Ok(false);
        };
        if !self.skipped.note(place, end, Ordering::Greater) {
            return Err(self.out_of_order());
        }
        match place {
            Place::Recent(i) => self.recent[i].seek(end)?,
            _ => drop(self.tree.seek(end)?),
        }
        Ok(true)
    }

    fn skip_backward(&mut self, place: Place) -> Result<bool> {
        let Some((key, age)) = self.may_be_hidden(place) else { return Ok(false) };
        let Some(start) = self.hidden.start(key, age) else {
            if place == Place::Tree {
                self.clear = Some(self.hidden.last_end(key).map_or(0, key::head8));
            }
            return Ok(false);
        };
        if !self.skipped.note(place, start, Ordering::Less) {
            return Err(self.out_of_order());
        }
        match place {
            Place::Recent(i) => self.recent[i].seek_below(start)?,
            _ => drop(self.tree.seek_below(start)?),
        }
        Ok(true)
    }

    /// The key and the age of the source at `place`, unless it is known without a look that the key is not
    /// hidden.
    #[inline]
    fn may_be_hidden(&self, place: Place) -> Option<(&[u8], usize)> {
        if self.hidden.is_empty() {
            return None;
        }
        if let Place::Recent(i) = place {
            return Some((self.recent[i].recent.key(), i));
        }
        let key = self.tree.key();
        let is_clear = self.clear.is_some_and(|clear| key::head8(key).cmp(&clear) == way(self.forward));
        (!is_clear).then_some((key, TREE))
    }

    pub(super) fn forget_hidden(&mut self) {
        self.skipped.clear();
        self.clear = None;
    }

    #[cold]
    fn out_of_order(&self) -> Error {
        Error::corruption("the keys of a tree are out of order").of_family(self.view.family.id().0)
    }

    /// The entry that was chosen is one to stand on: it was not passed.
    #[inline]
    fn stand(&mut self) -> bool {
        self.passed -= 1;
        // Of no use where the entry is not the tree's.
        if let Some(clear) = self.clear
            && clear.cmp(&self.fence) == way(self.forward)
        {
            self.fence = clear;
        }
        true
    }

    /// The source whose key is the most `wanted` of all and in the range; the newest of several with the same
    /// key.
    fn choose(&mut self, wanted: Ordering) -> Option<Place> {
        let mut nearest: Option<(usize, &Source)> = None;
        for (i, source) in self.recent.iter().enumerate() {
            // Where the heads are the same one of them may be at its end.
            let is_nearer = |(_, nearest): (usize, &Source)| {
                let heads = source.head.cmp(&nearest.head);
                heads == wanted
                    || heads.is_eq()
                        && source.recent.valid()
                        && key::compare(source.recent.key(), nearest.recent.key()) == wanted
            };
            if nearest.map_or_else(|| source.recent.valid(), is_nearer) {
                nearest = Some((i, source));
            }
        }
        let leads = |(_, nearest): (usize, &Source)| {
            let key = self.tree.key();
            nearest.compare(key::head8(key), key) == wanted.reverse()
        };
        let tree_leads = self.tree.valid() && nearest.is_none_or(leads);
        self.nearest = nearest.map(|(i, _)| i);
        let last_head = self.range.last_head(wanted);
        self.fence = match nearest {
            Some((_, source)) if source.head.cmp(&last_head) == wanted => source.head,
            _ => last_head,
        };
        let (place, key) = match nearest {
            _ if tree_leads => (Place::Tree, self.tree.key()),
            Some((i, source)) => (Place::Recent(i), source.recent.key()),
            None => return None,
        };
        self.range.goes_on_at(key, wanted).then_some(place)
    }
}
