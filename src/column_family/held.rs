//! Keys of one family that prepared transactions hold until they are decided: those that they write, to which
//! nobody else may write and which nobody who prepares may have read, and those that they read, to which
//! nobody may write.
//!
//! Keys are put under, and looked for, under the family's write lock; they are let go of without it, once the
//! decision has its number. A family of which nothing is held costs a writer one load.
//!
//! Each kind is a map of disjoint stretches, each with the number of times that it is held:
//!
//! ```text
//! held:      [b, f) and [d, h)
//! stretches: [b, d) once   [d, f) twice   [f, h) once
//! ```
//!
//! Invariants:
//! 1. Stretches are not empty, do not overlap, and are held at least once.
//! 2. Stretches that touch are held differently often: what is let go of leaves no seam behind, so there are
//!    at most twice as many stretches as ranges held.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::codec::key;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// Keys from `start` up to and without `end`; `None`: there is no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch<'a> {
    pub(crate) start: &'a [u8],
    pub(crate) end: End<'a>,
}

/// Where a stretch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End<'a> {
    /// Right behind the key that it starts with.
    Same,
    Before(&'a [u8]),
    Never,
}

impl<'a> Stretch<'a> {
    pub(crate) fn key(key: &'a [u8]) -> Self {
        Self { start: key, end: End::Same }
    }

    pub(crate) fn range(start: &'a [u8], end: Option<&'a [u8]>) -> Self {
        Self { start, end: end.map_or(End::Never, End::Before) }
    }

    /// The first key behind it; `None`: it has no end.
    pub(crate) fn end(&self) -> Option<Vec<u8>> {
        match self.end {
            End::Same => Some([self.start, &[0]].concat()),
            End::Before(end) => Some(end.to_vec()),
            End::Never => None,
        }
    }
}

/// What is done with the keys that are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Read,
    Write,
}

/// What is held of one family.
#[derive(Default)]
pub(crate) struct Held {
    /// Calls of `hold` without their `let_go`.
    count: AtomicUsize,
    stretches: Mutex<Both>,
}

#[derive(Default)]
struct Both {
    read: Stretches,
    written: Stretches,
}

impl Both {
    fn of(&mut self, used: Use) -> &mut Stretches {
        match used {
            Use::Read => &mut self.read,
            Use::Write => &mut self.written,
        }
    }
}

impl Held {
    /// Whether nothing is held. Call under the write lock: who holds something has had it since.
    #[inline]
    pub(crate) fn is_free(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Holds what is used. Call under the write lock.
    pub(crate) fn hold(&self, used: Use, keys: Stretch<'_>) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.stretches.lock().of(used).add(keys);
    }

    /// Undoes one call of [`hold`](Self::hold) with the same.
    pub(crate) fn let_go(&self, used: Use, keys: Stretch<'_>) {
        self.stretches.lock().of(used).remove(keys);
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Bytes of memory that it takes. Looks at all that is held.
    pub(crate) fn bytes(&self) -> usize {
        if self.is_free() {
            return 0;
        }
        let both = self.stretches.lock();
        [&both.read, &both.written].into_iter().map(Stretches::bytes).sum()
    }

    /// Whether somebody holds any of `keys` in a way that keeps others from using them. Call under the write
    /// lock.
    pub(crate) fn keeps_from(&self, used: Use, keys: Stretch<'_>) -> bool {
        let stretches = self.stretches.lock();
        stretches.written.meets(keys) || (used == Use::Write && stretches.read.meets(keys))
    }
}

/// By start: the end, and how often it is held.
#[derive(Default, Debug)]
struct Stretches(BTreeMap<Vec<u8>, (Option<Vec<u8>>, usize)>);

/// Whether a stretch that ends at `end` ends above `start`.
fn is_above(end: Option<&Vec<u8>>, start: &[u8]) -> bool {
    end.is_none_or(|end| key::compare(end, start).is_gt())
}

impl Stretches {
    fn bytes(&self) -> usize {
        let ends = |(start, (end, _)): (&Vec<u8>, &(Option<Vec<u8>>, usize))| {
            start.capacity() + end.as_ref().map_or(0, Vec::capacity)
        };
        let stretch = size_of::<(Vec<u8>, (Option<Vec<u8>>, usize))>();
        self.0.len() * stretch + self.0.iter().map(ends).sum::<usize>()
    }

    fn meets(&self, keys: Stretch<'_>) -> bool {
        let last = match keys.end {
            End::Same => self.last_before(Bound::Included(keys.start)),
            End::Before(end) => self.last_before(Bound::Excluded(end)),
            End::Never => self.last_before(Bound::Unbounded),
        };
        last.is_some_and(|end| is_above(end, keys.start))
    }

    /// End of the last stretch that starts up to `bound`.
    fn last_before(&self, bound: Bound<&[u8]>) -> Option<Option<&Vec<u8>>> {
        self.0.range::<[u8], _>((Bound::Unbounded, bound)).next_back().map(|(_, (end, _))| end.as_ref())
    }

    /// Has a stretch begin at `key`, if one goes across it.
    fn split(&mut self, key: &[u8]) {
        let before = self.0.range_mut::<[u8], _>((Bound::Unbounded, Bound::Excluded(key))).next_back();
        if let Some((_, (end, times))) = before
            && is_above(end.as_ref(), key)
        {
            let behind = (end.replace(key.to_vec()), *times);
            self.0.insert(key.to_vec(), behind);
        }
    }

    /// Puts the stretch that ends at `key` and the one that begins there together, if they are held equally
    /// often.
    fn join(&mut self, key: &[u8]) {
        let Some(&(_, times)) = self.0.get(key) else { return };
        let before = self.0.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(key))).next_back();
        let touches = |(start, (end, before)): (&Vec<u8>, &(Option<Vec<u8>>, usize))| {
            (*before == times && end.as_deref() == Some(key)).then(|| start.clone())
        };
        let Some(start) = before.and_then(touches) else { return };
        if let Some((end, _)) = self.0.remove(key)
            && let Some(before) = self.0.get_mut(&start)
        {
            before.0 = end;
        }
    }

