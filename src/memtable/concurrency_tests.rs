//! One writer and readers at once: a reader that learns that `n` writes were made finds just those.
//!
//! What write `i` does follows from `i` alone, so that any reader can tell what is to be found at any moment.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Found, Memtable, MemtableWriter};
use crate::codec::ids::SequenceNumber;

/// What the writes are.
struct Script {
    /// Number of keys; they are written in turn.
    keys: u64,
    /// One write in so many deletes the range of one group.
    range_every: u64,
    /// The order of the keys.
    place: fn(u64) -> u64,
}

const GROUPS: u64 = 5;

impl Script {
    fn key(&self, index: u64) -> [u8; 9] {
        let mut key = [0; 9];
        key[0] = (index % GROUPS) as u8;
        key[1..].copy_from_slice(&(self.place)(index).to_be_bytes());
        key
    }

    fn write(&self, writer: &mut MemtableWriter, number: u64) {
        let sequence = SequenceNumber(number);
        if number.is_multiple_of(self.range_every) {
            let group = (number / self.range_every % GROUPS) as u8;
            writer.delete_range(&[group], &[group + 1], sequence);
        } else {
            writer.put(&self.key(number % self.keys), &number.to_le_bytes(), sequence);
        }
    }

    /// Number of the last write to this key among the first `n`.
    fn last_put(&self, index: u64, n: u64) -> Option<u64> {
        let mut number = n.checked_sub((n + self.keys - index) % self.keys)?;
        while number > 0 && number.is_multiple_of(self.range_every) {
            number = number.checked_sub(self.keys)?;
        }
        (number > 0).then_some(number)
    }

    /// Number of the last deletion of this key's group among the first `n` writes.
    fn last_range(&self, index: u64, n: u64) -> Option<u64> {
        let newest = n / self.range_every;
        (0..GROUPS.min(newest))
            .map(|back| newest - back)
            .find(|round| round % GROUPS == index % GROUPS)
            .map(|round| round * self.range_every)
    }

    /// The value of this key after `n` writes; `Some(None)` if it was deleted.
    fn expected(&self, index: u64, n: u64) -> Option<Option<u64>> {
        let (put, range) = (self.last_put(index, n), self.last_range(index, n));
        if range > put { Some(None) } else { put.map(Some) }
    }
}

fn value_of(found: Found<'_>) -> Option<u64> {
    match found {
        Found::Put(value) => Some(u64::from_le_bytes(value.try_into().unwrap())),
        Found::Deleted => None,
        other => panic!("nobody wrote {other:?}"),
    }
}

fn check_gets(script: &Script, table: &Memtable, n: u64, random: &mut u64) {
    for _ in 0..8 {
        *random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let index = (*random >> 33) % script.keys;
        // At the present moment, and at one long ago.
        for moment in [n, (*random >> 7) % (n + 1)] {
            let found = table.get(&script.key(index), SequenceNumber(moment)).map(value_of);
            assert_eq!(found, script.expected(index, moment), "key {index} after {moment} writes");
        }
    }
}

fn check_walk(script: &Script, table: &std::sync::Arc<Memtable>, n: u64, up: bool, pause: impl Fn()) {
    let mut expected: Vec<_> = (0..script.keys)
        .filter_map(|index| Some((script.key(index), script.last_put(index, n)?, script.expected(index, n)?)))
        .collect();
    expected.sort_unstable();
    if !up {
        expected.reverse();
    }
    let mut cursor = table.cursor(SequenceNumber(n));
    let mut valid = if up { cursor.first() } else { cursor.last() };
    for (key, sequence, value) in expected {
        assert!(valid, "a walk after {n} writes ends before {key:?}");
        let found = value_of(cursor.found());
        assert_eq!(
            (cursor.key(), cursor.sequence().0, found),
            (&key[..], sequence, value),
            "after {n} writes"
        );
        pause();
        valid = if up { cursor.next() } else { cursor.prev() };
    }
    assert!(!valid, "a walk after {n} writes goes on to {:?}", cursor.key());
}

fn readers_agree_with_a_writer(script: &Script, writes: u64) {
    let mut writer = Memtable::create(1 << 20);
    let table = std::sync::Arc::clone(writer.table());
    let published = AtomicU64::new(0);
    let walk_pause = || {
        if !cfg!(miri) {
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        let (table, published) = (&table, &published);
        scope.spawn(move || {
            for number in 1..=writes {
                script.write(&mut writer, number);
                published.store(number, Ordering::Release);
            }
        });
        for reader in 0..if cfg!(miri) { 1 } else { 3 } {
            scope.spawn(move || {
                let mut random = reader;
                for round in 0u64.. {
                    let n = published.load(Ordering::Acquire);
                    check_gets(script, table, n, &mut random);
                    // A walk that goes on while much is written.
                    if n > 0 && (round % 16 == reader || cfg!(miri)) {
                        check_walk(script, table, n, round % 2 == 0, walk_pause);
                    }
                    if n == writes {
                        break;
                    }
                }
            });
        }
    });
    table.check();
    check_walk(script, &table, writes, true, || ());
    check_walk(script, &table, writes / 2, false, || ());
}

fn scattered(index: u64) -> u64 {
    index.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

const WRITES: u64 = if cfg!(miri) { 150 } else { 40_000 };
const KEYS: u64 = if cfg!(miri) { 90 } else { 4_000 };

#[test]
fn readers_find_scattered_keys_while_they_are_written() {
    let script = Script { keys: WRITES + 1, range_every: u64::MAX, place: scattered };
    readers_agree_with_a_writer(&script, WRITES.min(10_000));
}

#[test]
fn readers_find_ascending_keys_while_they_are_written() {
    let script = Script { keys: WRITES + 1, range_every: u64::MAX, place: |index| index };
    readers_agree_with_a_writer(&script, WRITES.min(10_000));
}

#[test]
fn readers_find_descending_keys_while_they_are_written() {
    let script = Script { keys: WRITES + 1, range_every: u64::MAX, place: |index| !index };
    readers_agree_with_a_writer(&script, WRITES.min(10_000));
}

#[test]
fn readers_find_the_version_of_their_moment_among_very_many() {
    let script = Script { keys: 7, range_every: 1_000, place: scattered };
    readers_agree_with_a_writer(&script, WRITES);
}

#[test]
fn readers_find_the_version_of_their_moment_while_keys_are_overwritten_and_ranges_deleted() {
    let script = Script { keys: KEYS, range_every: 37, place: scattered };
    readers_agree_with_a_writer(&script, WRITES);
}
