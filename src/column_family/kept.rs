//! Pages that only readers keep: what old versions of a family's trees reach, and the current one does not.
//!
//! Versions are numbered in the order in which they were current. A page is reached by the versions of an
//! interval: from the one that wrote it up to the last one before it was retired. It is free as soon as none
//! of these is held, however long others are.
//!
//! Invariants:
//! 1. Every page that a merge retired, and that is not free yet, stands with the newest version of its
//!    interval that is held.
//! 2. It is free once no version of its interval is held: when the version that it stands with is let go, it
//!    goes on to the next older one that is held, unless that is older than the page.
//! 3. Who wrote a page is known if that was after the oldest held version; every other page counts as older
//!    than all of them.
//!
//! So what it takes to let a version go depends on the pages that stand with it, and neither on how many
//! versions are held nor on how many there ever were. What goes on joins what stands there already, the fewer
//! the more, so that no page is moved more often than the logarithm of their number.
//!
//! Source: the dead lists of snapshots in ZFS (J. Bonwick, M. Ahrens), which hold the birth of each block.

use std::collections::{BTreeMap, BinaryHeap, HashMap};

use crate::codec::ids::PageId;

/// First page and length.
type Run = (PageId, u32);

/// The version that wrote it, 0 if that is not known; first page; length.
type Retired = (u64, PageId, u32);

/// The old versions that are held, and what they keep.
#[derive(Default)]
pub(super) struct Kept {
    /// By the number of the version: what stands with it, the youngest first.
    held: BTreeMap<u64, BinaryHeap<Retired>>,
    births: Births,
    /// Pages of all runs in `held`.
    pages: u64,
    /// How many runs these are.
    runs: usize,
    /// Runs that were looked at when versions were let go.
    #[cfg(test)]
    looked_at: u64,
}

impl Kept {
    /// Version `number` is current no more. The one after it reaches `written` besides, and no longer
    /// `retired`.
    pub(super) fn retire(&mut self, number: u64, written: &[Run], retired: &[Run]) {
        let runs = retired.iter().map(|&(first, pages)| (self.births.of(first), first, pages));
        let runs: BinaryHeap<Retired> = runs.collect();
        self.pages += pages_of(retired);
        self.runs += retired.len();
        let before = self.held.insert(number, runs);
        assert!(before.is_none(), "version {number} was retired twice");
        written.iter().for_each(|&(first, _)| self.births.note(first, number + 1));
    }

    /// Nobody holds these versions any more, each of which was retired. Adds what is free now to `free`.
    pub(super) fn let_go(&mut self, mut numbers: Vec<u64>, free: &mut Vec<Run>) {
        // The oldest first: so nothing goes on to a version that is let go, too.
        numbers.sort_unstable();
        let from = free.len();
        for number in numbers {
            let runs = self.held.remove(&number);
            let mut runs = runs.unwrap_or_else(|| panic!("version {number} was let go, but was not held"));
            let Some((&older, others)) = self.held.range_mut(..number).next_back() else {
                free.extend(runs.into_iter().map(|(_, first, pages)| (first, pages)));
                continue;
            };
            while let Some(&(born, first, pages)) = runs.peek()
                && born > older
            {
                runs.pop();
                free.push((first, pages));
            }
            #[cfg(test)]
            {
                self.looked_at += runs.len().min(others.len()) as u64;
            }
            others.append(&mut runs);
        }
        #[cfg(test)]
        {
            self.looked_at += (free.len() - from) as u64;
        }
        self.pages -= pages_of(&free[from..]);
        self.runs -= free.len() - from;
        self.births.forget(self.held.keys().next().copied());
    }

    /// Number of old versions that are held.
    pub(super) fn versions(&self) -> usize {
        self.held.len()
    }

    /// The oldest version that is held.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.held.keys().next().copied()
    }

    /// Pages that are kept for nobody but those who hold old versions.
    pub(super) fn pages(&self) -> u64 {
        self.pages
    }

    /// Bytes of memory that it takes to know all that.
    pub(super) fn bytes(&self) -> usize {
        let versions = self.held.len() * size_of::<(u64, BinaryHeap<Retired>)>();
        versions + self.runs * size_of::<Retired>() + self.births.bytes()
    }

    #[cfg(test)]
    fn check(&self) {
        for (&number, runs) in &self.held {
            assert!(runs.iter().all(|&(born, ..)| born <= number), "{runs:?} stand with version {number}");
        }
        let runs = self.held.values().flatten();
        assert_eq!(self.pages, runs.map(|&(.., pages)| u64::from(pages)).sum::<u64>());
        assert_eq!(self.runs, self.held.values().map(BinaryHeap::len).sum::<usize>());
        let oldest = self.oldest().unwrap_or(u64::MAX);
        assert!(oldest != u64::MAX || self.births.blocks.is_empty(), "births are known for nobody");
    }
}

