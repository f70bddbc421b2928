//! The memtable against a model: a sorted map of version lists and a list of range deletions.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::table::BEFORE_ITS_NUMBER;
use super::{Found, Memtable, MemtableCursor, MemtableWriter};
use crate::codec::entry::EntryKind;
use crate::codec::ids::SequenceNumber;
use crate::sync::Arc;

#[derive(Debug, Clone)]
enum Operation {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
}

/// Sequence numbers and values of a key; `None` for a deletion.
type Versions = Vec<(u64, Option<Vec<u8>>)>;

/// Versions oldest first.
#[derive(Default)]
struct Model {
    versions: BTreeMap<Vec<u8>, Versions>,
    deletions: Vec<(Vec<u8>, Vec<u8>, u64)>,
}

impl Model {
    fn version(&self, key: &[u8], at: u64) -> Option<(u64, Option<&[u8]>)> {
        let versions = self.versions.get(key)?;
        let (sequence, value) = versions.iter().rev().find(|version| version.0 <= at)?;
        Some((*sequence, value.as_deref()))
    }

    fn covering(&self, key: &[u8], at: u64) -> Option<u64> {
        let covers = |(start, end, sequence): &&(Vec<u8>, Vec<u8>, u64)| {
            *sequence <= at && &start[..] <= key && key < &end[..]
        };
        self.deletions.iter().filter(covers).map(|deletion| deletion.2).max()
    }

    fn found(&self, key: &[u8], at: u64) -> Option<Found<'_>> {
        let covered = self.covering(key, at);
        match self.version(key, at) {
            Some((sequence, Some(value))) if covered.is_none_or(|covered| covered <= sequence) => {
                Some(Found::Put(value))
            }
            Some(_) => Some(Found::Deleted),
            None => covered.map(|_| Found::Deleted),
        }
    }

    fn visible(&self, at: u64) -> Vec<Seen> {
        let keys = self.versions.keys();
        keys.filter_map(|key| Some(seen(key, self.version(key, at)?.0, self.found(key, at)?))).collect()
    }

    fn deleted_ranges(&self, at: u64) -> Vec<(&[u8], &[u8])> {
        let seen: Vec<_> = self.deletions.iter().filter(|deletion| deletion.2 <= at).collect();
        let mut bounds: Vec<&[u8]> = seen.iter().flat_map(|d| [&d.0[..], &d.1[..]]).collect();
        bounds.sort_unstable();
        bounds.dedup();
        let mut ranges: Vec<(&[u8], &[u8])> = Vec::new();
        for pair in bounds.windows(2) {
            if self.covering(pair[0], at).is_some() {
                match ranges.last_mut() {
                    Some(last) if last.1 == pair[0] => last.1 = pair[1],
                    _ => ranges.push((pair[0], pair[1])),
                }
            }
        }
        ranges
    }
}

/// A key, the sequence number of its version, and its value unless it is deleted.
type Seen = (Vec<u8>, u64, Option<Vec<u8>>);

fn seen(key: &[u8], sequence: u64, found: Found<'_>) -> Seen {
    let value = match found {
        Found::Put(value) => Some(value.to_vec()),
        Found::Deleted => None,
        other => panic!("nobody wrote {other:?}"),
    };
    (key.to_vec(), sequence, value)
}

fn apply(writer: &mut MemtableWriter, model: &mut Model, operation: &Operation, sequence: u64) {
    let at = SequenceNumber(sequence);
    match operation {
        Operation::Put(key, value) => {
            writer.put(key, value, at);
            model.versions.entry(key.clone()).or_default().push((sequence, Some(value.clone())));
        }
        Operation::Delete(key) => {
            writer.delete(key, at);
            model.versions.entry(key.clone()).or_default().push((sequence, None));
        }
        Operation::DeleteRange(start, end) => {
            writer.delete_range(start, end, at);
            model.deletions.push((start.clone(), end.clone(), sequence));
        }
    }
}

