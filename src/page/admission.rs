//! Which pages enter a full cache: those that were missed twice in short succession.
//!
//! Where data are much larger than the cache, most pages that are read are not read again before they would have to leave. One that pushes
//! out another for nothing costs more than its reading: a frame that no processor's cache holds is written, one is swept up and retired. So
//! the first miss of a page leaves its number here, and its bytes to the reader alone.
//!
//! Source: T. Johnson and D. Shasha, "2Q: a low overhead high performance buffer management replacement algorithm", 1994; its queue of
//! page numbers is a table here, in which a number stays until another takes its slot: for about as many misses as there are slots.

use std::sync::OnceLock;

use crate::codec::ids::PageId;
use crate::sync::atomic::{AtomicU32, Ordering};

/// Slots of the first chunk; each further chunk is as large as all before it together.
const FIRST_CHUNK_BITS: u32 = 6;
const CHUNKS: usize = 32 - FIRST_CHUNK_BITS as usize;

/// The numbers of pages that were missed lately. Takes four bytes for each page that the cache may hold, once it was full.
pub(super) struct Admission {
    chunks: [OnceLock<Box<[AtomicU32]>>; CHUNKS],
}

impl Admission {
    pub(super) fn new() -> Self {
        Self { chunks: std::array::from_fn(|_| OnceLock::new()) }
    }

    /// Whether `page` was missed among the last misses, about `window` of them (one at least, rounded up to a power of two). If it was
    /// not, it is from now on.
    ///
    /// Threads that ask at once may overwrite what the others note, which costs a page another miss.
    pub(super) fn missed_lately(&self, page: PageId, window: usize) -> bool {
        let window = window.clamp(1 << FIRST_CHUNK_BITS, 1 << 30).next_power_of_two();
        // Neighbours are read together, and are to stay apart: the low bits of their numbers do.
        let slot = page.0 as usize & (window - 1);
        let index = slot + (1 << FIRST_CHUNK_BITS);
        let bits = index.ilog2();
        let chunk = self.chunks[(bits - FIRST_CHUNK_BITS) as usize]
            .get_or_init(|| (0..1usize << bits).map(|_| AtomicU32::new(0)).collect());
        let slot = &chunk[index - (1 << bits)];
        // Never zero, which an unused slot holds, but for the last page of all: that one enters at once.
        let number = page.0.wrapping_add(1);
        let found = slot.load(Ordering::Relaxed) == number;
        slot.store(if found { 0 } else { number }, Ordering::Relaxed);
        found
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_admitted_at_its_second_miss_and_then_has_to_be_missed_twice_again() {
        let admission = Admission::new();
        for window in [0, 1, 100, 5000] {
            let answers: Vec<bool> = (0..4).map(|_| admission.missed_lately(PageId(77), window)).collect();
            assert_eq!(answers, [false, true, false, true], "a window of {window}");
        }
    }

    #[test]
    fn what_was_missed_long_ago_is_forgotten() {
        let admission = Admission::new();
        assert!((0..1000).all(|page| !admission.missed_lately(PageId(page), 256)));
        assert!((0..500).all(|page| !admission.missed_lately(PageId(page), 256)));
        assert!((300..500).all(|page| admission.missed_lately(PageId(page), 256)));
    }

    #[test]
    fn the_last_page_number_has_a_slot() {
        let admission = Admission::new();
        admission.missed_lately(PageId(u32::MAX), 128);
        assert!(!admission.missed_lately(PageId(u32::MAX - 1), 128));
    }
}
