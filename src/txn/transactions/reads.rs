//! What a transaction has read of others' writes: keys, and ranges as far as they were walked. A key that it
//! found absent and a gap that it walked over are read like any other. What its own writes hid from a walk is
//! not: so each stretch keeps the own writes that stood in front of it.

use std::collections::BTreeMap;

use crate::codec::ids::{FamilyId, SequenceNumber};
use crate::codec::key;
use crate::column_family::family::Family;
use crate::column_family::view::OwnWrites;
use crate::sync::{Arc, Mutex};
use crate::txn::keys::Keys;
use crate::txn::tally::{Part, Share};
use crate::txn::transactions::check::{Reliance, Relied};

/// Keys, and walks, beyond which those that say the same are put together; then again when they have doubled.
const MANY: usize = 256;

/// A stretch, and the own writes that stood in front of it.
struct Behind {
    stretch: Stretch,
    own: Option<OwnWrites>,
}

impl Behind {
    /// Bytes of memory that it takes.
    fn memory(&self) -> usize {
        size_of::<Self>() - size_of::<Stretch>() + self.stretch.memory()
    }

    /// Up to which number own writes are in front; `None`: there are none.
    fn at(&self) -> Option<SequenceNumber> {
        self.own.as_ref().map(|own| own.at)
    }

    fn has_those_of(&self, other: &Self) -> bool {
        match (&self.own, &other.own) {
            (Some(own), Some(other)) => Arc::ptr_eq(&own.table, &other.table) && own.at == other.at,
            (own, other) => own.is_none() && other.is_none(),
        }
    }

    /// Whether all of `other`, which starts no sooner, is relied on if this is: it ends no later, and is
    /// behind as many own writes or more.
    fn includes(&self, other: &Self) -> bool {
        let is_behind_less = match (&self.own, &other.own) {
            (Some(own), Some(other)) => Arc::ptr_eq(&own.table, &other.table) && own.at <= other.at,
            (own, _) => own.is_none(),
        };
        is_behind_less && !self.stretch.ends_before(other.stretch.end.as_deref())
    }
}

/// Keys from `low` on, up to and without `end`; `None`: there is no end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) low: Vec<u8>,
    pub(super) end: Option<Vec<u8>>,
}

impl Stretch {
    /// Bytes of memory that it takes.
    fn memory(&self) -> usize {
        size_of::<Self>() + self.low.capacity() + self.end.as_ref().map_or(0, Vec::capacity)
    }

    /// Whether a key right behind this stretch, or within it, begins the other.
    fn reaches(&self, other: &Self) -> bool {
        self.end.as_deref().is_none_or(|end| key::compare(end, &other.low).is_ge())
    }

