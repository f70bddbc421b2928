//! The dirty pages of one family: made by a merge, not yet written.

use std::collections::BTreeMap;

use super::frames::Frame;
use super::held::{PinnedPage, RunBuffer};
use crate::codec::ids::PageId;
use crate::sync::Arc;

/// A dirty page or run.
#[derive(Debug, Clone)]
pub(super) struct DirtyPage {
    pub(super) offset: u64,
    pub(super) len: usize,
    pub(super) memory: DirtyMemory,
}

/// Where the bytes of a dirty page stand.
#[derive(Debug, Clone)]
pub(super) enum DirtyMemory {
    /// In a frame that the frame table maps as dirty.
    Frame(Frame),
    Run(Arc<RunBuffer>),
}

impl DirtyMemory {
    /// Whether both are the same memory. Holds only while one of the two is pinned.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Frame(a), Self::Frame(b)) => a == b,
            (Self::Run(a), Self::Run(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

/// What waits to be written. Behind the write buffer's lock.
#[derive(Debug, Default)]
pub(super) struct WriteBuffer {
    pub(super) pages: BTreeMap<PageId, DirtyPage>,
    pub(super) bytes: u64,
    /// The family was dropped: its pages of the file may be another's, so nothing more is taken.
    pub(super) discarded: bool,
}

impl WriteBuffer {
    pub(super) fn insert(&mut self, page: PageId, dirty: DirtyPage) {
        self.bytes += dirty.len as u64;
        let before = self.pages.insert(page, dirty);
        assert!(before.is_none(), "page {page} was published while dirty: {before:?}");
    }

    pub(super) fn remove(&mut self, page: PageId) -> Option<DirtyPage> {
        let removed = self.pages.remove(&page)?;
        self.bytes -= removed.len as u64;
        Some(removed)
    }
}

/// A dirty page that is being written, pinned so that its memory is not reused meanwhile.
pub(super) struct Outgoing {
    pub(super) page: PageId,
    pub(super) dirty: DirtyPage,
    pub(super) bytes: PinnedPage,
}

/// The largest write that neighbouring pages are joined to, in bytes.
const MAX_WRITE: usize = 16 << 20;

/// Cuts `pages`, which are ordered by their offset, into what one write can take: neighbours in the file.
pub(super) fn neighbours(pages: &[Outgoing]) -> impl Iterator<Item = &[Outgoing]> {
    let mut rest = pages;
    std::iter::from_fn(move || {
        let first = rest.first()?;
        let mut end = first.dirty.offset;
        let count = rest
            .iter()
            .take_while(|next| {
                let joins = next.dirty.offset == end
                    && (next.dirty.offset == first.dirty.offset
                        || end - first.dirty.offset + next.dirty.len as u64 <= MAX_WRITE as u64);
                end += next.dirty.len as u64;
                joins
            })
            .count();
        let (run, behind) = rest.split_at(count);
        rest = behind;
        Some(run)
    })
}
