//! What a transaction has read of others' writes: keys, and ranges as far as they were walked. A key that it
//! found absent and a gap that it walked over are read like any other.

use std::collections::BTreeMap;

use crate::codec::ids::FamilyId;
use crate::codec::key;
use crate::column_family::family::Family;
use crate::sync::{Arc, Mutex};
use crate::txn::keys::Keys;
use crate::txn::transactions::check::Relied;

/// Keys, and walks, beyond which those that say the same are put together; then again when they have doubled.
const MANY: usize = 256;

/// Keys from `low` on, up to and without `end`; `None`: there is no end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) low: Vec<u8>,
    pub(super) end: Option<Vec<u8>>,
}

impl Stretch {
    /// Whether a key right behind this stretch, or within it, begins the other.
    fn reaches(&self, other: &Self) -> bool {
        self.end.as_deref().is_none_or(|end| key::compare(end, &other.low).is_ge())
    }

    fn end_at_least(&mut self, end: Option<&[u8]>) {
        match (&mut self.end, end) {
            (Some(own), Some(end)) if key::compare(own, end).is_lt() => {
                own.clear();
                own.extend_from_slice(end);
            }
            (own @ Some(_), None) => *own = None,
            _ => {}
        }
    }
}

/// Sorts `stretches` and puts together what touches.
fn join(stretches: &mut Vec<Stretch>) {
    stretches.sort_by(|a, b| key::compare(&a.low, &b.low));
    let mut joined: Vec<Stretch> = Vec::with_capacity(stretches.len());
    for stretch in stretches.drain(..) {
        match joined.last_mut() {
            Some(last) if last.reaches(&stretch) => last.end_at_least(stretch.end.as_deref()),
            _ => joined.push(stretch),
        }
    }
    *stretches = joined;
}

/// What one cursor has walked over. The last stretch is the one that it stands in.
#[derive(Default)]
pub(super) struct Walked(Mutex<Vec<Stretch>>);

impl Walked {
    /// The cursor was placed anew, and found what there is from `low` up to and without `end`.
    pub(super) fn place(&self, low: &[u8], end: Option<&[u8]>) {
        if end.is_some_and(|end| key::compare(low, end).is_ge()) {
            return;
        }
        let mut stretches = self.0.lock();
        if stretches.len() >= MANY && stretches.len().is_power_of_two() {
            join(&mut stretches);
        }
        stretches.push(Stretch { low: low.to_vec(), end: end.map(<[u8]>::to_vec) });
    }

    /// The cursor went up to `key`, which it stands on.
    pub(super) fn up_to(&self, key: &[u8]) {
        let mut stretches = self.0.lock();
        let Some(Stretch { end: Some(end), .. }) = stretches.last_mut() else { return };
        if key::compare(key, end).is_ge() {
            end.clear();
            end.extend_from_slice(key);
            end.push(0);
        }
    }

    /// The cursor went up to the end of what it walks, and found no more.
    pub(super) fn up_to_end(&self, end: Option<&[u8]>) {
        if let Some(stretch) = self.0.lock().last_mut() {
            stretch.end_at_least(end);
        }
    }

    /// The cursor went down to `key`, which it stands on, or the start of what it walks.
    pub(super) fn down_to(&self, key: &[u8]) {
        if let Some(stretch) = self.0.lock().last_mut()
            && key::compare(key, &stretch.low).is_lt()
        {
            stretch.low.clear();
            stretch.low.extend_from_slice(key);
        }
    }
}

/// Keys one after the other.
#[derive(Default)]
struct KeyList {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl KeyList {
    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.ends.iter().enumerate().map(|(index, &end)| {
            let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
            &self.bytes[start..end]
        })
    }

    fn push(&mut self, key: &[u8]) {
        if self.ends.len() >= MANY && self.ends.len().is_power_of_two() {
            self.put_together();
        }
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
    }

    fn put_together(&mut self) {
        let mut keys: Vec<&[u8]> = self.iter().collect();
        keys.sort_unstable_by(|a, b| key::compare(a, b));
        keys.dedup();
        let mut list = Self::default();
        for key in keys {
            list.bytes.extend_from_slice(key);
            list.ends.push(list.bytes.len());
        }
        *self = list;
    }
}

