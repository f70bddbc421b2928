//! What was written after a commit: the question that a transaction asks before it commits.
//!
//! Exact: the newest version of every key stands in the memtable with its number, and so does, for every key,
//! the newest range deletion that covers it. Whatever was written after a number shows in one of the two.
//!
//! For memtables that are written no more, or whose writer the caller keeps from writing.

use super::cursor::Walk;
use super::table::{Found, Memtable};
use crate::codec::ids::SequenceNumber;
use crate::codec::key;
use crate::sync::Arc;

impl Memtable {
    /// Whether a commit after `since` put or deleted `key`, or deleted a range that it lies in.
    pub(crate) fn changed_since(&self, key: &[u8], since: SequenceNumber) -> bool {
        self.last_sequence() > since && self.newest(key).is_some_and(|newest| newest > since)
    }

    /// Whether that is so of any key from `start` on, up to and without `end`; `None`: there is no end. Keys
    /// whose value the memtable in `front` settles, up to a number of its own, do not count. Takes a step
    /// for every key and every boundary of a deleted range that the memtable has there, until one is found.
    pub(crate) fn changed_within(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        since: SequenceNumber,
        front: Option<(&Self, SequenceNumber)>,
    ) -> bool {
        let is_beyond = |key: &[u8]| end.is_some_and(|end| key::compare(key, end).is_ge());
        let is_hidden = |key: &[u8]| front.is_some_and(|(front, at)| front.settles(key, at));
        if self.last_sequence() <= since || is_beyond(start) {
            return false;
        }
        let mut walk = Walk::new(self, SequenceNumber::MAX, Arc::default());
        let mut stands = walk.seek(self, start);
        while stands && !is_beyond(walk.entry().key()) {
            let entry = walk.entry();
            if self.came_after(entry.sequence(), since) && !is_hidden(entry.key()) {
                return true;
            }
            stands = walk.next(self);
        }
        let Some(steps) = self.range_deletions_at(SequenceNumber::MAX) else { return false };
        let mut from = start;
        loop {
            let next = steps.next_boundary(from);
            if steps.covering(from).is_some_and(|sequence| self.came_after(sequence, since)) {
                let until = next.filter(|next| !is_beyond(next)).or(end);
                if !front.is_some_and(|(front, at)| front.says_all(from, until, at)) {
                    return true;
                }
            }
            match next {
                Some(next) if !is_beyond(next) => from = next,
                _ => return false,
            }
        }
    }

    /// Whether this one says what `key` has at `at`, whatever stands behind it: not so of operands alone.
    fn settles(&self, key: &[u8], at: SequenceNumber) -> bool {
        match self.get(key, at) {
            None => false,
            Some(Found::Put(_) | Found::Expiring(_) | Found::Deleted) => true,
            Some(Found::Operands(operands)) => !operands.are_open(),
        }
    }

