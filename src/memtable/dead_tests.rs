//! Walks past deleted keys, against a model, and counted.

use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::prelude::*;

use super::{Found, Memtable, MemtableWriter};
use crate::codec::ids::SequenceNumber;

/// Versions of each key, oldest first: number, and whether it has a value.
type Model = BTreeMap<Vec<u8>, Vec<(u64, bool)>>;

#[derive(Debug, Clone)]
struct Stretch {
    start: u16,
    count: u16,
    step: u8,
    puts: bool,
    descending: bool,
    /// All in one commit.
    at_once: bool,
}

fn stretch() -> impl Strategy<Value = Stretch> {
    let count = if cfg!(miri) { 1u16..20 } else { 1u16..400 };
    let start = if cfg!(miri) { 0u16..50 } else { 0u16..1000 };
    (start, count, 1u8..4, prop::bool::weighted(0.35), any::<bool>(), any::<bool>()).prop_map(
        |(start, count, step, puts, descending, at_once)| Stretch {
            start,
            count,
            step,
            puts,
            descending,
            at_once,
        },
    )
}

fn key(n: u16) -> Vec<u8> {
    [b"a/prefix/of/all".as_slice(), &n.to_be_bytes()].concat()
}

fn build(stretches: &[Stretch]) -> (MemtableWriter, Model, u64) {
    let (mut writer, mut model, mut sequence) = (Memtable::create(4096), Model::new(), 0);
    for stretch in stretches {
        sequence += 1;
        for i in 0..stretch.count {
            let i = if stretch.descending { stretch.count - 1 - i } else { i };
            let key = key(stretch.start + i * u16::from(stretch.step));
            sequence += u64::from(!stretch.at_once);
            if stretch.puts {
                writer.put(&key, b"value", SequenceNumber(sequence));
            } else {
                writer.delete(&key, SequenceNumber(sequence));
            }
            model.entry(key).or_default().push((sequence, stretch.puts));
        }
        writer.table().check();
    }
    (writer, model, sequence)
}

fn seen(versions: &[(u64, bool)], at: u64) -> Option<bool> {
    versions.iter().rev().find(|version| version.0 <= at).map(|version| version.1)
}

proptest! {
    #![proptest_config(crate::sampling::config(60))]

    #[test]
    fn a_walk_that_skips_what_is_deleted_meets_all_else(
        stretches in prop::collection::vec(stretch(), 1..12),
        from in 0u16..2200,
        until in prop::option::of(0u16..2200),
        moment in 0.0f64..1.1,
    ) {
        let (writer, model, last) = build(&stretches);
        let at = (moment * last as f64) as u64;
        let (from, until) = (key(from), until.map(key));
        let mut cursor = writer.table().cursor(SequenceNumber(at));
        if cursor.seek(&from) && cursor.found() == Found::Deleted {
            let stood = cursor.key().to_vec();
            let until = until.as_ref().filter(|until| **until > stood);
            let expected = model.range((Bound::Excluded(stood), Bound::Unbounded)).find(|(key, versions)| {
                let seen = seen(versions, at);
                seen == Some(true) || seen == Some(false) && until.is_some_and(|until| *key >= until)
            });
            let stands = cursor.skip_up(until.map(|until| &until[..]));
            prop_assert_eq!(stands.then(|| cursor.key()), expected.map(|(key, _)| &key[..]));
        }
        if cursor.seek_for_prev(&from) && cursor.found() == Found::Deleted {
            let stood = cursor.key().to_vec();
            let until = until.as_ref().filter(|until| **until < stood);
            let expected = model.range(..stood).rev().find(|(key, versions)| {
                let seen = seen(versions, at);
                seen == Some(true) || seen == Some(false) && until.is_some_and(|until| *key <= until)
            });
            let stands = cursor.skip_down(until.map(|until| &until[..]));
            prop_assert_eq!(stands.then(|| cursor.key()), expected.map(|(key, _)| &key[..]));
        }
    }
}

#[test]
fn a_queue_in_a_memtable_is_popped_in_few_steps_however_much_was_popped() {
    let (keys, ahead) = if cfg!(miri) { (200u64, 20) } else { (30_000, 500) };
    let (mut writer, mut sequence) = (Memtable::create(4096), 0);
    let mut most = 0;
    for n in 0..keys + ahead {
        sequence += 1;
        writer.put(&n.to_be_bytes(), b"job", SequenceNumber(sequence));
        let Some(first) = n.checked_sub(ahead) else { continue };
        let mut cursor = writer.table().cursor(SequenceNumber(sequence));
        assert!(cursor.first());
        if first > 0 {
            assert_eq!(cursor.found(), Found::Deleted);
            assert!(cursor.skip_up(None));
        }
        assert_eq!(cursor.key(), first.to_be_bytes());
        most = most.max(cursor.passed());
        // From the other end, as for a stack: what was pushed last is there.
        assert!(cursor.last());
        assert_eq!(cursor.key(), n.to_be_bytes());
        sequence += 1;
        writer.delete(&first.to_be_bytes(), SequenceNumber(sequence));
    }
    writer.table().check();
    assert!(most <= 160, "{most} steps");
    // A reader of before sees all of it.
    let mut cursor = writer.table().cursor(SequenceNumber(ahead));
    assert!(cursor.first());
    assert_eq!((cursor.key(), cursor.found()), (&0u64.to_be_bytes()[..], Found::Put(b"job")));
}
