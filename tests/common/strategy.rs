//! Operations as proptest makes them up.

use std::ops::Bound;

use peristyle::Durability;
use proptest::prelude::*;

use super::operation::{Content, End, Key, Operation, Range, Step, TransactionStep, Write};

fn plain(head: Vec<u8>) -> Key {
    Key { head, stretch: 0, tail: Vec::new() }
}

/// The key of a number, as `Fill` makes it.
pub(crate) fn numbered(number: u32) -> Key {
    plain(number.to_be_bytes().to_vec())
}

pub(crate) fn key() -> impl Strategy<Value = Key> {
    let letters = prop::collection::vec(b'a'..=b'd', 0..4).prop_map(plain);
    let extremes =
        prop::collection::vec(prop::sample::select(vec![0u8, 1, 0xfe, 0xff]), 0..5).prop_map(plain);
    let shared = (0u16..300).prop_map(|n| plain(format!("shared/prefix/of/many/keys/{n:05}").into_bytes()));
    let long =
        (prop::collection::vec(b'a'..=b'd', 0..2), 200u32..5000, prop::collection::vec(b'a'..=b'd', 0..2))
            .prop_map(|(head, stretch, tail)| Key { head, stretch, tail });
    let longest = (65_530u32..=65_536, prop::collection::vec(any::<u8>(), 0..2))
        .prop_map(|(stretch, tail)| Key { head: Vec::new(), stretch, tail });
    prop_oneof![
        2 => Just(plain(Vec::new())),
        20 => letters,
        20 => (0u32..2000).prop_map(numbered),
        10 => shared,
        5 => extremes,
        3 => long,
        1 => longest,
    ]
}

pub(crate) fn content() -> impl Strategy<Value = Content> {
    let len = prop_oneof![
        20 => Just(0u32),
        80 => 1u32..120,
        20 => 1000u32..1050,
        20 => 3000u32..20_000,
        1 => (1u32 << 20)..((1 << 20) + 2),
    ];
    (len, any::<u8>()).prop_map(|(len, seed)| Content { len, seed })
}

fn bound() -> impl Strategy<Value = Bound<Key>> {
    prop_oneof![
        1 => Just(Bound::Unbounded),
        3 => key().prop_map(Bound::Included),
        3 => key().prop_map(Bound::Excluded),
    ]
}

fn range() -> impl Strategy<Value = Range> {
    let near = (0u32..2000, 0u32..200)
        .prop_map(|(start, len)| (Bound::Included(numbered(start)), Bound::Excluded(numbered(start + len))));
    prop_oneof![(bound(), bound()), near]
}

fn cursor_range() -> impl Strategy<Value = Range> {
    prop_oneof![Just((Bound::Unbounded, Bound::Unbounded)), range()]
}

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![
        6 => Just(Durability::Buffered),
        1 => Just(Durability::Sync),
        1 => Just(Durability::None),
    ]
}

fn family() -> impl Strategy<Value = u8> {
    0u8..5
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        4 => (family(), key(), content()).prop_map(|(family, key, content)| Write::Put(family, key, content)),
        3 => (family(), key(), content()).prop_map(|(family, key, content)| Write::Merge(family, key, content)),
        2 => (family(), key()).prop_map(|(family, key)| Write::Delete(family, key)),
        1 => (family(), range()).prop_map(|(family, range)| Write::DeleteRange(family, range)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Next),
        6 => Just(Step::Prev),
        1 => Just(Step::First),
        1 => Just(Step::Last),
        2 => key().prop_map(Step::Seek),
        2 => key().prop_map(Step::SeekForPrev),
        2 => (1..100u8).prop_map(Step::Scan),
        2 => (1..100u8).prop_map(Step::ScanBack),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 0..12)
}

fn transaction_step() -> impl Strategy<Value = TransactionStep> {
    prop_oneof![
        8 => write().prop_map(TransactionStep::Write),
        3 => (family(), key()).prop_map(|(family, key)| TransactionStep::Get(family, key)),
        2 => (family(), key(), any::<bool>())
            .prop_map(|(family, key, shared)| TransactionStep::GetForUpdate(family, key, shared)),
        2 => (family(), range(), prop::collection::vec(any::<bool>(), 0..12))
            .prop_map(|(family, range, turns)| TransactionStep::Walk(family, range, turns)),
        1 => (family(), key()).prop_map(|(family, key)| TransactionStep::Prefix(family, key)),
        4 => (family(), prop::option::weighted(0.3, cursor_range()), steps())
            .prop_map(|(family, anew, steps)| TransactionStep::Cursor(family, anew, steps)),
        2 => Just(TransactionStep::Savepoint),
        1 => (0u8..4).prop_map(TransactionStep::RollBackTo),
        1 => (0u8..4).prop_map(TransactionStep::Release),
    ]
}

