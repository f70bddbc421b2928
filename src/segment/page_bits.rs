//! The bitmaps of a family's pages: four bits for each page number, in blocks that are made when first
//! needed.

/// Words of one bitmap in a block.
const WORDS: usize = 16;
/// Pages of a block.
const BLOCK_PAGES: u64 = WORDS as u64 * 64;

/// Blocks of a group.
const GROUP: usize = 2048;

/// Which of the four bitmaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bit {
    /// Reached by the current tree, by a view that is still held, or by a merge under way.
    InUse = 0,
    /// Reached by the current tree exactly.
    Reachable = 1,
    /// What the durable superblock reaches.
    Durable = 2,
    /// What a checkpoint under way will reach.
    Pending = 3,
}

#[derive(Clone)]
struct Block([[u64; WORDS]; 4]);

const EMPTY: [u64; WORDS] = [0; WORDS];

/// Four bits for each page number; all start clear.
#[derive(Clone, Default)]
pub(super) struct PageBits {
    /// Block `i` is number `i % GROUP` of group `i / GROUP`. Groups are as long as they must be: a single
    /// page costs little memory whatever its number is.
    groups: Vec<Vec<Option<Box<Block>>>>,
}

/// The words that a run of pages touches: block, word, mask of the run's bits in it.
fn words(first: u64, end: u64) -> impl Iterator<Item = (usize, usize, u64)> {
    let mut at = first;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let next = (at / 64 + 1) * 64;
        let mut mask = u64::MAX << (at % 64);
        if end < next {
            mask &= u64::MAX >> (next - end);
        }
        let word = ((at / BLOCK_PAGES) as usize, (at % BLOCK_PAGES / 64) as usize, mask);
        at = next;
        Some(word)
    })
}

/// Element `index`, which is made, and those before it, if it is not there.
fn entry<T: Default>(elements: &mut Vec<T>, index: usize) -> &mut T {
    if elements.len() <= index {
        elements.resize_with(index + 1, T::default);
    }
    &mut elements[index]
}

/// Gives back the memory of the last elements, those that are empty.
fn trim<T>(elements: &mut Vec<T>, is_empty: impl Fn(&T) -> bool) {
    let len = elements.iter().rposition(|element| !is_empty(element)).map_or(0, |last| last + 1);
    elements.truncate(len);
    elements.shrink_to_fit();
}

impl PageBits {
    /// Bytes of memory that it takes.
    pub(super) fn memory(&self) -> usize {
        let blocks = self.groups.iter().flatten().flatten().count();
        let places: usize = self.groups.iter().map(|group| group.capacity()).sum();
        blocks * size_of::<Block>() + places * size_of::<Option<Box<Block>>>()
    }

    #[inline]
    fn block(&self, index: usize) -> Option<&Block> {
        self.groups.get(index / GROUP)?.get(index % GROUP)?.as_deref()
    }

    fn block_mut(&mut self, index: usize) -> &mut Block {
        let group = entry(&mut self.groups, index / GROUP);
        entry(group, index % GROUP).get_or_insert_with(|| Box::new(Block([EMPTY; 4])))
    }

    fn blocks_mut(&mut self) -> impl Iterator<Item = &mut Block> {
        self.groups.iter_mut().flatten().flatten().map(|block| &mut **block)
    }

    /// Sets the bits of a run; returns how many of them were set before.
    pub(super) fn set(&mut self, bit: Bit, first: u64, pages: u64) -> u64 {
        let mut before = 0;
        for (block, word, mask) in words(first, first + pages) {
            let word = &mut self.block_mut(block).0[bit as usize][word];
            before += u64::from((*word & mask).count_ones());
            *word |= mask;
        }
        before
    }

    /// Clears the bits of a run; returns how many of them were set.
    pub(super) fn clear(&mut self, bit: Bit, first: u64, pages: u64) -> u64 {
        let mut before = 0;
        for (block, word, mask) in words(first, first + pages) {
            if self.block(block).is_some() {
                let word = &mut self.block_mut(block).0[bit as usize][word];
                before += u64::from((*word & mask).count_ones());
                *word &= !mask;
            }
        }
        before
    }

    /// How many bits of a run are set.
    pub(super) fn count(&self, bit: Bit, first: u64, pages: u64) -> u64 {
        words(first, first + pages)
            .filter_map(|(block, word, mask)| Some(self.block(block)?.0[bit as usize][word] & mask))
            .map(|word| u64::from(word.count_ones()))
            .sum()
    }

    /// Whether every bit that is set in bitmap `part` is set in bitmap `whole`.
    pub(super) fn is_within(&self, part: Bit, whole: Bit) -> bool {
        self.groups.iter().flatten().flatten().all(|block| {
            let words = block.0[part as usize].iter().zip(&block.0[whole as usize]);
            words.into_iter().all(|(part, whole)| part & !whole == 0)
        })
    }

    /// Makes bitmap `to` what bitmap `from` is.
    pub(super) fn copy(&mut self, from: Bit, to: Bit) {
        for block in self.blocks_mut() {
            block.0[to as usize] = block.0[from as usize];
        }
    }

    /// Clears a bitmap.
    pub(super) fn clear_all(&mut self, bit: Bit) {
        for block in self.blocks_mut() {
            block.0[bit as usize] = EMPTY;
        }
    }

