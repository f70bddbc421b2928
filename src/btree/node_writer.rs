//! Writes the bytes of a node, in order, straight into its page. The layout is drawn in `node.rs`.

use super::node::{CHILD_LEN, COUNT_AT, Child, Fault, HEAD_LEN, HEADS_AT, Node, PREFIX_LEN_AT, offset_width};
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
    pub(super) fn leaf_entry(&mut self, rest: SplitKey<'_>, is_run: bool, value: &[u8]) {
        let start = self.at;
        self.put_varint(rest.len() as u64);
        self.put_varint((value.len() as u64) << 2 | u64::from(is_run));
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
