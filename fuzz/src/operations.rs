//! Operations on a database, made of bytes. The mix is that of the property tests: mostly writes and reads,
//! few changes of families.

use std::ops::Bound;

use peristyle::Durability;

use crate::common::operation::{Content, End, Key, Operation, Range, Step, TransactionStep, Write};
use crate::input::Input;

/// The most operations of one input.
const MAX_OPERATIONS: usize = 64;

/// What can be done, and of 64 operations how many do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Put,
    Merge,
    Delete,
    DeleteRange,
    DeletePrefix,
    Update,
    Swap,
    Batch,
    Transaction,
    Fill,
    Erode,
    Get,
    MultiGet,
    Measure,
    Walk,
    Prefix,
    Cursor,
    Snapshot,
    Compare,
    Release,
    Create,
    Rename,
    DropFamily,
    SetOptions,
    Sync,
    Told,
    Flush,
    FlushFamily,
    Checkpoint,
    Compact,
    CompactFamily,
    Verify,
    Copy,
    Reopen,
}

pub const SHARES: [(Kind, u8); 34] = [
    (Kind::Put, 5),
    (Kind::Merge, 2),
    (Kind::Delete, 3),
    (Kind::DeleteRange, 3),
    (Kind::DeletePrefix, 1),
    (Kind::Update, 1),
    (Kind::Swap, 1),
    (Kind::Batch, 4),
    (Kind::Transaction, 3),
    (Kind::Fill, 3),
    (Kind::Erode, 2),
    (Kind::Get, 2),
    (Kind::MultiGet, 1),
    (Kind::Measure, 1),
    (Kind::Walk, 3),
    (Kind::Prefix, 1),
    (Kind::Cursor, 4),
    (Kind::Snapshot, 2),
    (Kind::Compare, 2),
    (Kind::Release, 1),
    (Kind::Create, 2),
    (Kind::Rename, 1),
    (Kind::DropFamily, 1),
    (Kind::SetOptions, 1),
    (Kind::Sync, 1),
    (Kind::Told, 1),
    (Kind::Flush, 2),
    (Kind::FlushFamily, 1),
    (Kind::Checkpoint, 2),
    (Kind::Compact, 1),
    (Kind::CompactFamily, 1),
    (Kind::Verify, 1),
    (Kind::Copy, 1),
    (Kind::Reopen, 3),
];

impl Kind {
    fn of(byte: u8) -> Self {
        let mut left = byte % 64;
        for (kind, share) in SHARES {
            match left.checked_sub(share) {
                None => return kind,
                Some(rest) => left = rest,
            }
        }
        unreachable!("the shares sum up to 64")
    }

    /// A byte that stands for this kind.
    pub fn byte(self) -> u8 {
        SHARES.iter().take_while(|(kind, _)| *kind != self).map(|(_, share)| share).sum()
    }
}

/// The operations that the bytes stand for.
pub(crate) fn operations(input: &mut Input<'_>) -> Vec<Operation> {
    let mut operations = Vec::new();
    while !input.is_empty() && operations.len() < MAX_OPERATIONS {
        operations.push(operation(input));
    }
    operations
}

