//! What a damaged family holds in memory and cannot write anywhere is carried along in the log.
//!
//! Its memtables take no more writes, so all that they say fits one record: what they delete by range, then
//! the newest of every key. That record is appended whenever the log before the last one is to be let go of.
//! It is a commit like any other to a replay; while the database is open nothing is inserted for it, since
//! the memtables say the same already. So the log is kept for no longer than that of other families, at the
//! price of these bytes in each round of it, and nothing is lost.
//!
//! It says what the first records said once more. Of values that changes nothing, but an operand counts as
//! often as it is replayed: so in place of operands it has what they come to. Where that cannot be had, since
//! it takes a page that cannot be read or an operator that fails, there is no such record, and the log is
//! kept. What was written to that family without a record is durable no sooner than it can be merged.

use std::cell::Cell;

use crate::codec::expiry::{self, Now};
use crate::codec::ids::SequenceNumber;
use crate::column_family::family::Family;
use crate::column_family::merging::merge::{Said, unmerged};
use crate::error::{ErrorKind, Result};
use crate::sync::Arc;
use crate::txn::operation::{encode_delete, encode_delete_range, encode_put, encode_put_expiring};
use crate::txn::pipeline::{Interrupted, Pipeline};
use crate::wal;

impl Pipeline {
    /// Nothing is carried along any more of `family`, which no view shows from now on.
    pub(crate) fn carry_no_more(&self, family: &Arc<Family>) {
        // Who carries holds this, and looks at the view first.
        let _side = family.write.lock();
        self.log_pace.carry(family.damage.set_carried(0), 0);
    }

    /// Appends what the memtables of `family` hold, which is stuck, to the log. Durable with the next sync.
    /// Does nothing if it holds operands that cannot be folded.
    ///
    /// # Errors
    /// [`OutOfSpace`](crate::error::ErrorKind::OutOfSpace): nothing was changed. Any other ends all writing.
    pub(crate) fn carry_forward(&self, family: &Arc<Family>) -> Result<()> {
        assert!(family.damage.is_stuck(), "family {} can be merged", family.id());
        let Some(log) = &self.log else { return Ok(()) };
        // Who had passed the look at the damage is through; nobody else writes any more. So what the
        // memtables hold stays, and can be read while no lock is held: a merge operator may be called.
        drop(family.write.lock());
        let view = self.views.load_full().family(family.slot(), family.id()).map(Arc::clone);
        let Ok(view) = view else { return Ok(()) };
        let (id, operations) = (family.id(), Cell::new(0));
        let count = || operations.set(operations.get() + 1);
        let mut ranges = Vec::new();
        let mut entries = Vec::new();
        let said = unmerged(
            &view,
            |start, end| {
                count();
                encode_delete_range(&mut ranges, id, start, end);
            },
            |key, said| {
                count();
                match said {
                    Said::Value(value) => encode_put(&mut entries, id, key, value),
                    Said::Expiring(stamped) => encode_put_expiring(&mut entries, id, key, stamped),
                    Said::Deleted => encode_delete(&mut entries, id, key),
                    Said::Operands => match view.fold_behind(None, key, SequenceNumber::MAX, Now::UNASKED)? {
                        Some((value, 0)) => encode_put(&mut entries, id, key, &value),
                        Some((value, expiry)) => {
                            encode_put_expiring(&mut entries, id, key, &expiry::stamped(expiry, &value));
                        }
                        None => encode_delete(&mut entries, id, key),
                    },
                }
                Ok(())
            },
        );
        if let Err(error) = said {
            tracing::warn!(%error, family = id.0, "the log is kept for operands that cannot be folded");
            // Nobody is to wait for the log to get shorter than that.
            family.damage.check().unwrap_or_else(|damage| self.log_pace.obstruct(damage));
            return Ok(());
        }
        let side = family.write.lock();
        self.owns_files()?;
        self.latch.check()?;
        // It may have been dropped meanwhile.
        if self.views.load_full().family(family.slot(), family.id()).is_err() {
            return Ok(());
        }
        let payload = [ranges, entries].concat();
        if !payload.is_empty() {
            let segment = log.segment_of_next();
            let mut interrupted = Interrupted::watch(self);
            let appended = log.append(&payload, operations.get(), false);
            let sequence = interrupted.step(appended.map_err(|error| match error.kind() {
                ErrorKind::OutOfSpace => error,
                _ => self.fail(error),
            }))?;
            interrupted.step(self.publish(sequence))?;
            interrupted.over();
            family.set_segment(&side, segment, &self.views);
        }
        // Not 0, even if it is nothing.
        let weight = wal::weight(payload.len() as u64, operations.get());
        self.log_pace.carry(family.damage.set_carried(weight), weight);
        Ok(())
    }
}
