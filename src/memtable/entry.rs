//! One version of one key, as it lies in the arena.
//!
//! ```text
//! older 8 | sequence 8 | key length and kind 4 | value length 4 | key | value
//! ```
//!
//! An entry is written once, before anything points to it, and never changed. Until it has its number it is a draft. Versions of one key form a chain, newest
//! first. Each has its own copy of the key: sharing it would cost every comparison a branch and most entries as many
//! bytes as it saves.

use std::marker::PhantomData;
use std::ptr::NonNull;

use super::arena::{Arena, Bump};
use crate::codec::entry::EntryKind;
use crate::codec::ids::SequenceNumber;
use crate::codec::key::MAX_KEY_LEN;
use crate::codec::prefetch;

/// The fixed part of an entry.
#[repr(C)]
pub(super) struct EntryHeader {
    older: Option<NonNull<EntryHeader>>,
    sequence: u64,
    /// Key length in bits 8 and up, kind in bits 0..8.
    key_len_and_kind: u32,
    value_len: u32,
}

/// An entry of an arena that lives for `'a`.
#[derive(Clone, Copy)]
pub(super) struct EntryRef<'a> {
    start: NonNull<EntryHeader>,
    life: PhantomData<&'a EntryHeader>,
}

/// An entry that has no number yet, which nobody else knows.
pub(super) struct Draft<'a>(EntryRef<'a>);

impl<'a> Draft<'a> {
    /// Writes a new entry but for its number.
    #[inline]
    pub(super) fn write(
        arena: &'a Arena,
        bump: &mut Bump,
        older: Option<EntryRef<'a>>,
        kind: EntryKind,
        key: &[u8],
        value: &[u8],
    ) -> Self {
        // The bound of a range may be the longest key and a zero byte: the key right behind it.
        let most = MAX_KEY_LEN + usize::from(kind == EntryKind::RangeDelete);
        assert!(key.len() <= most, "a key of {} bytes, of {most} at most", key.len());
        let value_len = u32::try_from(value.len()).expect("a value is no longer than 4 GiB - 1 byte");
        let size = size_of::<EntryHeader>() + key.len() + value.len();
        let start = bump.allocate(arena, size, align_of::<EntryHeader>()).cast::<EntryHeader>();
        // SAFETY: the allocation is aligned for the header and has room for it, the key and the value in this order. It is
        // new, so it overlaps neither.
        unsafe {
            start.write(EntryHeader {
                older: older.map(|entry| entry.start),
                sequence: 0,
                key_len_and_kind: (key.len() as u32) << 8 | u32::from(kind as u8),
                value_len,
            });
            let bytes = start.add(1).cast::<u8>();
            bytes.copy_from_nonoverlapping(NonNull::from(key).cast(), key.len());
            bytes.add(key.len()).copy_from_nonoverlapping(NonNull::from(value).cast(), value.len());
        }
        Self(EntryRef { start, life: PhantomData })
    }

    /// The entry, with its number.
    #[inline]
    pub(super) fn number(self, sequence: SequenceNumber) -> EntryRef<'a> {
        // SAFETY: `write` initialised the header and gave its place to this draft alone, which ends here: nobody else
        // reads it yet.
        unsafe { (&raw mut (*self.0.start.as_ptr()).sequence).write(sequence.0) };
        self.0
    }
}

impl<'a> EntryRef<'a> {
    /// Writes a new entry.
    #[inline]
    pub(super) fn write(
        arena: &'a Arena,
        bump: &mut Bump,
        older: Option<EntryRef<'a>>,
        sequence: SequenceNumber,
        kind: EntryKind,
        key: &[u8],
        value: &[u8],
    ) -> Self {
        Draft::write(arena, bump, older, kind, key, value).number(sequence)
    }

    /// The entry at `start`.
    ///
    /// # Safety
    ///
    /// `start` was got from [`EntryRef::as_ptr`] of an entry whose arena lives for `'a`, and the entry was published to
    /// this thread.
    #[inline]
    pub(super) unsafe fn from_ptr(start: NonNull<EntryHeader>) -> Self {
        Self { start, life: PhantomData }
    }

