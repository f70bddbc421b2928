//! The leaves that a tree builder has under way: entries that wait for their leaf to be complete.
//!
//! An entry that is carried over is not copied until its new leaf is written: it is known by the old leaf,
//! which is pinned meanwhile, and its index. Neighbours of one old leaf then go over as one copy where the
//! prefix stayed the same.

use std::cmp::Ordering;
use std::collections::VecDeque;

use super::locate::locate;
use super::node::{Fault, LeafValue, Node, NodeResult, Shape, kind};
use super::node_writer::{NodeWriter, arrays_len};
use super::output::Output;
use super::pack::Packer;
use super::records::{Child, ValuePointer};
use super::split_key::SplitKey;
use crate::codec::expiry::{self, Expiry, STAMP_LEN};
use crate::codec::{key, varint};
use crate::error::{Error, Result};
use crate::page::{HEADER_LEN, PagePointer, PinnedPage};

/// A leaf of the old tree whose entries are carried over.
#[derive(Clone)]
pub(super) struct OldLeaf {
    pub(super) page: PinnedPage,
    pub(super) shape: Shape,
    pub(super) pointer: PagePointer,
    /// Its number among the leaves that the builder holds; used again once none of its entries waits.
    pub(super) number: u32,
}

impl OldLeaf {
    #[inline]
    pub(super) fn node(&self) -> Node<'_> {
        Node::with_shape(&self.page, self.shape)
    }
}

#[derive(Clone, Copy)]
enum Pending<'m> {
    Old {
        leaf: u32,
        index: u32,
    },
    /// An old key whose value run was moved.
    Moved {
        leaf: u32,
        index: u32,
        value: ValuePointer,
    },
    /// An old key whose value stood in a run, and is to stand in the leaf.
    Inlined {
        leaf: u32,
        index: u32,
        /// Its number among the values that were read from runs.
        value: u32,
    },
    /// An old key with another value.
    Changed {
        leaf: u32,
        index: u32,
        kind: u64,
        /// The number of the value, stamped if it expires, among the bytes that were made.
        bytes: u32,
    },
    New {
        key: &'m [u8],
        value: &'m [u8],
    },
    NewRun {
        key: &'m [u8],
        value: ValuePointer,
    },
    /// A stamped value.
    NewExpiring {
        key: &'m [u8],
        stamped: &'m [u8],
    },
    Deletion {
        key: &'m [u8],
    },
    /// A new entry of this kind, whose bytes were made here.
    Made {
        key: &'m [u8],
        kind: u64,
        /// The number of the bytes among those that were made.
        bytes: u32,
    },
}

#[derive(Clone, Copy)]
struct Entry<'m> {
    pending: Pending<'m>,
    is_run: bool,
}

impl Entry<'_> {
    /// The old leaf that the entry refers to.
    fn old_leaf(&self) -> Option<u32> {
        match self.pending {
            Pending::Old { leaf, .. }
            | Pending::Moved { leaf, .. }
            | Pending::Inlined { leaf, .. }
            | Pending::Changed { leaf, .. } => Some(leaf),
            Pending::New { .. }
            | Pending::NewRun { .. }
            | Pending::NewExpiring { .. }
            | Pending::Deletion { .. }
            | Pending::Made { .. } => None,
        }
    }
}

/// What lies to the left of the first entry that waits.
enum Left {
    /// Nothing: it is the first of the tree.
    Edge,
    /// A leaf that ends with the key in `left_key`.
    Key,
    /// A subtree that was not read, divided from what follows by the separator in `left_key`.
    Fence,
    /// A subtree that was not read, and no separator is known yet.
    Unknown,
}

pub(super) struct LeafLevel<'m> {
    packer: Packer,
    entries: Vec<Entry<'m>>,
    /// Old leaves that entries refer to, by number from `first_held` on.
    held: VecDeque<OldLeaf>,
    first_held: u32,
    /// Runs, and lengths and expiries of the values in them, that entries refer to, by number from
    /// `first_value` on.
    values: VecDeque<(PinnedPage, usize, Expiry)>,
    first_value: u32,
    /// Bytes that entries refer to, by number from `first_made` on.
    made: VecDeque<Vec<u8>>,
    first_made: u32,
    left: Left,
    left_key: Vec<u8>,
    /// Length of the rest of the last entry's key, if that is an old one.
    last_rest_len: usize,
    /// A neighbour was absorbed since leaves were last flushed.
    pub(super) absorbed: bool,
}

