//! Trees with nodes that say nonsense and have a right checksum, and everything that can be done with a tree.
//! For the tests of this folder and for fuzzing.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::merge::RangeDeletion;
use super::node::Node;
use super::records::CHILD_LEN;
use super::testing::{Bytes, Harness, get};
use super::tree::Tree;
use super::{
    CheckOptions, MergeOptions, MergeOutcome, TreeCursor, merge, pages_with_pointers, relocate, repack,
};
use crate::codec::expiry::Now;
use crate::codec::ids::PageId;
use crate::codec::key;
use crate::error::{ErrorKind, Result};
use crate::page::{PageKind, PagePointer};
use crate::sync::Arc;

/// Entries that a walk from one place visits.
const WALK: usize = 20;

/// A copy of the tree in which `forge` changed the node of `level` that the child numbers `turns` lead to;
/// adds to `written` the pages that the copy has to itself.
pub(super) fn forged(
    harness: &Harness,
    level: u8,
    turns: &[usize],
    written: &mut Vec<(PageId, u32)>,
    forge: impl FnOnce(&mut [u8]),
) -> Tree {
    let (mut pointer, mut at) = (harness.tree.root.unwrap(), harness.tree.height - 1);
    let mut path = Vec::new();
    while at > level {
        let page = harness.store.pin(pointer).unwrap();
        let node = Node::open(&page, at).unwrap();
        let turn = turns[path.len() % turns.len()] % node.count();
        let record_at = node.children()[turn].as_ptr() as usize - page.as_ptr() as usize;
        let child = node.child(turn).unwrap().pointer;
        path.push((page, at, record_at));
        pointer = child;
        at -= 1;
    }
    let page = harness.store.pin(pointer).unwrap();
    let mut new = publish(harness, &page, level, forge);
    written.push((new.page, new.pages));
    for (page, level, record_at) in path.into_iter().rev() {
        new = publish(harness, &page, level, |bytes| {
            let record = &mut bytes[record_at..][..CHILD_LEN];
            record[0..4].copy_from_slice(&new.page.0.to_le_bytes());
            record[8..12].copy_from_slice(&new.checksum.to_le_bytes());
        });
        written.push((new.page, new.pages));
    }
    Tree { root: Some(new), ..harness.tree }
}

fn publish(harness: &Harness, old: &[u8], level: u8, change: impl FnOnce(&mut [u8])) -> PagePointer {
    let pages = old.len() / harness.store.page_size();
    let mut page = harness.store.new_page(pages as u32).unwrap();
    page.copy_from_slice(old);
    change(&mut page);
    let kind = if level == 0 { PageKind::Leaf } else { PageKind::Inner };
    let len = Node::open(old, level).unwrap().declared_len() as u64;
    harness.store.publish(page, kind, level, harness.tree.generation, len).unwrap()
}

/// Tries everything that can be done with a tree, around each of the `keys`. It may answer anything or fail
/// as corrupt, but must return.
pub(super) fn exercise(harness: &Harness, tree: &Tree, keys: &[Bytes]) {
    let store = &harness.store;
    let keys: &[Bytes] = if keys.is_empty() { &[Vec::new()] } else { keys };
    let middle = &keys[keys.len() / 2];
    for key in keys {
        let _ = get(tree, store, key);
        let _ = tree.count_range(store, Some(key), Some(middle));
        let mut cursor = TreeCursor::new(*tree, Arc::clone(store));
        let walk = |cursor: &mut TreeCursor, way: fn(&mut TreeCursor) -> Result<bool>| -> Result<()> {
            for _ in 0..WALK {
                if !way(cursor)? {
                    break;
                }
                cursor.value()?;
                cursor.key();
            }
            Ok(())
        };
        let _ = cursor.seek(key);
        let _ = walk(&mut cursor, TreeCursor::next);
        let _ = walk(&mut cursor, TreeCursor::prev);
        let _ = cursor.seek_for_prev(key);
        let _ = walk(&mut cursor, TreeCursor::prev);
        let _ = walk(&mut cursor, TreeCursor::next);
    }
    for (key, limit) in
        keys.iter().zip([None, Some(0), Some(u64::MAX), Some(key::head8(middle))].into_iter().cycle())
    {
        let mut cursor = TreeCursor::new(*tree, Arc::clone(store));
        let mut left = WALK;
        let mut visit = |_: &[u8], _: &[u8]| {
            left = left.saturating_sub(1);
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let mut scan = || -> Result<()> {
            cursor.seek(key)?;
            let below = |key: &[u8]| limit.is_none_or(|limit| key::head8(key) < limit);
            while cursor.visit_next(below, &mut visit)?.is_continue() && cursor.next()? {}
            cursor.seek_for_prev(key)?;
            let above = |key: &[u8]| limit.is_none_or(|limit| key::head8(key) > limit);
            while cursor.visit_prev(above, &mut visit)?.is_continue() && cursor.prev()? {}
            Ok(())
        };
        let _ = scan();
    }
    let mut cursor = TreeCursor::new(*tree, Arc::clone(store));
    let _ = cursor.first();
    let _ = cursor.last();
    let report = tree.check(store, &CheckOptions { max_faults: 3, deletions: true });
    assert!(report.faults.len() <= 3);

    let options =
        MergeOptions { fill: 100, generation: tree.generation + 1, keep_deletions: false, now: Now::UNASKED };
    let abandon = |outcome: Result<MergeOutcome>| match outcome {
        Ok(outcome) => store.abandon(&outcome.written),
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Corruption | ErrorKind::NewerFormat), "{error}");
        }
    };
    abandon(repack(tree, store, &options, &|| false));
    let _ = pages_with_pointers(tree, store);
    let _ = tree.spare_pages(store, 100);
    let _ = tree.changed_pages(store, keys.first().map(|key| &key[..]), None, 10);
    let middle_page = harness.live.iter().nth(harness.live.len() / 2).map_or(0, |&page| page);
    for first in [0, middle_page] {
        abandon(relocate(
            tree,
            store,
            std::slice::from_ref(&(u64::from(first)..u64::MAX)),
            &options,
            &|| false,
        ));
    }
    if let Some(first) = store.place_before_end(0, u64::MAX) {
        // Room for some of it.
        let moving = u64::from(first.0)..u64::MAX;
        abandon(relocate(tree, store, std::slice::from_ref(&moving), &options, &|| false));
        store.place_anywhere();
    }
    let ops: BTreeMap<_, _> = keys.iter().map(|key| (key.clone(), Some(vec![1; 500]))).collect();
    let broken = Harness { store: Arc::clone(store), tree: *tree, ..Harness::new(store.page_size()) };
    abandon(broken.try_merge(&[], &ops, &|| false));
    let (low, high) = (&keys[keys.len() / 4], &keys[keys.len() * 3 / 4]);
    if low < high {
        abandon(broken.try_merge(&[(low.clone(), Some(high.clone()))], &ops, &|| false));
    }
    let deletion = RangeDeletion { start: b"", end: None };
    abandon(merge(tree, store, &[deletion], std::iter::empty(), &options, &|| false));
}
