//! The bytes of a node: layout and reading. Writing is `node_writer.rs`.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 32 | page header |
//! | 32 | 2 | entries n, at least 1 |
//! | 34 | 2 | reserved, zero |
//! | 36 | 4 | prefix length p |
//! | 40 | 4n | heads: the first four bytes of each key after the prefix; integer order is key order |
//! | | w(n+1) | offsets of the entries, and the end of the last one; w = 2 in a node of one page, 4 in a run |
//! | | 24n | inner nodes: child records |
//! | | p | prefix that all keys share |
//! | | | leaf: `varint(rest length) varint(value length << 2 \| kind) rest value`; inner: rest of the separator |
//!
//! The kinds of a leaf's entries: 0, the value itself; 1, a pointer to the run that holds it; 2, a deletion,
//! which has no value; 3, operands that are not folded yet, see `codec/operands.rs`, or if the first byte
//! says so a value with its expiry, see `codec/expiry.rs`. In a run, that is said by the pointer.
//!
//! The page layer has verified the checksum, but whoever can write the file can also compute one: a [`Node`]
//! is made only of bytes whose arrays lie inside of them, and whatever an offset or a length in an entry says
//! is held against the bytes when it is used. What a forged node can do is answer wrongly, or with a
//! [`Fault`].

use std::cmp::Ordering;
use std::hint::black_box;
use std::ops::Range;

use super::records::{self, CHILD_LEN, Child, ValuePointer};
use super::search::{lower_bound, upper_bound};
use crate::codec::expiry::{self, Now};
use crate::codec::features::unknown;
use crate::codec::ids::PageId;
use crate::codec::{key, operands, varint};
use crate::error::Error;
use crate::page::{HEADER_LEN, PageKind};

const LEN_AT: usize = 12;
const GENERATION_AT: usize = 16;
const KIND_AT: usize = 24;
const PAGES_AT: usize = 28;
pub(super) const COUNT_AT: usize = HEADER_LEN;
pub(super) const PREFIX_LEN_AT: usize = COUNT_AT + 4;
pub(super) const HEADS_AT: usize = PREFIX_LEN_AT + 4;
pub(super) const HEAD_LEN: usize = 4;
/// The most levels that a tree can have: with two children to a node, more than there are page numbers for.
pub(super) const MAX_HEIGHT: u8 = 40;

/// What an entry of a leaf holds, as the lowest two bits of its tag say.
pub(super) mod kind {
    pub(in super::super) const INLINE: u64 = 0;
    pub(in super::super) const RUN: u64 = 1;
    pub(in super::super) const DELETION: u64 = 2;
    /// Or a stamped value.
    pub(in super::super) const OPERANDS: u64 = 3;
    pub(super) const MASK: u64 = 3;
}

/// What is wrong with the bytes of a node. The tree adds where the node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault(pub(super) &'static str);

impl Fault {
    /// What is wrong, as an error that does not say yet where.
    #[cold]
    pub(super) fn error(self) -> Error {
        match self {
            UNKNOWN_KIND | NOT_ZERO => unknown(self.0),
            Self(message) => Error::corruption(message),
        }
    }
}

const OUTSIDE: Fault = Fault("the offset of an entry points out of its node");
// What a newer engine may write.
const UNKNOWN_KIND: Fault = Fault("an entry of a leaf is of a kind that is not known here");
const NOT_ZERO: Fault = Fault("reserved bytes of a node are not zero");

pub(super) type NodeResult<T> = std::result::Result<T, Fault>;

/// Bytes that an offset array's elements take.
#[inline]
pub(super) fn offset_width(wide: bool) -> usize {
    if wide { 4 } else { 2 }
}

#[inline]
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Loads all of a node that will be read whole, its cache lines at once: otherwise each load waits for what
/// the one before it found.
#[inline]
pub(super) fn warm_whole(bytes: &[u8]) {
    for line in bytes.iter().step_by(64) {
        black_box(*line);
    }
}