impl<'m> LeafLevel<'m> {
    pub(super) fn new(page_size: usize, fill: u8) -> Self {
        Self {
            packer: Packer::new(false, page_size, fill),
            entries: Vec::new(),
            held: VecDeque::new(),
            first_held: 0,
            values: VecDeque::new(),
            first_value: 0,
            made: VecDeque::new(),
            first_made: 0,
            left: Left::Edge,
            left_key: Vec::new(),
            last_rest_len: 0,
            absorbed: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn packer(&self) -> &Packer {
        &self.packer
    }

    /// Whether a value of `len` bytes that comes next is to stand in a run of its own.
    pub(super) fn wants_run(&mut self, len: usize) -> bool {
        self.packer.wants_run(len)
    }

    /// What follows does not lie below `fence`.
    pub(super) fn open(&mut self, fence: &[u8]) {
        if self.entries.is_empty() && matches!(self.left, Left::Unknown) {
            self.left = Left::Fence;
            self.left_key.clear();
            self.left_key.extend_from_slice(fence);
        }
    }

    /// A subtree that was not read follows.
    pub(super) fn skip(&mut self) {
        assert!(self.entries.is_empty(), "{} entries wait before a subtree", self.entries.len());
        self.left = Left::Unknown;
    }

    /// Keeps `page` for entries that will be added from it.
    pub(super) fn hold(&mut self, page: PinnedPage, shape: Shape, pointer: PagePointer) -> OldLeaf {
        // Entries are added from the newest leaf alone: those behind the last one that an entry refers to
        // have had their turn.
        let last_used = self.entries.iter().rev().find_map(Entry::old_leaf);
        self.held.truncate(last_used.map_or(0, |leaf| (leaf - self.first_held) as usize + 1));
        let leaf = OldLeaf { page, shape, pointer, number: self.first_held + self.held.len() as u32 };
        self.held.push_back(leaf.clone());
        leaf
    }

    fn held(&self, number: u32) -> &OldLeaf {
        &self.held[(number - self.first_held) as usize]
    }

    /// A value that was read from a run, and its expiry.
    fn value(&self, number: u32) -> (&[u8], Expiry) {
        let (run, len, expiry) = &self.values[(number - self.first_value) as usize];
        (&run[HEADER_LEN..][..*len], *expiry)
    }

    /// Bytes that were made for an entry.
    fn made(&self, number: u32) -> &[u8] {
        &self.made[(number - self.first_made) as usize]
    }

    /// The key of the first entry that waits.
    pub(super) fn first_key(&self) -> NodeResult<SplitKey<'_>> {
        self.key(0)
    }

    fn key(&self, at: usize) -> NodeResult<SplitKey<'_>> {
        match self.entries[at].pending {
            Pending::Old { leaf, index }
            | Pending::Moved { leaf, index, .. }
            | Pending::Inlined { leaf, index, .. }
            | Pending::Changed { leaf, index, .. } => {
                let node = self.held(leaf).node();
                Ok(SplitKey(node.prefix(), node.rest(index as usize)?))
            }
            Pending::New { key, .. }
            | Pending::NewRun { key, .. }
            | Pending::NewExpiring { key, .. }
            | Pending::Deletion { key }
            | Pending::Made { key, .. } => Ok(SplitKey::whole(key)),
        }
    }

    /// Adds a new entry. Returns how many entries now make a leaf to be written.
    pub(super) fn add_new(&mut self, key: &'m [u8], value: &'m [u8]) -> NodeResult<Option<usize>> {
        self.add(Pending::New { key, value }, SplitKey::whole(key), value.len(), false)
    }

    /// Adds a new entry whose value was written to a run.
    pub(super) fn add_new_run(&mut self, key: &'m [u8], value: ValuePointer) -> NodeResult<Option<usize>> {
        self.add(Pending::NewRun { key, value }, SplitKey::whole(key), value.encoded_len(), true)
    }

