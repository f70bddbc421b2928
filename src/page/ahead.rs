//! Memory that will be read soon.

use crate::codec::prefetch::{self, LINE};

/// A page in memory that a scan comes to next. It is fetched into the processor's caches in small parts, one
/// for each step of the scan, so that no step waits. Holds nothing: what stands there when the scan arrives
/// is found, and verified, as ever.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead {
    next: *const u8,
    /// Cache lines that are left.
    lines: usize,
    forward: bool,
}

// SAFETY: the address is never read from, only given to the processor as a hint.
unsafe impl Send for Ahead {}
// SAFETY: as above.
unsafe impl Sync for Ahead {}

/// Cache lines fetched for one entry: a leaf is fetched by the time that half of the one before it was read,
/// if entries are about a line long.
const LINES: usize = 2;

impl Ahead {
    /// No page.
    pub(crate) fn nothing() -> Self {
        Self { next: std::ptr::null(), lines: 0, forward: true }
    }

    /// A page that will be read from its front on, or, but for its front, from its back.
    pub(super) fn page(bytes: &[u8], forward: bool) -> Self {
        let lines = bytes.len() / LINE;
        let next = if forward { bytes.as_ptr() } else { bytes.as_ptr_range().end.wrapping_sub(LINE) };
        Self { next, lines, forward }
    }

    /// Asks for the next part.
    #[inline]
    pub(crate) fn fetch_some(&mut self) {
        if self.lines < LINES {
            return;
        }
        self.lines -= LINES;
        for _ in 0..LINES {
            prefetch::line(self.next);
            self.next =
                if self.forward { self.next.wrapping_add(LINE) } else { self.next.wrapping_sub(LINE) };
        }
    }
}
