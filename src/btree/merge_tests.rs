//! What a merge reads, writes and retires, and the shape of the trees that it makes.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use super::node::Node;
use super::testing::{Bytes, Harness};
use super::tree::Tree;
use super::{MergeOp, MergeOptions, merge};
use crate::codec::expiry::Now;
use crate::codec::key;
use crate::error::{Error, ErrorKind};

fn numbered(n: u64) -> Bytes {
    format!("{n:024}").into_bytes()
}

/// A key that says nothing about its neighbours.
fn scattered(n: u64) -> Bytes {
    let hash =
        |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    [hash(n).to_be_bytes(), hash(n ^ 0x55).to_be_bytes(), n.to_be_bytes()].concat()
}

fn value() -> Bytes {
    vec![7; 150]
}

fn fill_percent(harness: &Harness) -> u64 {
    let report = harness.verify();
    report.leaf_bytes_used * 100 / report.leaf_bytes_total
}

#[test]
fn an_ascending_load_fills_leaves() {
    for batch in [1000, 37] {
        let mut harness = Harness::new(8192);
        for first in (0..20_000).step_by(batch) {
            harness.put((first..first + batch as u64).map(|n| (numbered(n), vec![1; 20])));
        }
        let report = harness.verify();
        // All but the last leaf are full.
        assert!(report.leaf_bytes_used * 100 >= (report.leaf_bytes_total - 8192) * 99, "{report:?}");
        assert!(report.leaves.div_ceil(150) >= report.inner_nodes - 1, "{report:?}");
    }
}

#[test]
fn scattered_inserts_leave_leaves_two_thirds_full() {
    let mut harness = Harness::new(4096);
    for batch in 0..40u64 {
        harness.put((0..200).map(|n| (scattered(batch * 200 + n), value())));
    }
    let fill = fill_percent(&harness);
    assert!((60..=100).contains(&fill), "leaves are {fill} % full");
    harness.repack();
    let fill = fill_percent(&harness);
    assert!(fill >= 95, "leaves are {fill} % full after a repack");
}

#[test]
fn fill_is_kept_when_more_is_rewritten_than_a_leaf() {
    let mut harness = Harness::new(4096);
    harness.fill = 80;
    harness.put((0..5000).map(|n| (scattered(n), value())));
    let fill = fill_percent(&harness);
    assert!((74..=80).contains(&fill), "leaves are {fill} % full");
}

#[test]
fn deleting_leaves_no_trail_of_small_leaves() {
    let mut harness = Harness::new(4096);
    harness.put((0..5000).map(|n| (numbered(n), value())));
    for round in 0..20u64 {
        harness.delete((0..5000).filter(|n| n % 50 != 0 && n % 20 == round).map(numbered));
    }
    let report = harness.verify();
    // Some 100 entries are left, for which a few leaves would do; before, there were over 200.
    assert!(report.leaves < 40, "{} leaves for {} entries", report.leaves, report.entries);
}

#[test]
fn a_merge_that_changes_nothing_writes_nothing() {
    let mut harness = Harness::new(4096);
    harness.put((0..5000).map(|n| (numbered(2 * n), value())));
    let before = harness.tree;
    let stats = harness.delete((0..5000).map(|n| numbered(2 * n + 1)));
    assert_eq!((stats.pages_written, stats.pages_retired, stats.entries_in), (0, 0, 5000));
    let stats = harness.delete_range(&numbered(6001), Some(&[&numbered(6001)[..], b"~"].concat()));
    assert_eq!((stats.pages_written, stats.pages_retired), (0, 0));
    harness.apply(&[], &BTreeMap::new());
    assert_eq!(harness.tree, Tree { generation: before.generation + 3, ..before });
    harness.verify();
}

