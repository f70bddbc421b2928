//! How commits meet what transactions have locked; see `locks`.

use std::collections::{BTreeMap, BTreeSet};

use crate::codec::ids::FamilyId;
use crate::column_family::family::Family;
use crate::error::{Error, ErrorKind, Lock, LockOwner, LockWait, Result};
use crate::sync::Arc;
use crate::txn::keys::Keys;
use crate::txn::locks::owner::Owner;
use crate::txn::locks::table::Refusal;
use crate::txn::locks::want::{Edge, Mode, Want};
use crate::txn::operation::Operations;
use crate::txn::pipeline::{Claimant, Pipeline, Write};

/// Operations that are looked up one by one while write locks are held.
const FEW: u64 = 64;

impl Write<'_> {
    /// What is written.
    fn keys(&self) -> impl Iterator<Item = (FamilyId, Keys<'_>)> {
        Operations::new(self.payload)
            .map_while(Result::ok)
            .map(|(family, operation)| (family, Keys::of(&operation)))
    }

    /// Locks of all that is written.
    pub(crate) fn wants(&self, mode: Mode) -> Vec<Want> {
        let mut wants: Vec<_> = self.keys().map(|(family, keys)| Want::new(family, keys, mode)).collect();
        wants.sort_unstable();
        wants.dedup();
        wants
    }
}

impl Pipeline {
    /// Whether transactions hold locks where `write` may meet them, and it has too much to look all of it up
    /// while others wait.
    pub(super) fn is_to_claim(&self, write: &Write<'_>) -> bool {
        write.operations > FEW && write.families.iter().any(|family| self.locks.is_marked(family.id()))
    }

    /// Whether something that `write` writes is locked, or may be. The caller holds the write locks of its
    /// families: from then until it has inserted all nobody gets a lock and relies on it.
    #[inline]
    pub(super) fn is_locked(&self, write: &Write<'_>) -> bool {
        let is_marked = write.families.iter().any(|family| self.locks.is_marked(family.id()));
        is_marked && (write.operations > FEW || self.locks.keeps_from(write.keys()))
    }

    /// Waits until nothing that `write` writes is locked, and keeps it so for the owner: the claimant, who
    /// has locked nothing, or a new one. To be called while no lock of any kind is held, nor a place in the
    /// log.
    #[cold]
    pub(super) fn claim(&self, write: &Write<'_>, claimant: Option<Claimant>) -> Result<Owner> {
        let Claimant { who, limit } = claimant.unwrap_or_else(|| Claimant {
            who: LockOwner::Write(self.locks.new_number()),
            limit: self.writes_wait,
        });
        let mut owner = Owner::new(&self.locks, who);
        let claimed = owner.acquire(write.wants(Mode::Write), limit);
        claimed.map_err(|refusal| self.refused(refusal))?;
        Ok(owner)
    }

    /// What is told of a lock that was not given.
    #[cold]
    pub(crate) fn refused(&self, refusal: Refusal) -> Error {
        match refusal {
            Refusal::Timeout(edges) => Error::lock_timeout(self.shown_waits(&edges)),
            Refusal::Deadlock(edges) => Error::deadlock(self.shown_waits(&edges)),
            Refusal::Closed => Error::new(ErrorKind::Closed, "the database was closed"),
        }
    }

    /// The families of these numbers that are there, found in one walk over all.
    pub(super) fn families_of(&self, ids: impl Iterator<Item = FamilyId>) -> BTreeMap<FamilyId, Arc<Family>> {
        let ids: BTreeSet<_> = ids.collect();
        if ids.is_empty() {
            return BTreeMap::new();
        }
        let views = self.views.load_full();
        let families = views.families().map(|view| &view.family).filter(|family| ids.contains(&family.id()));
        families.map(|family| (family.id(), Arc::clone(family))).collect()
    }

    /// Locks as users see them.
    pub(crate) fn shown_locks(&self, locks: &[(LockOwner, Want)]) -> Vec<Lock> {
        let families = self.families_of(locks.iter().map(|(_, want)| want.family));
        locks.iter().map(|(owner, want)| shown(&families, *owner, want)).collect()
    }

    /// That somebody waits, as users see it.
    pub(crate) fn shown_waits(&self, edges: &[Edge]) -> Vec<LockWait> {
        let families = self.families_of(edges.iter().map(|edge| edge.want.family));
        let shown = |edge: &Edge| LockWait {
            wanted: shown(&families, edge.owner, &edge.want),
            waits_for: edge.waits_for,
        };
        edges.iter().map(shown).collect()
    }
}

fn shown(families: &BTreeMap<FamilyId, Arc<Family>>, owner: LockOwner, want: &Want) -> Lock {
    let family = families.get(&want.family);
    let bounds = want.span.keys().bounds();
    let (start, end) = match family {
        Some(family) => family.user_bounds(bounds),
        None => bounds,
    };
    let family_name = family.map(|family| family.name().to_string()).unwrap_or_default();
    Lock { owner, family: want.family, family_name, start, end, mode: want.mode.shown() }
}
