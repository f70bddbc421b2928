//! Moves some of a family's pages to free pages elsewhere: nodes are copied as they are, but for the pointers
//! to what has moved.

use super::builder::MergeOptions;
use super::locate::locate;
use super::node::{Fault, LeafValue, Node};
use super::output::{MergeOutcome, Output, REACHED_TWICE};
use super::records::Child;
use super::tree::{Tree, load_run};
use crate::codec::ids::PageId;
use crate::error::{Error, ErrorKind, Result};
use crate::page::{HEADER_LEN, PagePointer};
use crate::segment::PartitionedStorageBackend;
use crate::sync::Arc;
use std::ops::Range;

/// Writes anew, wherever the store allocates pages now, what begins in one of the ranges `moving` (ascending,
/// disjoint), and the nodes above that point to it. What finds no room stays, and so does what would have
/// moved below a node that finds none. Reads all inner nodes, the leaves that own value runs, and what it
/// moves.
///
/// Fails as [`merge`](super::merge::merge) does.
pub(crate) fn relocate(
    tree: &Tree,
    store: &Arc<PartitionedStorageBackend>,
    moving: &[Range<u64>],
    options: &MergeOptions,
    should_stop: &dyn Fn() -> bool,
) -> Result<MergeOutcome> {
    let out = Output::new(store, options.generation);
    let mut relocator = Relocator { out, store, moving, visited: 0, no_room_for: u32::MAX, should_stop };
    let new = relocator.run(tree);
    relocator.out.conclude(tree, new)
}

/// Pages of nodes that hold pointers, inner ones and leaves with value runs: where there is room for so many
/// beside what is moved, all of them can be written anew, but for those of several pages where what is free
/// is in shorter pieces. Reads the inner nodes; where no values stand in runs, not those right above leaves.
pub(crate) fn pages_with_pointers(tree: &Tree, store: &Arc<PartitionedStorageBackend>) -> Result<u64> {
    let limit = store.space().pages_total;
    let Some((root, level)) = tree.top(store)? else { return Ok(0) };
    let mut nodes = vec![(root, tree.owns_values, level)];
    let mut pages = 0;
    while let Some((pointer, owns_values, level)) = nodes.pop() {
        if level == 0 && !owns_values {
            continue;
        }
        pages += u64::from(pointer.pages);
        if pages > limit {
            return Err(locate(store, pointer, Fault(REACHED_TWICE)));
        }
        if level > 1 || level == 1 && owns_values {
            let page = store.pin(pointer)?;
            let fault = |fault| locate(store, pointer, fault);
            let node = Node::open(&page, level).map_err(fault)?;
            for i in 0..node.count() {
                let child = node.child(i).map_err(fault)?;
                nodes.push((child.pointer, child.owns_values, level - 1));
            }
        }
    }
    Ok(pages)
}

struct Relocator<'s> {
    out: Output<'s>,
    store: &'s Arc<PartitionedStorageBackend>,
    moving: &'s [Range<u64>],
    /// Pages of the nodes and runs seen so far.
    visited: u64,
    /// Length of the shortest run of values for which there was no room.
    no_room_for: u32,
    should_stop: &'s dyn Fn() -> bool,
}

/// Bytes of a node that become others.
type Patch = (usize, Vec<u8>);

