//! Nodes that say nonsense and have a right checksum: every way to read them ends, with an answer or an
//! error.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::forgery::{self, exercise};
use super::merge::RangeDeletion;
use super::node::{HEAD_LEN, HEADS_AT, Node};
use super::records::CHILD_LEN;
use super::testing::{Bytes, Harness, get, store_of_last_pages};
use super::tree::Tree;
use super::{MergeOptions, TreeCursor, merge, repack};
use crate::codec::expiry::Now;
use crate::codec::ids::PageId;
use crate::error::{ErrorKind, Result};
use crate::page::{HEADER_LEN, PagePointer};
use crate::sync::{Arc, epoch};

fn numbered(n: u64) -> Bytes {
    format!("{n:08}").into_bytes()
}

/// A tree of three levels with value runs and one leaf that is a run.
fn sound() -> Harness {
    let mut harness = Harness::new(4096);
    let value = |n: u64| if n.is_multiple_of(97) { vec![3; 3500] } else { vec![5; 400] };
    harness.put((0..1600).map(|n| (numbered(n), value(n))));
    harness.put([([&numbered(800)[..], &[b'x'; 6000]].concat(), vec![1])]);
    assert_eq!(harness.tree.height, 3);
    harness
}

fn forged(harness: &Harness, level: u8, turns: &[usize], forge: impl FnOnce(&mut [u8])) -> Tree {
    forgery::forged(harness, level, turns, &mut Vec::new(), forge)
}

/// Keys within, below and above those of [`sound`].
fn probes() -> Vec<Bytes> {
    (0..1600).step_by(40).map(numbered).chain([vec![], vec![255; 9]]).collect()
}

#[derive(Debug, Clone)]
enum Change {
    Byte(usize, u8),
    Bit(usize, u8),
    Word(usize, u32),
}

