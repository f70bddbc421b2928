//! Every interleaving of a reader with inserts, splits and range deletions, in nodes of two.

use loom::thread;

use super::{Found, Memtable, MemtableWriter};
use crate::codec::ids::SequenceNumber;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};

/// A writer that has put `before`, which then puts `meanwhile` in a thread of its own, and a reader that is
/// run at the same time with the keys, of which as many as it is told are published.
fn explore(before: &'static [u8], meanwhile: &'static [u8], read: fn(&Arc<Memtable>, &[u8], SequenceNumber)) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.max_branches = 10_000;
    builder.check(move || {
        let mut writer = Memtable::create(0);
        let keys: Vec<u8> = before.iter().chain(meanwhile).copied().collect();
        for (i, &key) in before.iter().enumerate() {
            put(&mut writer, key, i + 1);
        }
        let table = Arc::clone(writer.table());
        let published = Arc::new(AtomicU64::new(before.len() as u64));
        let thread = {
            let published = Arc::clone(&published);
            thread::spawn(move || {
                for (i, &key) in meanwhile.iter().enumerate() {
                    let sequence = before.len() + i + 1;
                    put(&mut writer, key, sequence);
                    published.store(sequence as u64, Ordering::Release);
                }
            })
        };
        let count = published.load(Ordering::Acquire);
        read(&table, &keys[..count as usize], SequenceNumber(count));
        thread.join().unwrap();
    });
}

fn put(writer: &mut MemtableWriter, key: u8, sequence: usize) {
    writer.put(&[key], &[sequence as u8], SequenceNumber(sequence as u64));
}

fn all_are_found(table: &Arc<Memtable>, keys: &[u8], at: SequenceNumber) {
    for key in keys {
        let newest = keys.iter().rposition(|other| other == key).unwrap() as u8 + 1;
        assert_eq!(table.get(&[*key], at), Some(Found::Put(&[newest])), "key {key} of {keys:?}");
    }
}

fn all_are_walked(table: &Arc<Memtable>, keys: &[u8], at: SequenceNumber) {
    let mut expected = keys.to_vec();
    expected.sort_unstable();
    expected.dedup();
    let mut cursor = table.cursor(at);
    let mut seen = Vec::new();
    let mut valid = cursor.first();
    while valid {
        seen.push(cursor.key()[0]);
        valid = cursor.next();
    }
    assert_eq!(seen, expected, "up");
    seen.clear();
    let mut valid = cursor.last();
    while valid {
        seen.push(cursor.key()[0]);
        valid = cursor.prev();
    }
    seen.reverse();
    assert_eq!(seen, expected, "down");
}

#[test]
fn loom_a_reader_finds_published_keys_while_a_leaf_is_filled_and_overwritten() {
    explore(&[5], &[3, 5], all_are_found);
}

#[test]
fn loom_a_reader_finds_published_keys_while_the_only_leaf_splits() {
    explore(&[5, 3], &[4], all_are_found);
}

#[test]
fn loom_a_reader_finds_published_keys_while_a_leaf_and_its_branch_split() {
    explore(&[1, 5, 3, 7], &[4, 6], all_are_found);
}

#[test]
fn loom_a_reader_finds_published_keys_while_ascending_keys_split_off_leaves_and_branches() {
    explore(&[1, 2, 3, 4], &[5, 6], all_are_found);
}

/// Also asks for what may not be published yet: that is there whole or not at all.
fn all_are_found_and_nothing_torn(table: &Arc<Memtable>, keys: &[u8], at: SequenceNumber) {
    for key in 0..=9 {
        if let Some(found) = table.get(&[key], SequenceNumber::MAX) {
            assert!(matches!(found, Found::Put([1..=9])), "{found:?} for {key}");
        } else {
            assert!(!keys.contains(&key), "key {key} of {keys:?}");
        }
    }
    all_are_found(table, keys, at);
    let mut cursor = table.cursor(SequenceNumber::MAX);
    let mut valid = cursor.first();
    while valid {
        assert!(matches!(cursor.found(), Found::Put([1..=9])), "at {:?}", cursor.key());
        valid = cursor.next();
    }
}

#[test]
fn loom_a_reader_ahead_of_publication_finds_all_of_an_insert_or_nothing() {
    explore(&[5], &[3], all_are_found_and_nothing_torn);
}

#[test]
fn loom_a_reader_ahead_of_publication_finds_all_of_a_split_or_nothing() {
    explore(&[5, 3], &[4], all_are_found_and_nothing_torn);
}

