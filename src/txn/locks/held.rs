//! The locks that are held.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::{Excluded, Included, Unbounded};

use crate::codec::ids::FamilyId;
use crate::error::LockOwner;
use crate::sync::Arc;
use crate::txn::keys::Keys;
use crate::txn::locks::ranges::{LockedRange, Ranges};
use crate::txn::locks::want::{Mode, Span, Want};

/// Ascending.
const MODES: [Mode; 3] = [Mode::Shared, Mode::Write, Mode::Exclusive];

/// Who holds something, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) owner: LockOwner,
    pub(super) mode: Mode,
}

/// The locks of one family.
#[derive(Default)]
struct FamilyLocks {
    keys: BTreeMap<Arc<[u8]>, Vec<Holder>>,
    /// By how they are held: a search leaves out those that keep nobody from what is wanted.
    ranges: [Ranges; MODES.len()],
}

impl FamilyLocks {
    fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.ranges.iter().all(Ranges::is_empty)
    }

    /// Whoever holds any of `keys` so that nobody else may have it in `mode`.
    fn against<'r>(&'r self, keys: Keys<'r>, mode: Mode) -> impl Iterator<Item = LockOwner> + 'r {
        let (one, within) = match keys {
            Keys::One(key) => (self.keys.get(key), None),
            Keys::Range(start, end) => {
                let bounds = (Included(start), end.map_or(Unbounded, Excluded));
                (None, Some(self.keys.range::<[u8], _>(bounds).flat_map(|(_, holders)| holders)))
            }
        };
        let of_keys = one.into_iter().flatten().chain(within.into_iter().flatten());
        let ranges = MODES.iter().zip(&self.ranges).filter(move |(other, _)| other.conflicts_with(mode));
        of_keys
            .filter(move |holder| holder.mode.conflicts_with(mode))
            .map(|holder| holder.owner)
            .chain(ranges.flat_map(move |(_, ranges)| ranges.overlapping(keys)).map(|range| range.owner))
    }

    /// How `owner` holds all of `keys` by one lock.
    fn mode_of(&self, owner: LockOwner, keys: Keys<'_>) -> Option<Mode> {
        let one = match keys {
            Keys::One(key) => self.keys.get(key).into_iter().flatten().find(|holder| holder.owner == owner),
            Keys::Range(..) => None,
        };
        let contains = |ranges: &Ranges| {
            ranges.overlapping(keys).any(|range| range.owner == owner && range.span.keys().contains(keys))
        };
        let of_range = MODES.into_iter().zip(&self.ranges).rev().find(|(_, ranges)| contains(ranges));
        one.map(|holder| holder.mode).max(of_range.map(|(mode, _)| mode))
    }
}

/// A lock that an owner took, and how he held the key before.
struct Taken {
    family: FamilyId,
    span: Span,
    before: Option<Mode>,
    /// How he took it. What is a range stays so.
    mode: Mode,
    /// That of a range in its family.
    number: u64,
}

impl Taken {
    /// Bytes of memory that such a step takes: itself, the keys, and, if it is not one up on a lock that was
    /// there, how the family has it. A list of holders begins with room for four.
    fn memory(span: &Span, before: Option<Mode>) -> usize {
        let in_family = match span {
            _ if before.is_some() => 0,
            Span::One(_) => size_of::<(Arc<[u8]>, Vec<Holder>)>() + 4 * size_of::<Holder>(),
            Span::Range(..) => Ranges::BYTES_EACH,
        };
        size_of::<Self>() + span.memory() + in_family
    }
}

/// All locks that are held.
#[derive(Default)]
pub(super) struct Held {
    families: BTreeMap<FamilyId, FamilyLocks>,
    /// What each owner took, in order.
    taken: HashMap<LockOwner, Vec<Taken>>,
    /// Locks in all.
    count: u64,
    /// Ranges that were ever taken.
    ranges: u64,
    /// Bytes of memory that all of it takes.
    bytes: usize,
}

impl Held {
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Bytes of memory that the locks take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many steps `owner` has made: a mark to [give up](Self::give_up) to.
    pub(super) fn mark_of(&self, owner: LockOwner) -> usize {
        self.taken.get(&owner).map_or(0, Vec::len)
    }

    /// Whether `owner` holds what he wants already.
    pub(super) fn covers(&self, owner: LockOwner, want: &Want) -> bool {
        let Some(locks) = self.families.get(&want.family) else { return false };
        locks.mode_of(owner, want.span.keys()).is_some_and(|mode| mode >= want.mode)
    }