    /// Adds a new entry with a stamped value.
    pub(super) fn add_new_expiring(&mut self, key: &'m [u8], stamped: &'m [u8]) -> NodeResult<Option<usize>> {
        self.add(Pending::NewExpiring { key, stamped }, SplitKey::whole(key), stamped.len(), false)
    }

    /// Adds an entry that says that the key is deleted.
    pub(super) fn add_deletion(&mut self, key: &'m [u8]) -> NodeResult<Option<usize>> {
        self.add(Pending::Deletion { key }, SplitKey::whole(key), 0, false)
    }

    /// Adds a new entry of this kind, a value or operands, which stands in the leaf however long it is.
    pub(super) fn add_made(&mut self, key: &'m [u8], kind: u64, bytes: Vec<u8>) -> NodeResult<Option<usize>> {
        let (number, len) = (self.first_made + self.made.len() as u32, bytes.len());
        self.made.push_back(bytes);
        self.add(Pending::Made { key, kind, bytes: number }, SplitKey::whole(key), len, false)
    }

    /// Adds an old entry whose value run was moved.
    pub(super) fn add_moved(
        &mut self,
        leaf: &OldLeaf,
        index: usize,
        value: ValuePointer,
    ) -> NodeResult<Option<usize>> {
        let node = leaf.node();
        let key = SplitKey(node.prefix(), node.rest(index)?);
        let pending = Pending::Moved { leaf: leaf.number, index: index as u32, value };
        self.add(pending, key, value.encoded_len(), true)
    }

    /// Adds an old entry with another value, of this kind, which stands in the leaf however long it is.
    pub(super) fn add_changed(
        &mut self,
        leaf: &OldLeaf,
        index: usize,
        kind: u64,
        value: Vec<u8>,
    ) -> NodeResult<Option<usize>> {
        let node = leaf.node();
        let key = SplitKey(node.prefix(), node.rest(index)?);
        let (bytes, len) = (self.first_made + self.made.len() as u32, value.len());
        self.made.push_back(value);
        self.add(Pending::Changed { leaf: leaf.number, index: index as u32, kind, bytes }, key, len, false)
    }

    /// Adds an old entry whose value of `len` bytes, which expires or has 0, stands in `run`, as one that
    /// holds its value.
    pub(super) fn add_inlined(
        &mut self,
        leaf: &OldLeaf,
        index: usize,
        run: PinnedPage,
        len: usize,
        expiry: Expiry,
    ) -> NodeResult<Option<usize>> {
        let node = leaf.node();
        let key = SplitKey(node.prefix(), node.rest(index)?);
        let value = self.first_value + self.values.len() as u32;
        self.values.push_back((run, len, expiry));
        let len = len + if expiry == 0 { 0 } else { STAMP_LEN };
        self.add(Pending::Inlined { leaf: leaf.number, index: index as u32, value }, key, len, false)
    }

    fn add(
        &mut self,
        pending: Pending<'m>,
        key: SplitKey<'_>,
        value_len: usize,
        is_run: bool,
    ) -> NodeResult<Option<usize>> {
        let shared = self.shared_with_last(key)?;
        let bytes = entry_len(key.len(), value_len);
        self.entries.push(Entry { pending, is_run });
        Ok(self.packer.push(bytes, key.len(), shared))
    }

    /// Adds entry `index` of an old leaf as it is. Returns how many entries now make a leaf to be written.
    #[inline]
    pub(super) fn add_old(&mut self, leaf: &OldLeaf, index: usize) -> NodeResult<Option<usize>> {
        let node = leaf.node();
        let (bytes, rest_len, is_run) = node.entry_size(index)?;
        let prefix_len = node.prefix().len();
        let is_next = match self.entries.last() {
            Some(Entry { pending: Pending::Old { leaf: last, index: at }, .. }) => {
                *last == leaf.number && *at as usize + 1 == index
            }
            _ => false,
        };
        let shared = if is_next {
            prefix_len + self.shared_with_neighbour(&node, index, rest_len)?
        } else {
            self.shared_with_last(SplitKey(node.prefix(), node.rest(index)?))?
        };
        let key_len = prefix_len + rest_len;
        let longer_varint = varint::len(key_len as u64) - varint::len(rest_len as u64);
        self.last_rest_len = rest_len;
        self.entries.push(Entry { pending: Pending::Old { leaf: leaf.number, index: index as u32 }, is_run });
        Ok(self.packer.push(bytes + prefix_len + longer_varint, key_len, shared))
    }