impl Change {
    fn apply(&self, bytes: &mut [u8]) {
        let body = &mut bytes[HEADER_LEN..];
        match *self {
            Self::Byte(at, byte) => body[at % 4000] = byte,
            Self::Bit(at, bit) => body[at % 4000] ^= 1 << bit,
            Self::Word(at, word) => body[at % 4000 / 2 * 2..][..4].copy_from_slice(&word.to_le_bytes()),
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let at = || prop_oneof![4 => 0..16usize, 4 => 0..256usize, 2 => 0..4000usize];
    let word = prop_oneof![Just(0), Just(u32::MAX), Just(1 << 31), Just(4096), 0..64u32, any::<u32>()];
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        (at(), 0..8u8).prop_map(|(at, bit)| Change::Bit(at, bit)),
        (at(), word).prop_map(|(at, word)| Change::Word(at, word)),
    ]
}

proptest! {
    // A case is many forgeries of one tree.
    #![proptest_config(ProptestConfig { cases: 1, ..crate::sampling::config(1) })]

    #[test]
    fn forged_nodes_are_survived(
        forgeries in prop::collection::vec(
            (0..3u8, prop::array::uniform2(any::<usize>()), prop::collection::vec(change(), 1..4)),
            if cfg!(miri) { 2 } else { 200 },
        ),
    ) {
        let harness = sound();
        for (level, turns, changes) in forgeries {
            let tree = forged(&harness, level, &turns, |bytes| {
                for change in &changes {
                    change.apply(bytes);
                }
            });
            exercise(&harness, &tree, &probes());
        }
        harness.verify();
    }
}

#[test]
fn every_changed_byte_of_a_node_is_reported_or_is_part_of_a_key_or_value() {
    let mut harness = Harness::new(4096);
    harness.put((0..60).map(|n| (numbered(n), if n == 20 { vec![3; 3500] } else { vec![5; 400] })));
    assert_eq!(harness.tree.height, 2);
    for level in 0..2 {
        for at in (HEADER_LEN..4096).step_by(if cfg!(miri) { 500 } else { 3 }) {
            let (mut in_entries, mut unused) = (false, false);
            let tree = forged(&harness, level, &[1], |bytes| {
                let node = Node::open(bytes, level).unwrap();
                // Publishing zeroes what lies behind the entries.
                unused = at >= node.offset(node.count());
                in_entries = at >= node.entries_at() - node.prefix().len();
                bytes[at] ^= 0x10;
            });
            let report = tree.check(&harness.store, &super::CheckOptions::default());
            let reads_otherwise = || {
                harness.model.iter().any(|(key, value)| {
                    get(&tree, &harness.store, key).ok().flatten().as_ref() != Some(value)
                })
            };
            // A separator may be any that divides; the bytes of a key or a value may be any that are in
            // order.
            let harmless = unused || in_entries && (level > 0 || reads_otherwise());
            assert!(!report.faults.is_empty() || harmless, "byte {at} of a node of level {level}");
        }
    }
}

#[test]
fn a_tree_that_reaches_a_node_twice_is_reported_and_not_merged() {
    let harness = sound();
    // Both first children of the root are the same node.
    let tree = forged(&harness, 2, &[0], |bytes| {
        let page = bytes.to_vec();
        let node = Node::open(&page, 2).unwrap();
        let at = node.children()[1].as_ptr() as usize - page.as_ptr() as usize;
        bytes.copy_within(at - CHILD_LEN..at, at);
    });
    let report = tree.check(&harness.store, &super::CheckOptions::default());
    assert!(
        report.faults.iter().any(|fault| fault.to_string().contains("a page is reached twice")),
        "{report:?}"
    );
    assert!(
        report
            .faults
            .iter()
            .all(|fault| fault.location().page.is_some() && fault.location().offset.is_some())
    );
    let options = MergeOptions { fill: 100, generation: 9, keep_deletions: false, now: Now::UNASKED };
    let deletion = RangeDeletion { start: b"", end: None };
    let error =
        merge(&tree, &harness.store, &[deletion], std::iter::empty(), &options, &|| false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
}

#[test]
fn what_a_newer_engine_put_into_a_node_is_refused() {
    let harness = sound();
    let first = harness.model.keys().next().unwrap();
    let options = MergeOptions { fill: 100, generation: 9, keep_deletions: false, now: Now::UNASKED };
    for (level, what) in [(2, "child"), (1, "child"), (1, "node"), (0, "node")] {
        let tree = forged(&harness, level, &[0], |bytes| {
            let page = bytes.to_vec();
            let node = Node::open(&page, level).unwrap();
            match what {
                "child" => bytes[node.child_at(0) + 12] = 1,
                _ => bytes[HEADER_LEN + 2] = 1,
            }
        });
        let error = get(&tree, &harness.store, first).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NewerFormat, "reading a {what} of level {level}: {error}");
        let error = repack(&tree, &harness.store, &options, &|| false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NewerFormat, "merging a {what} of level {level}: {error}");
        let report = tree.check(&harness.store, &super::CheckOptions::default());
        assert_eq!(report.faults.len(), 1, "a {what} of level {level}: {:?}", report.faults);
        assert_eq!(report.faults[0].kind(), ErrorKind::NewerFormat);
    }
}

#[test]
fn a_tree_of_another_height_is_corrupt() {
    let harness = sound();
    for height in [0, 1, 2, 4, 41, 255] {
        let tree = Tree { height, ..harness.tree };
        exercise(&harness, &tree, &probes());
        let error = tree.find(&harness.store, b"x", &epoch::pin()).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption);
    }
    let nowhere = PagePointer { page: PageId(1 << 30), pages: 1 << 30, checksum: 0 };
    exercise(&harness, &Tree { root: Some(nowhere), ..harness.tree }, &probes());
}