    #[inline]
    pub(super) fn as_ptr(self) -> NonNull<EntryHeader> {
        self.start
    }

    #[inline]
    fn header(self) -> &'a EntryHeader {
        // SAFETY: an `EntryRef` points to a header that `write` made and that never changes, in an arena that lives
        // for 'a.
        unsafe { self.start.as_ref() }
    }

    #[inline]
    fn key_len(self) -> usize {
        (self.header().key_len_and_kind >> 8) as usize
    }

    #[inline]
    pub(super) fn key(self) -> &'a [u8] {
        // SAFETY: `write` put that many bytes of key behind the header; `start` covers the whole entry.
        unsafe { std::slice::from_raw_parts(self.start.add(1).cast::<u8>().as_ptr(), self.key_len()) }
    }

    #[inline]
    pub(super) fn value(self) -> &'a [u8] {
        // SAFETY: `write` put that many bytes of value behind the key.
        unsafe {
            let start = self.start.add(1).cast::<u8>().add(self.key_len());
            std::slice::from_raw_parts(start.as_ptr(), self.header().value_len as usize)
        }
    }

    #[inline]
    pub(super) fn sequence(self) -> SequenceNumber {
        SequenceNumber(self.header().sequence)
    }

    #[inline]
    pub(super) fn kind(self) -> EntryKind {
        let number = self.header().key_len_and_kind as u8;
        EntryKind::from_u8(number).unwrap_or_else(|| panic!("an entry of kind {number}"))
    }

    /// The version before this one.
    #[inline]
    pub(super) fn older(self) -> Option<EntryRef<'a>> {
        // SAFETY: `older` came from an entry of the same arena that was written before this one.
        self.header().older.map(|start| unsafe { Self::from_ptr(start) })
    }

    /// The newest version at or below `at`, of this one and those before it.
    #[inline]
    pub(super) fn visible(self, at: SequenceNumber) -> Option<EntryRef<'a>> {
        let mut entry = self;
        while entry.sequence() > at {
            entry = entry.older()?;
        }
        Some(entry)
    }

    /// Asks for the header and the start of the key ahead of their use.
    #[inline]
    pub(super) fn prefetch(self) {
        prefetch::line(self.start.as_ptr());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_entry_holds_what_was_written_and_its_chain_is_walked_to_the_moment() {
        let (arena, mut bump) = (Arena::new(0), Bump::new());
        let mut chain = None;
        for sequence in [3u64, 5, 5, 9] {
            let value = vec![sequence as u8; sequence as usize];
            let older = chain;
            chain = Some(EntryRef::write(
                &arena,
                &mut bump,
                older,
                SequenceNumber(sequence),
                EntryKind::Put,
                b"key",
                &value,
            ));
        }
        let newest = chain.unwrap();
        assert_eq!(
            (newest.key(), newest.value(), newest.kind()),
            (&b"key"[..], &[9u8; 9][..], EntryKind::Put)
        );
        let seen = |at| newest.visible(SequenceNumber(at)).map(|entry| entry.sequence().0);
        assert_eq!(
            [seen(2), seen(3), seen(8), seen(9), seen(u64::MAX)],
            [None, Some(3), Some(5), Some(9), Some(9)]
        );
    }

    #[test]
    fn empty_and_longest_keys_and_empty_values_are_held() {
        let (arena, mut bump) = (Arena::new(0), Bump::new());
        for (key, value) in [(vec![], vec![]), (vec![7; MAX_KEY_LEN], vec![]), (vec![], vec![8; 100_000])] {
            let entry =
                EntryRef::write(&arena, &mut bump, None, SequenceNumber(1), EntryKind::Delete, &key, &value);
            assert!(entry.key() == key && entry.value() == value && entry.kind() == EntryKind::Delete);
        }
    }
}