/// Where the parts of a node lie. Made by [`Shape::of`] alone, which holds the extents against the bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    count: u32,
    offsets_at: u32,
    children_at: u32,
    prefix_at: u32,
    entries_at: u32,
    wide: bool,
}

impl Shape {
    #[inline]
    pub(super) fn of(bytes: &[u8], level: u8) -> NodeResult<Self> {
        const TRUNCATED: Fault = Fault("a node is cut short");
        let kind = if level == 0 { PageKind::Leaf } else { PageKind::Inner };
        let kind_and_level = u16_at(bytes, KIND_AT).ok_or(TRUNCATED)?;
        if kind_and_level != u16::from_le_bytes([kind as u8, level]) {
            return Err(Fault("a node has not the kind and level that its place in the tree asks for"));
        }
        let wide = u32_at(bytes, PAGES_AT).ok_or(TRUNCATED)? > 1;
        // With what is reserved behind it.
        let count = u32_at(bytes, COUNT_AT).ok_or(TRUNCATED)?;
        if count > u32::from(u16::MAX) {
            return Err(NOT_ZERO);
        }
        if count == 0 {
            return Err(Fault("a node has no entries"));
        }
        let count = count as usize;
        let prefix_len = u32_at(bytes, PREFIX_LEN_AT).ok_or(TRUNCATED)? as usize;
        let offsets_at = HEADS_AT + HEAD_LEN * count;
        let children_at = offsets_at + offset_width(wide) * (count + 1);
        let prefix_at = children_at + if level == 0 { 0 } else { CHILD_LEN * count };
        match prefix_at.checked_add(prefix_len).filter(|_| prefix_len <= key::MAX_KEY_LEN) {
            // The longest node is a few long keys and their children: far below 4 GiB.
            Some(entries_at) if entries_at <= bytes.len() && bytes.len() <= u32::MAX as usize => Ok(Self {
                count: count as u32,
                offsets_at: offsets_at as u32,
                children_at: children_at as u32,
                prefix_at: prefix_at as u32,
                entries_at: entries_at as u32,
                wide,
            }),
            _ => Err(Fault("the arrays of a node do not fit into it")),
        }
    }

    #[inline]
    pub(super) fn count(&self) -> usize {
        self.count as usize
    }

    /// The offsets array of the node of one page whose shape this is; of a run, none of it.
    #[inline]
    pub(super) fn narrow_offsets<'a>(&self, bytes: &'a [u8]) -> &'a [[u8; 2]] {
        if self.wide {
            return &[];
        }
        bytes[self.offsets_at as usize..self.children_at as usize].as_chunks().0
    }
}

/// Bytes of its key after the prefix that a usual entry has at most.
pub(super) const USUAL_REST: usize = 0x7f;

/// Rest of the key and value of an entry of a leaf of one page, if it is like most: the rest of at most
/// [`USUAL_REST`] bytes, the value shorter than 4 KiB and inline. [`Node::entry`] knows the others, and what
/// is wrong with them.
#[inline(always)]
pub(super) fn usual_entry(bytes: &[u8], bounds: [[u8; 2]; 2]) -> Option<(&[u8], &[u8])> {
    let [start, end] = bounds.map(|bound| usize::from(u16::from_le_bytes(bound)));
    let (rest_len, tag, entry) = match bytes.get(start..end)? {
        [rest_len @ ..0x80, tag @ ..0x80, entry @ ..] => (*rest_len, usize::from(*tag), entry),
        [rest_len @ ..0x80, low, high @ ..0x80, entry @ ..] => {
            (*rest_len, usize::from(*low & 0x7f) | usize::from(*high) << 7, entry)
        }
        _ => return None,
    };
    let (rest, value) = entry.split_at_checked(usize::from(rest_len))?;
    // Of an inline value the lowest bits of the tag are zero.
    (tag == value.len() << 2).then_some((rest, value))
}

/// A view of the bytes of a node.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    bytes: &'a [u8],
    shape: Shape,
}

/// An entry of a leaf.
#[derive(Debug, Clone)]
pub(super) struct LeafEntry<'a> {
    /// The key after the node's prefix.
    pub(super) rest: &'a [u8],
    pub(super) value: LeafValue,
}

