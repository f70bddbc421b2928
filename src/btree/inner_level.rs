//! The inner nodes of one level that a tree builder has under way: children that wait for their node to be
//! complete.

use std::cmp::Ordering;

use super::node::{Fault, NodeResult};
use super::node_writer::{NodeWriter, arrays_len};
use super::output::Output;
use super::pack::Packer;
use super::records::Child;
use super::split_key::SplitKey;
use crate::codec::key;
use crate::error::{Error, Result};

struct Pending {
    /// Where the separator begins in all that were ever added.
    at: usize,
    len: usize,
    child: Child,
}

pub(super) struct InnerLevel {
    /// Level of the nodes that are made here.
    level: u8,
    packer: Packer,
    pending: Vec<Pending>,
    /// The separators of `pending`, one after the other.
    separators: Vec<u8>,
    /// Bytes of separators that were added and taken out again.
    taken: usize,
    /// A neighbour was absorbed since nodes were last flushed.
    pub(super) absorbed: bool,
}

impl InnerLevel {
    pub(super) fn new(level: u8, page_size: usize, fill: u8) -> Self {
        Self {
            level,
            packer: Packer::new(true, page_size, fill),
            pending: Vec::new(),
            separators: Vec::new(),
            taken: 0,
            absorbed: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn packer(&self) -> &Packer {
        &self.packer
    }

    pub(super) fn child(&self, at: usize) -> Child {
        self.pending[at].child
    }

    pub(super) fn separator(&self, at: usize) -> &[u8] {
        let pending = &self.pending[at];
        &self.separators[pending.at - self.taken..][..pending.len]
    }

    /// Adds a child. Returns how many children now make a node to be written.
    pub(super) fn add(&mut self, separator: &[u8], child: Child) -> NodeResult<Option<usize>> {
        let shared = match self.pending.len() {
            0 => 0,
            n => {
                let last = self.separator(n - 1);
                if key::compare(last, separator) != Ordering::Less {
                    return Err(Fault("separators do not ascend"));
                }
                key::common_prefix(last, separator)
            }
        };
        let at = self.taken + self.separators.len();
        self.separators.extend_from_slice(separator);
        self.pending.push(Pending { at, len: separator.len(), child });
        Ok(self.packer.push(separator.len(), separator.len(), shared))
    }

    /// Writes the node that the first `count` children make, and its separator into `separator`.
    pub(super) fn write(
        &mut self,
        count: usize,
        out: &mut Output<'_>,
        separator: &mut Vec<u8>,
    ) -> Result<Child> {
        separator.clear();
        separator.extend_from_slice(self.separator(0));
        let prefix_len = self.packer.prefix(count);
        let rests: usize = self.pending[..count].iter().map(|pending| pending.len - prefix_len).sum();
        let size = |wide| arrays_len(count, true, wide) + prefix_len + rests;
        let wide = size(false) > out.store.page_size();
        let pointer = out.write_node(self.level, size(wide), |bytes| {
            let prefix = SplitKey::whole(&self.separator(0)[..prefix_len]);
            let mut writer = NodeWriter::begin(bytes, true, wide, count, prefix);
            for at in 0..count {
                writer.child(SplitKey::whole(&self.separator(at)[prefix_len..]), &self.child(at));
            }
            Ok(writer.finish())
        })?;
        let children = || self.pending[..count].iter().map(|pending| &pending.child);
        let child = Child {
            pointer,
            owns_values: children().any(|child| child.owns_values),
            entries: children()
                .try_fold(0, |sum: u64, child| sum.checked_add(child.entries))
                .ok_or_else(|| Error::corruption("the entries of a tree do not fit 64 bits"))?,
        };
        self.take(count);
        Ok(child)
    }

    fn take(&mut self, count: usize) {
        let bytes: usize = self.pending.drain(..count).map(|pending| pending.len).sum();
        self.separators.drain(..bytes);
        self.taken += bytes;
        self.packer.take(count);
    }
}