fn operation(input: &mut Input<'_>) -> Operation {
    let kind = Kind::of(input.u8());
    match kind {
        Kind::Put => Operation::Put(family(input), key(input), content(input), durability(input)),
        Kind::Merge => Operation::Merge(family(input), key(input), content(input), durability(input)),
        Kind::Delete => Operation::Delete(family(input), key(input), durability(input)),
        Kind::DeleteRange => Operation::DeleteRange(family(input), range(input), durability(input)),
        Kind::DeletePrefix => Operation::DeletePrefix(family(input), key(input), durability(input)),
        Kind::Update => Operation::Update(family(input), key(input), input.below(3) > 0, durability(input)),
        Kind::Swap => {
            let (family, key) = (family(input), key(input));
            let expected = (input.below(3) == 0).then(|| content(input));
            let new = (input.below(3) > 0).then(|| content(input));
            Operation::Swap(family, key, expected, new, durability(input))
        }
        Kind::Batch => {
            let durability = durability(input);
            Operation::Batch(list(input, 12, write), durability)
        }
        Kind::Transaction => {
            let (level, durability, commits) = (input.u8(), durability(input), input.below(5) > 0);
            Operation::Transaction(level, list(input, 16, transaction_step), durability, commits)
        }
        Kind::Fill => Operation::Fill {
            family: family(input),
            start: number(input),
            count: input.below(300) as u16,
            step: 1 + input.below(7) as u8,
            content: Content { len: input.below(100) as u32, seed: input.u8() },
        },
        Kind::Erode => Operation::Erode {
            family: family(input),
            start: number(input),
            count: input.below(100) as u16,
            step: 1 + input.below(7) as u8,
        },
        Kind::Get => Operation::Get(family(input), key(input)),
        Kind::MultiGet => Operation::MultiGet(family(input), list(input, 6, key)),
        Kind::Measure => Operation::Measure(family(input)),
        Kind::Walk => {
            let (family, range, turns) = (family(input), range(input), input.u16());
            Operation::Walk(family, range, (0..input.below(16)).map(|i| turns >> i & 1 == 1).collect())
        }
        Kind::Prefix => Operation::Prefix(family(input), key(input)),
        Kind::Cursor => {
            let (slot, family) = (input.u8(), family(input));
            let anew = match input.below(6) {
                1 => Some((Bound::Unbounded, Bound::Unbounded)),
                2 => Some(range(input)),
                _ => None,
            };
            Operation::Cursor { slot, family, anew, steps: list(input, 12, step) }
        }
        Kind::Snapshot => Operation::Snapshot,
        Kind::Compare => Operation::Compare(input.u8()),
        Kind::Release => Operation::Release(input.u8()),
        Kind::Create => Operation::Create { name: input.below(6) as u8, fill: 50 + input.below(51) as u8 },
        Kind::Rename => Operation::Rename { family: family(input), name: input.below(6) as u8 },
        Kind::DropFamily => Operation::DropFamily(family(input)),
        Kind::SetOptions => Operation::SetOptions {
            family: family(input),
            fill: 50 + input.below(51) as u8,
            share: 1 + input.below(1000) as u16,
        },
        Kind::Sync => Operation::Sync,
        Kind::Told => Operation::Told,
        Kind::Flush => Operation::Flush,
        Kind::FlushFamily => Operation::FlushFamily(family(input)),
        Kind::Checkpoint => Operation::Checkpoint,
        Kind::Compact => Operation::Compact,
        Kind::CompactFamily => Operation::CompactFamily(family(input)),
        Kind::Verify => Operation::Verify,
        Kind::Copy => Operation::Copy,
        Kind::Reopen => Operation::Reopen([End::Close, End::Drop, End::Kill][input.below(3)]),
    }
}

fn list<T>(input: &mut Input<'_>, bound: usize, item: fn(&mut Input<'_>) -> T) -> Vec<T> {
    (0..input.below(bound)).map(|_| item(input)).collect()
}

fn family(input: &mut Input<'_>) -> u8 {
    input.below(5) as u8
}

fn number(input: &mut Input<'_>) -> u32 {
    input.below(2000) as u32
}

fn plain(head: Vec<u8>) -> Key {
    Key { head, stretch: 0, tail: Vec::new() }
}

/// As `Fill` makes it.
fn numbered(number: u32) -> Key {
    plain(number.to_be_bytes().to_vec())
}

fn letters(input: &mut Input<'_>, bound: usize) -> Vec<u8> {
    (0..input.below(bound)).map(|_| b'a' + input.u8() % 4).collect()
}