/// The value of an entry, as its leaf holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LeafValue {
    /// Where in the node's bytes it is.
    Inline(Range<usize>),
    Run(ValuePointer),
    /// None: what older trees say of the key counts no more.
    Deletion,
    /// Operands in place of it, at these of the node's bytes.
    Operands(Range<usize>),
    /// A stamped value, at these of the node's bytes.
    Expiring(Range<usize>),
}

impl LeafValue {
    /// The run that holds the value, if one does.
    #[inline]
    pub(super) fn run(&self) -> Option<(PageId, u32)> {
        match self {
            Self::Inline(_) | Self::Deletion | Self::Operands(_) | Self::Expiring(_) => None,
            Self::Run(value) => Some((value.run.page, value.run.pages)),
        }
    }
}

/// Whether `bytes` are a run that holds a value of `len` bytes and nothing else.
pub(super) fn check_value_run(bytes: &[u8], len: u32) -> NodeResult<()> {
    let kind = u16_at(bytes, KIND_AT);
    if kind != Some(u16::from(PageKind::Value as u8)) {
        return Err(Fault("the pages of a value hold something else"));
    }
    if u32_at(bytes, LEN_AT) != Some(len) {
        return Err(Fault("a value is not as long as its pointer says"));
    }
    let unused = bytes.get(HEADER_LEN + len as usize..).unwrap_or(&[1]);
    if unused.iter().any(|&byte| byte != 0) {
        return Err(Fault("bytes that a value does not use are not zero"));
    }
    Ok(())
}

impl<'a> Node<'a> {
    /// The node of `level` that stands in `bytes`, a whole page or run.
    #[inline]
    pub(super) fn open(bytes: &'a [u8], level: u8) -> NodeResult<Self> {
        Ok(Self { bytes, shape: Shape::of(bytes, level)? })
    }

    /// The node whose shape was taken from the same bytes.
    #[inline]
    pub(super) fn with_shape(bytes: &'a [u8], shape: Shape) -> Self {
        Self { bytes, shape }
    }

    #[inline]
    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// Number of entries; never 0.
    #[inline]
    pub(super) fn count(&self) -> usize {
        self.shape.count as usize
    }

    #[inline]
    pub(super) fn is_wide(&self) -> bool {
        self.shape.wide
    }