    /// Whether this one settles every key from `start` on, up to and without `end`, at `at`.
    fn says_all(&self, start: &[u8], end: Option<&[u8]>, at: SequenceNumber) -> bool {
        let Some(end) = end else { return false };
        let mut from = start.to_vec();
        while key::compare(&from, end).is_lt() {
            if let Some(behind) = self.end_of_stretch(&from, at) {
                from = behind.to_vec();
            } else if self.settles(&from, at) {
                from.push(0);
            } else {
                return false;
            }
        }
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memtable::BEFORE_ITS_NUMBER;

    #[derive(Debug, Clone)]
    enum Write {
        Put(u8),
        Delete(u8),
        DeleteRange(u8, u8),
    }

    impl Write {
        fn touches(&self, keys: std::ops::Range<u16>) -> bool {
            match *self {
                Self::Put(key) | Self::Delete(key) => keys.contains(&u16::from(key)),
                Self::DeleteRange(start, end) => {
                    u16::from(start).max(keys.start) < u16::from(end).min(keys.end)
                }
            }
        }
    }

    fn write() -> impl Strategy<Value = Write> {
        let key = 0u8..60;
        prop_oneof![
            4 => key.clone().prop_map(Write::Put),
            2 => key.clone().prop_map(Write::Delete),
            1 => (key.clone(), 1u8..20).prop_map(|(start, len)| Write::DeleteRange(start, start + len)),
        ]
    }

    fn written(writes: &[Write], number: impl Fn(usize) -> SequenceNumber) -> super::super::MemtableWriter {
        let mut writer = Memtable::create(0);
        for (index, write) in writes.iter().enumerate() {
            match *write {
                Write::Put(key) => writer.put(&[key], b"value", number(index)),
                Write::Delete(key) => writer.delete(&[key], number(index)),
                Write::DeleteRange(start, end) => writer.delete_range(&[start], &[end], number(index)),
            }
        }
        writer
    }

    fn number_of(index: usize) -> SequenceNumber {
        SequenceNumber(index as u64 + 1)
    }

    proptest! {
        #![proptest_config(crate::sampling::config(256))]

        #[test]
        fn whatever_was_written_after_a_commit_and_nothing_else_is_a_change(
            writes in prop::collection::vec(write(), 0..60), since in 0usize..70, start in 0u8..80, len in 0u16..30
        ) {
            // Two writes to a commit.
            let writer = written(&writes, |index| SequenceNumber(index as u64 / 2 + 1));
            let (table, since_number) = (writer.table(), SequenceNumber(since as u64 / 2));
            let later = &writes[(since / 2 * 2).min(writes.len())..];
            let keys = u16::from(start)..u16::from(start) + len;
            let touched = later.iter().any(|write| write.touches(keys.clone()));
            let end = u8::try_from(keys.end).unwrap();
            prop_assert_eq!(table.changed_within(&[start], Some(&[end]), since_number, None), touched);
            let touched = later.iter().any(|write| write.touches(u16::from(start)..u16::MAX));
            prop_assert_eq!(table.changed_within(&[start], None, since_number, None), touched);
            let touched = later.iter().any(|write| write.touches(u16::from(start)..u16::from(start) + 1));
            prop_assert_eq!(table.changed_since(&[start], since_number), touched);
        }

        #[test]
        fn a_commit_that_got_its_number_late_is_one_change_with_that_number(
            writes in prop::collection::vec(write(), 1..40), key in 0u8..80
        ) {
            let table = written(&writes, |_| BEFORE_ITS_NUMBER).number(SequenceNumber(9));
            let keys = u16::from(key)..u16::from(key) + 1;
            let touched = writes.iter().any(|write| write.touches(keys.clone()));
            for (since, changed) in [(8, touched), (9, false)] {
                prop_assert_eq!(table.changed_since(&[key], SequenceNumber(since)), changed);
                let within = table.changed_within(&[key], Some(&[key, 0]), SequenceNumber(since), None);
                prop_assert_eq!(within, changed);
            }
        }

        #[test]
        fn what_stands_in_front_hides_changes_of_the_same_keys_and_of_no_others(
            writes in prop::collection::vec(write(), 0..12), own in prop::collection::vec(write(), 0..40),
            seen in 0usize..50, start in 0u8..60, len in 1u8..30
        ) {
            let (table, own_table) = (written(&writes, |_| SequenceNumber(1)), written(&own, number_of));
            let front = Some((&**own_table.table(), SequenceNumber(seen as u64)));
            let (end, seen) = (start + len, &own[..seen.min(own.len())]);
            // A range deletion also reaches keys that are longer than those that are written.
            let touched = (start..end).any(|key| {
                let (one, right_behind) = (u16::from(key)..u16::from(key) + 1, |write: &&Write| {
                    matches!(**write, Write::DeleteRange(start, end) if (start..end).contains(&key))
                });
                let is_changed = |of: &dyn Fn(&Write) -> bool, writes: &[Write]| writes.iter().any(of);
                let touches = |write: &Write| write.touches(one.clone());
                let touches_behind = |write: &Write| right_behind(&write);
                is_changed(&touches, &writes) && !is_changed(&touches, seen)
                    || is_changed(&touches_behind, &writes) && !is_changed(&touches_behind, seen)
            });
            let found = table.table().changed_within(&[start], Some(&[end]), SequenceNumber(0), front);
            prop_assert_eq!(found, touched);
        }
    }
}
