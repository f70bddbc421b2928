//! Writes the bytes of a node, in order, straight into its page. The layout is drawn in `node.rs`.

use super::node::{COUNT_AT, Fault, HEAD_LEN, HEADS_AT, Node, PREFIX_LEN_AT, offset_width};
use super::records::{CHILD_LEN, Child};
use super::split_key::SplitKey;
use crate::codec::key;

/// Bytes of a node besides its prefix and its entries.
pub(super) fn arrays_len(count: usize, inner: bool, wide: bool) -> usize {
    HEADS_AT + HEAD_LEN * count + offset_width(wide) * (count + 1) + if inner { CHILD_LEN * count } else { 0 }
}

pub(super) struct NodeWriter<'b> {
    bytes: &'b mut [u8],
    wide: bool,
    count: usize,
    offsets_at: usize,
    children_at: usize,
    /// Entries written.
    index: usize,
    /// Where the next one goes.
    at: usize,
}

impl<'b> NodeWriter<'b> {
    /// Begins a node of `count` entries in `bytes`, which may hold anything, with `prefix`.
    pub(super) fn begin(
        bytes: &'b mut [u8],
        inner: bool,
        wide: bool,
        count: usize,
        prefix: SplitKey<'_>,
    ) -> Self {
        let count_field = u16::try_from(count).expect("a node has fewer than 65,536 entries");
        bytes[COUNT_AT..][..2].copy_from_slice(&count_field.to_le_bytes());
        bytes[COUNT_AT + 2..][..2].fill(0);
        bytes[PREFIX_LEN_AT..][..4].copy_from_slice(&(prefix.len() as u32).to_le_bytes());
        let offsets_at = HEADS_AT + HEAD_LEN * count;
        let mut writer = Self {
            bytes,
            wide,
            count,
            offsets_at,
            children_at: offsets_at + offset_width(wide) * (count + 1),
            index: 0,
            at: arrays_len(count, inner, wide),
        };
        writer.put(prefix.0);
        writer.put(prefix.1);
        writer
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.at..][..bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    #[inline]
    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes[self.at] = value as u8 | 0x80;
            self.at += 1;
            value >>= 7;
        }
        self.bytes[self.at] = value as u8;
        self.at += 1;
    }

    #[inline]
    fn set_offset(&mut self, i: usize, offset: usize) {
        let at = self.offsets_at + i * offset_width(self.wide);
        if self.wide {
            self.bytes[at..][..4].copy_from_slice(&(offset as u32).to_le_bytes());
        } else {
            self.bytes[at..][..2].copy_from_slice(&(offset as u16).to_le_bytes());
        }
    }

    /// Writes the rest of the key of the entry that begins at `start`, its head and its offset.
    #[inline]
    fn put_rest(&mut self, start: usize, rest: SplitKey<'_>) {
        let rest_at = self.at;
        self.put(rest.0);
        self.put(rest.1);
        let head = key::head4(&self.bytes[rest_at..self.at]);
        self.bytes[HEADS_AT + HEAD_LEN * self.index..][..HEAD_LEN].copy_from_slice(&head.to_le_bytes());
        self.set_offset(self.index, start);
        self.index += 1;
    }

    /// Adds an entry of a leaf. `rest` is the key after the prefix.
    #[inline]
    pub(super) fn leaf_entry(&mut self, rest: SplitKey<'_>, kind: u64, value: &[u8]) {
        let start = self.at;
        self.put_varint(rest.len() as u64);
        self.put_varint((value.len() as u64) << 2 | kind);
        self.put_rest(start, rest);
        self.put(value);
    }

    /// Adds an entry of an inner node. `rest` is the separator after the prefix.
    pub(super) fn child(&mut self, rest: SplitKey<'_>, child: &Child) {
        let at = self.children_at + CHILD_LEN * self.index;
        self.bytes[at..][..CHILD_LEN].copy_from_slice(&child.encode());
        self.put_rest(self.at, rest);
    }

    /// Adds entries `from..to` of `node` as they stand. Both nodes are of one page and have the same prefix.
    #[inline]
    pub(super) fn copy(&mut self, node: &Node<'_>, from: usize, to: usize) -> Result<(), Fault> {
        let entries = node.entries(from, to)?;
        if entries.len() > self.bytes.len() - self.at {
            return Err(Fault("the entries of a leaf overlap"));
        }
        let heads = node.heads()[from..to].as_flattened();
        self.bytes[HEADS_AT + HEAD_LEN * self.index..][..heads.len()].copy_from_slice(heads);
        let offsets =
            self.bytes[self.offsets_at + 2 * self.index..][..2 * (to - from)].as_chunks_mut::<2>().0;
        let shift = (self.at as u16).wrapping_sub(node.offset(from) as u16);
        for (new, old) in offsets.iter_mut().zip(&node.narrow_offsets()[from..to]) {
            *new = u16::from_le_bytes(*old).wrapping_add(shift).to_le_bytes();
        }
        self.index += to - from;
        self.put(entries);
        Ok(())
    }

    /// Ends the node with the last offset. Returns the length of the node in bytes.
    pub(super) fn finish(mut self) -> usize {
        assert_eq!(self.index, self.count, "entries written and announced");
        self.set_offset(self.count, self.at);
        self.at
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::btree::node::{LeafValue, kind};
    use crate::codec::ids::PageId;
    use crate::page::PagePointer;

    const PAGE: usize = 16 << 10;

    /// Writes a node of `level` with `keys`, as one page or as a run; entry `i` has `i` bytes of value, or
    /// `i` entries below.
    fn node_bytes(keys: &BTreeSet<Vec<u8>>, level: u8, wide: bool) -> Vec<u8> {
        let mut bytes = vec![0xee; PAGE];
        let (first, last) = (keys.first().unwrap(), keys.last().unwrap());
        let shared = if keys.len() == 1 { first.len() } else { key::common_prefix(first, last) };
        let prefix = SplitKey::whole(&first[..shared]);
        let mut writer = NodeWriter::begin(&mut bytes, level > 0, wide, keys.len(), prefix);
        for (i, key) in keys.iter().enumerate() {
            let rest = SplitKey(&key[shared..shared], &key[shared..]);
            if level > 0 {
                writer.child(rest, &child(i));
            } else {
                writer.leaf_entry(rest, kind::INLINE, &vec![i as u8; i]);
            }
        }
        let len = writer.finish();
        bytes.truncate(len);
        let kind = if level > 0 { 2 } else { 1 };
        bytes[24..28].copy_from_slice(&[kind, level, 0, 0]);
        bytes[28..32].copy_from_slice(&(1 + u32::from(wide)).to_le_bytes());
        bytes
    }

    fn child(i: usize) -> Child {
        let pointer = PagePointer { page: PageId(i as u32), pages: 1, checksum: !i as u32 };
        Child { pointer, owns_values: i % 2 == 1, entries: i as u64 }
    }

    #[test]
    fn a_few_entries_are_found_in_a_small_node() {
        let keys = BTreeSet::from(["p", "pa", "pab", "pb", "pbbbbbbbb"].map(|key| key.as_bytes().to_vec()));
        for wide in [false, true] {
            let (leaf, inner) = (node_bytes(&keys, 0, wide), node_bytes(&keys, 1, wide));
            let (leaf, inner) = (Node::open(&leaf, 0).unwrap(), Node::open(&inner, 1).unwrap());
            for (i, key) in keys.iter().enumerate() {
                assert_eq!(leaf.search(key).unwrap(), (i, true));
                let LeafValue::Inline(range) = leaf.entry(i).unwrap().value else {
                    panic!("an inline value")
                };
                assert_eq!(leaf.bytes(range), &vec![i as u8; i][..]);
                assert_eq!(inner.child(inner.child_index(key).unwrap()), Ok(child(i)));
            }
            assert_eq!(leaf.search(b"pb0").unwrap(), (4, false));
        }
    }

    fn keys() -> impl Strategy<Value = BTreeSet<Vec<u8>>> {
        let byte = || prop_oneof![Just(0u8), Just(1), Just(255)];
        let keys = prop::collection::btree_set(prop::collection::vec(byte(), 0..8), 1..60);
        (prop::collection::vec(byte(), 0..6), keys)
            .prop_map(|(lead, keys)| keys.into_iter().map(|key| [&lead[..], &key].concat()).collect())
    }

    proptest! {
        #![proptest_config(crate::sampling::config(256))]

        #[test]
        fn a_leaf_holds_what_was_written(keys in keys(), probe in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255)], 0..12), wide: bool) {
            let bytes = node_bytes(&keys, 0, wide);
            let node = Node::open(&bytes, 0).unwrap();
            let sorted: Vec<_> = keys.iter().collect();
            prop_assert_eq!(node.count(), keys.len());
            let mut key = Vec::new();
            for (i, expected) in sorted.iter().enumerate() {
                node.key(i, &mut key).unwrap();
                prop_assert_eq!(&key, *expected);
                prop_assert_eq!(node.search(expected).unwrap(), (i, true));
                let LeafValue::Inline(range) = node.entry(i).unwrap().value else { panic!("an inline value") };
                prop_assert_eq!(node.bytes(range), &vec![i as u8; i][..]);
            }
            let at = sorted.partition_point(|&key| *key < probe);
            prop_assert_eq!(node.search(&probe).unwrap(), (at, keys.contains(&probe)));
            for from in 0..=at {
                prop_assert_eq!(node.search_from(from, &probe).unwrap().0, at);
            }
        }

        #[test]
        fn an_inner_node_leads_to_the_child_whose_range_holds_a_key(keys in keys(), probe in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255)], 0..12), wide: bool) {
            let bytes = node_bytes(&keys, 3, wide);
            let node = Node::open(&bytes, 3).unwrap();
            for i in 0..keys.len() {
                prop_assert_eq!(node.child(i), Ok(child(i)));
            }
            let expected = keys.iter().filter(|&key| *key <= probe).count().saturating_sub(1);
            prop_assert_eq!(node.child_index(&probe).unwrap(), expected);
            prop_assert_eq!(node.entries_before(expected), (0..expected as u64).sum::<u64>());
        }

        #[test]
        fn runs_of_entries_are_copied_as_they_are(keys in keys(), from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>()) {
            let bytes = node_bytes(&keys, 0, false);
            let node = Node::open(&bytes, 0).unwrap();
            let (a, b) = (from.index(keys.len()), to.index(keys.len()) + 1);
            let (from, to) = (a.min(b - 1), b.max(a + 1));
            let mut copy = vec![0xee; PAGE];
            let mut writer = NodeWriter::begin(&mut copy, false, false, to - from, SplitKey::whole(node.prefix()));
            writer.copy(&node, from, to).unwrap();
            writer.finish();
            copy[24..32].copy_from_slice(&bytes[24..32]);
            let copied = Node::open(&copy, 0).unwrap();
            let (mut key, mut expected) = (Vec::new(), Vec::new());
            for i in from..to {
                copied.key(i - from, &mut key).unwrap();
                node.key(i, &mut expected).unwrap();
                prop_assert_eq!(&key, &expected);
                prop_assert_eq!(copied.heads()[i - from], node.heads()[i]);
                prop_assert_eq!(copied.entries(i - from, i - from + 1).unwrap(), node.entries(i, i + 1).unwrap());
            }
        }

        #[test]
        fn a_node_cut_short_or_of_another_kind_is_refused(keys in keys(), at in any::<prop::sample::Index>()) {
            let bytes = node_bytes(&keys, 0, false);
            prop_assert!(Node::open(&bytes, 1).is_err());
            let cut = &bytes[..at.index(bytes.len())];
            if let Ok(node) = Node::open(cut, 0) {
                // The arrays are whole: what is missing is an entry.
                prop_assert!((0..node.count()).any(|i| node.entry(i).is_err()));
            }
        }
    }
}
