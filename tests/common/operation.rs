//! What can be done to a database.
//!
//! Families, snapshots and cursors are named by small numbers, taken modulo what there is: so every list of
//! operations has a meaning, and stays meaningful when a part of it is left out.

use std::ops::Bound;

use peristyle::Durability;

/// The longest key, in bytes.
pub(crate) const MAX_KEY: usize = 64 << 10;

/// A key, short to print even when it is long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) head: Vec<u8>,
    /// Bytes `s` between head and tail.
    pub(crate) stretch: u32,
    pub(crate) tail: Vec<u8>,
}

impl Key {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let stretch = (self.stretch as usize).min(MAX_KEY);
        let mut bytes = [&self.head[..], &vec![b's'; stretch], &self.tail].concat();
        bytes.truncate(MAX_KEY);
        bytes
    }
}

/// A value, short to print even when it is long. No two places of it hold the same eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) len: u32,
    pub(crate) seed: u8,
}

impl Content {
    pub(crate) fn bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len as usize + 8);
        let mut word = 0u64;
        while bytes.len() < self.len as usize {
            bytes.extend_from_slice(&((word << 8) | u64::from(self.seed)).to_be_bytes());
            word += 1;
        }
        bytes.truncate(self.len as usize);
        bytes
    }
}

pub(crate) type Range = (Bound<Key>, Bound<Key>);

/// A range of keys with its bounds spelled out.
pub(crate) fn bounds((start, end): &Range) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    (start.as_ref().map(Key::bytes), end.as_ref().map(Key::bytes))
}

/// One write of a batch.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    Put(u8, Key, Content),
    /// Nothing where the family has no merge operator.
    Merge(u8, Key, Content),
    Delete(u8, Key),
    DeleteRange(u8, Range),
}

/// A move of a cursor.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Next,
    Prev,
    First,
    Last,
    Seek(Key),
    SeekForPrev(Key),
    /// Until so many entries were shown.
    Scan(u8),
    ScanBack(u8),
}

/// One step of a transaction.
#[derive(Debug, Clone)]
pub(crate) enum TransactionStep {
    Write(Write),
    Get(u8, Key),
    /// Locks a key, shared or not, and reads it.
    GetForUpdate(u8, Key, bool),
    /// Walks a range from both ends: from the back where the list says `true`.
    Walk(u8, Range, Vec<bool>),
    Prefix(u8, Key),
    /// Moves the cursor of the transaction; made anew, on the family, if there is none or if asked for, and
    /// then for a range.
    Cursor(u8, Option<Range>, Vec<Step>),
    Savepoint,
    RollBackTo(u8),
    Release(u8),
}

/// How a database ends before it is opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By `close`.
    Close,
    /// Its last handle is dropped.
    Drop,
    /// What is on disk at some instant is all that is left. What no log holds is flushed before.
    Kill,
}

/// One operation. The first field of most is the family.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Put(u8, Key, Content, Durability),
    /// Appends to a key's value by the family's merge operator; refused where it has none.
    Merge(u8, Key, Content, Durability),
    Delete(u8, Key, Durability),
    DeleteRange(u8, Range, Durability),
    DeletePrefix(u8, Key, Durability),
    /// In one step, gives a key a value that holds what was there before; or removes it, if it was there and
    /// `false`.
    Update(u8, Key, bool, Durability),
    /// Compares a key's value with one, and sets or removes it: expected, new. `None` of the expected is what
    /// is there.
    Swap(u8, Key, Option<Content>, Option<Content>, Durability),
    Batch(Vec<Write>, Durability),
    /// Puts `count` entries, their keys `step` apart from `start` on, in one batch.
    Fill {
        family: u8,
        start: u32,
        count: u16,
        step: u8,
        content: Content,
    },
    /// Deletes `count` keys, `step` apart from `start` on, one by one.
    Erode {
        family: u8,
        start: u32,
        count: u16,
        step: u8,
    },
    /// Deletes `count` ranges of `width` keys each, which begin `step` apart from `start` on, one by one.
    DeleteRanges {
        family: u8,
        start: u32,
        count: u16,
        step: u8,
        width: u8,
    },
    /// Adds one to a count that others add to at the same time, in a family that all know, if there is one.
    Count(u8, Durability),
    /// Level, three more if it locks what it writes, six more if it is prepared before it ends; steps, and
    /// whether it is committed in the end.
    Transaction(u8, Vec<TransactionStep>, Durability, bool),
    Get(u8, Key),
    MultiGet(u8, Vec<Key>),
    /// `len`, `is_empty`, `first` and `last`.
    Measure(u8),
    /// Walks a range from both ends: from the back where the list says `true`, then forward until the ends
    /// meet.
    Walk(u8, Range, Vec<bool>),
    Prefix(u8, Key),
    /// Moves one of three cursors, which is kept for the next time; made anew, on the family, if there is
    /// none or if asked for, and then for a range.
    Cursor {
        slot: u8,
        family: u8,
        anew: Option<Range>,
        steps: Vec<Step>,
    },
    Snapshot,
    /// Compares a snapshot with what was there when it was taken.
    Compare(u8),
    Release(u8),
    Create {
        name: u8,
        fill: u8,
    },
    Rename {
        family: u8,
        name: u8,
    },
    DropFamily(u8),
    /// Gives a family other options.
    SetOptions {
        family: u8,
        fill: u8,
        share: u16,
    },
    /// Waits until a callback tells that all of before is durable.
    Told,
    Sync,
    Flush,
    FlushFamily(u8),
    Checkpoint,
    Compact,
    CompactFamily(u8),
    Verify,
    /// Makes a copy of the database, opens it and compares it with what was there.
    Copy,
    Reopen(End),
}
