//! What a family should hold, in the order in which it keeps its keys.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use peristyle::{FamilyOptions, KeyOrder};

use super::operation::{Key, Range, bounds};

/// An order of keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Order {
    #[default]
    Bytes,
    Reverse,
    /// The longest keys first; of a program's own.
    Longest,
}

/// The most bytes of a key in an order of its own: it takes more as it is stored.
const MOST: usize = 30_000;

/// Keys by their length, the longest first.
pub(crate) fn longest_first() -> KeyOrder {
    KeyOrder::new("longest first", |key, sort_key| {
        sort_key.extend((u32::MAX - key.len() as u32).to_be_bytes());
        Ok(())
    })
}

impl Order {
    /// That of a new family.
    pub(crate) fn of_new(fill: u8) -> Self {
        match fill % 4 {
            1 => Self::Reverse,
            2 => Self::Longest,
            _ => Self::Bytes,
        }
    }

    pub(crate) fn of(options: &FamilyOptions) -> Self {
        match options.key_order_name() {
            None => Self::Bytes,
            Some("longest first") => Self::Longest,
            Some(_) => Self::Reverse,
        }
    }

    pub(crate) fn give(self, options: FamilyOptions) -> FamilyOptions {
        match self {
            Self::Bytes => options,
            Self::Reverse => options.key_order(KeyOrder::reverse()),
            Self::Longest => options.key_order(longest_first()),
        }
    }

    pub(crate) fn has_prefixes(self) -> bool {
        self != Self::Longest
    }

    pub(crate) fn compare(self, a: &[u8], b: &[u8]) -> Ordering {
        match self {
            Self::Bytes => a.cmp(b),
            Self::Reverse => b.cmp(a),
            Self::Longest => b.len().cmp(&a.len()).then(a.cmp(b)),
        }
    }

    fn fit(self, mut key: Vec<u8>) -> Vec<u8> {
        if self != Self::Bytes {
            key.truncate(MOST);
        }
        key
    }

    /// A key of such a family.
    pub(crate) fn key(self, key: &Key) -> Vec<u8> {
        self.fit(key.bytes())
    }

    /// A range of its keys.
    pub(crate) fn bounds(self, range: &Range) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        let (start, end) = bounds(range);
        (start.map(|key| self.fit(key)), end.map(|key| self.fit(key)))
    }

    fn holds(self, range: &(Bound<Vec<u8>>, Bound<Vec<u8>>), key: &[u8]) -> bool {
        let place = |key: &[u8]| Placed(self, key.to_vec());
        let (start, end) = range;
        let bounds = (start.as_ref().map(|key| place(key)), end.as_ref().map(|key| place(key)));
        bounds.contains(&place(key))
    }
}

/// A key, and the order in which it is sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed(Order, Vec<u8>);

impl PartialOrd for Placed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Placed {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.compare(&self.1, &other.1)
    }
}

/// A family as it should be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entries {
    order: Order,
    map: BTreeMap<Placed, Arc<[u8]>>,
}

impl Entries {
    /// Nothing, in the order of bytes.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn ordered(order: Order) -> Self {
        Self { order, map: BTreeMap::new() }
    }

    pub(crate) fn order(&self) -> Order {
        self.order
    }

    fn place(&self, key: impl AsRef<[u8]>) -> Placed {
        Placed(self.order, key.as_ref().to_vec())
    }

    pub(crate) fn get(&self, key: impl AsRef<[u8]>) -> Option<&Arc<[u8]>> {
        self.map.get(&self.place(key))
    }

    pub(crate) fn contains_key(&self, key: impl AsRef<[u8]>) -> bool {
        self.map.contains_key(&self.place(key))
    }

    pub(crate) fn insert(&mut self, key: Vec<u8>, value: Arc<[u8]>) -> Option<Arc<[u8]>> {
        self.map.insert(Placed(self.order, key), value)
    }

    pub(crate) fn remove(&mut self, key: impl AsRef<[u8]>) -> Option<Arc<[u8]>> {
        let place = self.place(key);
        self.map.remove(&place)
    }

    /// Takes out those from `key` on.
    pub(crate) fn split_off(&mut self, key: impl AsRef<[u8]>) -> Self {
        let place = self.place(key);
        Self { order: self.order, map: self.map.split_off(&place) }
    }

    pub(crate) fn pop_first(&mut self) -> Option<(Vec<u8>, Arc<[u8]>)> {
        self.map.pop_first().map(|(key, value)| (key.1, value))
    }

    pub(crate) fn clear(&mut self) {
        self.map.clear();
    }

    pub(crate) fn remove_range(&mut self, range: &(Bound<Vec<u8>>, Bound<Vec<u8>>)) {
        let order = self.order;
        self.map.retain(|key, _| !order.holds(range, &key.1));
    }

    pub(crate) fn retain(&mut self, mut keeps: impl FnMut(&Vec<u8>, &mut Arc<[u8]>) -> bool) {
        self.map.retain(|key, value| keeps(&key.1, value));
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    pub(crate) fn iter(&self) -> Iter<'_> {
        let shown: Shown<'_> = |(key, value)| (&key.1, value);
        self.map.iter().map(shown)
    }

    pub(crate) fn keys(&self) -> impl DoubleEndedIterator<Item = &Vec<u8>> {
        self.map.keys().map(|key| &key.1)
    }

    pub(crate) fn first_key_value(&self) -> Option<(&Vec<u8>, &Arc<[u8]>)> {
        self.iter().next()
    }

    pub(crate) fn last_key_value(&self) -> Option<(&Vec<u8>, &Arc<[u8]>)> {
        self.iter().next_back()
    }

    /// Those in a range, which may be empty or upside down.
    pub(crate) fn within<'a>(
        &'a self,
        range: &'a (Bound<Vec<u8>>, Bound<Vec<u8>>),
    ) -> impl DoubleEndedIterator<Item = (&'a Vec<u8>, &'a Arc<[u8]>)> {
        self.iter().filter(|(key, _)| self.order.holds(range, key))
    }
}

type Entry<'a> = (&'a Vec<u8>, &'a Arc<[u8]>);
type Shown<'a> = fn((&'a Placed, &'a Arc<[u8]>)) -> Entry<'a>;
pub(crate) type Iter<'a> =
    std::iter::Map<std::collections::btree_map::Iter<'a, Placed, Arc<[u8]>>, Shown<'a>>;

impl<'a> IntoIterator for &'a Entries {
    type Item = Entry<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}
