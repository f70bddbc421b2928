//! Pages as their users hold them: borrowed under a guard, pinned, or being built.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::frames::{Frame, FrameStore, OwnedFrame};
use crate::codec::ids::PageId;
use crate::sync::Arc;

/// The bytes of a run: several pages in one piece of memory, or one page that is not in the cache.
#[derive(Debug)]
pub(crate) struct RunBuffer(Box<[u8]>);

/// The longest buffer that a thread keeps for the next page it reads, in bytes: the largest page.
const LONGEST_KEPT: usize = 32 << 10;

thread_local! {
    /// The memory of the last page that this thread held and that the cache did not: its processor's caches
    /// still hold it, while any other memory would have to be fetched to be written.
    static KEPT: Cell<Box<[u8]>> = Cell::default();
}

impl RunBuffer {
    /// Zeroed. `len` is checked against the file before.
    pub(super) fn new(len: usize) -> Self {
        Self(vec![0; len].into_boxed_slice())
    }

    /// To be read into: holds whatever it held before.
    pub(super) fn to_read_into(len: usize) -> Self {
        let kept = if len <= LONGEST_KEPT { KEPT.try_with(Cell::take).ok() } else { None };
        kept.filter(|kept| kept.len() == len).map_or_else(|| Self::new(len), Self)
    }
}

impl Drop for RunBuffer {
    fn drop(&mut self) {
        if self.len() <= LONGEST_KEPT {
            // A thread that ends keeps nothing.
            let _ = KEPT.try_with(|kept| kept.set(std::mem::take(&mut self.0)));
        }
    }
}

impl Deref for RunBuffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for RunBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// The whole page or run, header included, for as long as the guard and the cache (a frame) or this (what
/// else) lives.
#[derive(Debug, Clone)]
pub(crate) enum PageRef<'g> {
    /// One page in a frame of the cache.
    Frame(&'g [u8]),
    /// A run, or a page that is not in the cache.
    Run(Arc<RunBuffer>),
    /// What was read from the file, held without a guard.
    Pinned(PinnedPage),
}

impl PageRef<'_> {
    /// The same, held without a guard, unless that takes a pin of a frame.
    pub(crate) fn into_pinned(self) -> Result<PinnedPage, Self> {
        match self {
            Self::Frame(_) => Err(self),
            Self::Run(buffer) => Ok(PinnedPage::run(buffer)),
            Self::Pinned(page) => Ok(page),
        }
    }
}

impl Deref for PageRef<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Frame(bytes) => bytes,
            Self::Run(buffer) => buffer,
            Self::Pinned(page) => page,
        }
    }
}

/// The whole page or run, header included, for as long as this lives; holds no epoch. A clone is a pin of its
/// own.
#[derive(Debug, Clone)]
pub(crate) struct PinnedPage {
    /// Bytes that the owner keeps where and as they are.
    bytes: NonNull<[u8]>,
    _owner: Owner,
}

#[derive(Debug, Clone)]
enum Owner {
    Frame(#[expect(dead_code, reason = "held until it is dropped")] Pin),
    Run(#[expect(dead_code, reason = "as above")] Arc<RunBuffer>),
}

// SAFETY: the bytes are memory that nobody writes to and that the owner, which may go to another thread,
// keeps.
unsafe impl Send for PinnedPage {}
// SAFETY: as above.
unsafe impl Sync for PinnedPage {}

impl PinnedPage {
    pub(super) fn run(buffer: Arc<RunBuffer>) -> Self {
        Self { bytes: NonNull::from(&**buffer), _owner: Owner::Run(buffer) }
    }

    /// # Safety
    /// The caller may take a pin by invariant 3 of [`frames`](super::frames), and may read the frame by
    /// invariant 2.
    pub(super) unsafe fn frame(store: &Arc<FrameStore>, frame: Frame) -> Self {
        store.pin(frame);
        let bytes = NonNull::slice_from_raw_parts(store.start(frame), store.page_size());
        Self { bytes, _owner: Owner::Frame(Pin { store: Arc::clone(store), frame }) }
    }
}

impl Deref for PinnedPage {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: of a frame, the pin keeps it from being written, and its store keeps the slab; a buffer
        // that is shared is not written, and its bytes do not move with the owner.
        unsafe { self.bytes.as_ref() }
    }
}

/// One pin of a frame.
struct Pin {
    store: Arc<FrameStore>,
    frame: Frame,
}

impl Clone for Pin {
    fn clone(&self) -> Self {
        self.store.pin(self.frame);
        Self { store: Arc::clone(&self.store), frame: self.frame }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.store.unpin(self.frame);
    }
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pin").field(&self.frame.0).finish()
    }
}

/// A page or run being built, owned exclusively.
///
/// Its bytes are initialised but **not zeroed**: they hold whatever the memory held before. The builder
/// writes every byte from the end of the header to the end of its content; publishing writes the header and
/// zeroes what lies behind the content.
///
/// Dropped unpublished, it gives its memory back at once and its pages before the family's next allocation.
pub(crate) struct NewPage {
    page: PageId,
    pages: u32,
    offset: u64,
    store: Arc<FrameStore>,
    /// `None` once published.
    memory: Option<NewMemory>,
}

pub(super) enum NewMemory {
    Frame(OwnedFrame),
    Run(RunBuffer),
}

impl NewPage {
    pub(super) fn new(
        page: PageId,
        pages: u32,
        offset: u64,
        store: Arc<FrameStore>,
        memory: NewMemory,
    ) -> Self {
        Self { page, pages, offset, store, memory: Some(memory) }
    }

    /// Its (first) page number.
    pub(crate) fn page(&self) -> PageId {
        self.page
    }

    /// Its length in pages.
    pub(crate) fn pages(&self) -> u32 {
        self.pages
    }

    /// Where in the data file it will stand.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes the memory out to be published.
    pub(super) fn into_memory(mut self) -> NewMemory {
        self.memory.take().expect("a page is published once")
    }
}

impl Deref for NewPage {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self.memory.as_ref().expect("a page is published once") {
            NewMemory::Frame(frame) => frame,
            NewMemory::Run(buffer) => buffer,
        }
    }
}

impl DerefMut for NewPage {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self.memory.as_mut().expect("a page is published once") {
            NewMemory::Frame(frame) => frame,
            NewMemory::Run(buffer) => buffer,
        }
    }
}

impl Drop for NewPage {
    fn drop(&mut self) {
        if self.memory.take().is_some() {
            self.store.note_unpublished(self.page, self.pages);
        }
    }
}

impl std::fmt::Debug for NewPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewPage").field("page", &self.page).field("pages", &self.pages).finish()
    }
}