    fn ends_before(&self, end: Option<&[u8]>) -> bool {
        match (&self.end, end) {
            (Some(own), Some(end)) => key::compare(own, end).is_lt(),
            (own, end) => own.is_some() && end.is_none(),
        }
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

/// The same with stretches that have own writes in front: of those with the same in front what touches is put
/// together, and what another one includes is left out, if that is the one that reaches furthest.
fn join_behind(stretches: &mut Vec<Behind>) {
    let order =
        |a: &Behind, b: &Behind| key::compare(&a.stretch.low, &b.stretch.low).then(a.at().cmp(&b.at()));
    stretches.sort_by(order);
    let mut joined: Vec<Behind> = Vec::with_capacity(stretches.len());
    let mut furthest = 0;
    for behind in stretches.drain(..) {
        if joined.get(furthest).is_some_and(|other| other.includes(&behind)) {
            continue;
        }
        let end = behind.stretch.end.as_deref();
        match joined.last_mut() {
            Some(last) if last.has_those_of(&behind) && last.stretch.reaches(&behind.stretch) => {
                last.stretch.end_at_least(end);
            }
            _ => joined.push(behind),
        }
        let last = joined.len() - 1;
        if joined[furthest].stretch.ends_before(joined[last].stretch.end.as_deref()) {
            furthest = last;
        }
    }
    *stretches = joined;
}

/// What one cursor has walked over.
pub(super) struct Walked {
    stretches: Mutex<Stretches>,
    /// What the cursor has in front.
    own: Option<OwnWrites>,
}

/// The stretches that a cursor has walked over. The last one is the one that it stands in.
struct Stretches {
    list: Vec<Stretch>,
    /// Bytes of memory of all but the last.
    before_last: usize,
    memory: Part,
}

impl Stretches {
    fn push(&mut self, stretch: Stretch) {
        if self.list.len() >= MANY && self.list.len().is_power_of_two() {
            join(&mut self.list);
            self.before_last = self.list.iter().map(Stretch::memory).sum();
        } else {
            self.before_last += self.list.last().map_or(0, Stretch::memory);
        }
        self.memory.set(self.before_last + stretch.memory());
        self.list.push(stretch);
    }
}

impl Walked {
    fn new(own: Option<OwnWrites>, memory: Part) -> Self {
        Self { stretches: Mutex::new(Stretches { list: Vec::new(), before_last: 0, memory }), own }
    }

    /// The cursor was placed anew, and found what there is from `low` up to and without `end`.
    pub(super) fn place(&self, low: &[u8], end: Option<&[u8]>) {
        if end.is_some_and(|end| key::compare(low, end).is_ge()) {
            return;
        }
        let stretch = Stretch { low: low.to_vec(), end: end.map(<[u8]>::to_vec) };
        self.stretches.lock().push(stretch);
    }

    /// The cursor went up to `key`, which it stands on.
    pub(super) fn up_to(&self, key: &[u8]) {
        let mut stretches = self.stretches.lock();
        let Some(Stretch { end: Some(end), .. }) = stretches.list.last_mut() else { return };
        if key::compare(key, end).is_ge() {
            end.clear();
            end.extend_from_slice(key);
            end.push(0);
        }
    }

    /// The cursor went up to the end of what it walks, and found no more.
    pub(super) fn up_to_end(&self, end: Option<&[u8]>) {
        if let Some(stretch) = self.stretches.lock().list.last_mut() {
            stretch.end_at_least(end);
        }
    }

    /// The cursor went down to `key`, which it stands on, or the start of what it walks.
    pub(super) fn down_to(&self, key: &[u8]) {
        if let Some(stretch) = self.stretches.lock().list.last_mut()
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
    /// Bytes of memory that it takes.
    fn memory(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<usize>()
    }

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
    stretches: Vec<Behind>,
    walks: Vec<Arc<Walked>>,
    memory: Part,
    /// Bytes of memory of `stretches`.
    stretch_bytes: usize,
}

impl FamilyReads {
    /// The list of keys, or of walks, may have grown.
    fn count(&mut self) {
        let walks = self.walks.capacity() * (size_of::<Arc<Walked>>() + size_of::<Walked>());
        self.memory.set(size_of::<Self>() + self.keys.memory() + walks + self.stretch_bytes);
    }

    /// Takes over what was walked, of cursors that are gone for good.
    fn gather(&mut self) {
        let stretches = &mut self.stretches;
        self.walks.retain(|walk| {
            let is_held = Arc::strong_count(walk) > 1;
            let walked = walk.stretches.lock();
            let behind = |stretch: &Stretch| Behind { stretch: stretch.clone(), own: walk.own.clone() };
            stretches.extend(walked.list.iter().map(behind));
            is_held
        });
        join_behind(stretches);
        self.stretch_bytes = self.stretches.iter().map(Behind::memory).sum();
        self.count();
    }
}

pub(super) struct Reads {
    families: BTreeMap<FamilyId, FamilyReads>,
    share: Arc<Share>,
}

impl Reads {
    /// Nothing yet; what it takes counts as parts of `share`.
    pub(super) fn new(share: &Arc<Share>) -> Self {
        Self { families: BTreeMap::new(), share: Arc::clone(share) }
    }

    fn of(&mut self, family: &Arc<Family>) -> &mut FamilyReads {
        let share = &self.share;
        self.families.entry(family.id()).or_insert_with(|| FamilyReads {
            family: Arc::clone(family),
            keys: KeyList::default(),
            stretches: Vec::new(),
            walks: Vec::new(),
            memory: share.part(),
            stretch_bytes: 0,
        })
    }

    pub(super) fn note(&mut self, family: &Arc<Family>, key: &[u8]) {
        let reads = self.of(family);
        reads.keys.push(key);
        reads.count();
    }

    /// A cursor on `family` begins to walk, with `own` writes in front.
    pub(super) fn walk(&mut self, family: &Arc<Family>, own: Option<OwnWrites>) -> Arc<Walked> {
        let memory = self.share.part();
        let reads = self.of(family);
        if reads.walks.len() >= MANY && reads.walks.len().is_power_of_two() {
            reads.gather();
        }
        let walked = Arc::new(Walked::new(own, memory));
        reads.walks.push(Arc::clone(&walked));
        reads.count();
        walked
    }

    /// All that was read up to now, ascending by family.
    pub(super) fn relied(&mut self) -> Vec<Relied<'_>> {
        self.families.values_mut().for_each(FamilyReads::gather);
        let relied = self.families.values().map(|reads| {
            let keys = reads.keys.iter().map(|key| Keys::One(key).into());
            let stretches = reads.stretches.iter().map(|Behind { stretch, own }| Reliance {
                keys: Keys::Range(&stretch.low, stretch.end.as_deref()),
                behind: own.as_ref(),
            });
            Relied { family: &reads.family, keys: keys.chain(stretches).collect() }
        });
        relied.filter(|relied| !relied.keys.is_empty()).collect()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::txn::tally::Tally;

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
    fn stretches_behind_own_writes_are_put_together_only_with_those_behind_the_same() {
        let mut writer = crate::memtable::Memtable::create(0);
        writer.put(b"b", b"", SequenceNumber(1));
        let own = |at| Some(OwnWrites { table: Arc::clone(writer.table()), at: SequenceNumber(at) });
        let behind = |low: &str, end: &str, own| Behind { stretch: stretch(low, Some(end)), own };
        let mut stretches = vec![
            behind("a", "c", own(1)),
            behind("c", "e", own(1)),
            behind("a", "c", own(2)),
            behind("e", "g", own(2)),
            behind("f", "h", None),
            behind("f", "g", own(2)),
            behind("g", "k", own(3)),
        ];
        join_behind(&mut stretches);
        let left: Vec<_> = stretches
            .iter()
            .map(|Behind { stretch, own }| (stretch.clone(), own.as_ref().map(|own| own.at.0)))
            .collect();
        let expected = [("a", "e", Some(1)), ("e", "g", Some(2)), ("f", "h", None), ("g", "k", Some(3))];
        let expected = expected.map(|(low, end, at)| (stretch(low, Some(end)), at));
        assert_eq!(left, expected);
    }

    #[test]
    fn a_walk_reaches_as_far_as_the_cursor_went() {
        let walked = Walked::new(None, Tally::default().share().part());
        walked.place(b"d", Some(b"e"));
        walked.up_to(b"f");
        walked.up_to(b"e");
        walked.down_to(b"c");
        walked.down_to(b"d");
        let stretches = || walked.stretches.lock().list.clone();
        assert_eq!(stretches(), [stretch("c", Some("f\0"))]);
        walked.place(b"x", Some(b"x\0"));
        walked.up_to_end(Some(b"z"));
        assert_eq!(stretches()[1], stretch("x", Some("z")));
        walked.place(b"y", Some(b"y\0"));
        walked.up_to_end(None);
        assert_eq!(stretches()[2], stretch("y", None));
        walked.place(b"b", Some(b"a"));
        assert_eq!(stretches().len(), 3, "nothing lies in a range that is upside down");
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