    /// Leading bytes that entry `index`'s rest shares with that of the entry before it, in the same node.
    #[inline]
    fn shared_with_neighbour(&self, node: &Node<'_>, index: usize, rest_len: usize) -> NodeResult<usize> {
        let heads = node.heads();
        let (before, head) = (u32::from_le_bytes(heads[index - 1]), u32::from_le_bytes(heads[index]));
        if before < head {
            let same = (before ^ head).leading_zeros() as usize / 8;
            // Heads of short keys are padded.
            return Ok(same.min(self.last_rest_len).min(rest_len));
        }
        let (last, rest) = (node.rest(index - 1)?, node.rest(index)?);
        match key::compare(last, rest) {
            Ordering::Less if before == head => Ok(key::common_prefix(last, rest)),
            _ => Err(OUT_OF_ORDER),
        }
    }

    fn shared_with_last(&self, key: SplitKey<'_>) -> NodeResult<usize> {
        if self.entries.is_empty() {
            return Ok(0);
        }
        match self.key(self.entries.len() - 1)?.compare(key) {
            (Ordering::Less, shared) => Ok(shared),
            _ => Err(OUT_OF_ORDER),
        }
    }

    /// Writes the leaf that the first `count` entries make, and its separator into `separator`.
    pub(super) fn write(
        &mut self,
        count: usize,
        out: &mut Output<'_>,
        separator: &mut Vec<u8>,
    ) -> Result<Child> {
        let fault = |fault: Fault| self.fault(out, fault);
        self.separate(separator).map_err(fault)?;
        let prefix_len = self.packer.prefix(count);
        let mut size = self.packer.size(count);
        if size > out.store.page_size() {
            size = self.exact_size(count, prefix_len, false).map_err(fault)?;
        }
        let wide = size > out.store.page_size();
        if wide {
            size = self.exact_size(count, prefix_len, true).map_err(fault)?;
        }
        let pointer =
            out.write_node(0, size, |bytes| self.fill(bytes, wide, count, prefix_len).map_err(Fault::error))?;
        out.stats.entries_rewritten += count as u64;
        let owns_values = self.entries[..count].iter().any(|entry| entry.is_run);
        self.take(count).map_err(|f| locate(out.store, pointer, f))?;
        Ok(Child { pointer, owns_values, entries: count as u64 })
    }

    /// Errors of entries name the first old leaf that is held: the fault lies there or in one of the next.
    fn fault(&self, out: &Output<'_>, fault: Fault) -> Error {
        match self.held.front() {
            Some(leaf) => locate(out.store, leaf.pointer, fault),
            None => fault.error().of_family(out.store.family().0),
        }
    }

    /// The separator of the first leaf: the shortest that divides it from what lies to the left.
    fn separate(&self, separator: &mut Vec<u8>) -> NodeResult<()> {
        let first = self.first_key()?;
        separator.clear();
        match self.left {
            Left::Edge => {}
            Left::Key | Left::Fence => {
                let left = SplitKey::whole(&self.left_key);
                let (order, shared) = left.compare(first);
                match (&self.left, order) {
                    (Left::Key, Ordering::Less) => first.take((shared + 1).min(first.len())).store(separator),
                    (Left::Fence, Ordering::Less | Ordering::Equal) => {
                        separator.extend_from_slice(&self.left_key)
                    }
                    _ => return Err(OUT_OF_ORDER),
                }
            }
            Left::Unknown => panic!("entries were added after a subtree without a separator"),
        }
        Ok(())
    }