#[test]
fn one_entry_rewrites_one_path() {
    let mut harness = Harness::new(4096);
    harness.put((0..5000).map(|n| (numbered(n), value())));
    let height = u64::from(harness.tree.height);
    let stats = harness.put([(numbered(2500), value())]);
    assert_eq!((stats.pages_written, stats.pages_retired), (height, height));
    let stats = harness.delete([numbered(2501)]);
    assert_eq!((stats.pages_written, stats.pages_retired), (height, height));
    harness.verify();
}

#[test]
fn a_range_deletion_drops_whole_subtrees() {
    let mut harness = Harness::new(4096);
    harness.put((0..20_000).map(|n| (numbered(n), value())));
    assert_eq!(harness.tree.height, 3);
    let stats = harness.delete_range(&numbered(100), Some(&numbered(19_900)));
    assert!(stats.subtrees_dropped > 1 && stats.pages_retired > 800, "{stats:?}");
    assert!(stats.pages_written < 10, "{stats:?}");
    harness.verify();
    harness.delete_range(b"", None);
    assert_eq!(harness.tree.root, None);
    harness.verify();
}

#[test]
fn value_runs_live_and_die_with_their_entries() {
    let mut harness = Harness::new(4096);
    let big = |n: u64| vec![n as u8; 12_300 + 777 * n as usize];
    harness.put((0..40).map(|n| (numbered(n), if n % 2 == 0 { big(n) } else { value() })));
    assert_eq!(harness.verify().value_runs, 20);
    // A neighbour changes: the run is carried over by its pointer.
    let stats = harness.put([(numbered(21), vec![1])]);
    assert!(stats.pages_written <= 2, "{stats:?}");
    // Overwritten, deleted, range-deleted.
    harness.put([(numbered(20), big(3))]);
    harness.put([(numbered(22), vec![1])]);
    harness.delete([numbered(24)]);
    assert_eq!(harness.verify().value_runs, 18);
    harness.delete_range(&numbered(26), Some(&numbered(30)));
    assert_eq!(harness.verify().value_runs, 16);
    harness.repack();
    assert_eq!(harness.verify().value_runs, 16);
    harness.delete_range(b"", None);
    assert_eq!(harness.verify().value_runs, 0);
}

#[test]
fn deletions_apply_before_the_operations_of_the_same_merge() {
    let mut harness = Harness::new(4096);
    harness.put((0..5000).map(|n| (numbered(n), value())));
    let ops = (1000..4000).step_by(100).map(|n| (numbered(n), (n % 200 == 0).then(|| vec![9]))).collect();
    harness.apply(&[(numbered(500), Some(numbered(4500)))], &ops);
    assert_eq!(harness.tree.entries, 1000 + 15);
    harness.verify();
}

#[test]
fn the_longest_keys_and_empty_ones_are_stored() {
    let mut harness = Harness::new(4096);
    let long = |n: u8| [&vec![n % 4; key::MAX_KEY_LEN - 1][..], &[n]].concat();
    harness.put((0..64).map(|n| (long(n), vec![n])));
    harness.put([(Vec::new(), b"the empty key".to_vec())]);
    let report = harness.verify();
    // Those that share all but the last byte share a leaf.
    assert_eq!(report.leaves, 5);
    assert!(harness.tree.height <= 5, "{} levels", harness.tree.height);
    for n in 0..64 {
        harness.verify_at(&long(n));
    }
    harness.delete((0..64).map(long));
    harness.verify();
    assert_eq!((harness.tree.height, harness.tree.entries), (1, 1));
}

#[test]
fn a_tree_is_no_higher_than_its_entries_ask_for() {
    // Keys so long that inner nodes hold few children, so that many of these trees end with a node of one
    // child.
    let key = |n: u64| {
        (0..4).rev().flat_map(|i| [((n / 4) >> (2 * i)) as u8 & 3; 300]).chain([n as u8]).collect::<Bytes>()
    };
    let mut heights = BTreeSet::new();
    for loaded in 1..200 {
        let mut harness = Harness::new(4096);
        harness.put((0..loaded).map(|n| (key(n), vec![0; 500])));
        heights.insert(harness.tree.height);
        harness.delete_range(b"", Some(&key(loaded - 1)));
        harness.verify();
        assert_eq!((harness.tree.entries, harness.tree.height), (1, 1), "{loaded} entries loaded");
    }
    assert!(heights.last() >= Some(&3), "{heights:?}");
}

