//! What has expired is found in the tree, for a compaction, and taken out of it; leaves that hold none stay
//! as they are.
//!
//! In a family with a merge operator a tree drops nothing by itself, neither here nor in any merge. An
//! operand that was written while a value had not expired may still stand in front of it, or be on its way,
//! and what it comes to follows from that value, however long after. So there the value is deleted, by a
//! commit like any other (`txn/expired.rs`): then its place among the operands says what they are folded
//! onto, and whether it was dropped is no question of when merges ran.

use crate::btree::{MergeOp, TreeCursor};
use crate::codec::expiry::Now;
use crate::column_family::family::Family;
use crate::column_family::merging::merge::MergeContext;
use crate::column_family::trees::TreeVersion;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;

/// Bytes of keys that a step takes out at most, but for one: merges of the family wait meanwhile.
const MOST_KEYS: usize = 1 << 20;

/// Keys of a tree whose values have expired.
#[derive(Default)]
pub(crate) struct Expired {
    pub(crate) keys: Vec<Vec<u8>>,
    /// Where those begin that were not looked at; `None`: at the end.
    pub(crate) next: Option<Vec<u8>>,
}

impl Family {
    /// What merges of this family drop that has expired at `now`: nothing in one with a merge operator.
    pub(super) fn dropped_at(&self, now: Now) -> Now {
        if now.judges() && self.has_operator() { Now::UNASKED } else { self.judged(now) }
    }

    /// Whether the family has a merge operator, given or not.
    pub(crate) fn has_operator(&self) -> bool {
        self.options().merge_operator.is_some()
    }

    /// The next keys from `from` on that the tree of `version` has, whose values have expired at `now`. Reads
    /// every leaf up to the last of them.
    pub(crate) fn find_expired(
        &self,
        version: &TreeVersion,
        now: Now,
        from: &[u8],
        should_stop: &dyn Fn() -> bool,
    ) -> Result<Expired> {
        let mut found = Expired::default();
        // They look deleted, and nothing else in the tree does.
        let mut cursor = TreeCursor::new(version.tree, Arc::clone(self.store())).judging(now, false);
        let (mut bytes, mut on) = (0, cursor.seek(from)?);
        while on {
            if should_stop() {
                return Err(Error::new(ErrorKind::Closed, "the database was closed"));
            }
            if bytes >= MOST_KEYS {
                found.next = Some(cursor.key().to_vec());
                break;
            }
            if cursor.is_deletion() {
                bytes += cursor.key().len() + 1;
                found.keys.push(cursor.key().to_vec());
            }
            on = cursor.next()?;
        }
        Ok(found)
    }

    /// Takes the next entries that have expired out of the tree, from `from` on; deltas stay as they are.
    /// Returns where to go on. Reads every leaf, and writes those that change.
    pub(crate) fn drop_expired_step(
        self: &Arc<Self>,
        context: &MergeContext<'_>,
        from: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        let _alone = self.compaction.lock();
        self.damage.check()?;
        self.drop_expired(context, from).map_err(|error| self.judge(error))
    }

    fn drop_expired(self: &Arc<Self>, context: &MergeContext<'_>, from: &[u8]) -> Result<Option<Vec<u8>>> {
        let _one_at_a_time = self.take_turn();
        if !self.dropped_at(context.now).judges() || self.is_dropped() {
            return Ok(None);
        }
        let version = Arc::clone(self.trees.lock().current());
        let Expired { keys, next } = self.find_expired(&version, context.now, from, context.should_stop)?;
        if !keys.is_empty() {
            let ops = keys.iter().map(|key| (&key[..], MergeOp::Delete));
            self.change(context, &version, |change| change.merge_into_tree(&[], ops))?;
        }
        Ok(next)
    }
}