    fn exact_size(&self, count: usize, prefix_len: usize, wide: bool) -> NodeResult<usize> {
        let mut size = arrays_len(count, false, wide) + prefix_len;
        for at in 0..count {
            let value_len = match self.entries[at].pending {
                Pending::Old { leaf, index } => match self.held(leaf).node().entry(index as usize)?.value {
                    LeafValue::Inline(range) | LeafValue::Operands(range) | LeafValue::Expiring(range) => {
                        range.len()
                    }
                    LeafValue::Run(value) => value.encoded_len(),
                    LeafValue::Deletion => 0,
                },
                Pending::Inlined { value, .. } => match self.value(value) {
                    (value, 0) => value.len(),
                    (value, _) => STAMP_LEN + value.len(),
                },
                Pending::New { value, .. } => value.len(),
                Pending::Made { bytes, .. } | Pending::Changed { bytes, .. } => self.made(bytes).len(),
                Pending::Deletion { .. } => 0,
                Pending::NewExpiring { stamped, .. } => stamped.len(),
                Pending::Moved { value, .. } | Pending::NewRun { value, .. } => value.encoded_len(),
            };
            size += entry_len(self.key(at)?.len() - prefix_len, value_len);
        }
        Ok(size)
    }

    fn fill(&self, bytes: &mut [u8], wide: bool, count: usize, prefix_len: usize) -> NodeResult<usize> {
        let prefix = self.first_key()?.take(prefix_len);
        let mut writer = NodeWriter::begin(bytes, false, wide, count, prefix);
        let mut at = 0;
        while at < count {
            match self.entries[at].pending {
                Pending::Old { leaf, index } => {
                    let run = self.entries[at..count].iter().zip(index..).take_while(|(entry, expected)| {
                        matches!(entry.pending, Pending::Old { leaf: l, index: i } if l == leaf && i == *expected)
                    });
                    let run = run.count();
                    self.fill_old(&mut writer, leaf, index as usize, run, wide, prefix_len)?;
                    at += run;
                    continue;
                }
                Pending::Moved { value, .. } => {
                    writer.leaf_entry(self.key(at)?.skip(prefix_len), kind::RUN, &value.encode());
                }
                Pending::Inlined { value, .. } => {
                    let rest = self.key(at)?.skip(prefix_len);
                    match self.value(value) {
                        (value, 0) => writer.leaf_entry(rest, kind::INLINE, value),
                        (value, expiry) => {
                            writer.leaf_entry(rest, kind::OPERANDS, &expiry::stamped(expiry, value));
                        }
                    }
                }
                Pending::Changed { kind, bytes, .. } => {
                    writer.leaf_entry(self.key(at)?.skip(prefix_len), kind, self.made(bytes));
                }
                Pending::New { key, value } => {
                    writer.leaf_entry(SplitKey::whole(&key[prefix_len..]), kind::INLINE, value);
                }
                Pending::NewRun { key, value } => {
                    writer.leaf_entry(SplitKey::whole(&key[prefix_len..]), kind::RUN, &value.encode());
                }
                Pending::NewExpiring { key, stamped } => {
                    writer.leaf_entry(SplitKey::whole(&key[prefix_len..]), kind::OPERANDS, stamped);
                }
                Pending::Made { key, kind, bytes } => {
                    writer.leaf_entry(SplitKey::whole(&key[prefix_len..]), kind, self.made(bytes));
                }
                Pending::Deletion { key } => {
                    writer.leaf_entry(SplitKey::whole(&key[prefix_len..]), kind::DELETION, &[]);
                }
            }
            at += 1;
        }
        Ok(writer.finish())
    }

    /// Writes `run` neighbours of an old leaf.
    fn fill_old(
        &self,
        writer: &mut NodeWriter<'_>,
        leaf: u32,
        index: usize,
        run: usize,
        wide: bool,
        prefix_len: usize,
    ) -> NodeResult<()> {
        let node = self.held(leaf).node();
        if prefix_len == node.prefix().len() && !wide && !node.is_wide() {
            return writer.copy(&node, index, index + run);
        }
        for i in index..index + run {
            let entry = node.entry(i)?;
            let rest = SplitKey(node.prefix(), entry.rest).skip(prefix_len);
            match entry.value {
                LeafValue::Inline(range) => writer.leaf_entry(rest, kind::INLINE, node.bytes(range)),
                LeafValue::Run(value) => writer.leaf_entry(rest, kind::RUN, &value.encode()),
                LeafValue::Deletion => writer.leaf_entry(rest, kind::DELETION, &[]),
                LeafValue::Operands(range) | LeafValue::Expiring(range) => {
                    writer.leaf_entry(rest, kind::OPERANDS, node.bytes(range));
                }
            }
        }
        Ok(())
    }

