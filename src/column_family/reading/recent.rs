//! What stands in front of a family's tree, as its cursor walks it.

use std::cmp::Ordering;

use crate::btree::TreeCursor;
use crate::codec::expiry::{self, Expiry, Now};
use crate::codec::ids::SequenceNumber;
use crate::codec::key;
use crate::codec::operands;
use crate::error::Result;
use crate::memtable::{Found, MemtableCursor};

/// A memtable or a delta: what stands in front of the tree.
pub(super) enum Recent {
    /// The second: when entries are judged.
    Memtable(MemtableCursor, Now),
    Delta(Box<TreeCursor>),
}

impl Recent {
    pub(super) fn valid(&self) -> bool {
        match self {
            Self::Memtable(cursor, _) => cursor.valid(),
            Self::Delta(cursor) => cursor.valid(),
        }
    }

    pub(super) fn key(&self) -> &[u8] {
        match self {
            Self::Memtable(cursor, _) => cursor.key(),
            Self::Delta(cursor) => cursor.key(),
        }
    }

    /// Whether the key is deleted, or its value has expired.
    pub(super) fn is_deletion(&self) -> bool {
        match self {
            Self::Memtable(cursor, now) => match cursor.found() {
                Found::Deleted => true,
                Found::Expiring(stamped) => {
                    expiry::split(stamped).is_none_or(|(expiry, _)| now.is_past(expiry))
                }
                Found::Put(_) | Found::Operands(_) => false,
            },
            Self::Delta(cursor) => cursor.is_deletion(),
        }
    }

    /// The first key with a value from the one on that the source stands on, which is before `until`. Only
    /// for memtables; the source stays where it is.
    pub(super) fn next_value(&mut self, until: Option<&[u8]>, forward: bool) -> Option<&[u8]> {
        match (self, forward) {
            (Self::Memtable(cursor, _), true) => cursor.next_value_up(until),
            (Self::Memtable(cursor, _), false) => cursor.next_value_down(until),
            (Self::Delta(_), _) => None,
        }
    }

    /// Whether the source may hold something of commits after `sequence`, that its cursor sees.
    pub(super) fn may_hold_later_than(&self, sequence: SequenceNumber) -> bool {
        match self {
            Self::Memtable(cursor, _) => cursor.last_sequence() > sequence,
            Self::Delta(_) => false,
        }
    }

    /// The value of the key that the source stands on, which is not deleted; `None` if operands stand in its
    /// place.
    #[inline]
    pub(super) fn value(&self) -> Result<Option<&[u8]>> {
        match self {
            Self::Memtable(cursor, _) => match cursor.found() {
                Found::Put(bytes) => Ok(Some(bytes)),
                Found::Expiring(stamped) => Ok(expiry::split(stamped).map(|(_, value)| value)),
                Found::Deleted => unreachable!("the cursor stands on a deletion"),
                Found::Operands(_) => Ok(None),
            },
            Self::Delta(cursor) => match cursor.usual_value() {
                Some(value) => Ok(Some(value)),
                None if cursor.is_operands() => Ok(None),
                None => cursor.value().map(Some),
            },
        }
    }

    /// When what operands come to that stand in place of a value expires, if they say so by themselves.
    pub(super) fn operands_expiry(&self) -> Result<Option<Expiry>> {
        match self {
            Self::Memtable(cursor, _) => match cursor.found() {
                Found::Operands(operands) => Ok(operands.expiry()),
                _ => Ok(None),
            },
            Self::Delta(cursor) => Ok(operands::expiry(cursor.value()?)),
        }
    }

    /// Whether operands stand in place of a value.
    pub(super) fn is_operands(&self) -> bool {
        match self {
            Self::Memtable(cursor, _) => matches!(cursor.found(), Found::Operands(_)),
            Self::Delta(cursor) => cursor.is_operands(),
        }
    }

    pub(super) fn seek(&mut self, key: &[u8]) -> Result<bool> {
        match self {
            Self::Memtable(cursor, _) => Ok(cursor.seek(key)),
            Self::Delta(cursor) => cursor.seek(key),
        }
    }

    pub(super) fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool> {
        match self {
            Self::Memtable(cursor, _) => Ok(cursor.seek_for_prev(key)),
            Self::Delta(cursor) => cursor.seek_for_prev(key),
        }
    }