/// What was read of one family.
struct FamilyReads {
    family: Arc<Family>,
    keys: KeyList,
    /// By cursors that are gone.
    stretches: Vec<Stretch>,
    walks: Vec<Arc<Walked>>,
}

impl FamilyReads {
    /// Takes over what was walked, of cursors that are gone for good.
    fn gather(&mut self) {
        let stretches = &mut self.stretches;
        self.walks.retain(|walk| {
            let is_held = Arc::strong_count(walk) > 1;
            stretches.extend(walk.0.lock().iter().cloned());
            is_held
        });
        join(stretches);
    }
}

#[derive(Default)]
pub(super) struct Reads(BTreeMap<FamilyId, FamilyReads>);

impl Reads {
    fn of(&mut self, family: &Arc<Family>) -> &mut FamilyReads {
        self.0.entry(family.id()).or_insert_with(|| FamilyReads {
            family: Arc::clone(family),
            keys: KeyList::default(),
            stretches: Vec::new(),
            walks: Vec::new(),
        })
    }

    pub(super) fn note(&mut self, family: &Arc<Family>, key: &[u8]) {
        self.of(family).keys.push(key);
    }

    /// A cursor on `family` begins to walk.
    pub(super) fn walk(&mut self, family: &Arc<Family>) -> Arc<Walked> {
        let reads = self.of(family);
        if reads.walks.len() >= MANY && reads.walks.len().is_power_of_two() {
            reads.gather();
        }
        let walked = Arc::new(Walked::default());
        reads.walks.push(Arc::clone(&walked));
        walked
    }

    /// All that was read up to now, ascending by family.
    pub(super) fn relied(&mut self) -> Vec<Relied<'_>> {
        self.0.values_mut().for_each(FamilyReads::gather);
        let relied = self.0.values().map(|reads| {
            let keys = reads.keys.iter().map(Keys::One);
            let stretches =
                reads.stretches.iter().map(|stretch| Keys::Range(&stretch.low, stretch.end.as_deref()));
            Relied { family: &reads.family, keys: keys.chain(stretches).collect() }
        });
        relied.filter(|relied| !relied.keys.is_empty()).collect()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn stretch(low: &str, end: Option<&str>) -> Stretch {
        Stretch { low: low.into(), end: end.map(Into::into) }
    }

    #[test]
    fn stretches_that_touch_are_put_together_and_others_are_not() {
        let mut stretches = vec![
            stretch("m", None),
            stretch("a", Some("c")),
            stretch("e", Some("f")),
            stretch("b", Some("e")),
        ];
        stretches.push(stretch("g", Some("h")));
        join(&mut stretches);
        assert_eq!(stretches, [stretch("a", Some("f")), stretch("g", Some("h")), stretch("m", None)]);
    }

    #[test]
    fn a_walk_reaches_as_far_as_the_cursor_went() {
        let walked = Walked::default();
        walked.place(b"d", Some(b"e"));
        walked.up_to(b"f");
        walked.up_to(b"e");
        walked.down_to(b"c");
        walked.down_to(b"d");
        assert_eq!(*walked.0.lock(), [stretch("c", Some("f\0"))]);
        walked.place(b"x", Some(b"x\0"));
        walked.up_to_end(Some(b"z"));
        assert_eq!(walked.0.lock()[1], stretch("x", Some("z")));
        walked.place(b"y", Some(b"y\0"));
        walked.up_to_end(None);
        assert_eq!(walked.0.lock()[2], stretch("y", None));
        walked.place(b"b", Some(b"a"));
        assert_eq!(walked.0.lock().len(), 3, "nothing lies in a range that is upside down");
    }

    #[test]
    fn many_keys_are_kept_once() {
        let mut keys = KeyList::default();
        for round in 0..8 * MANY {
            keys.push(&[(round % 5) as u8]);
        }
        assert!(keys.ends.len() < 2 * MANY);
        keys.put_together();
        assert!(keys.iter().eq([[0], [1], [2], [3], [4]].iter().map(|key| &key[..])));
    }
}