    fn add(&mut self, keys: Stretch<'_>) {
        let end = keys.end();
        self.split(keys.start);
        if let Some(end) = &end {
            self.split(end);
        }
        let mut at = keys.start.to_vec();
        // From `at` on nothing was counted yet.
        loop {
            let next = self.0.range_mut::<[u8], _>((Bound::Included(&at[..]), Bound::Unbounded)).next();
            let next = next.filter(|(start, _)| end.as_ref().is_none_or(|end| *start < end));
            let gap_end = match &next {
                Some((start, _)) => Some((*start).clone()),
                None => end.clone(),
            };
            let stretch_end = next.map(|(_, (end, times))| {
                *times += 1;
                end.clone()
            });
            if gap_end.as_ref() != Some(&at) {
                self.0.insert(at, (gap_end, 1));
            }
            match stretch_end {
                Some(Some(behind)) if end.as_ref() != Some(&behind) => at = behind,
                _ => break,
            }
        }
        self.join_within(keys.start, end.as_deref());
    }

    /// Keys that `add` was called with.
    fn remove(&mut self, keys: Stretch<'_>) {
        let end = keys.end();
        self.split(keys.start);
        if let Some(end) = &end {
            self.split(end);
        }
        let within = self.starts_within(keys.start, end.as_deref());
        for start in within {
            let times = self.0.get_mut(&start).map(|(_, times)| times);
            match times {
                Some(1) | None => drop(self.0.remove(&start)),
                Some(times) => *times -= 1,
            }
        }
        self.join_within(keys.start, end.as_deref());
    }

    fn starts_within(&self, start: &[u8], end: Option<&[u8]>) -> Vec<Vec<u8>> {
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        self.0.range::<[u8], _>((Bound::Included(start), end)).map(|(start, _)| start.clone()).collect()
    }

    /// Joins what touches from `start` to `end`, both included.
    fn join_within(&mut self, start: &[u8], end: Option<&[u8]>) {
        for key in self.starts_within(start, end) {
            self.join(&key);
        }
        if let Some(end) = end {
            self.join(end);
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Keys of up to two bytes out of four.
    fn keys() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(0u8..4, 0..3)
    }

    fn every_key() -> Vec<Vec<u8>> {
        let letters = || 0u8..4;
        let mut all: Vec<Vec<u8>> = vec![Vec::new()];
        all.extend(letters().map(|a| vec![a]));
        all.extend(letters().flat_map(|a| letters().map(move |b| vec![a, b])));
        all.extend(every_pair_and_zero(letters()));
        all
    }

    fn every_pair_and_zero(letters: std::ops::Range<u8>) -> Vec<Vec<u8>> {
        letters.clone().flat_map(|a| letters.clone().map(move |b| vec![a, b, 0])).collect()
    }

    type Range = (Vec<u8>, Option<Vec<u8>>);

    fn stretch((start, end): &Range) -> Stretch<'_> {
        let is_key = end.as_deref().is_some_and(|end| end.strip_suffix(&[0]) == Some(start));
        if is_key { Stretch::key(start) } else { Stretch::range(start, end.as_deref()) }
    }