fn pages_of(runs: &[Run]) -> u64 {
    runs.iter().map(|&(_, pages)| u64::from(pages)).sum()
}

/// Pages of a block of births.
const BLOCK_PAGES: u32 = 256;
/// Blocks below which none are searched for some that can go.
const FEW_BLOCKS: usize = 64;

/// Which version wrote a run, by its first page.
#[derive(Default)]
struct Births {
    blocks: HashMap<u32, Box<Block>>,
    /// Number of blocks at which those are searched for that can go.
    search_at: usize,
}

struct Block {
    /// Of the youngest of its pages.
    youngest: u32,
    born: [u32; BLOCK_PAGES as usize],
}

impl Births {
    fn bytes(&self) -> usize {
        self.blocks.capacity() * size_of::<(u32, Box<Block>)>() + self.blocks.len() * size_of::<Block>()
    }

    /// The version that wrote the run at `first`, as far as anybody asks; else 0.
    fn of(&self, first: PageId) -> u64 {
        let block = self.blocks.get(&(first.0 / BLOCK_PAGES));
        block.map_or(0, |block| u64::from(block.born[(first.0 % BLOCK_PAGES) as usize]))
    }

    fn note(&mut self, first: PageId, number: u64) {
        let new = || Box::new(Block { youngest: 0, born: [0; BLOCK_PAGES as usize] });
        let block = self.blocks.entry(first.0 / BLOCK_PAGES).or_insert_with(new);
        // A page whose birth is not known is kept the longer.
        let number = u32::try_from(number).unwrap_or(0);
        block.born[(first.0 % BLOCK_PAGES) as usize] = number;
        block.youngest = block.youngest.max(number);
    }