    /// Takes the first `count` entries out.
    fn take(&mut self, count: usize) -> NodeResult<()> {
        let mut last = std::mem::take(&mut self.left_key);
        self.key(count - 1)?.store(&mut last);
        self.left_key = last;
        self.left = Left::Key;
        self.packer.take(count);
        let is_inlined = |entry: &Entry<'_>| matches!(entry.pending, Pending::Inlined { .. });
        let is_made =
            |entry: &Entry<'_>| matches!(entry.pending, Pending::Made { .. } | Pending::Changed { .. });
        let (mut inlined, mut made) = (0, 0);
        for entry in self.entries.drain(..count) {
            inlined += usize::from(is_inlined(&entry));
            made += usize::from(is_made(&entry));
        }
        self.values.drain(..inlined);
        self.first_value += inlined as u32;
        self.made.drain(..made);
        self.first_made += made as u32;
        let first_used = self.entries.iter().find_map(Entry::old_leaf);
        // Without any entry that refers to it, the newest leaf stays: entries may still be added from it.
        let newest = self.first_held + (self.held.len() as u32).saturating_sub(1);
        let first_used = first_used.unwrap_or(newest);
        while self.first_held < first_used {
            self.held.pop_front();
            self.first_held += 1;
        }
        Ok(())
    }
}

const OUT_OF_ORDER: Fault = Fault("keys do not ascend");

/// Bytes of an entry of a leaf whose key, after the prefix, has `rest_len` bytes.
pub(super) fn entry_len(rest_len: usize, value_len: usize) -> usize {
    varint::len(rest_len as u64) + varint::len((value_len as u64) << 2) + rest_len + value_len
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::testing::Harness;
    use super::*;

    #[test]
    fn a_leaf_of_which_nothing_is_kept_is_not_held_on_to() {
        let mut harness = Harness::new(4096);
        harness.put([(b"b", vec![1]), (b"c", vec![2]), (b"d", vec![3])]);
        let pointer = harness.tree.root.unwrap();
        let mut level = LeafLevel::new(4096, 100);
        let mut hold = |level: &mut LeafLevel<'_>| {
            let page = harness.store.pin(pointer).unwrap();
            let shape = Node::open(&page, 0).unwrap().shape();
            level.hold(page, shape, pointer)
        };
        let hold_many = |level: &mut LeafLevel<'_>, hold: &mut dyn FnMut(&mut LeafLevel<'_>) -> OldLeaf| {
            (0..50).map(|_| hold(level)).last().unwrap()
        };

        let leaf = hold_many(&mut level, &mut hold);
        assert_eq!(level.held.len(), 1);
        // An entry that waits may be a new one, before and behind old ones.
        level.add_new(b"a", b"").unwrap();
        level.add_old(&leaf, 0).unwrap();
        let leaf = hold_many(&mut level, &mut hold);
        assert_eq!(level.held.len(), 2);
        level.add_old(&leaf, 1).unwrap();
        level.add_new(b"cc", b"").unwrap();
        let leaf = hold_many(&mut level, &mut hold);
        assert_eq!(level.held.len(), 3);
        level.add_old(&leaf, 2).unwrap();
        let keys_of = |level: &LeafLevel<'_>| -> Vec<Vec<u8>> {
            let whole = |key: SplitKey<'_>| [key.0, key.1].concat();
            (0..level.len()).map(|at| whole(level.key(at).unwrap())).collect()
        };
        assert_eq!(keys_of(&level), [&b"a"[..], b"b", b"c", b"cc", b"d"]);

        level.take(3).unwrap();
        assert_eq!((level.held.len(), level.first_held), (1, 2));
        level.take(2).unwrap();
        hold_many(&mut level, &mut hold);
        assert_eq!(level.held.len(), 1);
    }
}
