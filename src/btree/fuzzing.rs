//! Nodes and trees, lent to the fuzz target `node`.

use std::collections::BTreeMap;

use super::forgery::{exercise, forged};
use super::node::{Fault, LeafValue, Node};
use super::testing::Harness;
use crate::codec::operands;

/// A tree in memory beside the sorted map that says what it must hold. What should hold and does not panics.
pub struct ModelledTree(Harness);

impl std::fmt::Debug for ModelledTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ModelledTree").field(&self.0.tree).finish()
    }
}

impl ModelledTree {
    /// An empty tree in pages of `page_size` bytes, whose leaves are filled to `fill` percent (50 to 100).
    pub fn new(page_size: usize, fill: u8) -> Self {
        Self(Harness { fill, ..Harness::new(page_size) })
    }

    /// Levels, leaves included.
    pub fn height(&self) -> u8 {
        self.0.tree.height
    }

    /// Deletes the ranges `[start, end)`, which ascend and are disjoint, then sets every key with a value and
    /// deletes the others.
    pub fn merge(
        &mut self,
        deletions: &[(Vec<u8>, Option<Vec<u8>>)],
        ops: &BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    ) {
        self.0.apply(deletions, ops);
    }

    /// Rewrites the tree packed.
    pub fn repack(&mut self) {
        self.0.repack();
    }

    /// Holds every entry, every invariant of the layout, and all that can be asked about `probes` against the
    /// map.
    pub fn verify(&self, probes: &[Vec<u8>]) {
        self.0.verify();
        probes.iter().for_each(|probe| self.0.verify_at(probe));
    }

    /// Does everything that can be done with a copy of the tree in which `change` changed the node of `level`
    /// (0: a leaf) to which the child numbers `turns` lead, and whose checksums are right. The tree stays as
    /// it was. Panics on an empty tree and on a level that it does not have.
    pub fn exercise_forged(
        &self,
        level: u8,
        turns: &[usize],
        probes: &[Vec<u8>],
        change: impl FnOnce(&mut [u8]),
    ) {
        let mut written = Vec::new();
        let tree = forged(&self.0, level, turns, &mut written, change);
        exercise(&self.0, &tree, probes);
        self.0.store.abandon(&written);
    }
}

/// Reads `bytes`, a page or run of any content, as a node of `level` in every way there is. Says whether all
/// of it could be read. Panics if an answer points out of the node.
pub fn read_node(bytes: &[u8], level: u8, probes: &[Vec<u8>]) -> bool {
    match Node::open(bytes, level) {
        Ok(node) => read_opened(&node, level, probes).is_ok(),
        Err(Fault(_)) => false,
    }
}

fn read_opened(node: &Node<'_>, level: u8, probes: &[Vec<u8>]) -> Result<(), Fault> {
    let count = node.count();
    assert!(count > 0);
    let mut outcome = Ok(());
    let mut note = |result: Result<(), Fault>| outcome = outcome.and(result);
    let mut key = Vec::new();
    for i in 0..count {
        note(node.key(i, &mut key));
        note(node.entries(i, count).map(drop));
        if level == 0 {
            note(node.entry_size(i).map(drop));
            note(node.entry(i).map(|entry| match entry.value {
                LeafValue::Inline(range) => assert_eq!(node.bytes(range.clone()).len(), range.len()),
                run @ LeafValue::Run(_) => assert!(run.run().is_some()),
                LeafValue::Expiring(range) => {
                    assert!(crate::codec::expiry::split(node.bytes(range.clone())).is_some())
                }
                LeafValue::Deletion => {}
                LeafValue::Operands(range) => {
                    operands::decode(node.bytes(range), &mut operands::Listed::default());
                }
            }));
        } else {
            let _ = node.entries_before(i);
            note(node.child(i).map(drop));
        }
    }
    let own_keys = [0, count / 2, count - 1].map(|i| node.key(i, &mut key).map(|()| key.clone()));
    for probe in own_keys.iter().flatten().chain(probes) {
        for from in [0, count / 3, count - 1] {
            note(node.search_from(from, probe).map(|(index, found)| {
                assert!((from..=count).contains(&index), "entry {index} of {count}, searched from {from}");
                assert!(!found || index < count, "found beyond the last of {count} entries");
            }));
        }
        note(node.child_index(probe).map(|index| assert!(index < count, "child {index} of {count}")));
    }
    let _ = (node.heads(), node.declared_len(), node.generation());
    outcome
}
