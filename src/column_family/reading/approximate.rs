//! About how much a family holds in a range of keys, and where to cut the range into equal parts, without
//! walking it.
//!
//! Each tree says how many entries it has in the range, exactly, and about how many pages these take
//! (`btree/estimate.rs`). Of a memtable a few entries are looked at; if it has more in the range, how many is
//! taken from the shape of its nodes. What a memtable or delta puts is counted as new, what it deletes as
//! there before: whether it is would take a look-up for each key. So an answer is off by as many entries as
//! memtables and deltas have in the range, at most.

use crate::btree::Tree;
use crate::codec::ids::SequenceNumber;
use crate::codec::key::{self, ABOVE_EVERY_KEY};
use crate::codec::key_range::KeyRange;
use crate::column_family::reading::hidden::{Hidden, TREE};
use crate::column_family::view::FamilyView;
use crate::error::Result;
use crate::memtable::{Found, Memtable};
use crate::segment::PartitionedStorageBackend;
use crate::sync::Arc;

/// Entries of a memtable that are looked at.
const LOOKED_AT: u64 = 64;
/// Stretches between deleted ranges for which trees are asked; the last goes on to the end of the range.
const MOST_STRETCHES: usize = 8;
/// Keys that are looked at for each part into which a range is cut.
const FOR_EACH_PART: usize = 4;
/// Parts into which a range is cut at most.
const MOST_PARTS: usize = 1 << 16;

/// What a family, or one source of it, holds in a range of keys.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Amount {
    /// Entries, less the deletions of others.
    pub(crate) entries: f64,
    /// Entries and deletions.
    shown: f64,
    pub(crate) bytes: f64,
}

/// What a tree holds in a stretch of keys, and how many of its entries come before.
struct InTree<'v> {
    tree: &'v Tree,
    first: u64,
    amount: Amount,
}

/// A key, and how many entries lie between it and the one before it, of one source.
type Sample = (Vec<u8>, f64);

impl FamilyView {
    /// About how much there is in `range` at `at`.
    pub(crate) fn amount(&self, range: KeyRange, at: SequenceNumber) -> Result<Amount> {
        let mut sum = Amount::default();
        if is_empty(&range) {
            return Ok(sum);
        }
        let (range, hidden) = (Arc::new(range), self.hidden(at));
        let recent = self.memtables().enumerate();
        let recent = recent.map(|(age, table)| in_memtable(table, age, &range, &hidden, at));
        for amount in recent.chain(self.in_trees_within(&range, &hidden)?.iter().map(|found| found.amount)) {
            sum.entries += amount.entries;
            sum.bytes += amount.bytes;
        }
        sum.entries = sum.entries.max(0.0);
        Ok(sum)
    }

    /// At most `parts - 1` keys of `range`, ascending, between which there are about as many entries at `at`.
    pub(crate) fn split(&self, range: KeyRange, parts: usize, at: SequenceNumber) -> Result<Vec<Vec<u8>>> {
        let mut points: Vec<Vec<u8>> = Vec::new();
        if is_empty(&range) {
            return Ok(points);
        }
        let (range, hidden) = (Arc::new(range), self.hidden(at));
        let recent: Vec<_> = self
            .memtables()
            .enumerate()
            .map(|(age, table)| (table, in_memtable(table, age, &range, &hidden, at).shown))
            .collect();
        let trees = self.in_trees_within(&range, &hidden)?;
        let all = recent.iter().map(|(_, shown)| shown).chain(trees.iter().map(|found| &found.amount.shown));
        let all: f64 = all.sum();
        let parts = parts.min(all as usize).min(MOST_PARTS);
        if parts < 2 {
            return Ok(points);
        }
        let step = all / (parts * FOR_EACH_PART) as f64;
        let mut samples: Vec<Sample> = Vec::new();
        for (table, shown) in recent {
            let keys = table.dividing_keys(range.start(), range.end(), (shown / step) as usize);
            let each = shown / keys.len().max(1) as f64;
            samples.extend(keys.into_iter().map(|key| (key.to_vec(), each)));
        }
        for found in &trees {
            found.samples(self.family.store(), step, &mut samples)?;
        }
        samples.sort_unstable_by(|(a, _), (b, _)| key::compare(a, b));
        let (mut passed, mut part) = (0.0, 1);
        for (key, between) in samples {
            passed += between;
            // What is added up may lack the last digit.
            let reached = (passed / all * parts as f64 + 1e-6) as usize;
            if reached < part || part >= parts {
                continue;
            }
            part = reached + 1;
            let last = points.last().map_or(range.start(), |last| &last[..]);
            if key::compare(last, &key).is_lt() && range.is_before_end(&key) {
                points.push(key);
            }
        }
        Ok(points)
    }

