//! What has expired in a family with a merge operator is deleted by commits: see
//! `column_family/merging/expired.rs`.

use crate::codec::ids::SequenceNumber;
use crate::column_family::family::Family;
use crate::column_family::merging::expired::Expired;
use crate::error::{ErrorKind, Result};
use crate::options::Durability;
use crate::sync::Arc;
use crate::txn::operation::encode_delete;
use crate::txn::pipeline::{Condition, Pipeline, Write};

/// How often it is tried to delete the same keys while others write them.
const PATIENCE: usize = 4;

impl Pipeline {
    /// Deletes the next keys of `family` that the tree has and that have expired, from `from` on. Those that
    /// somebody writes or holds meanwhile may stay. Returns where to go on. The caller holds no lock.
    pub(crate) fn delete_expired(&self, family: &Arc<Family>, from: &[u8]) -> Result<Option<Vec<u8>>> {
        let now = self.clock.now_or_unasked();
        let mut later = None;
        for _ in 0..PATIENCE {
            if !now.judges() || family.is_dropped() {
                return Ok(None);
            }
            let view = self.views.load_full().family(family.slot(), family.id()).map(Arc::clone)?;
            let closed = || self.owns_files().is_err();
            let found = family.find_expired(&view.tree, now, from, &closed);
            let Expired { mut keys, next } = found.map_err(|error| family.judge(error))?;
            later.clone_from(&next);
            // Who wrote to one meanwhile has said what becomes of it; what stands in front in deltas may have
            // brought it back.
            keys.retain(|key| view.memtables().all(|table| table.newest(key).is_none()));
            let mut failure = None;
            keys.retain(|key| match view.contains(key, SequenceNumber::MAX, now) {
                Ok(is_there) => !is_there,
                Err(error) => {
                    failure.get_or_insert(error);
                    false
                }
            });
            if let Some(error) = failure {
                return Err(family.judge(error));
            }
            if keys.is_empty() {
                return Ok(next);
            }
            let mut payload = Vec::new();
            keys.iter().for_each(|key| encode_delete(&mut payload, family.id(), key));
            let write = Write {
                families: std::slice::from_ref(family),
                payload: &payload,
                operations: keys.len() as u64,
                has_range_deletions: false,
            };
            // Nobody has written to any of them.
            let is_as_seen = || {
                let views = self.views.load_full();
                let Ok(present) = views.family(family.slot(), family.id()) else { return false };
                Arc::ptr_eq(&present.tree, &view.tree)
                    && keys.iter().all(|key| present.memtables().all(|table| table.newest(key).is_none()))
            };
            let condition = Condition { holds: &is_as_seen, ..Condition::NONE };
            match self.commit_if(&write, Durability::Buffered, &condition) {
                Ok(None) => {}
                Ok(Some(_)) => return Ok(next),
                Err(error) if matches!(error.kind(), ErrorKind::LockTimeout | ErrorKind::AwaitsDecision) => {
                    return Ok(next);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(later)
    }
}