/// Keys that collide, nest, share long prefixes, and differ within and beyond their heads.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let small = if cfg!(miri) { 0u32..60 } else { 0..600 };
    prop_oneof![
        2 => proptest::collection::vec(0u8..3, 0..6),
        1 => proptest::collection::vec(prop_oneof![Just(0u8), Just(255)], 0..12),
        4 => small.clone().prop_map(|i| i.to_be_bytes().to_vec()),
        2 => small.clone().prop_map(|i| i.to_le_bytes().to_vec()),
        4 => small.clone().prop_map(|i| format!("a/common/prefix/{i:08}").into_bytes()),
        2 => small.prop_map(|i| [&[7; 300][..], &i.to_be_bytes()].concat()),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        12 => (key(), proptest::collection::vec(any::<u8>(), 0..20)).prop_map(|(k, v)| Operation::Put(k, v)),
        3 => key().prop_map(Operation::Delete),
        1 => (key(), key()).prop_filter_map("an empty range", |(a, b)| match a.cmp(&b) {
            std::cmp::Ordering::Less => Some(Operation::DeleteRange(a, b)),
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some(Operation::DeleteRange(b, a)),
        }),
    ]
}

/// Operations, each with whether it is of a later commit than the one before.
fn history() -> impl Strategy<Value = Vec<(Operation, bool)>> {
    let longest = if cfg!(miri) { 60 } else { 1500 };
    proptest::collection::vec((operation(), any::<bool>()), 1..longest)
}

fn build(history: &[(Operation, bool)]) -> (MemtableWriter, Model, u64) {
    let (mut writer, mut model, mut sequence) = (Memtable::create(4096), Model::default(), 1);
    for (operation, later) in history {
        sequence += u64::from(*later);
        apply(&mut writer, &mut model, operation, sequence);
    }
    (writer, model, sequence)
}

fn place(cursor: &MemtableCursor) -> Option<Seen> {
    cursor.valid().then(|| seen(cursor.key(), cursor.sequence().0, cursor.found()))
}

