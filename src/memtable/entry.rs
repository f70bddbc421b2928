//! One version of one key, as it lies in the arena.
//!
//! ```text
//! (milestone 24) | older 8 | sequence 8 | key length, position and kind 4 | value length 4 | key | value
//! ```
//!
//! An entry is written once, before anything points to it, and never changed. Until it has its number it is a
//! draft. Versions of one key form a chain, newest first. Each has its own copy of the key: sharing it would
//! cost every comparison a branch and most entries as many bytes as it saves.
//!
//! # Versions far back
//!
//! Every [`STRIDE`]th version of a key is a *milestone*, and says where the one before it is and one further
//! back, so that the version of any moment is found in a logarithmic number of steps: from milestone to
//! milestone while the next one is still too new, and one by one between two of them. The *position* of a
//! version is its distance from the milestone behind it. A key with fewer versions has none: they take no
//! memory for it, and no reader looks for one as long as the newest version is what it may see.
//!
//! What a milestone points to was written before it, and it is published with its entry. So who reached the
//! entry reaches, without any further ordering, all versions behind it, by whichever way.
//!
//! The rejected alternative, two more words in every version but the first, costs workloads that overwrite a
//! quarter more memory for what only readers of old moments need.
//!
//! Source: E. W. Myers, "An applicative random-access stack", IPL 17, 1983.

use std::marker::PhantomData;
use std::ptr::NonNull;

use super::arena::{Arena, Bump};
use super::touched;
use crate::codec::entry::EntryKind;
use crate::codec::ids::SequenceNumber;
use crate::codec::key::MAX_KEY_LEN;
use crate::codec::prefetch;

/// Versions from one milestone to the next.
const STRIDE: u32 = if cfg!(loom) { 2 } else { 8 };

/// The fixed part of an entry.
#[repr(C)]
pub(super) struct EntryHeader {
    older: Option<NonNull<EntryHeader>>,
    sequence: u64,
    /// Key length in bits 8 and up, position in bits 4..8, kind in bits 0..4.
    key_len_and_kind: u32,
    value_len: u32,
}

/// What stands before the header of every version at position 0 but a key's first.
#[repr(C)]
#[derive(Clone, Copy)]
struct Milestone {
    /// Milestones behind this one.
    depth: u64,
    previous: Option<NonNull<EntryHeader>>,
    /// One further back, or the previous one.
    jump: Option<NonNull<EntryHeader>>,
}

