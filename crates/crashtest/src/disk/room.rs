//! How much room a disk has left, where that is limited.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::FaultKind;
use super::operation::FileId;

/// Unit in which files take up room.
const BLOCK: u64 = 4096;

/// What files have taken of a disk, and what it has left, in blocks.
#[derive(Debug, Default)]
pub(super) struct Room {
    left: u64,
    taken: BTreeMap<FileId, BTreeSet<u64>>,
}

impl Room {
    pub(super) fn set_left(&mut self, blocks: u64) {
        self.left = blocks;
    }

    pub(super) fn bytes_left(&self) -> u64 {
        self.left * BLOCK
    }

    /// A file has taken its first `len` bytes before anybody counted.
    pub(super) fn has_taken(&mut self, file: FileId, len: u64) {
        self.taken.insert(file, (0..len.div_ceil(BLOCK)).collect());
    }

    /// Takes what a range lacks, all or nothing.
    pub(super) fn take(&mut self, file: FileId, offset: u64, len: u64) -> io::Result<()> {
        let blocks = offset / BLOCK..(offset + len).div_ceil(BLOCK);
        let taken = self.taken.entry(file).or_default();
        let missing = (blocks.end - blocks.start) - taken.range(blocks.clone()).count() as u64;
        self.left = self.left.checked_sub(missing).ok_or_else(|| FaultKind::NoSpace.error())?;
        taken.extend(blocks);
        Ok(())
    }

    /// Gives back the blocks that lie in a range as a whole.
    pub(super) fn give_back(&mut self, file: FileId, offset: u64, end: u64) {
        let Some(taken) = self.taken.get_mut(&file) else { return };
        let before = taken.len();
        let blocks = offset.div_ceil(BLOCK)..end / BLOCK;
        taken.retain(|block| !blocks.contains(block));
        self.left += (before - taken.len()) as u64;
    }
}