#[test]
fn a_range_deletion_reads_no_leaf_that_it_covers() {
    let harness = sound();
    // Some leaf in the middle cannot be read.
    let tree = forged(&harness, 1, &[1], |bytes| {
        let page = bytes.to_vec();
        let node = Node::open(&page, 1).unwrap();
        let middle = node.count() / 2;
        let at = node.children()[middle].as_ptr() as usize - page.as_ptr() as usize;
        assert!(!node.child(middle).unwrap().owns_values);
        bytes[at + 8] ^= 1;
    });
    let options = MergeOptions { fill: 100, generation: 9, keep_deletions: false, now: Now::UNASKED };
    let whole = RangeDeletion { start: b"", end: None };
    let outcome = merge(&tree, &harness.store, &[whole], std::iter::empty(), &options, &|| false).unwrap();
    assert_eq!(outcome.tree.root, None);
    let error = repack(&tree, &harness.store, &options, &|| false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
}

#[test]
fn a_node_on_the_last_page_number_is_checked() {
    let store = store_of_last_pages(4096, 2);
    let harness = Harness { store, ..Harness::new(4096) };
    // One leaf that is a run of both pages.
    let ops = BTreeMap::from([(vec![b'k'; 4100], Some(vec![1]))]);
    let outcome = harness.try_merge(&[], &ops, &|| false).unwrap();
    let root = outcome.tree.root.unwrap();
    assert_eq!((root.page, root.pages), (PageId(u32::MAX - 1), 2));
    let report = outcome.tree.check(&harness.store, &super::CheckOptions::default());
    assert!(report.faults.is_empty(), "{report:?}");
    assert_eq!((report.pages.len(), report.leaves), (2, 1));
}

/// The tree with all children of an inner node made the same one, of number `kept`.
fn sharing_children(harness: &Harness, level: u8, turns: &[usize], kept: usize) -> Tree {
    forged(harness, level, turns, |bytes| {
        let page = bytes.to_vec();
        let node = Node::open(&page, level).unwrap();
        let at = |child: usize| node.children()[child].as_ptr() as usize - page.as_ptr() as usize;
        for child in 0..node.count() {
            bytes[at(child)..][..CHILD_LEN].copy_from_slice(&page[at(kept)..][..CHILD_LEN]);
        }
    })
}

/// Walks from each end: both walks must fail before they met more entries than `harness` has.
fn assert_walks_fail(harness: &Harness, tree: Tree) {
    type Moves = (fn(&mut TreeCursor) -> Result<bool>, fn(&mut TreeCursor) -> Result<bool>);
    let ways: [Moves; 2] = [(TreeCursor::first, TreeCursor::next), (TreeCursor::last, TreeCursor::prev)];
    for (begin, step) in ways {
        let mut cursor = TreeCursor::new(tree, Arc::clone(&harness.store));
        let mut outcome = begin(&mut cursor);
        let mut met = 0;
        while let Ok(true) = outcome {
            met += 1;
            assert!(met <= harness.model.len(), "the walk goes on after {met} entries");
            outcome = step(&mut cursor);
        }
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert!(error.location().page.is_some() && error.location().offset.is_some(), "{error}");
        assert!(!cursor.valid() && !step(&mut cursor).unwrap());
    }
}

#[test]
fn a_walk_does_not_meet_a_shared_leaf_again() {
    let harness = sound();
    for level in [1, 2] {
        assert_walks_fail(&harness, sharing_children(&harness, level, &[0], 0));
    }
}

#[test]
fn a_walk_does_not_meet_a_shared_leaf_again_whose_own_edges_are_in_disorder() {
    let harness = sound();
    // The last key sorts below the first: as neighbours of themselves, such leaves seem to ascend.
    let tree = forged(&harness, 0, &[0], |bytes| {
        let page = bytes.to_vec();
        let rest = Node::open(&page, 0).unwrap();
        let rest = rest.rest(rest.count() - 1).unwrap();
        let at = rest.as_ptr() as usize - page.as_ptr() as usize;
        bytes[at..][..rest.len()].fill(0);
    });
    let broken = Harness { store: Arc::clone(&harness.store), tree, ..Harness::new(4096) };
    let tree = sharing_children(&broken, 1, &[0], 0);
    let tree = sharing_children(&Harness { tree, ..broken }, 2, &[0], 0);
    assert_walks_fail(&harness, tree);
}

/// Both lengths of an entry may be written with zeros behind them, up to ten bytes each: they say the same in
/// more bytes.
#[test]
fn lengths_that_are_longer_than_they_need_to_be_are_refused() {
    const LONGER: usize = 17;
    let mut harness = Harness::new(4096);
    harness.fill = 60;
    harness.put([(&b"a"[..], vec![1; 1000]), (b"z", vec![2; 20])]);
    let tree = forged(&harness, 0, &[0], |bytes| {
        let page = bytes.to_vec();
        let node = Node::open(&page, 0).unwrap();
        let [a, z, end] = [0, 1, 2].map(|i| node.offset(i));
        bytes[a..a + 10].copy_from_slice(&[0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0]);
        bytes[a + 10..a + 20].copy_from_slice(&[0xa0, 0x9f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0]);
        bytes[a + 20..z + LONGER].copy_from_slice(&page[a + 3..z]);
        // The other entry makes room.
        let value = end - z - LONGER - 3;
        bytes[z + LONGER..][..3].copy_from_slice(&[1, (value as u8) << 2, b'z']);
        let offset = HEADS_AT + 2 * HEAD_LEN + 2;
        bytes[offset..][..2].copy_from_slice(&((z + LONGER) as u16).to_le_bytes());
    });
    exercise(&harness, &tree, &[b"a".to_vec(), b"b".to_vec(), b"z".to_vec()]);
    let report = tree.check(&harness.store, &super::CheckOptions::default());
    assert!(!report.faults.is_empty());

    // As they stand, the first two entries are too long for a page, and would not be if the lengths were as
    // short as can be.
    let broken = Harness { store: Arc::clone(&harness.store), tree, fill: 60, ..Harness::new(4096) };
    let long = [&b"b"[..], &[b'x'; 2025]].concat();
    let ops = BTreeMap::from([
        (long, Some(vec![3; 1000])),
        (b"c".to_vec(), Some(vec![4; 1000])),
        (b"z".to_vec(), None),
    ]);
    let error = broken.try_merge(&[], &ops, &|| false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
}