#[test]
fn loom_a_walk_meets_published_keys_while_leaves_and_branches_split() {
    explore(&[1, 5, 3, 7], &[4, 6], all_are_walked);
}

#[test]
fn loom_a_walk_meets_published_keys_while_ascending_keys_split_off_leaves() {
    explore(&[1, 2, 3, 4], &[5], all_are_walked);
}

/// Of every moment until now, the version of that moment.
fn all_versions_are_found(table: &Arc<Memtable>, keys: &[u8], at: SequenceNumber) {
    for moment in 1..=at.0 {
        all_are_found(table, &keys[..moment as usize], SequenceNumber(moment));
    }
}

#[test]
fn loom_a_reader_finds_old_versions_while_milestones_are_added() {
    explore(&[5, 5, 5, 5], &[5, 5], all_versions_are_found);
}

#[test]
fn loom_a_reader_finds_published_range_deletions() {
    loom::model(|| {
        let mut writer = Memtable::create(0);
        put(&mut writer, 5, 1);
        writer.delete_range(&[1], &[4], SequenceNumber(2));
        let table = Arc::clone(writer.table());
        let published = Arc::new(AtomicU64::new(2));
        let thread = {
            let published = Arc::clone(&published);
            thread::spawn(move || {
                writer.delete_range(&[3], &[6], SequenceNumber(3));
                published.store(3, Ordering::Release);
            })
        };
        let at = SequenceNumber(published.load(Ordering::Acquire));
        let covering = |key| table.covering(&[key], at).map(|sequence| sequence.0);
        if at.0 == 3 {
            assert_eq!(
                [covering(2), covering(3), covering(5), covering(6)],
                [Some(2), Some(3), Some(3), None]
            );
            assert_eq!(table.get(&[5], at), Some(Found::Deleted));
        } else {
            assert_eq!([covering(2), covering(3), covering(5), covering(6)], [Some(2), Some(2), None, None]);
            assert_eq!(table.get(&[5], at), Some(Found::Put(&[1])));
        }
        thread.join().unwrap();
    });
}

/// Deletes the keys of `meanwhile` that are there, and puts those that are not, while a reader skips what is
/// deleted: it stands on the first and on the last key that has a value at its moment.
fn explore_deletions(before: &'static [u8], meanwhile: &'static [u8]) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.max_branches = 10_000;
    builder.check(move || {
        let mut writer = Memtable::create(0);
        for (i, &key) in before.iter().enumerate() {
            put(&mut writer, key, i + 1);
        }
        let change = |there: &mut std::collections::BTreeSet<u8>, key: u8| {
            let was_there = there.remove(&key);
            if !was_there {
                there.insert(key);
            }
            !was_there
        };
        let table = Arc::clone(writer.table());
        let published = Arc::new(AtomicU64::new(before.len() as u64));
        let thread = {
            let published = Arc::clone(&published);
            thread::spawn(move || {
                let mut there = before.iter().copied().collect();
                for (i, &key) in meanwhile.iter().enumerate() {
                    let sequence = before.len() + i + 1;
                    if change(&mut there, key) {
                        put(&mut writer, key, sequence);
                    } else {
                        writer.delete(&[key], SequenceNumber(sequence as u64));
                    }
                    published.store(sequence as u64, Ordering::Release);
                }
            })
        };
        let count = published.load(Ordering::Acquire);
        let mut there = before.iter().copied().collect();
        for &key in &meanwhile[..count as usize - before.len()] {
            change(&mut there, key);
        }
        let mut cursor = table.cursor(SequenceNumber(count));
        let stands = cursor.first() && (cursor.found() != Found::Deleted || cursor.skip_up(None));
        assert_eq!(stands.then(|| cursor.key()[0]), there.first().copied(), "up at {count}");
        let stands = cursor.last() && (cursor.found() != Found::Deleted || cursor.skip_down(None));
        assert_eq!(stands.then(|| cursor.key()[0]), there.last().copied(), "down at {count}");
        thread.join().unwrap();
    });
}

#[test]
fn loom_a_walk_that_skips_misses_no_value_while_leaves_die_and_revive() {
    explore_deletions(&[1, 2, 3], &[1, 2, 1]);
}

#[test]
fn loom_a_walk_that_skips_misses_no_value_while_a_dead_leaf_splits() {
    explore_deletions(&[1, 5], &[1, 5, 3]);
}