fn key(input: &mut Input<'_>) -> Key {
    match input.u8() {
        0..=79 => numbered(number(input)),
        80..=149 => plain(letters(input, 4)),
        150..=189 => plain(format!("shared/prefix/of/many/keys/{:05}", input.below(300)).into_bytes()),
        190..=209 => {
            let extremes = [0, 1, 0xfe, 0xff];
            plain((0..input.below(5)).map(|_| extremes[input.below(4)]).collect())
        }
        210..=229 => {
            let len = input.below(24);
            plain(input.take(len).to_vec())
        }
        230..=239 => plain(Vec::new()),
        240..=253 => {
            Key { head: letters(input, 2), stretch: 200 + input.below(4800) as u32, tail: letters(input, 2) }
        }
        254.. => {
            Key { head: Vec::new(), stretch: 65_530 + input.below(7) as u32, tail: input.take(1).to_vec() }
        }
    }
}

fn content(input: &mut Input<'_>) -> Content {
    let len = match input.u8() {
        0..=31 => 0,
        32..=159 => 1 + input.below(119),
        160..=199 => 1000 + input.below(50),
        200..=253 => 3000 + input.below(17_000),
        254.. => (1 << 20) + input.below(2),
    };
    Content { len: len as u32, seed: input.u8() }
}

fn bound(input: &mut Input<'_>) -> Bound<Key> {
    match input.below(7) {
        0..=2 => Bound::Included(key(input)),
        3..=5 => Bound::Excluded(key(input)),
        _ => Bound::Unbounded,
    }
}

fn range(input: &mut Input<'_>) -> Range {
    if input.bool() {
        return (bound(input), bound(input));
    }
    let start = number(input);
    let end = start + input.below(200) as u32;
    (Bound::Included(numbered(start)), Bound::Excluded(numbered(end)))
}

fn durability(input: &mut Input<'_>) -> Durability {
    match input.below(8) {
        0..=5 => Durability::Buffered,
        6 => Durability::Sync,
        _ => Durability::None,
    }
}

fn write(input: &mut Input<'_>) -> Write {
    match input.below(7) {
        0..=2 => Write::Put(family(input), key(input), content(input)),
        3 => Write::Merge(family(input), key(input), content(input)),
        4..=5 => Write::Delete(family(input), key(input)),
        _ => Write::DeleteRange(family(input), range(input)),
    }
}

fn transaction_step(input: &mut Input<'_>) -> TransactionStep {
    match input.below(16) {
        0..=6 => TransactionStep::Write(write(input)),
        7 => TransactionStep::Get(family(input), key(input)),
        8 => TransactionStep::GetForUpdate(family(input), key(input), input.bool()),
        9 => {
            let (family, range, turns) = (family(input), range(input), input.u16());
            TransactionStep::Walk(family, range, (0..input.below(12)).map(|i| turns >> i & 1 == 1).collect())
        }
        10 => TransactionStep::Prefix(family(input), key(input)),
        11..=12 => {
            let (family, anew) = (family(input), input.bool());
            let anew = if anew { Some(range(input)) } else { None };
            TransactionStep::Cursor(family, anew, list(input, 12, step))
        }
        13 => TransactionStep::Savepoint,
        14 => TransactionStep::RollBackTo(input.u8()),
        _ => TransactionStep::Release(input.u8()),
    }
}

fn step(input: &mut Input<'_>) -> Step {
    match input.below(20) {
        0..=5 => Step::Next,
        6..=11 => Step::Prev,
        12 => Step::First,
        13 => Step::Last,
        14..=15 => Step::Seek(key(input)),
        16..=17 => Step::SeekForPrev(key(input)),
        18 => Step::Scan(1 + input.below(99) as u8),
        _ => Step::ScanBack(1 + input.below(99) as u8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_byte_and_every_byte_a_kind() {
        assert_eq!(SHARES.iter().map(|(_, share)| share).sum::<u8>(), 64);
        for (kind, share) in SHARES {
            for byte in kind.byte()..kind.byte() + share {
                assert_eq!(Kind::of(byte), kind);
            }
        }
    }
}