pub(crate) fn end() -> impl Strategy<Value = End> {
    prop::sample::select(vec![End::Close, End::Drop, End::Kill])
}

pub(crate) fn operation() -> impl Strategy<Value = Operation> {
    let transaction_steps = prop::collection::vec(transaction_step().boxed(), 0..30);
    let transaction = (0u8..12, transaction_steps, durability(), prop::bool::weighted(0.8)).prop_map(
        |(level, steps, durability, commits)| Operation::Transaction(level, steps, durability, commits),
    );
    let writes = prop_oneof![
        8 => transaction,
        4 => (0u8..4, durability()).prop_map(|(number, durability)| Operation::Count(number, durability)),
        12 => (family(), key(), content(), durability()).prop_map(|(f, k, c, d)| Operation::Put(f, k, c, d)),
        8 => (family(), key(), content(), durability()).prop_map(|(f, k, c, d)| Operation::Merge(f, k, c, d)),
        6 => (family(), key(), durability()).prop_map(|(f, k, d)| Operation::Delete(f, k, d)),
        4 => (family(), range(), durability()).prop_map(|(f, r, d)| Operation::DeleteRange(f, r, d)),
        1 => (family(), key(), durability()).prop_map(|(f, k, d)| Operation::DeletePrefix(f, k, d)),
        3 => (family(), key(), prop::bool::weighted(0.7), durability())
            .prop_map(|(f, k, set, d)| Operation::Update(f, k, set, d)),
        3 => (family(), key(), prop::option::weighted(0.3, content()), prop::option::weighted(0.7, content()), durability())
            .prop_map(|(f, k, expected, new, d)| Operation::Swap(f, k, expected, new, d)),
        6 => (prop::collection::vec(write(), 0..12), durability()).prop_map(|(w, d)| Operation::Batch(w, d)),
        6 => (family(), 0u32..2000, 0u16..300, 1u8..8, 0u32..100, any::<u8>()).prop_map(
            |(family, start, count, step, len, seed)| Operation::Fill {
                family, start, count, step, content: Content { len, seed }
            }),
        3 => (family(), 0u32..2000, 0u16..100, 1u8..8)
            .prop_map(|(family, start, count, step)| Operation::Erode { family, start, count, step }),
        2 => (family(), 0u32..2000, 0u16..300, 1u8..8, 0u8..8).prop_map(
            |(family, start, count, step, width)| Operation::DeleteRanges {
                family, start, count, step, width
            }),
    ];
    let reads = prop_oneof![
        4 => (family(), key()).prop_map(|(f, k)| Operation::Get(f, k)),
        2 => (family(), prop::collection::vec(key(), 0..6)).prop_map(|(f, k)| Operation::MultiGet(f, k)),
        2 => family().prop_map(Operation::Measure),
        4 => (family(), range(), prop::collection::vec(any::<bool>(), 0..20))
            .prop_map(|(f, r, turns)| Operation::Walk(f, r, turns)),
        1 => (family(), key()).prop_map(|(f, k)| Operation::Prefix(f, k)),
        6 => (0u8..3, family(), prop::option::weighted(0.3, cursor_range()), steps())
            .prop_map(|(slot, family, anew, steps)| Operation::Cursor { slot, family, anew, steps }),
        2 => Just(Operation::Snapshot),
        3 => (0u8..4).prop_map(Operation::Compare),
        1 => (0u8..4).prop_map(Operation::Release),
    ];
    let families = prop_oneof![
        3 => (0u8..6, 50u8..=100).prop_map(|(name, fill)| Operation::Create { name, fill }),
        1 => (family(), 0u8..6).prop_map(|(family, name)| Operation::Rename { family, name }),
        1 => family().prop_map(Operation::DropFamily),
        1 => (family(), 50u8..=100, 1u16..=1000)
            .prop_map(|(family, fill, share)| Operation::SetOptions { family, fill, share }),
    ];
    let keeping = prop_oneof![
        1 => Just(Operation::Sync),
        1 => Just(Operation::Told),
        2 => Just(Operation::Flush),
        2 => family().prop_map(Operation::FlushFamily),
        2 => Just(Operation::Checkpoint),
        1 => Just(Operation::Compact),
        1 => family().prop_map(Operation::CompactFamily),
        1 => Just(Operation::Verify),
        1 => Just(Operation::Copy),
        4 => end().prop_map(Operation::Reopen),
    ];
    // Boxed, so that the union of all does not take much of a stack.
    prop_oneof![20 => writes.boxed(), 14 => reads.boxed(), 2 => families.boxed(), 5 => keeping.boxed()]
}