    fn covers((start, end): &Range, key: &[u8]) -> bool {
        &start[..] <= key && end.as_ref().is_none_or(|end| key < &end[..])
    }

    fn overlap(a: &Range, b: &Range) -> bool {
        let below = |start: &Vec<u8>, end: &Option<Vec<u8>>| end.as_ref().is_none_or(|end| start < end);
        below(&a.0, &b.1) && below(&b.0, &a.1)
    }

    fn check(stretches: &Stretches) {
        let mut before: Option<(&Option<Vec<u8>>, usize)> = None;
        for (start, (end, times)) in &stretches.0 {
            assert!(*times > 0 && is_above(end.as_ref(), start), "{stretches:?}");
            if let Some((last_end, last_times)) = before {
                let last_end = last_end.as_ref().expect("a stretch without an end is the last");
                assert!(last_end <= start, "{stretches:?}");
                assert!(last_end < start || last_times != *times, "a seam in {stretches:?}");
            }
            before = Some((end, *times));
        }
    }

    proptest! {
        #![proptest_config(crate::sampling::config(512))]

        #[test]
        fn stretches_say_what_the_list_of_what_is_held_says(
            steps in prop::collection::vec((keys(), prop::option::of(keys()), any::<bool>(), any::<prop::sample::Index>()), 1..40),
            asked in prop::collection::vec((keys(), prop::option::of(keys())), 1..20),
        ) {
            let mut stretches = Stretches::default();
            let mut held: Vec<Range> = Vec::new();
            let ranges = |start: Vec<u8>, end: Option<Vec<u8>>| match end {
                Some(end) if end <= start => (start.clone(), Some([&start[..], &[0]].concat())),
                end => (start, end),
            };
            for (start, end, adds, which) in steps {
                if adds || held.is_empty() {
                    held.push(ranges(start, end));
                    stretches.add(stretch(held.last().unwrap()));
                } else {
                    let gone = held.swap_remove(which.index(held.len()));
                    stretches.remove(stretch(&gone));
                }
                check(&stretches);
                for key in every_key() {
                    let expected = held.iter().any(|range| covers(range, &key));
                    prop_assert_eq!(stretches.meets(Stretch::key(&key)), expected, "{:?} of {:?}", key, held);
                }
                for (start, end) in &asked {
                    let range = ranges(start.clone(), end.clone());
                    let expected = held.iter().any(|other| overlap(other, &range));
                    prop_assert_eq!(stretches.meets(stretch(&range)), expected, "{:?} of {:?}", range, held);
                }
            }
            held.iter().for_each(|range| stretches.remove(stretch(range)));
            prop_assert!(stretches.0.is_empty(), "{:?}", stretches);
        }
    }

    #[test]
    fn what_is_read_keeps_from_writing_and_what_is_written_from_both() {
        let held = Held::default();
        held.hold(Use::Read, Stretch::key(b"r"));
        held.hold(Use::Write, Stretch::range(b"w", Some(b"x")));
        assert!(!held.is_free());
        assert!(!held.keeps_from(Use::Read, Stretch::key(b"r")));
        assert!(held.keeps_from(Use::Write, Stretch::key(b"r")));
        assert!(held.keeps_from(Use::Read, Stretch::key(b"ww")));
        assert!(held.keeps_from(Use::Write, Stretch::range(b"s", None)));
        assert!(!held.keeps_from(Use::Write, Stretch::key(b"x")));
        held.let_go(Use::Read, Stretch::key(b"r"));
        held.let_go(Use::Write, Stretch::range(b"w", Some(b"x")));
        assert!(held.is_free() && !held.keeps_from(Use::Write, Stretch::range(b"", None)));
    }
}
