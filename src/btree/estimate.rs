//! What a tree holds in a range of keys, from the few nodes on the way to the ends of the range: how many
//! entries, which inner nodes count, and about how many pages.
//!
//! The pages of leaves stand in the nodes above them, so those near the ends of a range are known. What lies
//! between is taken to be like two stretches of it, which are looked at: the children of one node each. How
//! much value runs take, and how many entries delete, only leaves say; those that are not looked at are taken
//! to be like those that are.

use super::locate::locate;
use super::node::{LeafValue, Node, NodeResult};
use super::tree::Tree;
use crate::error::Result;
use crate::page::{HEADER_LEN, PagePointer};
use crate::segment::PartitionedStorageBackend;

/// What a tree holds in a range of keys.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Estimate {
    /// Entries of the tree before the range.
    pub(crate) first: u64,
    /// Exactly, if inner nodes count right.
    pub(crate) entries: u64,
    /// Of these, entries that are deletions.
    pub(crate) deletions: f64,
    /// Pages of leaves and value runs.
    pub(crate) pages: f64,
}

/// Where a descent leads.
#[derive(Clone, Copy)]
enum Goal<'k> {
    Key(&'k [u8]),
    End,
    Rank(u64),
}

/// What only leaves say of their entries.
#[derive(Debug, Clone, Copy, Default)]
struct Said {
    entries: u64,
    run_pages: u64,
    deletions: u64,
}

impl Said {
    fn add(&mut self, value: &LeafValue) {
        self.entries += 1;
        self.run_pages = self.run_pages.saturating_add(value.run().map_or(0, |(_, pages)| pages.into()));
        self.deletions += u64::from(*value == LeafValue::Deletion);
    }

    fn plus(self, other: Self) -> Self {
        Self {
            entries: self.entries.saturating_add(other.entries),
            run_pages: self.run_pages.saturating_add(other.run_pages),
            deletions: self.deletions + other.deletions,
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            entries: self.entries.saturating_sub(other.entries),
            run_pages: self.run_pages.saturating_sub(other.run_pages),
            deletions: self.deletions.saturating_sub(other.deletions),
        }
    }
}

/// Leaves below one node, or the leaf that is the tree.
#[derive(Debug, Clone, Copy, Default)]
struct Stretch {
    entries: u64,
    pages: f64,
}

/// What a descent met.
#[derive(Debug, Clone, Copy)]
struct Met {
    /// Entries of the tree before the goal.
    rank: u64,
    /// The leaves beside the goal, and those of them before it.
    at: PagePointer,
    stretch: Stretch,
    before: Stretch,
    /// The leaf, and its entries before the goal. Entries alone, if they have neither runs nor deletions.
    leaf: PagePointer,
    said: Said,
    said_before: Said,
    /// Bytes of the leaf and its runs that hold something.
    used: u64,
}

impl Met {
    fn count(&mut self, node: &Node<'_>, index: usize, looks_closer: bool) -> NodeResult<()> {
        self.used = node.declared_len() as u64;
        for i in (0..node.count()).take(if looks_closer { usize::MAX } else { 0 }) {
            if i == index {
                self.said_before = self.said;
            }
            let value = node.entry(i)?.value;
            self.said.add(&value);
            if let LeafValue::Run(run) = value {
                self.used = self.used.saturating_add(HEADER_LEN as u64 + u64::from(run.len));
            }
        }
        if !looks_closer {
            self.said.entries = node.count() as u64;
            self.said_before.entries = index as u64;
        } else if index == node.count() {
            self.said_before = self.said;
        }
        Ok(())
    }
}

impl Tree {
    /// What the tree holds in `[start, end)`. Looks at two nodes of each level for the ends, and at two more
    /// where the range is longer than the stretches beside its ends. `is_delta`: some of its entries may be
    /// deletions.
    pub(crate) fn estimate(
        &self,
        store: &PartitionedStorageBackend,
        start: &[u8],
        end: Option<&[u8]>,
        is_delta: bool,
    ) -> Result<Estimate> {
        let looks_closer = self.owns_values || is_delta;
        let descend = |goal| self.descend(store, goal, looks_closer);
        let Some(low) = descend(Goal::Key(start))? else { return Ok(Estimate::default()) };
        let Some(high) = descend(end.map_or(Goal::End, Goal::Key))? else { return Ok(Estimate::default()) };
        let entries = high.rank.saturating_sub(low.rank);
        if entries == 0 {
            return Ok(Estimate::default());
        }
        // What is known, and what lies between.
        let (mut said, mut of_said) = (high.said_before.minus(low.said_before), high.said);
        if low.leaf != high.leaf {
            said = low.said.minus(low.said_before).plus(high.said_before);
            of_said = low.said.plus(high.said);
        }
        let (mut pages, mut between, mut like) = (high.before.pages - low.before.pages, 0, high.stretch);
        if low.at != high.at {
            pages = low.stretch.pages - low.before.pages + high.before.pages;
            let beside = low.stretch.entries.saturating_sub(low.before.entries);
            between = entries.saturating_sub(beside.saturating_add(high.before.entries));
        }
        let unsaid = entries.saturating_sub(said.entries);
        if between > 0 || looks_closer && unsaid > 0 {
            like = Stretch::default();
            for quarter in [1, 3] {
                let rank = low.rank.saturating_add(entries / 4 * quarter);
                let Some(met) = descend(Goal::Rank(rank))? else { continue };
                like.entries = like.entries.saturating_add(met.stretch.entries);
                like.pages += met.stretch.pages;
                of_said = of_said.plus(met.said);
            }
        }
        let share = |part: f64, of: u64, entries: u64| part / of.max(1) as f64 * entries as f64;
        pages += share(like.pages, like.entries, between);
        pages += said.run_pages as f64 + share(of_said.run_pages as f64, of_said.entries, unsaid);
        let deletions = said.deletions as f64 + share(of_said.deletions as f64, of_said.entries, unsaid);
        Ok(Estimate { first: low.rank, entries, deletions, pages: pages.max(0.0) })
    }