impl Relocator<'_> {
    fn run(&mut self, tree: &Tree) -> Result<Option<Tree>> {
        let Some((pointer, level)) = tree.top(self.store)? else { return Ok(None) };
        let root = Child { pointer, owns_values: tree.owns_values, entries: tree.entries };
        let moved = self.visit(root, level)?;
        Ok(moved.map(|root| Tree { root: Some(root), generation: self.out.generation, ..*tree }))
    }

    /// Pointers on disk that name a node or a run many times over cannot make the walk longer than the family
    /// has pages.
    fn see(&mut self, pointer: PagePointer) -> Result<()> {
        self.visited += u64::from(pointer.pages);
        if self.visited > self.out.page_limit {
            return Err(locate(self.store, pointer, Fault(REACHED_TWICE)));
        }
        Ok(())
    }

    fn is_moving(&self, page: PageId) -> bool {
        let page = u64::from(page.0);
        let at = self.moving.partition_point(|run| run.end <= page);
        self.moving.get(at).is_some_and(|run| run.start <= page)
    }

    /// Where the node stands now, if it was written anew.
    fn visit(&mut self, child: Child, level: u8) -> Result<Option<PagePointer>> {
        let pointer = child.pointer;
        self.see(pointer)?;
        if level == 0 && !child.owns_values && !self.is_moving(pointer.page) {
            return Ok(None);
        }
        if level == 0 && (self.should_stop)() {
            return Err(Error::new(ErrorKind::Closed, "moving pages was stopped before its end"));
        }
        let page = self.store.pin(pointer)?;
        let node = Node::open(&page, level).map_err(|fault| locate(self.store, pointer, fault))?;
        let before = self.out.mark();
        let patches = match level {
            0 if child.owns_values => self.move_values(&node, pointer)?,
            0 => Vec::new(),
            _ => self.move_children(&node, pointer, level)?,
        };
        if patches.is_empty() && !self.is_moving(pointer.page) {
            return Ok(None);
        }
        let written = self.out.write_node(level, page.len(), |bytes| {
            bytes.copy_from_slice(&page);
            for (at, patch) in &patches {
                bytes[*at..][..patch.len()].copy_from_slice(patch);
            }
            Ok(node.declared_len())
        });
        match written {
            Ok(new) => {
                self.out.retire_checked(pointer)?;
                Ok(Some(new))
            }
            Err(error) if error.kind() == ErrorKind::OutOfSpace => {
                // Nothing would point to what was moved below.
                if self.out.take_back(&before) {
                    self.no_room_for = u32::MAX;
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn move_children(&mut self, node: &Node<'_>, pointer: PagePointer, level: u8) -> Result<Vec<Patch>> {
        let mut patches = Vec::new();
        for i in 0..node.count() {
            let child = node.child(i).map_err(|fault| locate(self.store, pointer, fault))?;
            if let Some(pointer) = self.visit(child, level - 1)? {
                patches.push((node.child_at(i), Child { pointer, ..child }.encode().to_vec()));
            }
        }
        Ok(patches)
    }

    fn move_values(&mut self, node: &Node<'_>, pointer: PagePointer) -> Result<Vec<Patch>> {
        let mut patches = Vec::new();
        for i in 0..node.count() {
            let entry = node.entry(i).map_err(|fault| locate(self.store, pointer, fault))?;
            let LeafValue::Run(value) = entry.value else { continue };
            self.see(value.run)?;
            if !self.is_moving(value.run.page) || value.run.pages >= self.no_room_for {
                continue;
            }
            let run = load_run(self.store, value.run, value.len)?;
            match self.out.write_value(&run[HEADER_LEN..][..value.len as usize], value.expiry) {
                Ok(new) => {
                    let encoded = new.encode().to_vec();
                    patches.push((node.offset(i + 1) - encoded.len(), encoded));
                    self.out.retire_checked(value.run)?;
                }
                Err(error) if error.kind() == ErrorKind::OutOfSpace => self.no_room_for = value.run.pages,
                Err(error) => return Err(error),
            }
        }
        Ok(patches)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::testing::Harness;
    use super::pages_with_pointers;
    use crate::page::{HEADER_LEN, PageKind};

    fn key(n: u32) -> [u8; 8] {
        u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
    }

    /// A tree of which pages all over the family are free.
    fn scattered() -> Harness {
        let mut harness = Harness::new(4096);
        for part in 0..20 {
            // Some values stand in runs, of one or two pages.
            let value = |n: u32| match n {
                n if n.is_multiple_of(350) => vec![n as u8; 7600],
                n if n.is_multiple_of(50) => vec![n as u8; 3600],
                n => vec![n as u8; 100],
            };
            harness.put((part * 1000..(part + 1) * 1000).map(|n| (key(n), value(n))));
        }
        harness.delete_range(&[0x40], Some(&[0x80]));
        harness.delete((0..20_000).filter(|n| n % 10 != 0).map(key));
        harness.verify();
        harness
    }

    #[test]
    fn pages_at_the_end_move_to_free_pages_before() {
        let mut harness = scattered();
        let entries = harness.tree.entries;
        let report = harness.verify();
        let with_pointers = pages_with_pointers(&harness.tree, &harness.store).unwrap();
        assert!((report.inner_nodes..report.inner_nodes + report.value_runs).contains(&with_pointers));
        let (used, last) = (harness.live.len(), *harness.live.last().unwrap());
        let (first, stats) = harness.move_to_front().unwrap();
        assert!(
            (used as u32 / 2..last).contains(&first.0),
            "{used} pages up to {last}, moved from {first:?} on"
        );
        let left = harness.live.range(first.0..).count();
        assert!(left == 0, "{left} pages are left behind {first:?}");
        // What was moved and the inner nodes above it, but not all.
        assert!(stats.pages_written < used as u64 * 3 / 4, "{stats:?} of {used}");
        assert_eq!((harness.live.len(), harness.tree.entries), (used, entries));
        harness.verify();
        (0..200).for_each(|n| harness.verify_at(&key(n)));
        // It is as writable as any tree, and there is nothing left to move.
        assert!(
            harness.move_to_front().is_none_or(|(first, _)| first.0 + 64 > *harness.live.last().unwrap())
        );
        harness.put((0..1000).map(|n| (key(n), vec![1; 50])));
        harness.verify();
    }

    #[test]
    fn what_is_packed_does_not_move() {
        let mut harness = Harness::new(4096);
        harness.put((0..5000).map(|n| (key(n), vec![1; 100])));
        harness.repack();
        while let Some((_, stats)) = harness.move_to_front() {
            assert!(stats.pages_written > 0, "{stats:?}");
            harness.verify();
        }
        let (root, live) = (harness.tree.root, harness.live.clone());
        assert_eq!(harness.move_to_front(), None);
        assert_eq!((harness.tree.root, harness.live), (root, live));
    }

    #[test]
    fn what_finds_no_room_stays() {
        let mut harness = Harness::new(4096);
        let store = std::sync::Arc::clone(&harness.store);
        let single = |_| {
            let page = store.new_page(1).unwrap();
            (store.publish(page, PageKind::Leaf, 0, 1, HEADER_LEN as u64).unwrap().page, 1)
        };
        let singles: Vec<_> = (0..400).map(single).collect();
        // Every value takes a run of two pages.
        harness.put((0..100).map(|n| (key(n), vec![n as u8; 7000])));
        store.abandon(&singles.into_iter().step_by(2).collect::<Vec<_>>());
        let (first, stats) = harness.move_to_front().unwrap();
        let left = harness.live.range(first.0..).count();
        assert!(
            (2..=200).contains(&left) && stats.pages_written > 0,
            "{left} left behind {first:?}, {stats:?}"
        );
        assert!(harness.live.iter().any(|&page| page < 400));
        assert_eq!(harness.verify().value_runs, 100);
    }

    #[test]
    fn what_would_point_to_what_moved_and_finds_no_room_keeps_it_where_it_is() {
        let mut harness = Harness::new(4096);
        let store = std::sync::Arc::clone(&harness.store);
        let single = |_| {
            let page = store.new_page(1).unwrap();
            (store.publish(page, PageKind::Leaf, 0, 1, HEADER_LEN as u64).unwrap().page, 1)
        };
        let singles: Vec<_> = (0..400).map(single).collect();
        // One entry to a leaf, and two of three separators so long that inner nodes take several pages: for
        // these nothing is free before them.
        let long = |n: u32| [&[(n / 3) as u8][..], &[b'x'; 2500], &[(n % 3) as u8]].concat();
        harness.put((0..120).map(|n| (long(n), vec![n as u8; 900])));
        let inner_nodes = harness.verify().inner_nodes;
        assert!(pages_with_pointers(&harness.tree, &store).unwrap() >= 2 * inner_nodes - 1);
        store.abandon(&singles.into_iter().step_by(2).collect::<Vec<_>>());
        let (entries, in_use) = (harness.tree.entries, store.space().pages_in_use);
        let (first, stats) = harness.move_to_front().unwrap();
        // The root may be one page.
        assert!(stats.pages_written <= 1, "{stats:?} of what stands behind {first:?}");
        assert_eq!((harness.tree.entries, store.space().pages_in_use), (entries, in_use));
        harness.verify();
    }
}
