//! What has expired is taken out of the tree, for a compaction, and leaves that hold none stay as they are.

use crate::btree::{MergeOp, TreeCursor};
use crate::column_family::family::Family;
use crate::column_family::merging::merge::MergeContext;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;

/// Bytes of keys that a step takes out at most, but for one: merges of the family wait meanwhile.
const MOST_KEYS: usize = 1 << 20;

impl Family {
    /// Takes the next entries that have expired out of the tree, from `position` on; deltas stay as they are.
    /// Returns whether there may be more. Reads every leaf, and writes those that change.
    pub(crate) fn drop_expired_step(
        self: &Arc<Self>,
        context: &MergeContext<'_>,
        position: &mut Vec<u8>,
    ) -> Result<bool> {
        let _alone = self.compaction.lock();
        self.damage.check()?;
        self.drop_expired(context, position).map_err(|error| self.judge(error))
    }

    fn drop_expired(self: &Arc<Self>, context: &MergeContext<'_>, position: &mut Vec<u8>) -> Result<bool> {
        let _one_at_a_time = self.take_turn();
        if !context.now.judges() || self.is_dropped() {
            return Ok(false);
        }
        let version = Arc::clone(self.trees.lock().current());
        let mut cursor = TreeCursor::new(version.tree, Arc::clone(self.store())).judging(context.now, false);
        let (mut keys, mut bytes) = (Vec::new(), 0);
        let mut on = cursor.seek(position)?;
        while on && bytes < MOST_KEYS {
            if (context.should_stop)() {
                return Err(Error::new(ErrorKind::Closed, "the database was closed"));
            }
            if cursor.is_deletion() {
                bytes += cursor.key().len() + 1;
                keys.push(cursor.key().to_vec());
            }
            on = cursor.next()?;
        }
        if on {
            position.clear();
            position.extend_from_slice(cursor.key());
        }
        if !keys.is_empty() {
            let ops = keys.iter().map(|key| (&key[..], MergeOp::Delete));
            self.change(context, &version, |change| change.merge_into_tree(&[], ops))?;
        }
        Ok(on)
    }
}