    fn hidden(&self, at: SequenceNumber) -> Hidden {
        let mut hidden = Hidden::at(at);
        self.memtables().enumerate().for_each(|(age, table)| hidden.add(age, table));
        hidden
    }

    /// What deltas and tree hold in `range`, less what memtables delete by range.
    fn in_trees_within(&self, range: &KeyRange, hidden: &Hidden) -> Result<Vec<InTree<'_>>> {
        let store = self.family.store();
        let deltas = self.tree.deltas.iter().map(|delta| (&delta.tree, true));
        let mut found = Vec::new();
        for (start, end) in stretches(range, hidden) {
            for (tree, is_delta) in deltas.clone().chain(std::iter::once((&self.tree.tree, false))) {
                let estimate = tree.estimate(store, start, end, is_delta)?;
                let shown = estimate.entries as f64;
                let amount = Amount {
                    entries: shown - 2.0 * estimate.deletions,
                    shown,
                    bytes: estimate.pages * store.page_size() as f64,
                };
                found.push(InTree { tree, first: estimate.first, amount });
            }
        }
        Ok(found)
    }
}

impl InTree<'_> {
    /// Adds keys of the stretch, about `step` entries apart: one at least, if it has any.
    fn samples(&self, store: &PartitionedStorageBackend, step: f64, out: &mut Vec<Sample>) -> Result<()> {
        let shown = self.amount.shown;
        let count = (shown / step).round().max(1.0);
        let (apart, mut key) = (shown / count, Vec::new());
        let mut add = |at: f64, between: f64| -> Result<()> {
            let rank = self.first.saturating_add(at.min(shown - 1.0) as u64);
            if self.tree.key_near(store, rank, (apart / 8.0) as u64, &mut key)? {
                out.push((key.clone(), between));
            }
            Ok(())
        };
        if count < 2.0 {
            return if shown > 0.0 { add(shown / 2.0, shown) } else { Ok(()) };
        }
        (1..=count as u64).try_for_each(|i| add(i as f64 * apart, apart))
    }
}

fn is_empty(range: &KeyRange) -> bool {
    !range.is_before_end(range.start())
}

/// What is left of `range` between what is hidden from the trees.
fn stretches<'h>(range: &'h KeyRange, hidden: &'h Hidden) -> Vec<(&'h [u8], Option<&'h [u8]>)> {
    let (mut found, mut from) = (Vec::new(), range.start());
    while range.is_before_end(from) {
        if let Some(end) = hidden.end(from, TREE) {
            if *end == ABOVE_EVERY_KEY {
                break;
            }
            from = end;
            continue;
        }
        let next = hidden.next(from).filter(|next| range.is_before_end(next));
        match next {
            Some(next) if found.len() + 1 < MOST_STRETCHES => {
                found.push((from, Some(next)));
                from = next;
            }
            _ => {
                found.push((from, range.end()));
                break;
            }
        }
    }
    found
}

/// What a memtable of this age holds in `range`, about.
fn in_memtable(
    table: &Arc<Memtable>,
    age: usize,
    range: &Arc<KeyRange>,
    hidden: &Hidden,
    at: SequenceNumber,
) -> Amount {
    let mut cursor = table.cursor_in(at, Arc::clone(range));
    let (mut seen, mut looked, mut on) = (Amount::default(), 0, cursor.seek(range.start()));
    while on && looked < LOOKED_AT && range.is_before_end(cursor.key()) {
        looked += 1;
        let value = match cursor.found() {
            Found::Put(value) => value.len(),
            // Also where it has expired: it is still stored.
            Found::Expiring(stamped) => stamped.len(),
            // What they come to is not known.
            Found::Operands(_) => 0,
            Found::Deleted => usize::MAX,
        };
        let deletes = value == usize::MAX || hidden.covers(cursor.key(), age);
        seen.entries += if deletes { -1.0 } else { 1.0 };
        seen.bytes += (cursor.key().len() + if deletes { 0 } else { value }) as f64;
        seen.shown += 1.0;
        on = cursor.next();
    }
    if looked < LOOKED_AT {
        return seen;
    }
    let part = table.part_within(range.start(), range.end());
    let shown = (part * table.entries() as f64).max(seen.shown);
    Amount { entries: seen.entries / seen.shown * shown, shown, bytes: part * table.bytes() as f64 }
}