    /// Nobody asks for births up to `oldest` any more; for none at all, if there is no such number.
    fn forget(&mut self, oldest: Option<u64>) {
        let Some(oldest) = oldest else {
            *self = Self::default();
            return;
        };
        if self.blocks.len() >= self.search_at.max(FEW_BLOCKS) {
            self.blocks.retain(|_, block| u64::from(block.youngest) > oldest);
            self.search_at = 2 * self.blocks.len();
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// Which runs every version that is held reaches, and the current one, by number; with all that is in
    /// use.
    #[derive(Default)]
    struct Model {
        held: BTreeMap<u64, BTreeSet<Run>>,
        current: (u64, BTreeSet<Run>),
        in_use: BTreeSet<Run>,
    }

    impl Model {
        fn reached(&self) -> BTreeSet<Run> {
            self.held.values().chain([&self.current.1]).flatten().copied().collect()
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// A merge that retires some of the current runs, and writes others. The version before is held.
        Merge {
            retired: Vec<prop::sample::Index>,
            written: Vec<u32>,
        },
        /// Some of those that hold versions let go.
        LetGo(Vec<prop::sample::Index>),
        LetGoOfAll,
    }

    fn step() -> impl Strategy<Value = Step> {
        let some = |most| prop::collection::vec(any::<prop::sample::Index>(), 0..most);
        prop_oneof![
            6 => (some(12), prop::collection::vec(1u32..4, 0..12))
                .prop_map(|(retired, written)| Step::Merge { retired, written }),
            4 => some(4).prop_map(Step::LetGo),
            1 => Just(Step::LetGoOfAll),
        ]
    }

    proptest! {
        #![proptest_config(crate::sampling::config(256))]

        #[test]
        fn a_page_is_kept_exactly_as_long_as_a_held_version_reaches_it(steps in prop::collection::vec(step(), 1..80)) {
            let (mut kept, mut model) = (Kept::default(), Model::default());
            for step in steps {
                match step {
                    Step::Merge { retired, written } => {
                        let (number, mut tree) = model.current.clone();
                        let mut gone = BTreeSet::new();
                        for index in retired {
                            if !tree.is_empty() {
                                let run = *index.get(&tree.iter().copied().collect::<Vec<_>>());
                                tree.remove(&run);
                                gone.insert(run);
                            }
                        }
                        // The lowest free places, as the allocator hands them out: four pages apart.
                        let taken: BTreeSet<u32> = model.in_use.iter().map(|run| run.0.0).collect();
                        let places = (0..).map(|place| place * 4).filter(|first| !taken.contains(first));
                        let new: Vec<Run> = places.zip(written).map(|(first, pages)| (PageId(first), pages)).collect();
                        kept.retire(number, &new, &gone.into_iter().collect::<Vec<_>>());
                        model.held.insert(number, std::mem::take(&mut model.current.1));
                        tree.extend(&new);
                        model.in_use.extend(&new);
                        model.current = (number + 1, tree);
                    }
                    Step::LetGo(_) | Step::LetGoOfAll => {
                        let held: Vec<u64> = model.held.keys().copied().collect();
                        let gone: BTreeSet<u64> = match step {
                            Step::LetGo(which) if !held.is_empty() => which.iter().map(|index| *index.get(&held)).collect(),
                            Step::LetGo(_) => BTreeSet::new(),
                            _ => held.into_iter().collect(),
                        };
                        model.held.retain(|number, _| !gone.contains(number));
                        let mut free = Vec::new();
                        kept.let_go(gone.into_iter().rev().collect(), &mut free);
                        for run in free {
                            prop_assert!(model.in_use.remove(&run), "{:?} is free twice", run);
                        }
                        prop_assert_eq!(&model.in_use, &model.reached());
                    }
                }
                kept.check();
                prop_assert_eq!(kept.versions(), model.held.len());
                let old: BTreeSet<Run> = model.in_use.difference(&model.current.1).copied().collect();
                prop_assert_eq!(kept.pages(), old.iter().map(|run| u64::from(run.1)).sum::<u64>());
            }
        }
    }

    /// The only page of a tree, rewritten by every merge.
    fn rewrite(kept: &mut Kept, number: u64) {
        kept.retire(number, &[(PageId(number as u32 + 1), 1)], &[(PageId(number as u32), 1)]);
    }

    #[test]
    fn what_came_and_went_under_a_held_version_is_free() {
        let (mut kept, mut free) = (Kept::default(), Vec::new());
        rewrite(&mut kept, 0);
        for number in 1..10_000 {
            rewrite(&mut kept, number);
            kept.let_go(vec![number], &mut free);
            assert_eq!(free, [(PageId(number as u32), 1)]);
            free.clear();
            assert_eq!((kept.pages(), kept.versions()), (1, 1));
        }
        kept.let_go(vec![0], &mut free);
        assert_eq!(free, [(PageId(0), 1)]);
        kept.check();
    }

    #[test]
    fn letting_go_of_one_version_of_many_looks_at_little() {
        let merges = 2000u64;
        for newest_first in [false, true] {
            let (mut kept, mut free) = (Kept::default(), Vec::new());
            for number in 0..merges {
                // A page that was there from the beginning, and the one that the merge before wrote.
                let first = PageId(number as u32);
                let old = PageId(number as u32 + 1_000_000);
                kept.retire(number, &[(PageId(first.0 + 1), 1)], &[(first, 1), (old, 1)]);
            }
            let mut numbers: Vec<u64> = (0..merges).collect();
            if newest_first {
                numbers.reverse();
            }
            numbers.into_iter().for_each(|number| kept.let_go(vec![number], &mut free));
            assert_eq!(free.len() as u64, 2 * merges);
            let most = 2 * merges * u64::from(merges.ilog2());
            assert!(kept.looked_at <= most, "{} runs were looked at", kept.looked_at);
            kept.check();
        }
    }

    #[test]
    fn births_that_nobody_asks_for_take_no_memory() {
        let (mut kept, mut free) = (Kept::default(), Vec::new());
        // Two versions are held at each moment, never the same for long.
        for number in 0..10_000u64 {
            let page = |number: u64| PageId((number as u32).wrapping_mul(BLOCK_PAGES));
            kept.retire(number, &[(page(number + 1), 1)], &[(page(number), 1)]);
            if number > 0 {
                kept.let_go(vec![number - 1], &mut free);
            }
            assert!(kept.births.blocks.len() <= 2 * FEW_BLOCKS, "{} blocks", kept.births.blocks.len());
        }
        assert_eq!(free.len(), 9_999);
    }
}