    /// Whoever holds what keeps `owner` from `want`.
    pub(super) fn in_the_way<'r>(
        &'r self,
        owner: LockOwner,
        want: &'r Want,
    ) -> impl Iterator<Item = LockOwner> + 'r {
        let (keys, mode) = (want.span.keys(), want.mode);
        let locks = self.families.get(&want.family).into_iter();
        locks.flat_map(move |locks| locks.against(keys, mode)).filter(move |&other| other != owner)
    }

    /// Whether anybody holds what keeps a plain write from `keys`.
    pub(super) fn keeps_from(&self, family: FamilyId, keys: Keys<'_>) -> bool {
        let Some(locks) = self.families.get(&family) else { return false };
        locks.against(keys, Mode::Write).next().is_some()
    }

    /// `owner` takes what nobody keeps him from; `mark` is called if that is a lock more.
    pub(super) fn take(&mut self, owner: LockOwner, want: &Want) -> bool {
        let locks = self.families.entry(want.family).or_default();
        let holder = Holder { owner, mode: want.mode };
        let before = match &want.span {
            Span::One(key) => {
                let holders = locks.keys.entry(Arc::clone(key)).or_default();
                match holders.iter_mut().find(|holder| holder.owner == owner) {
                    Some(own) => Some(std::mem::replace(&mut own.mode, want.mode)),
                    None => {
                        holders.push(holder);
                        None
                    }
                }
            }
            range @ Span::Range(..) => {
                self.ranges += 1;
                let (span, number) = (range.clone(), self.ranges);
                locks.ranges[want.mode as usize].insert(LockedRange { span, owner, number });
                None
            }
        };
        self.bytes += Taken::memory(&want.span, before);
        let (family, span, mode) = (want.family, want.span.clone(), want.mode);
        let taken = Taken { family, span, before, mode, number: self.ranges };
        self.taken.entry(owner).or_default().push(taken);
        self.count += u64::from(before.is_none());
        before.is_none()
    }

    /// `owner` gives up what he took since `mark`; `gone` is told of each lock that is not held any more.
    pub(super) fn give_up(&mut self, owner: LockOwner, mark: usize, mut gone: impl FnMut(FamilyId, Mode)) {
        let Some(all) = self.taken.get_mut(&owner) else { return };
        for Taken { family, span, before, mode, number } in all.drain(mark.min(all.len())..).rev() {
            self.bytes -= Taken::memory(&span, before);
            let locks = self.families.get_mut(&family).expect("a family with locks is listed");
            let lost = match (&span, before) {
                (Span::One(key), Some(before)) => {
                    let mut holders = locks.keys.get_mut(key).into_iter().flatten();
                    let own = holders.find(|holder| holder.owner == owner);
                    own.expect("a lock that was taken is held").mode = before;
                    continue;
                }
                (Span::One(key), None) => {
                    let holders = locks.keys.get_mut(key).expect("a lock that was taken is held");
                    let place = holders.iter().position(|holder| holder.owner == owner);
                    let lost = holders.swap_remove(place.expect("a lock that was taken is held"));
                    if holders.is_empty() {
                        locks.keys.remove(key);
                    }
                    lost.mode
                }
                (Span::Range(..), _) => {
                    let lost = locks.ranges[mode as usize].remove(&span, number);
                    lost.expect("a lock that was taken is held");
                    mode
                }
            };
            if locks.is_empty() {
                self.families.remove(&family);
            }
            self.count -= 1;
            gone(family, lost);
        }
        if all.is_empty() {
            self.taken.remove(&owner);
        }
    }

    /// All that `owner` holds, in the order in which he took it.
    pub(super) fn of(&self, owner: LockOwner) -> impl Iterator<Item = Want> {
        let taken = self.taken.get(&owner).into_iter().flatten();
        taken.filter(|taken| taken.before.is_none()).map(move |Taken { family, span, mode, .. }| {
            let mode = match span {
                Span::One(key) => {
                    let own = self.families[family].keys[key].iter().find(|holder| holder.owner == owner);
                    own.expect("a lock that was taken is held").mode
                }
                Span::Range(..) => *mode,
            };
            Want { family: *family, span: span.clone(), mode }
        })
    }

    /// All of them, by family and key.
    pub(super) fn list(&self) -> impl Iterator<Item = (LockOwner, Want)> {
        self.families.iter().flat_map(|(&family, locks)| {
            let want = move |span: &Span, mode| Want { family, span: span.clone(), mode };
            let keys = locks.keys.iter().flat_map(move |(key, holders)| {
                let span = Span::One(Arc::clone(key));
                holders.iter().map(move |holder| (holder.owner, want(&span, holder.mode)))
            });
            let ranges = MODES.into_iter().zip(&locks.ranges);
            keys.chain(ranges.flat_map(move |(mode, ranges)| {
                ranges.all().map(move |range| (range.owner, want(&range.span, mode)))
            }))
        })
    }
}
