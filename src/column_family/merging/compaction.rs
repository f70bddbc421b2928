//! Compaction: a tree is written anew, packed, or some of its pages elsewhere.
//!
//! Each step writes a bounded number of bytes and is one change for readers, as a merge is. Other merges of
//! the family go on between steps, so what is written meanwhile waits for one step at most. A tree that fits
//! one step is rewritten as a whole; a larger one a range of keys after the other: entries that come behind
//! the range are not packed.

use crate::btree;
use crate::column_family::family::{Counters, Family};
use crate::column_family::merging::change::Change;
use crate::column_family::merging::merge::MergeContext;
use crate::column_family::operands::OfLists;
use crate::column_family::trees::TreeVersion;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;

/// What a move of pages did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moved {
    Nothing,
    /// There may be more to move.
    Some,
    /// Nothing, or little, is left to move.
    AllThatFits,
}

/// Bytes of pages that are rewritten or moved at once: merges of the family wait meanwhile.
pub(crate) const MOST_MOVED: u64 = 32 << 20;
/// Pages that a step rewrites at least: it leaves its last two leaves half full.
const LEAST_PAGES: usize = 64;
/// A tree of so many steps or fewer is rewritten at once.
const AT_ONCE: usize = 8;

/// How far a compaction has come.
#[derive(Default)]
pub(crate) struct Repacked {
    /// The segments that are new since it began.
    fresh: Vec<u32>,
    /// Where its next step begins.
    position: Vec<u8>,
    /// Whether pages go wherever they are free in the family.
    scattered: bool,
}

impl Repacked {
    /// From now on pages go wherever they are free in the family: there is no room for new segments.
    pub(crate) fn scatter(&mut self) {
        self.scattered = true;
    }

    pub(crate) fn is_scattered(&self) -> bool {
        self.scattered
    }
}

impl Family {
    /// Rewrites what the tree holds next in packed pages, as much as a step may, in segments that are new
    /// since the compaction began; deltas stay as they are. Returns whether there is more. Does nothing if
    /// the tree is empty or the family is dropped. After an error it can be gone on with.
    pub(crate) fn repack_step(
        self: &Arc<Self>,
        context: &MergeContext<'_>,
        progress: &mut Repacked,
    ) -> Result<bool> {
        let _alone = self.compaction.lock();
        self.damage.check()?;
        let least = LEAST_PAGES * self.store().page_size();
        let limit = context.most_bytes.min(self.memtable_bytes()).max(least.min(context.most_bytes));
        let mut next = None;
        let Repacked { fresh, position: start, scattered } = progress;
        let place = |_: &TreeVersion| {
            let space = self.store().space();
            if !*scattered {
                self.store().place_afresh(fresh.clone());
            }
            let bytes = space.pages_reachable * self.store().page_size() as u64;
            Ok(Some(start.is_empty() && bytes <= MOST_MOVED.min((AT_ONCE * limit) as u64)))
        };
        let rewritten = self.rewrite(context, place, |change, at_once| {
            match at_once {
                true => change.repack_tree()?,
                false => next = change.repack_range(start, limit, &OfLists(self))?,
            }
            if context.from_reserve { change.check_frees() } else { Ok(()) }
        });
        let rewritten = rewritten.map_err(|error| self.judge(error))?;
        let (Some(now_fresh), Some(next)) = (rewritten, next) else { return Ok(false) };
        (progress.fresh, progress.position) = (now_fresh, next);
        Ok(true)
    }

    /// Moves some of the tree's pages at the end of the family into free pages before them, if there are any.
    /// Does nothing if there are deltas, if that was tried with the same tree and gained little, during a
    /// compaction, or if the family is dropped.
    pub(crate) fn move_to_front(self: &Arc<Self>, context: &MergeContext<'_>) -> Result<Moved> {
        let Some(_alone) = self.compaction.try_lock() else { return Ok(Moved::Nothing) };
        if self.damage.is_met() {
            return Ok(Moved::Nothing);
        }
        let most = MOST_MOVED / self.store().page_size() as u64;
        let place = |version: &TreeVersion| {
            if !version.deltas.is_empty() || self.moved.load(Ordering::Relaxed) == version.tree.generation {
                return Ok(None);
            }
            // Beside what is moved, what points to it is written anew.
            let pointing = btree::pages_with_pointers(&version.tree, self.store())?;
            Ok(self.store().place_before_end(pointing, most).map(|first| (first, version.tree.generation)))
        };
        let mut more = false;
        let rewritten = self.rewrite(context, place, |change, (first, generation)| {
            self.moved.store(generation, Ordering::Relaxed);
            change.relocate_tree(std::slice::from_ref(&(u64::from(first.0)..u64::MAX)))?;
            if change.stats.pages_retired == 0 {
                change.give_up();
            }
            more = change.stats.pages_retired >= most / 2;
            if !more {
                self.moved.store(change.tree.generation, Ordering::Relaxed);
            }
            Ok(())
        });
        match rewritten {
            Err(error) if error.kind() == ErrorKind::OutOfSpace => Ok(Moved::Nothing),
            Ok(Some(_)) if more => Ok(Moved::Some),
            Ok(Some(_)) => Ok(Moved::AllThatFits),
            Ok(None) => Ok(Moved::Nothing),
            Err(error) => Err(self.screen(error)),
        }
    }

    /// Moves some of the tree's pages that stand at `file_page` of the data file, or behind it, to where the
    /// file is free before it. Pages of deltas stay. Does nothing if there is no room or the family is
    /// dropped.
    pub(crate) fn move_below(self: &Arc<Self>, context: &MergeContext<'_>, file_page: u64) -> Result<Moved> {
        let _alone = self.compaction.lock();
        self.damage.check()?;
        let most = MOST_MOVED / self.store().page_size() as u64;
        let place = |_: &TreeVersion| Ok(self.store().place_below(file_page, most));
        let mut moved = Moved::Nothing;
        let rewritten = self.rewrite(context, place, |change, moving| {
            change.relocate_tree(&moving)?;
            if change.stats.pages_retired > 0 {
                moved = Moved::Some;
            } else {
                change.give_up();
            }
            Ok(())
        });
        match rewritten {
            Err(error) if error.kind() == ErrorKind::OutOfSpace => Ok(Moved::Nothing),
            rewritten => rewritten.map(|_| moved).map_err(|error| self.judge(error)),
        }
    }

    /// Writes the same tree anew, by `rewrite`, which gets what `place` said of where its pages are to stand,
    /// if that said anything. Returns the segments that are new, or `None` if nothing was done.
    fn rewrite<P>(
        self: &Arc<Self>,
        context: &MergeContext<'_>,
        place: impl FnOnce(&TreeVersion) -> Result<Option<P>>,
        rewrite: impl FnOnce(&mut Change<'_>, P) -> Result<()>,
    ) -> Result<Option<Vec<u32>>> {
        let _one_at_a_time = self.take_turn();
        // While the lock is held, the pages of a family that is dropped from now on stay.
        if self.is_dropped() {
            return Ok(None);
        }
        if (context.should_stop)() {
            return Err(Error::new(ErrorKind::Closed, "the database was closed"));
        }
        let version = Arc::clone(self.trees.lock().current());
        if version.tree.root.is_none() {
            return Ok(None);
        }
        let Some(place) = place(&version)? else { return Ok(None) };
        let rewritten = self.change(context, &version, |change| rewrite(change, place));
        let fresh = self.store().place_anywhere();
        if rewritten?.is_none() {
            return Ok(None);
        }
        Counters::add(&self.counters.rewrites, 1);
        Ok(Some(fresh))
    }
}