    /// About what part of its pages the tree uses, 0 to 1: as `looks` leaves do, with their value runs,
    /// evenly spaced. `None` of an empty one.
    pub(crate) fn fill(&self, store: &PartitionedStorageBackend, looks: u64) -> Result<Option<f64>> {
        let (mut used, mut taken) = (0.0, 0.0);
        for look in 0..looks {
            let rank = u128::from(self.entries) * u128::from(2 * look + 1) / u128::from(2 * looks);
            let Some(met) = self.descend(store, Goal::Rank(rank as u64), self.owns_values)? else {
                return Ok(None);
            };
            used += met.used as f64;
            taken += u64::from(met.leaf.pages).saturating_add(met.said.run_pages) as f64;
        }
        Ok(Some((used / (taken * store.page_size() as f64)).clamp(0.0, 1.0)))
    }

    fn descend(
        &self,
        store: &PartitionedStorageBackend,
        goal: Goal<'_>,
        looks_closer: bool,
    ) -> Result<Option<Met>> {
        let Some((mut pointer, mut level)) = self.top(store)? else { return Ok(None) };
        let (none, nothing) = (Stretch::default(), Said::default());
        let mut met = Met {
            rank: 0,
            at: pointer,
            stretch: none,
            before: none,
            leaf: pointer,
            said: nothing,
            said_before: nothing,
            used: 0,
        };
        let mut rest = match goal {
            Goal::Rank(rank) => rank,
            Goal::Key(_) | Goal::End => 0,
        };
        if level == 0 {
            met.stretch = Stretch { entries: self.entries, pages: f64::from(pointer.pages) };
        }
        let mut guard = None;
        loop {
            let below = store.look(pointer, &mut guard, |page| {
                let node = Node::open(page, level)?;
                let last = node.count() - 1;
                if level == 0 {
                    let index = match goal {
                        Goal::Key(key) => node.search(key)?.0,
                        Goal::End => node.count(),
                        Goal::Rank(_) => rest.min(last as u64) as usize,
                    };
                    met.leaf = pointer;
                    met.count(&node, index, looks_closer)?;
                    let part = index as f64 / node.count() as f64;
                    met.before.pages += f64::from(pointer.pages) * part;
                    met.before.entries = met.before.entries.saturating_add(index as u64);
                    met.rank = met.rank.saturating_add(index as u64);
                    return Ok(None);
                }
                let index = match goal {
                    Goal::Key(key) => node.child_index(key)?,
                    Goal::End => last,
                    Goal::Rank(_) => child_of_rank(&node, &mut rest)?,
                };
                let before = node.entries_before(index);
                met.rank = met.rank.saturating_add(before);
                if level == 1 {
                    met.at = pointer;
                    met.before.entries = before;
                    met.stretch.entries = node.entries_before(node.count());
                    for i in 0..node.count() {
                        let pages = f64::from(node.child(i)?.pointer.pages);
                        met.stretch.pages += pages;
                        met.before.pages += if i < index { pages } else { 0.0 };
                    }
                }
                Ok(Some(node.child(index)?.pointer))
            })?;
            match below.map_err(|fault| locate(store, pointer, fault))? {
                None => return Ok(Some(met)),
                Some(child) => pointer = child,
            }
            level -= 1;
        }
    }

