//! Locks of keys and ranges, which transactions hold until they end.
//!
//! ```text
//! acquire(owner, wants):
//!     wants <- those that the owner does not hold already
//!     nobody holds what conflicts, and nobody awaits it since earlier:  take them, done
//!     somebody does:  a circle of who waits for whom would be closed?   then it is a deadlock, found at once
//!                     wait in line, up to the time limit
//! release(owner, mark):
//!     give up what was taken since the mark
//!     in order of arrival, whoever has nothing in the way any more takes what he wants and is woken
//! ```
//!
//! Invariants:
//! 1. Two owners hold no two locks that conflict: of keys in common, unless both are shared, or both those of
//!    plain writes.
//! 2. Whoever waits has somebody in the way: who holds what conflicts, or who came earlier and awaits what
//!    conflicts, unless that one is himself kept by what the later one holds (so whoever has a shared lock
//!    and wants the exclusive one goes first).
//! 3. Who waits for whom has no circle. One can only be closed by somebody who begins to wait: what is
//!    granted is granted to somebody who then waits for nobody. So one look at that time suffices.
//! 4. Wants of one call are taken together or not at all. A plain write holds nothing while it waits, so
//!    nobody waits for it then but who came later, and it never closes a circle.
//! 5. The mark of a family is not zero while a transaction holds a lock in it.
//!
//! *How plain writes and locks meet.* A plain write looks, while it holds the write locks of all its
//! families, at their marks, and only where one is not zero at the locks; there it goes on if nothing is in
//! the way, else it lets go of all, waits for locks of its own and holds them until it is visible. Whoever
//! got a lock takes the write lock of the family once before relying on it. So a plain write has either
//! inserted all it writes before, and is seen, or it comes after, finds the mark and waits. The marks need no
//! order of their own: the write lock gives it.
//!
//! Nobody waits here who holds a family's write lock, a place in the log, or an epoch.
//!
//! One lock guards all of it. While nobody waits, a look-up of what is locked is all that is done under it,
//! in time that grows with the logarithm of how many keys and ranges are locked.
//!
//! Start reading at [`table`], then [`state`], [`held`], [`ranges`] and [`line`].

mod held;
mod line;
#[cfg(all(test, not(any(loom, shuttle))))]
mod model_tests;
pub(crate) mod owner;
mod ranges;
pub(crate) mod state;
pub(crate) mod table;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
pub(crate) mod want;
