//! How commits meet what transactions have locked; see `locks`.

use crate::codec::ids::FamilyId;
use crate::error::{Error, ErrorKind, Lock, LockOwner, LockWait, Result};
use crate::txn::keys::Keys;
use crate::txn::locks::owner::Owner;
use crate::txn::locks::table::Refusal;
use crate::txn::locks::want::{Edge, Mode, Want};
use crate::txn::operation::Operations;
use crate::txn::pipeline::{Pipeline, Write};

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

    /// Waits until nothing that `write` writes is locked, and keeps it so for the owner. To be called while
    /// no lock of any kind is held, nor a place in the log.
    #[cold]
    pub(super) fn claim(&self, write: &Write<'_>) -> Result<Owner> {
        let mut owner = Owner::new(&self.locks, LockOwner::Write(self.locks.new_number()));
        let claimed = owner.acquire(write.wants(Mode::Write), self.writes_wait);
        claimed.map_err(|refusal| self.refused(refusal))?;
        Ok(owner)
    }

    /// What is told of a lock that was not given.
    #[cold]
    pub(crate) fn refused(&self, refusal: Refusal) -> Error {
        let waits = |edges: Vec<Edge>| edges.into_iter().map(|edge| self.shown_wait(edge)).collect();
        match refusal {
            Refusal::Timeout(edges) => Error::lock_timeout(waits(edges)),
            Refusal::Deadlock(edges) => Error::deadlock(waits(edges)),
            Refusal::Closed => Error::new(ErrorKind::Closed, "the database was closed"),
        }
    }

    /// A lock as users see it.
    pub(crate) fn shown_lock(&self, owner: LockOwner, want: &Want) -> Lock {
        let views = self.views.load_full();
        let name = views.families().find(|view| view.family.id() == want.family);
        let (start, end) = want.span.keys().bounds();
        Lock {
            owner,
            family: want.family,
            family_name: name.map(|view| view.family.name().to_string()).unwrap_or_default(),
            start,
            end,
            mode: want.mode.shown(),
        }
    }

    /// That somebody waits, as users see it.
    pub(crate) fn shown_wait(&self, Edge { owner, want, waits_for }: Edge) -> LockWait {
        LockWait { wanted: self.shown_lock(owner, &want), waits_for }
    }
}