    /// Puts into `out` a key, or a separator of keys, that has `rank` of the tree's entries before it, or up
    /// to `tolerance` less. `false` if the tree has no more entries than `rank`. Looks at one node of each
    /// level at most, and at as few as the tolerance allows.
    pub(crate) fn key_near(
        &self,
        store: &PartitionedStorageBackend,
        rank: u64,
        tolerance: u64,
        out: &mut Vec<u8>,
    ) -> Result<bool> {
        let Some((mut pointer, mut level)) = self.top(store)? else { return Ok(false) };
        out.clear();
        if rank >= self.entries {
            return Ok(false);
        }
        let (mut rest, mut guard) = (rank, None);
        loop {
            let below = store.look(pointer, &mut guard, |page| {
                let node = Node::open(page, level)?;
                if level == 0 {
                    node.key(rest.min(node.count() as u64 - 1) as usize, out)?;
                    return Ok(None);
                }
                let index = child_of_rank(&node, &mut rest)?;
                // The first separator only repeats that of the node above.
                if index > 0 || out.is_empty() {
                    node.key(index, out)?;
                }
                Ok(Some(node.child(index)?.pointer))
            })?;
            match below.map_err(|fault| locate(store, pointer, fault))? {
                Some(child) if rest > tolerance => pointer = child,
                _ => return Ok(true),
            }
            level -= 1;
        }
    }
}

/// The child of an inner node that has entry number `rest` of those below the node, which becomes the number
/// among those of the child.
fn child_of_rank(node: &Node<'_>, rest: &mut u64) -> NodeResult<usize> {
    let mut index = 0;
    while index + 1 < node.count() {
        let entries = node.child(index)?.entries;
        if *rest < entries {
            break;
        }
        *rest -= entries;
        index += 1;
    }
    Ok(index)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::testing::Harness;
    use super::*;

    const KEYS: u64 = if cfg!(miri) { 300 } else { 30_000 };

    fn key(n: u64) -> [u8; 8] {
        (n * 3).to_be_bytes()
    }

    fn tree(lengths: fn(u64) -> usize) -> Harness {
        let mut harness = Harness::new(4096);
        harness.put((0..KEYS).map(|n| (key(n), vec![1; lengths(n)])));
        harness
    }

    /// Pages that look-ups asked for.
    fn looks(harness: &Harness) -> u64 {
        let stats = harness.store.cache_stats();
        stats.hits + stats.misses
    }

    #[test]
    fn entries_of_a_range_are_counted_and_its_pages_estimated_in_few_looks() {
        type Lengths = fn(u64) -> usize;
        let mixtures: [(&str, Lengths); 4] = [
            ("small", |_| 60),
            ("larger towards the end", |n| 40 + (n / (KEYS / 10)) as usize * 30),
            ("leaves of several pages", |n| if n % 40 == 0 { 4100 } else { 30 }),
            ("runs", |n| if n % 40 == 0 { 16_000 } else { 30 }),
        ];
        for (name, lengths) in mixtures {
            let harness = tree(lengths);
            let height = u64::from(harness.tree.height);
            for (start, end) in [(0, KEYS), (0, 1), (7, 9), (KEYS / 7, KEYS / 2), (KEYS / 2, KEYS - 1)] {
                let before = looks(&harness);
                let estimate =
                    harness.tree.estimate(&harness.store, &key(start), Some(&key(end)), false).unwrap();
                let looked = looks(&harness) - before;
                assert!(looked <= 4 * height, "{looked} looks in a tree of {height} levels");
                if end - start < 10 && !harness.tree.owns_values {
                    assert!(looked <= 2 * height, "{looked} looks for a few entries");
                }
                assert_eq!((estimate.first, estimate.entries), (start, end - start));
                assert_eq!(estimate.deletions, 0.0);
                let bytes: usize = (start..end).map(|n| lengths(n) + 16).sum();
                let ratio = estimate.pages * 4096.0 / bytes as f64;
                // Of a few entries a leaf says how many there are, not how long each is.
                let is_right = end - start < 10 || (0.7..1.4).contains(&ratio);
                assert!(is_right, "{name}, {start}..{end}: {ratio} times what it is");
            }
            let all = harness.tree.estimate(&harness.store, b"", None, false).unwrap();
            assert_eq!(all.entries, KEYS);
            let none = harness.tree.estimate(&harness.store, &key(9), Some(&key(3)), false).unwrap();
            assert_eq!(none, Estimate::default());
        }
    }

    #[test]
    fn a_key_near_a_rank_has_as_many_entries_before_it_as_is_tolerated() {
        let harness = tree(|_| 60);
        let mut found = Vec::new();
        for tolerance in [0, 10, KEYS / 10] {
            for rank in (0..KEYS).step_by(KEYS as usize / 50) {
                let before = looks(&harness);
                assert!(harness.tree.key_near(&harness.store, rank, tolerance, &mut found).unwrap());
                let looked = looks(&harness) - before;
                let below = harness.model.range(..found.clone()).count() as u64;
                assert!((rank.saturating_sub(tolerance)..=rank).contains(&below), "{below} before {rank}");
                assert!(looked <= u64::from(harness.tree.height), "{looked} looks");
                if tolerance == KEYS / 10 && !cfg!(miri) {
                    assert!(looked < u64::from(harness.tree.height), "a leaf is read for nothing");
                }
            }
        }
        assert!(!harness.tree.key_near(&harness.store, KEYS, 0, &mut found).unwrap());
        assert!(!Tree::default().key_near(&harness.store, 0, 0, &mut found).unwrap());
    }
}
