//! Which pages enter a full cache: those that were missed twice in short succession.
//!
//! Where data are much larger than the cache, most pages that are read are not read again before they would
//! have to leave. One that pushes out another for nothing costs more than its reading: a frame that no
//! processor's cache holds is written, one is swept up and retired. So the first miss of a page leaves its
//! number here, and its bytes to the reader alone.
//!
//! Source: T. Johnson and D. Shasha, "2Q: a low overhead high performance buffer management replacement
//! algorithm", 1994; its queue of page numbers is a table here, in which a number stays until another takes
//! its slot: for about as many misses as there are slots.

use std::sync::OnceLock;

use crate::codec::ids::PageId;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Slots of the first chunk; each further chunk is as large as all before it together.
const FIRST_CHUNK_BITS: u32 = 5;
const CHUNKS: usize = 32 - FIRST_CHUNK_BITS as usize;

/// The numbers of pages that were missed lately. Takes four to eight bytes for each page that the cache may
/// hold, once it was full.
pub(super) struct Admission {
    /// Slots of two numbers, so that two pages that are asked for in turn do not push each other out: the
    /// newer one, each plus one, in the lower half.
    chunks: OnceLock<Box<[Chunk; CHUNKS]>>,
}

/// Made when first needed, as is the list of all: many caches are never full.
type Chunk = OnceLock<Box<[AtomicU64]>>;

impl Admission {
    pub(super) fn new() -> Self {
        Self { chunks: OnceLock::new() }
    }

    /// Whether `page` was missed among the last misses, about `window` of them (64 at least, rounded up to a
    /// power of two). If it was not, it is from now on.
    ///
    /// Threads that ask at once may overwrite what the others note, which costs a page another miss.
    pub(super) fn missed_lately(&self, page: PageId, window: usize) -> bool {
        let slots = (window / 2).clamp(1 << FIRST_CHUNK_BITS, 1 << 30).next_power_of_two();
        // The low bits keep neighbours, which are read together, apart.
        let slot = self.slot(page.0 as usize & (slots - 1));
        // Never zero, which an unused slot holds, but for the last page of all: that one enters at once.
        let number = u64::from(page.0.wrapping_add(1));
        let noted = slot.load(Ordering::Relaxed);
        let (newer, older) = (noted & u64::from(u32::MAX), noted >> 32);
        let found = [newer, older].contains(&number);
        if !found {
            slot.store(newer << 32 | number, Ordering::Relaxed);
        }
        found
    }

    /// Bytes of all slots.
    pub(super) fn memory(&self) -> usize {
        let Some(chunks) = self.chunks.get() else { return 0 };
        let slots = chunks.iter().filter_map(OnceLock::get).map(|chunk| size_of_val(&**chunk));
        slots.sum::<usize>() + size_of_val(&**chunks)
    }

    fn slot(&self, index: usize) -> &AtomicU64 {
        let (chunk, first, len) = match index.checked_ilog2() {
            Some(bits) if bits >= FIRST_CHUNK_BITS => (bits - FIRST_CHUNK_BITS + 1, 1 << bits, 1 << bits),
            _ => (0, 0, 1 << FIRST_CHUNK_BITS),
        };
        let chunks = self.chunks.get_or_init(|| Box::new(std::array::from_fn(|_| OnceLock::new())));
        let chunk = &chunks[chunk as usize];
        &chunk.get_or_init(|| (0..len).map(|_| AtomicU64::new(0)).collect())[index - first]
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_admitted_from_its_second_miss_on() {
        for window in [0, 1, 100, 5000] {
            let admission = Admission::new();
            let answers: Vec<bool> = (0..3).map(|_| admission.missed_lately(PageId(77), window)).collect();
            assert_eq!(answers, [false, true, true], "a window of {window}");
        }
    }

    #[test]
    fn what_was_missed_long_ago_is_forgotten() {
        let admission = Admission::new();
        assert!((0..1000).all(|page| !admission.missed_lately(PageId(page), 256)));
        assert!((0..500).all(|page| !admission.missed_lately(PageId(page), 256)));
        assert!((244..500).all(|page| admission.missed_lately(PageId(page), 256)));
    }

    #[test]
    fn two_pages_of_one_slot_are_both_admitted() {
        let admission = Admission::new();
        let (a, b) = (PageId(3), PageId(3 + (1 << 20)));
        let answers: Vec<bool> = [a, b, a, b].map(|page| admission.missed_lately(page, 512)).into();
        assert_eq!(answers, [false, false, true, true]);
    }

    #[test]
    fn any_page_number_and_window_has_a_slot() {
        let admission = Admission::new();
        for bits in 0..13 {
            for page in [0, (1 << bits) - 1, 1 << bits, u32::MAX - 1, u32::MAX] {
                admission.missed_lately(PageId(page), 1 << bits);
            }
        }
        assert!(admission.missed_lately(PageId(u32::MAX), 1 << 13), "the last page of all enters at once");
    }
}