    /// Gives back the memory of blocks in which no bit is set.
    pub(super) fn tidy(&mut self) {
        for group in &mut self.groups {
            for block in group.iter_mut() {
                if block.as_ref().is_some_and(|block| block.0 == [EMPTY; 4]) {
                    *block = None;
                }
            }
            trim(group, Option::is_none);
        }
        trim(&mut self.groups, Vec::is_empty);
    }

    /// The pages of the word that must not be handed out.
    fn taken(&self, block: usize, word: usize) -> u64 {
        let Some(Block([in_use, _, durable, pending])) = self.block(block) else { return 0 };
        in_use[word] | durable[word] | pending[word]
    }

    /// How many pages of `first..end` are in none of `in_use`, `durable`, `pending`.
    pub(super) fn count_free(&self, first: u64, end: u64) -> u64 {
        words(first, end)
            .map(|(block, word, mask)| u64::from((!self.taken(block, word) & mask).count_ones()))
            .sum()
    }

    /// How many pages are durable, but not in use.
    pub(super) fn count_durable_alone(&self) -> u64 {
        let of_block = |block: &Block| {
            let Block([in_use, _, durable, _]) = block;
            in_use
                .iter()
                .zip(durable)
                .map(|(in_use, durable)| u64::from((durable & !in_use).count_ones()))
                .sum::<u64>()
        };
        self.groups.iter().flatten().flatten().map(|block| of_block(block)).sum()
    }

    /// The first page of `first..end` that is in none of `in_use`, `durable`, `pending`.
    pub(super) fn first_free(&self, first: u64, end: u64) -> Option<u64> {
        self.first_of(first, end, |taken| !taken)
    }

    /// The first page of `first..end` that is in one of `in_use`, `durable`, `pending`.
    pub(super) fn first_taken(&self, first: u64, end: u64) -> Option<u64> {
        self.first_of(first, end, |taken| taken)
    }

    fn first_of(&self, first: u64, end: u64, wanted: impl Fn(u64) -> u64) -> Option<u64> {
        words(first, end).find_map(|(block, word, mask)| {
            let found = wanted(self.taken(block, word)) & mask;
            let at = block as u64 * BLOCK_PAGES + word as u64 * 64;
            (found != 0).then(|| at + u64::from(found.trailing_zeros()))
        })
    }

    /// The first page of `first..end` whose bit is `set`.
    pub(super) fn first_with(&self, bit: Bit, set: bool, first: u64, end: u64) -> Option<u64> {
        words(first, end).find_map(|(block, word, mask)| {
            let bits = self.block(block).map_or(0, |block| block.0[bit as usize][word]);
            let found = if set { bits } else { !bits } & mask;
            let at = block as u64 * BLOCK_PAGES + word as u64 * 64;
            (found != 0).then(|| at + u64::from(found.trailing_zeros()))
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #![proptest_config(crate::sampling::config(128))]

        #[test]
        fn bits_agree_with_a_set(steps in prop::collection::vec((any::<bool>(), 3900u64..4300, 0u64..200), 1..30)) {
            let (mut bits, mut model) = (PageBits::default(), BTreeSet::new());
            for (set, first, pages) in steps {
                let run = first..first + pages;
                let before = run.clone().filter(|page| model.contains(page)).count() as u64;
                prop_assert_eq!(bits.count(Bit::Durable, first, pages), before);
                if set {
                    prop_assert_eq!(bits.set(Bit::Durable, first, pages), before);
                    model.extend(run);
                } else {
                    prop_assert_eq!(bits.clear(Bit::Durable, first, pages), before);
                    model.retain(|page| !run.contains(page));
                }
            }
            for from in (3800..4600).step_by(37) {
                let taken = model.range(from..4600).next().copied();
                prop_assert_eq!(bits.first_taken(from, 4600), taken);
                prop_assert_eq!(bits.first_with(Bit::Durable, true, from, 4600), taken);
                let free = (from..4600).find(|page| !model.contains(page));
                prop_assert_eq!(bits.first_free(from, 4600), free);
                prop_assert_eq!(bits.first_with(Bit::Durable, false, from, 4600), free);
            }
            bits.copy(Bit::Durable, Bit::Pending);
            bits.clear_all(Bit::Durable);
            prop_assert_eq!(bits.count(Bit::Pending, 0, 9000), model.len() as u64);
            bits.clear_all(Bit::Pending);
            bits.tidy();
            prop_assert!(bits.groups.is_empty());
        }
    }

    #[test]
    fn a_page_with_a_high_number_takes_little_memory() {
        let mut bits = PageBits::default();
        let last = u64::from(u32::MAX);
        assert_eq!(bits.set(Bit::InUse, last, 1), 0);
        bits.set(Bit::Durable, 0, 1);
        let blocks: usize = bits.groups.iter().map(Vec::len).sum();
        assert_eq!((blocks, bits.groups.len()), (1 + GROUP, GROUP));
        assert_eq!(bits.first_taken(last - 5000, last + 1), Some(last));
        assert_eq!(bits.first_free(last, last + 1), None);
        assert_eq!(bits.count(Bit::InUse, last - 1, 2), 1);
        assert_eq!(bits.clear(Bit::InUse, last, 1), 1);
        bits.tidy();
        assert_eq!((bits.groups.len(), bits.groups[0].len()), (1, 1));
        assert_eq!(bits.first_taken(0, last), Some(0));
    }
}