#[test]
fn separators_are_the_shortest_that_divide_their_neighbours() {
    let mut harness = Harness::new(4096);
    harness.put((0..2500).map(|n| (scattered(n), value())));
    let mut checked = 0;
    let root = harness.tree.root.unwrap();
    let page = harness.store.pin(root).unwrap();
    assert_eq!(harness.tree.height, 2);
    let node = Node::open(&page, 1).unwrap();
    let (mut separator, mut below, mut at) = (Vec::new(), Vec::new(), Vec::new());
    for i in 1..node.count() {
        node.key(i, &mut separator).unwrap();
        let left = harness.store.pin(node.child(i - 1).unwrap().pointer).unwrap();
        let left = Node::open(&left, 0).unwrap();
        left.key(left.count() - 1, &mut below).unwrap();
        let right = harness.store.pin(node.child(i).unwrap().pointer).unwrap();
        Node::open(&right, 0).unwrap().key(0, &mut at).unwrap();
        assert_eq!(separator, shortest_separator(&below, &at));
        checked += 1;
    }
    assert!(checked > 50);
    node.key(0, &mut separator).unwrap();
    assert!(separator.is_empty());
}

#[test]
fn a_merge_that_is_stopped_or_fails_leaves_nothing() {
    let mut harness = Harness::new(4096);
    harness.put((0..5000).map(|n| (numbered(n), value())));
    let ops: BTreeMap<_, _> =
        (0..5000).map(|n| (numbered(n), Some(vec![1; 100 + n as usize % 2000]))).collect();
    for stop_at in [0, 1, 5, 100] {
        let asked = Cell::new(0);
        let should_stop = || asked.replace(asked.get() + 1) == stop_at;
        let error = harness.try_merge(&[], &ops, &should_stop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        harness.verify();
        assert_eq!(harness.store.space().pages_in_use, harness.check().pages.len());
    }
    let broken = ops.keys().map(|key| Ok((&key[..], MergeOp::Put(&[5; 2000])))).take(3000);
    let broken = broken.chain([Err(Error::new(ErrorKind::Io, "no more"))]);
    let options = MergeOptions { fill: 100, generation: 9, keep_deletions: false, now: Now::UNASKED };
    let error = merge(&harness.tree, &harness.store, &[], broken, &options, &|| false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    harness.verify();
    assert_eq!(harness.store.space().pages_in_use, harness.check().pages.len());
}

/// The shortest key `s` with `below < s <= at`: a prefix of `at`.
fn shortest_separator<'a>(below: &[u8], at: &'a [u8]) -> &'a [u8] {
    &at[..at.len().min(key::common_prefix(below, at) + 1)]
}

#[test]
fn where_deletions_are_kept_what_has_expired_stays_and_hides_what_is_behind() {
    let stamped = crate::codec::expiry::stamped(5, b"value");
    for (keep_deletions, left) in [(true, 2), (false, 1)] {
        let mut harness = Harness::new(4096);
        let ops = [Ok((&b"a"[..], MergeOp::PutExpiring(&stamped)))].into_iter();
        let options = MergeOptions { fill: 100, generation: 1, keep_deletions, now: Now::UNASKED };
        harness.install(merge(&harness.tree, &harness.store, &[], ops, &options, &|| false).unwrap());
        let ops = [Ok((&b"b"[..], MergeOp::Put(b"value")))].into_iter();
        let options = MergeOptions { generation: 2, now: Now(5), ..options };
        harness.install(merge(&harness.tree, &harness.store, &[], ops, &options, &|| false).unwrap());
        assert_eq!(harness.tree.entries, left);
    }
}