    #[inline]
    pub(super) fn heads(&self) -> &'a [[u8; HEAD_LEN]] {
        self.bytes[HEADS_AT..self.shape.offsets_at as usize].as_chunks().0
    }

    #[inline]
    pub(super) fn prefix(&self) -> &'a [u8] {
        &self.bytes[self.shape.prefix_at as usize..self.shape.entries_at as usize]
    }

    /// Whether a value of this leaf is gone at `now`, as far as the leaf says.
    pub(super) fn is_expired(&self, value: &LeafValue, now: Now) -> bool {
        let expiry = match value {
            LeafValue::Inline(_) | LeafValue::Deletion => None,
            LeafValue::Run(value) => Some(value.expiry),
            LeafValue::Expiring(range) => expiry::split(&self.bytes[range.clone()]).map(|(expiry, _)| expiry),
            LeafValue::Operands(range) => operands::expiry(&self.bytes[range.clone()]),
        };
        expiry.is_some_and(|expiry| now.is_past(expiry))
    }

    /// The bytes of an inline value.
    #[inline]
    pub(super) fn bytes(&self, range: Range<usize>) -> &'a [u8] {
        &self.bytes[range]
    }

    /// The offsets array of a node of one page.
    #[inline]
    pub(super) fn narrow_offsets(&self) -> &'a [[u8; 2]] {
        debug_assert!(!self.shape.wide);
        self.shape.narrow_offsets(self.bytes)
    }

    /// Offset of entry `i`, or for `i == count` the end of the last one.
    #[inline]
    pub(super) fn offset(&self, i: usize) -> usize {
        assert!(i <= self.count(), "offset {i} of {}", self.count());
        let at = self.shape.offsets_at as usize + i * offset_width(self.shape.wide);
        if self.shape.wide {
            u32_at(self.bytes, at).map_or(0, |offset| offset as usize)
        } else {
            u16_at(self.bytes, at).map_or(0, usize::from)
        }
    }

    /// The bytes of entries `from..to`, which follow each other.
    #[inline]
    pub(super) fn entries(&self, from: usize, to: usize) -> NodeResult<&'a [u8]> {
        let (start, end) = (self.offset(from), self.offset(to));
        self.bytes.get(start..end).ok_or(OUTSIDE)
    }

    /// Entry `i` of a leaf.
    #[inline]
    pub(super) fn entry(&self, i: usize) -> NodeResult<LeafEntry<'a>> {
        const CUT: Fault = Fault("an entry of a leaf is not as long as its key and value");
        let (start, end) = self.bounds(i);
        let (rest, tag, value) = self.entry_parts(start, end)?;
        match tag & kind::MASK {
            kind::INLINE => Ok(LeafEntry { rest, value: LeafValue::Inline(end - value.len()..end) }),
            kind::RUN => {
                let pointer = ValuePointer::decode(value).ok_or(CUT)?;
                Ok(LeafEntry { rest, value: LeafValue::Run(pointer) })
            }
            kind::DELETION if value.is_empty() => Ok(LeafEntry { rest, value: LeafValue::Deletion }),
            kind::DELETION => Err(CUT),
            kind::OPERANDS if value.first() == Some(&expiry::MARK) => match expiry::split(value) {
                Some(_) => Ok(LeafEntry { rest, value: LeafValue::Expiring(end - value.len()..end) }),
                None => Err(Fault("the expiry of a value makes no sense")),
            },
            kind::OPERANDS => Ok(LeafEntry { rest, value: LeafValue::Operands(end - value.len()..end) }),
            _ => Err(UNKNOWN_KIND),
        }
    }

    /// Bytes of entry `i` of a leaf, bytes of its key after the prefix, and whether its value stands in a
    /// run: what it takes to carry the entry over as it is. That key and value fill the entry is left for
    /// whoever reads it to find out.
    #[inline]
    pub(super) fn entry_size(&self, i: usize) -> NodeResult<(usize, usize, bool)> {
        let bytes = self.entries(i, i + 1)?;
        if let [rest_len @ ..0x80, tag @ ..0x80, ..] | [rest_len @ ..0x80, tag, 1..0x80, ..] = *bytes
            && usize::from(rest_len) + 2 <= bytes.len()
        {
            return Ok((bytes.len(), usize::from(rest_len), u64::from(tag) & kind::MASK == kind::RUN));
        }
        let (start, end) = self.bounds(i);
        let (rest, tag, _) = self.entry_parts(start, end)?;
        Ok((bytes.len(), rest.len(), tag & kind::MASK == kind::RUN))
    }

    /// Where entry `i` begins and ends, if the offsets are right.
    #[inline]
    fn bounds(&self, i: usize) -> (usize, usize) {
        let at = self.shape.offsets_at as usize + 2 * i;
        match self.bytes.get(at..).and_then(|bytes| bytes.first_chunk::<4>()) {
            Some(&[a, b, c, d]) if !self.shape.wide && i < self.count() => {
                (usize::from(u16::from_le_bytes([a, b])), usize::from(u16::from_le_bytes([c, d])))
            }
            _ => (self.offset(i), self.offset(i + 1)),
        }
    }

    /// Rest of the key, tag, and stored value of the entry of a leaf that has these bounds.
    #[inline]
    fn entry_parts(&self, start: usize, end: usize) -> NodeResult<(&'a [u8], u64, &'a [u8])> {
        const CUT: Fault = Fault("an entry of a leaf is not as long as its key and value");
        let mut bytes = self.bytes.get(start..end).ok_or(OUTSIDE)?;
        // An entry that is copied must not be longer than one that is written anew.
        let rest_len = varint::take_shortest(&mut bytes).ok_or(CUT)?;
        let tag = varint::take_shortest(&mut bytes).ok_or(CUT)?;
        let rest_len = usize::try_from(rest_len).map_err(|_| CUT)?;
        let (rest, value) = bytes.split_at_checked(rest_len).ok_or(CUT)?;
        if tag >> 2 != value.len() as u64 {
            return Err(CUT);
        }
        Ok((rest, tag, value))
    }

    /// The key of entry `i` after the prefix.
    #[inline]
    pub(super) fn rest(&self, i: usize) -> NodeResult<&'a [u8]> {
        if self.shape.children_at != self.shape.prefix_at {
            return self.entries(i, i + 1);
        }
        let (start, end) = self.bounds(i);
        Ok(self.entry_parts(start, end)?.0)
    }

    /// The child record `i` of an inner node.
    #[inline]
    pub(super) fn child(&self, i: usize) -> NodeResult<Child> {
        Child::decode(&self.children()[i]).ok_or(NOT_ZERO)
    }

    /// Where the child record `i` of an inner node begins.
    pub(super) fn child_at(&self, i: usize) -> usize {
        self.shape.children_at as usize + CHILD_LEN * i
    }

    /// The child records of an inner node; of a leaf, none.
    #[inline]
    pub(super) fn children(&self) -> &'a [[u8; CHILD_LEN]] {
        self.bytes[self.shape.children_at as usize..self.shape.prefix_at as usize].as_chunks().0
    }

    /// Entries below the children before `i`.
    pub(super) fn entries_before(&self, i: usize) -> u64 {
        self.children()[..i].iter().fold(0, |sum: u64, child| sum.saturating_add(records::entries(child)))
    }

    /// The first entry in `from..count` whose key is at or above `key`, and whether it is `key` itself.
    #[inline]
    pub(super) fn search_from(&self, from: usize, key: &[u8]) -> NodeResult<(usize, bool)> {
        let prefix = self.prefix();
        let (lead, rest) = key.split_at(prefix.len().min(key.len()));
        if !prefix.is_empty() {
            match key::compare(lead, prefix) {
                Ordering::Less => return Ok((from, false)),
                Ordering::Greater => return Ok((self.count(), false)),
                Ordering::Equal => {}
            }
        }
        let head = key::head4(rest);
        let heads = &self.heads()[from..];
        let mut low = lower_bound(heads, head);
        if low == heads.len() || u32::from_le_bytes(heads[low]) != head {
            return Ok((from + low, false));
        }
        let mut high = low + 1;
        if high < heads.len() && u32::from_le_bytes(heads[high]) == head {
            high += upper_bound(&heads[high..], head);
        }
        while low < high {
            let middle = (low + high) / 2;
            match key::compare(self.rest(from + middle)?, rest) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok((from + middle, true)),
                Ordering::Greater => high = middle,
            }
        }
        Ok((from + low, false))
    }

    /// The first entry whose key is at or above `key`, and whether it is `key` itself.
    #[inline]
    pub(super) fn search(&self, key: &[u8]) -> NodeResult<(usize, bool)> {
        self.search_from(0, key)
    }

    /// The child of an inner node in whose range `key` lies. What is below all separators belongs to the
    /// first.
    #[inline]
    pub(super) fn child_index(&self, key: &[u8]) -> NodeResult<usize> {
        let (index, found) = self.search(key)?;
        Ok(if found { index } else { index.saturating_sub(1) })
    }

    /// Where entries begin: after the prefix.
    pub(super) fn entries_at(&self) -> usize {
        self.shape.entries_at as usize
    }

    /// The length that the page header says.
    pub(super) fn declared_len(&self) -> usize {
        u32_at(self.bytes, LEN_AT).map_or(0, |len| len as usize)
    }

    /// The merge that wrote the node.
    pub(super) fn generation(&self) -> u64 {
        self.bytes[GENERATION_AT..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// Puts the key of entry `i` into `out`.
    pub(super) fn key(&self, i: usize, out: &mut Vec<u8>) -> NodeResult<()> {
        out.clear();
        out.extend_from_slice(self.prefix());
        out.extend_from_slice(self.rest(i)?);
        Ok(())
    }
}
