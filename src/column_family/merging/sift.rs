//! Every entry of a tree is shown to the family's filter, a part of the tree at a time, and those leaves
//! alone are written anew in which it drops or changes something.

use std::cell::Cell;

use crate::btree::{MergeOp, Sift, TreeCursor, Verdict};
use crate::codec::expiry::{self, Expiry};
use crate::column_family::family::Family;
use crate::column_family::merging::gather::MOST_BYTES;
use crate::column_family::merging::merge::MergeContext;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;

/// Bytes that a step looks at for each byte that it writes at most: merges of the family wait meanwhile.
const SEEN_FOR_WRITTEN: usize = 8;
/// Bytes that a value counts for that was not read.
const UNREAD: usize = 16;

/// A key, and its value stamped if that expires, with its expiry or 0; `None` if it is dropped.
type Change = (Vec<u8>, Option<(Expiry, Vec<u8>)>);

/// What a step has done.
#[derive(Default)]
pub(crate) struct Sifted {
    /// Where the next step begins, if there is one.
    pub(crate) next: Option<Vec<u8>>,
    /// Whether anything was dropped or changed.
    pub(crate) has_changed: bool,
    /// Why the filter is not asked any more: nothing of the step was done.
    pub(crate) failure: Option<Error>,
}

impl Family {
    /// Shows the next entries of the tree, from `start` on, to the filter, and does what it says. Deltas
    /// stay as they are.
    ///
    /// Waits for a merge that is under way. On an error nothing has changed.
    pub(crate) fn sift_step(self: &Arc<Self>, context: &MergeContext<'_>, start: &[u8]) -> Result<Sifted> {
        self.sift_range(context, start).map_err(|error| self.judge(error))
    }

    fn sift_range(self: &Arc<Self>, context: &MergeContext<'_>, start: &[u8]) -> Result<Sifted> {
        let _one_at_a_time = self.take_turn();
        self.damage.check()?;
        if self.is_dropped() {
            return Ok(Sifted::default());
        }
        if (context.should_stop)() {
            return Err(Error::new(ErrorKind::Closed, "the database was closed"));
        }
        let version = Arc::clone(self.trees.lock().current());
        let Some(sieve) = self.sieve(context.views, context.now, &version, 0, &[]) else {
            return Ok(Sifted::default());
        };
        let limit = self.memtable_bytes().min(context.most_bytes).min(MOST_BYTES);
        let (mut seen, mut written) = (0, 0);
        let mut changes: Vec<Change> = Vec::new();
        let mut cursor = TreeCursor::new(version.tree, Arc::clone(self.store())).judging(context.now, true);
        let mut next = None;
        cursor.seek(start)?;
        while cursor.valid() {
            if written >= limit || seen / SEEN_FOR_WRITTEN >= limit {
                next = Some(cursor.key().to_vec());
                break;
            }
            if !cursor.is_operands() && !cursor.is_deletion() {
                let is_read = Cell::new(!cursor.value_is_large());
                let value = || {
                    is_read.set(true);
                    cursor.value()
                };
                let len = cursor.value_len();
                let new = match sieve.sift(cursor.key(), cursor.expiry(), len, &value) {
                    Verdict::Keep => None,
                    Verdict::Drop => Some(None),
                    Verdict::Change(new) => Some(Some(new)),
                };
                if let Some(error) = sieve.take_failure() {
                    // What cannot be read is no fault of the filter's.
                    return match error.kind() {
                        ErrorKind::FilterFailed => Ok(Sifted { failure: Some(error), ..Sifted::default() }),
                        _ => Err(error),
                    };
                }
                seen += cursor.key().len() + if is_read.get() { len } else { UNREAD };
                if let Some(new) = new {
                    written += cursor.key().len() + new.as_ref().map_or(0, Vec::len);
                    let expiry = cursor.expiry();
                    let new = new.map(|new| match expiry {
                        0 => (0, new),
                        _ => (expiry, expiry::stamped(expiry, &new)),
                    });
                    changes.push((cursor.key().to_vec(), new));
                }
            }
            cursor.next()?;
        }
        let has_changed = !changes.is_empty();
        if has_changed {
            let ops = changes.iter().map(|(key, new)| {
                let op = match new {
                    None => MergeOp::Delete,
                    Some((0, value)) => MergeOp::Put(value),
                    Some((_, stamped)) => MergeOp::PutExpiring(stamped),
                };
                (&key[..], op)
            });
            self.change(context, &version, |change| {
                change.merge_into_tree(&[], ops)?;
                if context.from_reserve { change.check_frees() } else { Ok(()) }
            })?;
            sieve.conclude();
        }
        Ok(Sifted { next, has_changed, failure: None })
    }
}