    pub(super) fn first(&mut self) -> Result<bool> {
        match self {
            Self::Memtable(cursor, _) => Ok(cursor.first()),
            Self::Delta(cursor) => cursor.first(),
        }
    }

    pub(super) fn last(&mut self) -> Result<bool> {
        match self {
            Self::Memtable(cursor, _) => Ok(cursor.last()),
            Self::Delta(cursor) => cursor.last(),
        }
    }

    pub(super) fn next(&mut self) -> Result<bool> {
        match self {
            Self::Memtable(cursor, _) => Ok(cursor.next()),
            Self::Delta(cursor) => cursor.next(),
        }
    }

    pub(super) fn prev(&mut self) -> Result<bool> {
        match self {
            Self::Memtable(cursor, _) => Ok(cursor.prev()),
            Self::Delta(cursor) => cursor.prev(),
        }
    }
}

/// A recent source and where it stands.
pub(super) struct Source {
    pub(super) recent: Recent,
    /// Of the key that the source stands on ([`key::head8`]): where two differ, the keys need no look. At its
    /// end: the highest number on the way up, 0 on the way down.
    pub(super) head: u64,
}

impl Source {
    pub(super) fn new(recent: Recent) -> Self {
        Self { recent, head: u64::MAX }
    }

    /// The source was moved upward.
    fn went_up(&mut self, moved: Result<bool>) -> Result<()> {
        self.head = if moved? { key::head8(self.recent.key()) } else { u64::MAX };
        Ok(())
    }

    /// The source was moved downward.
    fn went_down(&mut self, moved: Result<bool>) -> Result<()> {
        self.head = if moved? { key::head8(self.recent.key()) } else { 0 };
        Ok(())
    }

    pub(super) fn seek(&mut self, key: &[u8]) -> Result<()> {
        let moved = self.recent.seek(key);
        self.went_up(moved)
    }

    pub(super) fn seek_for_prev(&mut self, key: &[u8]) -> Result<()> {
        let moved = self.recent.seek_for_prev(key);
        self.went_down(moved)
    }

    /// To the last entry below `key`.
    pub(super) fn seek_below(&mut self, key: &[u8]) -> Result<()> {
        self.seek_for_prev(key)?;
        if self.stands_on(key::head8(key), key) { self.prev() } else { Ok(()) }
    }

    /// From a deletion on: to the first entry that is none, or to the first key at or behind `until` if that
    /// comes sooner. Where the source cannot find it at once it stays.
    pub(super) fn skip_deletions(&mut self, until: Option<&[u8]>, forward: bool) -> Result<()> {
        match &mut self.recent {
            Recent::Memtable(cursor, _) if forward => {
                let moved = cursor.skip_up(until);
                self.went_up(Ok(moved))
            }
            Recent::Memtable(cursor, _) => {
                let moved = cursor.skip_down(until);
                self.went_down(Ok(moved))
            }
            Recent::Delta(_) => Ok(()),
        }
    }

    /// Keys that the source passed over, since they were written later than what its cursor sees.
    pub(super) fn passed(&self) -> u64 {
        match &self.recent {
            Recent::Memtable(cursor, _) => cursor.passed(),
            Recent::Delta(_) => 0,
        }
    }

    pub(super) fn first(&mut self) -> Result<()> {
        let moved = self.recent.first();
        self.went_up(moved)
    }

    pub(super) fn last(&mut self) -> Result<()> {
        let moved = self.recent.last();
        self.went_down(moved)
    }

    pub(super) fn next(&mut self) -> Result<()> {
        let moved = self.recent.next();
        self.went_up(moved)
    }

    pub(super) fn prev(&mut self) -> Result<()> {
        let moved = self.recent.prev();
        self.went_down(moved)
    }

    /// How the key that the source stands on compares with `other`, whose head is `head`.
    #[inline]
    pub(super) fn compare(&self, head: u64, other: &[u8]) -> Ordering {
        self.head.cmp(&head).then_with(|| key::compare(self.recent.key(), other))
    }

    /// Whether the source stands on `key`, whose head is `head`.
    #[inline]
    pub(super) fn stands_on(&self, head: u64, key: &[u8]) -> bool {
        self.head == head && self.recent.valid() && self.recent.key() == key
    }
}