impl Milestone {
    /// Of the version that comes after `older`.
    #[cold]
    fn after(older: EntryRef<'_>) -> Self {
        let mut behind = Some(older);
        while let Some(version) = behind
            && !version.is_milestone()
        {
            behind = version.older();
        }
        let Some((previous, at_previous)) = behind.and_then(|entry| Some((entry, entry.milestone()?))) else {
            return Self { depth: 0, previous: None, jump: None };
        };
        // Further where two jumps behind are equally long.
        let jump = || {
            let first = previous.follow(at_previous.jump)?.milestone()?;
            let second = previous.follow(first.jump)?;
            let lengths = [at_previous.depth - first.depth, first.depth - second.milestone()?.depth];
            (lengths[0] == lengths[1]).then_some(second)
        };
        Self {
            depth: at_previous.depth + 1,
            previous: Some(previous.start),
            jump: Some(jump().unwrap_or(previous).start),
        }
    }
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
        let position = older.map_or(0, |older| (older.position() + 1) % STRIDE);
        let milestone = older.filter(|_| position == 0).map(Milestone::after);
        let before = if milestone.is_some() { size_of::<Milestone>() } else { 0 };
        let size = before + size_of::<EntryHeader>() + key.len() + value.len();
        let place = bump.allocate(arena, size, align_of::<EntryHeader>());
        // SAFETY: the allocation is aligned for the header and has room for the milestone, if there is one,
        // the header, the key and the value in this order. A milestone has the alignment of a header, and a
        // length that keeps it. The allocation is new, so it overlaps neither key nor value.
        let start = unsafe {
            if let Some(milestone) = milestone {
                place.cast::<Milestone>().write(milestone);
            }
            let start = place.add(before).cast::<EntryHeader>();
            start.write(EntryHeader {
                older: older.map(|entry| entry.start),
                sequence: 0,
                key_len_and_kind: (key.len() as u32) << 8 | position << 4 | u32::from(kind as u8),
                value_len,
            });
            let bytes = start.add(1).cast::<u8>();
            bytes.copy_from_nonoverlapping(NonNull::from(key).cast(), key.len());
            bytes.add(key.len()).copy_from_nonoverlapping(NonNull::from(value).cast(), value.len());
            start
        };
        Self(EntryRef { start, life: PhantomData })
    }

    /// The entry, with its number.
    #[inline]
    pub(super) fn number(self, sequence: SequenceNumber) -> EntryRef<'a> {
        // SAFETY: `write` initialised the header and gave its place to this draft alone, which ends here:
        // nobody else reads it yet.
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
    /// `start` was got from [`EntryRef::as_ptr`] of an entry whose arena lives for `'a`, and the entry was
    /// published to this thread.
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
        // SAFETY: an `EntryRef` points to a header that `write` made and that never changes, in an arena that
        // lives for 'a.
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
        let number = (self.header().key_len_and_kind & 15) as u8;
        EntryKind::from_u8(number).unwrap_or_else(|| panic!("an entry of kind {number}"))
    }

    /// Versions since the last milestone, or the first version.
    #[inline]
    fn position(self) -> u32 {
        self.header().key_len_and_kind >> 4 & 15
    }

    /// A version that this one, or its milestone, points to.
    #[inline]
    fn follow(self, link: Option<NonNull<EntryHeader>>) -> Option<EntryRef<'a>> {
        // SAFETY: links came from entries of the same arena that were written before this one.
        link.map(|start| unsafe { Self::from_ptr(start) })
    }

    /// The version before this one.
    #[inline]
    pub(super) fn older(self) -> Option<EntryRef<'a>> {
        self.follow(self.header().older)
    }

    fn is_milestone(self) -> bool {
        self.position() == 0 && self.header().older.is_some()
    }

    fn milestone(self) -> Option<&'a Milestone> {
        // SAFETY: `write` put one right before the header of just these versions; `start` may reach it, since
        // it was made from a pointer to the whole allocation.
        self.is_milestone().then(|| unsafe { self.start.cast::<Milestone>().sub(1).as_ref() })
    }

    /// The newest version at or below `at`, of this one and those before it.
    #[inline]
    pub(super) fn visible(self, at: SequenceNumber) -> Option<EntryRef<'a>> {
        if self.sequence() <= at { Some(self) } else { self.visible_behind(at) }
    }

    /// The newest version at or below `at` of those before this one, which is above.
    #[inline(never)]
    fn visible_behind(self, at: SequenceNumber) -> Option<EntryRef<'a>> {
        let mut above = self;
        loop {
            touched::count();
            // All between a version that is above and another one that is are above, too.
            let far = above.milestone().and_then(|milestone| {
                let links = [milestone.jump, milestone.previous];
                links.into_iter().filter_map(|link| above.follow(link)).find(|entry| entry.sequence() > at)
            });
            above = match far {
                Some(far) => far,
                None => match above.older()? {
                    older if older.sequence() <= at => return Some(older),
                    older => older,
                },
            };
        }
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

    /// A chain of versions with these numbers.
    fn chain<'a>(arena: &'a Arena, bump: &mut Bump, sequences: impl Iterator<Item = u64>) -> EntryRef<'a> {
        let mut newest = None;
        for sequence in sequences {
            let (older, value) = (newest, sequence.to_le_bytes());
            newest = Some(EntryRef::write(
                arena,
                bump,
                older,
                SequenceNumber(sequence),
                EntryKind::Put,
                b"eight...",
                &value,
            ));
        }
        newest.unwrap()
    }

    #[test]
    fn of_chains_of_any_length_the_version_of_any_moment_is_found() {
        let longest = if cfg!(miri) { 40 } else { 300 };
        for length in 1..longest {
            let (arena, mut bump) = (Arena::new(0), Bump::new());
            // Some numbers come more than once, of these the newest version counts; some not at all.
            let sequences: Vec<u64> = (1..=length).map(|i| i * 2 / 3 * 2).collect();
            let newest = chain(&arena, &mut bump, sequences.iter().copied());
            let mut all = Vec::new();
            let mut version = Some(newest);
            while let Some(entry) = version {
                all.push(entry);
                version = entry.older();
            }
            for at in 0..=length * 2 {
                let expected = all.iter().find(|entry| entry.sequence().0 <= at);
                let found = newest.visible(SequenceNumber(at));
                assert_eq!(
                    found.map(EntryRef::as_ptr),
                    expected.map(|entry| entry.as_ptr()),
                    "{at} of {length}"
                );
            }
        }
    }

    #[test]
    fn a_version_far_back_is_found_in_logarithmic_time() {
        for length in if cfg!(miri) { [30, 100] } else { [10_000, 1_000_000u64] } {
            let (arena, mut bump) = (Arena::new(0), Bump::new());
            let newest = chain(&arena, &mut bump, 1..=length);
            let most = 2 * u64::from(STRIDE) + 2 * u64::from(length.ilog2());
            for at in (0..=length).step_by(length as usize / 30).chain([1, length - 1]) {
                touched::take();
                let found = newest.visible(SequenceNumber(at)).map_or(0, |entry| entry.sequence().0);
                let steps = touched::take();
                assert_eq!(found, at);
                assert!(steps <= most, "{steps} steps to version {at} of {length}, {most} at most");
            }
        }
    }

    #[test]
    fn only_keys_with_many_versions_have_milestones() {
        let used = |versions: u64| {
            let (arena, mut bump) = (Arena::new(0), Bump::new());
            // The first chunks of a stream are short, and their ends count as used.
            bump.allocate(&arena, 32 << 10, 8);
            let before = bump.used();
            chain(&arena, &mut bump, 1..=versions);
            bump.used() - before
        };
        let one = used(1);
        let stride = u64::from(STRIDE);
        assert_eq!(used(stride), one * STRIDE as usize);
        assert_eq!(used(stride * 4), one * STRIDE as usize * 4 + 3 * size_of::<Milestone>());
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