proptest! {
    #![proptest_config(crate::sampling::config(64))]

    #[test]
    fn keys_that_were_expected_in_groups_end_where_they_belong(
        groups in proptest::collection::vec((key(), any::<bool>(), proptest::collection::vec(key(), 1..8)), 1..80),
    ) {
        let mut writer = Memtable::create(1 << 16);
        let table = Arc::clone(writer.table());
        let mut model = BTreeMap::new();
        for (group, (first, ascends, mut keys)) in groups.into_iter().enumerate() {
            if ascends {
                // So that leaves are split off within a group, and the keys come again.
                keys = (0..6u8).map(|i| [&first[..], &[i / 2]].concat()).collect();
            }
            let expected: Vec<_> = keys.iter().map(|key| writer.expect(&table, key)).collect();
            for (number, (key, expected)) in keys.iter().zip(expected).enumerate() {
                let value = [group as u8, number as u8];
                writer.prepare_expected(EntryKind::Put, expected, &value).insert(SequenceNumber(group as u64));
                model.insert(key.clone(), value.to_vec());
            }
            writer.table().check();
        }
        let held = writer.table().iter_newest().map(|(key, _, found)| match found {
            Found::Put(value) => (key.to_vec(), value.to_vec()),
            other => panic!("{other:?} of {key:?} was written by nobody"),
        });
        prop_assert!(held.eq(model));
    }

    #[test]
    fn reads_of_any_moment_say_what_the_model_says(
        history in history(),
        moments in proptest::collection::vec(any::<proptest::sample::Index>(), 1..4),
        strangers in proptest::collection::vec(key(), 0..20),
    ) {
        let (writer, model, last) = build(&history);
        let table = writer.table();
        table.check();
        prop_assert_eq!(table.entries(), history.len() as u64);
        prop_assert_eq!(table.last_sequence(), SequenceNumber(last));
        prop_assert_eq!(table.is_empty(), false);
        prop_assert_eq!(table.has_range_deletions(), !model.deletions.is_empty());
        for at in moments.iter().map(|index| index.index(last as usize + 1) as u64).chain([u64::MAX]) {
            let moment = SequenceNumber(at);
            for key in model.versions.keys().chain(&strangers) {
                prop_assert_eq!(table.get(key, moment), model.found(key, at));
                prop_assert_eq!(table.covering(key, moment).map(|s| s.0), model.covering(key, at));
            }
            prop_assert_eq!(table.deleted_ranges(moment), model.deleted_ranges(at));

            let visible = model.visible(at);
            let mut cursor = table.cursor(moment);
            let mut up = Vec::new();
            let mut valid = cursor.first();
            while valid {
                up.extend(place(&cursor));
                valid = cursor.next();
            }
            prop_assert_eq!(&up, &visible);
            let mut down = Vec::new();
            let mut valid = cursor.last();
            while valid {
                down.push(place(&cursor).unwrap());
                valid = cursor.prev();
            }
            down.reverse();
            prop_assert_eq!(down, visible);
        }
        let newest = table.iter_newest().map(|(key, sequence, found)| seen(key, sequence.0, found));
        prop_assert_eq!(newest.collect::<Vec<_>>(), model.visible(u64::MAX));
    }

    #[test]
    fn a_cursor_turns_at_any_point_and_does_not_see_what_is_written_meanwhile(
        history in history(),
        moment in any::<proptest::sample::Index>(),
        steps in proptest::collection::vec((0u8..8, key()), 1..80),
        meanwhile in proptest::collection::vec(operation(), 0..80),
    ) {
        let (mut writer, mut model, last) = build(&history);
        let at = moment.index(last as usize + 1) as u64;
        let mut cursor = writer.table().cursor(SequenceNumber(at));
        let mut position: Option<usize> = None;
        let visible = model.visible(at);
        let mut meanwhile = meanwhile.iter();
        for (step, key) in &steps {
            if let Some(operation) = meanwhile.next() {
                apply(&mut writer, &mut model, operation, last + 1);
            }
            let (valid, expected) = match step {
                0 => (cursor.first(), (!visible.is_empty()).then_some(0)),
                1 => (cursor.last(), visible.len().checked_sub(1)),
                2 => {
                    let index = visible.partition_point(|v| &v.0 < key);
                    (cursor.seek(key), (index < visible.len()).then_some(index))
                }
                3 => (cursor.seek_for_prev(key), visible.partition_point(|v| &v.0 <= key).checked_sub(1)),
                4 | 5 => (cursor.next(), position.map(|p| p + 1).filter(|&p| p < visible.len())),
                _ => (cursor.prev(), position.and_then(|p| p.checked_sub(1))),
            };
            position = expected;
            prop_assert_eq!(valid, position.is_some());
            prop_assert_eq!(place(&cursor), position.map(|p| visible[p].clone()));
        }
        writer.table().check();
    }
}

/// Puts `keys` in this order, each with a value of its own, and checks that all are found and stand in order.
fn all_are_found(keys: &[Vec<u8>]) -> std::sync::Arc<Memtable> {
    let mut writer = Memtable::create(1 << 20);
    for (i, key) in keys.iter().enumerate() {
        writer.put(key, &i.to_le_bytes(), SequenceNumber(i as u64 + 1));
    }
    let table = writer.table();
    table.check();
    for (i, key) in keys.iter().enumerate() {
        assert_eq!(table.get(key, SequenceNumber::MAX), Some(Found::Put(&i.to_le_bytes()[..])), "{key:?}");
        assert_eq!(table.get(key, SequenceNumber(i as u64)), None, "{key:?} shows too early");
    }
    let mut sorted: Vec<_> = keys.iter().map(|key| &key[..]).collect();
    sorted.sort_unstable();
    assert!(table.iter_newest().map(|entry| entry.0).eq(sorted));
    std::sync::Arc::clone(table)
}

