//! What entries of every size take: pages, and how many of them a leaf has.

use super::check::CheckReport;
use super::testing::{Bytes, Harness};

/// What a tree may take for each byte of its keys and values.
const MOST: f64 = 1.35;

/// Sixteen bytes that share little with others.
fn key(n: u64) -> Bytes {
    [n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes(), n.to_be_bytes()].concat()
}

/// A packed tree of entries whose values are as long as `len` says, about `bytes` of them, and what it takes
/// for each byte of keys and values, its root and its last page aside, which count for little in a larger
/// one.
fn packed(page_size: usize, bytes: usize, len: impl Fn(u64) -> usize) -> (Harness, CheckReport, f64) {
    let mut harness = Harness::new(page_size);
    let (mut n, mut total) = (0, 0);
    while total < bytes || n < 40 {
        let mut entries = Vec::new();
        let mut merged = 0;
        while merged < (bytes / 4).max(1) {
            let value = vec![n as u8; len(n)];
            merged += value.len() + 16;
            entries.push((key(n), value));
            n += 1;
        }
        total += merged;
        harness.put(entries);
    }
    harness.repack();
    let report = harness.check();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    let taken = report.pages.len().saturating_sub(2) as f64 * page_size as f64 / total as f64;
    (harness, report, taken)
}

/// Sizes around everything at which something changes: parts of a page, and how full a leaf or a run of so
/// many pages has to be.
fn sizes(page: usize) -> Vec<usize> {
    let mut sizes = vec![20, 50, 100, 300, 1 << 20];
    let around = |at: usize| [at.saturating_sub(90), at - 33, at - 31, at - 20, at + 1, at + 30];
    for part in 1..=6 {
        sizes.extend(around(page / part));
    }
    for pages in [1, 2, 3, 4, 7] {
        sizes.extend(around(page * pages));
        sizes.extend(around(page * pages * 10 / 13));
    }
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

#[test]
fn packed_entries_take_little_more_than_their_size_whatever_it_is() {
    let mut faults = Vec::new();
    for (page_size, every) in [(4096, 1), (8192, 7)] {
        let bytes = if cfg!(miri) { 40_000 } else { 120 * page_size };
        for len in sizes(page_size).into_iter().step_by(if cfg!(miri) { 10 } else { every }) {
            let (.., taken) = packed(page_size, bytes, |_| len);
            if taken > MOST {
                faults.push(format!("pages of {page_size}: values of {len} take {taken:.3}"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn packed_entries_of_many_sizes_take_little_more_than_their_size() {
    type Sizes = fn(u64) -> usize;
    let mixtures: [(&str, Sizes); 4] = [
        ("all", |n| 8 << (n * 7 % 13) | (n * 37 % 64) as usize),
        ("up to some pages", |n| (n * 7919 % 20_000) as usize + 10),
        ("just above the parts of a page", |n| [1030, 2050, 4100, 8200][n as usize % 4]),
        ("small and large by turns", |n| if n.is_multiple_of(2) { 100 } else { 4200 }),
    ];
    for (name, len) in mixtures {
        let (harness, _, taken) = packed(4096, if cfg!(miri) { 100_000 } else { 1_000_000 }, len);
        assert!(taken <= MOST, "{name}: {taken:.3}");
        harness.verify();
    }
}

#[test]
fn small_entries_share_no_long_leaves_with_a_few_large_ones() {
    for large in [1100, 2500, 3000, 4200, 9000, 12_000, 50_000] {
        let len = |n: u64| if n.is_multiple_of(100) { large } else { 100 };
        let (_, report, taken) = packed(4096, if cfg!(miri) { 100_000 } else { 1_000_000 }, len);
        let leaf_pages = report.leaf_bytes_total / 4096;
        assert!(taken <= MOST, "{large}: {taken:.3}");
        assert!(
            leaf_pages - report.leaves <= report.leaves / 25,
            "{large}: {leaf_pages} pages of {} leaves",
            report.leaves
        );
    }
}

#[test]
fn changes_of_large_values_leave_what_a_compaction_packs() {
    for len in [1100, 2050, 3000, 4100, 5000, 9000] {
        let (mut harness, _, taken) = packed(4096, 300_000, |_| len);
        let entries = harness.tree.entries;
        for round in 0..6 {
            let changed = (0..entries * 2).filter(|n| (n * 7 + round).is_multiple_of(5));
            harness.put(changed.map(|n| (key(n), vec![round as u8; len - round as usize * 10])));
            harness.delete((0..entries * 2).filter(|n| (n * 11 + round).is_multiple_of(9)).map(key));
            harness.verify();
        }
        harness.repack();
        let used: usize = harness.model.iter().map(|(key, value)| key.len() + value.len()).sum();
        let now = harness.verify().pages.len() as f64 * 4096.0 / used as f64;
        assert!(now <= MOST + 0.03, "values of {len}: {taken:.3}, then {now:.3}");
    }
}

/// Where the prefix that keys share ends, so does the leaf: else all of its keys would stand in it whole.
#[test]
fn long_keys_that_share_a_prefix_with_their_group_alone_take_a_leaf_for_each() {
    let groups = if cfg!(miri) { 3 } else { 20 };
    for (page_size, prefix, keys) in [(4096, 1100, 8), (4096, 1500, 20), (8192, 2500, 60)] {
        let mut harness = Harness::new(page_size);
        let entry = |n: usize| {
            let mut key = vec![(n / keys) as u8; prefix];
            key.extend((n as u32).to_be_bytes());
            (key, vec![7; 10])
        };
        harness.put((0..groups * keys).map(entry).collect::<Vec<_>>());
        harness.repack();
        let report = harness.check();
        assert!(report.faults.is_empty(), "{:?}", report.faults);
        let pages = report.leaf_bytes_total as usize / page_size;
        assert!(pages <= groups * 3 / 2, "{pages} pages of leaves for {groups} groups, pages of {page_size}");
    }
}
