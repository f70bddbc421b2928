//! A cursor that shows entries one after the other to a closure: where the tree alone has them, without
//! looking at any other source.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use super::cursor::{FamilyCursor, Place, comes_first, way};
use crate::error::Result;

impl FamilyCursor {
    /// Shows the entry that the cursor stands on, or from nowhere the first, and those after it to `visit`,
    /// until it breaks. The cursor then stands on the entry at which it did.
    #[inline]
    pub(crate) fn scan<B>(
        &mut self,
        visit: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        let mut stands = self.valid() || self.next()?;
        while stands {
            if let ControlFlow::Break(value) = self.show(visit)? {
                return Ok(ControlFlow::Break(value));
            }
            if self.is_alone(true)
                && let ControlFlow::Break(value) = self.visit_tree(Ordering::Less, visit)?
            {
                return Ok(ControlFlow::Break(value));
            }
            stands = self.next()?;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// As [`scan`](Self::scan), with the last entry and those before.
    #[inline]
    pub(crate) fn scan_back<B>(
        &mut self,
        visit: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        let mut stands = self.valid() || self.prev()?;
        while stands {
            if let ControlFlow::Break(value) = self.show(visit)? {
                return Ok(ControlFlow::Break(value));
            }
            if self.is_alone(false)
                && let ControlFlow::Break(value) = self.visit_tree(Ordering::Greater, visit)?
            {
                return Ok(ControlFlow::Break(value));
            }
            stands = self.prev()?;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Shows entries that come after the one that the cursor stands on, or before it, to `visit`, until it
    /// breaks: as far as they are at hand, perhaps none. The cursor then stands on the one that was shown
    /// last.
    #[inline]
    pub(crate) fn visit_at_hand(
        &mut self,
        forward: bool,
        visit: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<()> {
        if self.is_alone(forward) {
            let _shown_all = self.visit_tree(way(forward), visit)?.is_continue();
        }
        Ok(())
    }

    /// Shows the entry that the cursor stands on. Stands nowhere if `visit` panics.
    #[inline]
    fn show<B>(&mut self, visit: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<B>) -> Result<ControlFlow<B>> {
        let place = std::mem::replace(&mut self.place, Place::Nowhere);
        let shown = match place {
            Place::Recent(i) => {
                let recent = &self.recent[i].recent;
                let value = match recent.value() {
                    Ok(None) => self.fold(recent.key(), &self.folded),
                    Ok(Some(value)) => Ok(value),
                    Err(error) => Err(error),
                };
                value.map(|value| visit(recent.key(), value))
            }
            _ => self.tree_value().map(|value| visit(self.tree.key(), value)),
        };
        self.place = place;
        self.settled(shown)
    }

    /// Whether on this way the tree's cursor alone moves, until it comes to the fence.
    #[inline]
    fn is_alone(&self, forward: bool) -> bool {
        let goes_on = self.forward == forward || self.recent.is_empty();
        self.place == Place::Tree && goes_on
    }

    /// Shows entries of the tree up to the fence. Stands nowhere if `visit` panics.
    #[inline(always)]
    fn visit_tree<B>(
        &mut self,
        way: Ordering,
        visit: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        self.place = Place::Nowhere;
        let Self { tree, recent, range, nearest, fence, clear, .. } = self;
        let nearest = nearest.map(|nearest| &recent[nearest]);
        let is_within = |key: &[u8]| comes_first(key, way, *fence, *clear, nearest, range);
        let flow =
            if way.is_lt() { tree.visit_next(is_within, visit) } else { tree.visit_prev(is_within, visit) };
        let flow = self.settled(flow)?;
        self.place = Place::Tree;
        Ok(flow)
    }
}