const MANY: u64 = if cfg!(miri) { 100 } else { 100_000 };

#[test]
fn ascending_keys_are_found_and_fill_their_leaves() {
    let keys: Vec<_> = (0..MANY).map(|i| i.to_be_bytes().to_vec()).collect();
    let table = all_are_found(&keys);
    let per_entry = table.bytes() as u64 / MANY;
    assert!(cfg!(miri) || per_entry < 90, "{per_entry} bytes for an entry of 40");
}

#[test]
fn descending_keys_are_found() {
    let keys: Vec<_> = (0..MANY).rev().map(|i| i.to_be_bytes().to_vec()).collect();
    all_are_found(&keys);
}

#[test]
fn little_endian_integers_are_found() {
    let keys: Vec<_> = (0..MANY).map(|i| i.to_le_bytes().to_vec()).collect();
    all_are_found(&keys);
}

#[test]
fn many_ascending_streams_are_found_and_fill_their_leaves() {
    let streams = if cfg!(miri) { 7 } else { 97 };
    let keys: Vec<_> =
        (0..MANY).map(|i| format!("stream{:03}/{:012}", i % streams, i).into_bytes()).collect();
    let table = all_are_found(&keys);
    let per_entry = table.bytes() as u64 / MANY;
    assert!(cfg!(miri) || per_entry < 110, "{per_entry} bytes for an entry of 56");
}

#[test]
fn keys_that_descend_onto_a_leaf_that_was_filled_ascending_do_not_split_it_each_time() {
    let half = MANY / 2;
    let ascending = (0..half).map(|i| i.to_be_bytes().to_vec());
    let descending = (half..MANY).rev().map(|i| i.to_be_bytes().to_vec());
    let keys: Vec<_> = ascending.chain(descending).collect();
    let table = all_are_found(&keys);
    let per_entry = table.bytes() as u64 / MANY;
    assert!(cfg!(miri) || per_entry < 120, "{per_entry} bytes for an entry of 40");
}

#[test]
fn keys_that_differ_far_behind_a_common_prefix_are_found() {
    let scattered = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let keys: Vec<_> =
        (0..MANY).map(|i| format!("a/long/common/prefix/{:020}", scattered(i)).into_bytes()).collect();
    all_are_found(&keys);
}

#[test]
fn long_keys_empty_keys_and_large_values_are_held() {
    let mut writer = Memtable::create(1 << 20);
    let (longest, length) = if cfg!(miri) { (500, 5_000) } else { (crate::codec::key::MAX_KEY_LEN, 5 << 20) };
    let large: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
    let long = |last: u8| [&vec![9; longest - 1][..], &[last]].concat();
    writer.put(b"", &large, SequenceNumber(1));
    for last in 0..40 {
        writer.put(&long(last), &[last], SequenceNumber(2));
    }
    writer.put(b"", b"", SequenceNumber(3));
    let table = writer.table();
    table.check();
    assert_eq!(table.get(b"", SequenceNumber(2)), Some(Found::Put(&large)));
    assert_eq!(table.get(b"", SequenceNumber(3)), Some(Found::Put(b"")));
    for last in 0..40 {
        assert_eq!(table.get(&long(last), SequenceNumber(2)), Some(Found::Put(&[last])));
    }
    assert!(table.bytes() >= large.len() + 40 * longest);
}

#[test]
fn an_empty_memtable_says_nothing_and_holds_nothing() {
    let writer = Memtable::create(64 << 20);
    let table = writer.table();
    assert!(table.is_empty() && !table.has_range_deletions());
    assert_eq!((table.bytes(), table.entries(), table.last_sequence()), (0, 0, SequenceNumber(0)));
    assert_eq!(table.get(b"key", SequenceNumber::MAX), None);
    assert_eq!(table.deleted_ranges(SequenceNumber::MAX), vec![]);
    assert_eq!(table.iter_newest().count(), 0);
    let mut cursor = table.cursor(SequenceNumber::MAX);
    assert!(!cursor.first() && !cursor.last() && !cursor.seek(b"") && !cursor.next() && !cursor.prev());
}

#[test]
fn of_two_writes_with_one_sequence_number_the_later_counts() {
    let mut writer = Memtable::create(4096);
    let at = SequenceNumber(5);
    writer.put(b"key", b"first", at);
    writer.put(b"key", b"second", at);
    assert_eq!(writer.table().get(b"key", at), Some(Found::Put(b"second")));
    writer.delete(b"key", at);
    assert_eq!(writer.table().get(b"key", at), Some(Found::Deleted));
    writer.put(b"key", b"third", at);
    writer.delete_range(b"a", b"z", at);
    assert_eq!(writer.table().get(b"key", at), Some(Found::Put(b"third")), "covers lower numbers only");
    assert_eq!(writer.table().get(b"other", at), Some(Found::Deleted));
}

#[test]
fn a_memtable_that_gets_its_number_late_shows_all_of_it_from_there_on_and_nothing_before() {
    let mut writer = Memtable::create(4096);
    writer.put(b"key", b"value", BEFORE_ITS_NUMBER);
    writer.delete(b"gone", BEFORE_ITS_NUMBER);
    writer.delete_range(b"m", b"p", BEFORE_ITS_NUMBER);
    writer.put(b"n", b"stays", BEFORE_ITS_NUMBER);
    let table = writer.number(SequenceNumber(40));
    assert_eq!(table.last_sequence(), SequenceNumber(40));
    for at in [0, 1, 39].map(SequenceNumber) {
        let keys = [&b"key"[..], b"gone", b"n", b"o"];
        assert!(keys.iter().all(|key| table.get(key, at).is_none() && table.covering(key, at).is_none()));
        assert!(!table.cursor(at).first() && table.deleted_ranges(at).is_empty());
    }
    for at in [40, 41, u64::MAX].map(SequenceNumber) {
        assert_eq!(table.get(b"key", at), Some(Found::Put(b"value")));
        assert_eq!(table.get(b"gone", at), Some(Found::Deleted));
        assert_eq!(table.get(b"n", at), Some(Found::Put(b"stays")));
        assert_eq!(table.get(b"o", at), Some(Found::Deleted));
        let mut cursor = table.cursor(at);
        assert!(cursor.last() && cursor.key() == b"n" && cursor.found() == Found::Put(b"stays"));
        assert_eq!(table.deleted_ranges(at), vec![(&b"m"[..], &b"p"[..])]);
    }
}

#[test]
fn overlapping_range_deletions_cost_no_more_than_their_number() {
    let mut writer = Memtable::create(1 << 20);
    let count: u32 = if cfg!(miri) { 40 } else { 20_000 };
    for i in 0..count {
        let (start, end) = (i.wrapping_mul(0x9e37_79b1) >> 1, u32::MAX - i);
        writer.delete_range(&start.to_be_bytes(), &end.to_be_bytes(), SequenceNumber(u64::from(i) + 1));
    }
    let per_deletion = writer.table().bytes() / count as usize;
    assert!(per_deletion < 3000, "{per_deletion} bytes for a range deletion");
    if cfg!(miri) {
        writer.table().check();
    }
}

#[test]
fn the_memtable_stays_for_as_long_as_a_cursor_is_on_it() {
    let mut writer = Memtable::create(4096);
    for i in 0..100u32 {
        writer.put(&i.to_be_bytes(), b"value", SequenceNumber(1));
    }
    let mut cursor = writer.table().cursor(SequenceNumber(1));
    drop(writer);
    let walk = std::thread::spawn(move || {
        let mut count = 0;
        let mut valid = cursor.first();
        while valid {
            count += 1;
            assert_eq!(cursor.found(), Found::Put(b"value"));
            valid = cursor.next();
        }
        count
    });
    assert_eq!(walk.join().unwrap(), 100);
}
