//! The memtable and its writer.

use crossbeam_utils::CachePadded;

use super::arena::{Arena, Bump};
use super::entry::{Draft, EntryRef};
use super::filter::{Filter, FilterSpot};
use super::node::NodeRef;
use super::operands::Operands;
use super::ranges::{self, RangeDeletions, Steps};
use super::tree::{NodeMemory, Spot, Tree};
use crate::codec::entry::EntryKind;
use crate::codec::ids::SequenceNumber;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What entries are written with whose commit has no number yet: see [`MemtableWriter::number`].
pub(crate) const BEFORE_ITS_NUMBER: SequenceNumber = SequenceNumber(1);

/// Recent writes of one family: a sorted map from keys to their versions, and range deletions.
pub(crate) struct Memtable {
    points: Tree,
    deletions: RangeDeletions,
    filter: Filter,
    /// Number of the one commit that everything in here belongs to, if it got it after it was inserted; else
    /// 0.
    whole: AtomicU64,
    /// What changes with every write, apart from what every read looks at.
    counters: CachePadded<Counters>,
    /// Bytes of this one that stand in `merged_and_held`.
    counted_as_held: AtomicUsize,
    /// Bytes of memtables that are in a tree and that somebody still holds, of all that followed one another.
    merged_and_held: Arc<AtomicUsize>,
    arena: Arena,
}

struct Counters {
    bytes: AtomicUsize,
    entries: AtomicU64,
    last_sequence: AtomicU64,
}

impl Counters {
    /// Checks that a write with `sequence` may follow what was written.
    #[inline]
    fn admit(&self, sequence: SequenceNumber) {
        let last = self.last_sequence.load(Ordering::Relaxed);
        assert!(last <= sequence.0, "sequence number {sequence} is written after {last}");
    }

    /// Accounts for a write, after which `bytes` of memory are in use.
    #[inline]
    fn count(&self, sequence: SequenceNumber, bytes: usize) {
        self.last_sequence.store(sequence.0, Ordering::Release);
        self.entries.store(self.entries.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }
}

/// What a memtable says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found<'m> {
    /// The key has this value.
    Put(&'m [u8]),
    /// The key has this value until it expires: it is stamped, see `codec/expiry.rs`.
    Expiring(&'m [u8]),
    /// The key is absent, whatever older memtables and the tree say.
    Deleted,
    /// The key has the value that a merge operator makes of these.
    Operands(Operands<'m>),
}

// What is found of a key, which may be nothing, takes no more words for operands.
const _: () = assert!(size_of::<Option<Found<'_>>>() <= 3 * size_of::<u64>());

impl<'m> Found<'m> {
    /// What `entry` says of its key where `covered` is the newest range deletion that covers it.
    #[inline]
    pub(super) fn of(entry: EntryRef<'m>, covered: Option<SequenceNumber>) -> Self {
        match entry.kind() {
            EntryKind::Put if covered.is_none_or(|covered| covered <= entry.sequence()) => {
                Self::Put(entry.value())
            }
            EntryKind::Merge | EntryKind::MergeStamped
                if covered.is_none_or(|covered| covered <= entry.sequence()) =>
            {
                Self::Operands(Operands::new(entry, covered))
            }
            EntryKind::PutExpiring if covered.is_none_or(|covered| covered <= entry.sequence()) => {
                Self::Expiring(entry.value())
            }
            EntryKind::Put
            | EntryKind::PutExpiring
            | EntryKind::Delete
            | EntryKind::Merge
            | EntryKind::MergeStamped => Self::Deleted,
            EntryKind::RangeDelete => panic!("a range deletion stands among the keys"),
        }
    }
}

impl Memtable {
    /// An empty memtable that is expected to reach `capacity_hint` bytes. Takes memory as it fills.
    pub(crate) fn create(capacity_hint: usize) -> MemtableWriter {
        Self::create_in(Arena::new(capacity_hint), Arc::default(), capacity_hint)
    }

    fn create_in(arena: Arena, merged_and_held: Arc<AtomicUsize>, capacity_hint: usize) -> MemtableWriter {
        let table = Self {
            points: Tree::new(),
            deletions: RangeDeletions::new(),
            filter: Filter::new(capacity_hint),
            whole: AtomicU64::new(0),
            counters: CachePadded::new(Counters {
                bytes: AtomicUsize::new(0),
                entries: AtomicU64::new(0),
                last_sequence: AtomicU64::new(0),
            }),
            counted_as_held: AtomicUsize::new(0),
            merged_and_held,
            arena,
        };
        MemtableWriter { table: Arc::new(table), nodes: Bump::new(), entries: Bump::new() }
    }

    /// Whether nothing was written.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.points.is_empty() && self.deletions.is_empty()
    }

    /// Bytes of memory in use: entries, nodes and filter. What is held is at most twice that and a few KiB,
    /// and what was taken over from memtables before.
    pub(crate) fn bytes(&self) -> usize {
        let counters = &self.counters;
        counters.bytes.load(Ordering::Relaxed) + self.filter.bytes(counters.entries.load(Ordering::Relaxed))
    }

    /// Notes that a tree holds what this memtable does, or that its family was dropped: whoever has it now
    /// keeps memory that the present does not need. For a memtable that is written no more; once is enough.
    pub(crate) fn set_merged(&self) {
        let bytes = self.bytes();
        let counted = &self.counted_as_held;
        if counted.compare_exchange(0, bytes, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.merged_and_held.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Bytes of the memtables before this one that are in a tree, and that cursors, iterators and snapshots
    /// still hold.
    pub(crate) fn merged_and_held(&self) -> usize {
        self.merged_and_held.load(Ordering::Relaxed)
    }

    /// Bytes of memory that memtables before this one left for it and those that follow.
    pub(crate) fn spare_bytes(&self) -> usize {
        self.arena.spare_bytes()
    }

    /// Makes memory ready for what is inserted next, an eighth of what is in use at most. For another thread
    /// than the writer's, and for a memtable into which much is inserted at once.
    pub(crate) fn make_ready(&self) {
        self.arena.make_ready(self.counters.bytes.load(Ordering::Relaxed));
    }

    /// Versions and range deletions.
    pub(crate) fn entries(&self) -> u64 {
        self.counters.entries.load(Ordering::Relaxed)
    }

    /// The highest sequence number that was written; 0 if none was.
    pub(crate) fn last_sequence(&self) -> SequenceNumber {
        let whole = self.whole.load(Ordering::Relaxed);
        if whole > 0 {
            return SequenceNumber(whole);
        }
        SequenceNumber(self.counters.last_sequence.load(Ordering::Acquire))
    }

    /// Whether a range was deleted.
    #[inline]
    pub(crate) fn has_range_deletions(&self) -> bool {
        !self.deletions.is_empty()
    }

    /// The number up to which entries are seen at `at`: all or nothing of a commit that got its number late,
    /// which is set before any reader has the memtable.
    #[inline]
    pub(super) fn seen_at(&self, at: SequenceNumber) -> SequenceNumber {
        match self.whole.load(Ordering::Relaxed) {
            0 => at,
            whole if whole <= at.0 => SequenceNumber::MAX,
            _ => SequenceNumber(0),
        }
    }

    /// Whether what was written with `sequence` belongs to a commit after `since`.
    #[inline]
    pub(super) fn came_after(&self, sequence: SequenceNumber, since: SequenceNumber) -> bool {
        match self.whole.load(Ordering::Relaxed) {
            0 => sequence > since,
            whole => whole > since.0,
        }
    }

    /// What the memtable said of `key` at `at`, range deletions applied; `None`: nothing.
    #[inline]
    pub(crate) fn get<'m>(&'m self, key: &[u8], at: SequenceNumber) -> Option<Found<'m>> {
        let entry = if self.filter.may_hold(key) { self.points.find(&self.arena, key) } else { None };
        let entry = entry.and_then(|entry| entry.visible(self.seen_at(at)));
        let covered = self.covering(key, at);
        match entry {
            Some(entry) => Some(Found::of(entry, covered)),
            None => covered.map(|_| Found::Deleted),
        }
    }

    /// The number of the newest commit that says anything of `key`, also of one that no reader sees yet. For
    /// whoever keeps others from writing.
    pub(crate) fn newest(&self, key: &[u8]) -> Option<SequenceNumber> {
        let entry = if self.filter.may_hold(key) { self.points.find(&self.arena, key) } else { None };
        let covered = self.covering(key, SequenceNumber::MAX);
        let newest = entry.map(EntryRef::sequence).max(covered)?;
        match self.whole.load(Ordering::Relaxed) {
            0 => Some(newest),
            whole => Some(SequenceNumber(whole)),
        }
    }

    /// The newest range deletion at or below `at` that covers `key`.
    #[inline]
    pub(crate) fn covering(&self, key: &[u8], at: SequenceNumber) -> Option<SequenceNumber> {
        if self.deletions.is_empty() {
            return None;
        }
        self.range_deletions_at(at)?.covering(key)
    }

    /// Whether a range was deleted at or before `at`.
    pub(crate) fn deletes_ranges(&self, at: SequenceNumber) -> bool {
        self.range_deletions_at(at).is_some()
    }

    /// Where the stretch of keys ends that `key` is in and that range deletions at or below `at` cover: the
    /// first key above that they do not. `None`: they do not cover `key`. As the four below, in a logarithmic
    /// number of steps.
    pub(crate) fn end_of_stretch(&self, key: &[u8], at: SequenceNumber) -> Option<&[u8]> {
        self.range_deletions_at(at)?.end_of_stretch(key)
    }

    /// Where that stretch begins.
    pub(crate) fn start_of_stretch(&self, key: &[u8], at: SequenceNumber) -> Option<&[u8]> {
        self.range_deletions_at(at)?.start_of_stretch(key, false)
    }

    /// Where the stretch begins that the keys right below `key` are in.
    pub(crate) fn start_of_stretch_below(&self, key: &[u8], at: SequenceNumber) -> Option<&[u8]> {
        self.range_deletions_at(at)?.start_of_stretch(key, true)
    }

    /// Where the first stretch above `key` begins, which is in none.
    pub(crate) fn next_stretch(&self, key: &[u8], at: SequenceNumber) -> Option<&[u8]> {
        self.range_deletions_at(at)?.next_stretch(key)
    }

    /// Where the last stretch below `key` ends, which is in none.
    pub(crate) fn end_of_last_stretch(&self, key: &[u8], at: SequenceNumber) -> Option<&[u8]> {
        self.range_deletions_at(at)?.end_of_last_stretch(key)
    }

    /// Maximal disjoint ranges, start and end, that range deletions at or below `at` cover, ascending.
    pub(crate) fn deleted_ranges(&self, at: SequenceNumber) -> Vec<(&[u8], &[u8])> {
        self.range_deletions_at(at).map_or_else(Vec::new, Steps::ranges)
    }

    /// Checks the invariants of the folder that one thread can see.
    #[cfg(test)]
    pub(super) fn check(&self) {
        self.points.check(&self.arena);
        self.deletions.check(&self.arena);
    }

    #[inline]
    pub(super) fn range_deletions_at(&self, at: SequenceNumber) -> Option<Steps<'_>> {
        self.deletions.at(&self.arena, self.seen_at(at))
    }

    #[inline]
    pub(super) fn points(&self) -> (&Tree, &Arena) {
        (&self.points, &self.arena)
    }
}

impl Drop for Memtable {
    fn drop(&mut self) {
        self.arena.note_used(self.counters.bytes.load(Ordering::Relaxed));
        let counted = self.counted_as_held.load(Ordering::Relaxed);
        if counted > 0 {
            self.merged_and_held.fetch_sub(counted, Ordering::Relaxed);
        }
    }
}

/// The one writer of a memtable.
///
/// Sequence numbers never go down from call to call. Of two writes to one key with the same sequence number
/// the later one counts.
pub(crate) struct MemtableWriter {
    table: Arc<Memtable>,
    nodes: Bump,
    entries: Bump,
}

/// A key that will be written soon, and the leaf for it, whose memory has been asked for.
pub(crate) struct Expected<'t, 'k> {
    key: &'k [u8],
    table: &'t Memtable,
    in_filter: FilterSpot,
    leaf: Option<NodeRef<'t>>,
}

impl MemtableWriter {
    /// The memtable, for readers to share.
    #[inline]
    pub(crate) fn table(&self) -> &Arc<Memtable> {
        &self.table
    }

    /// The writer of an empty memtable that follows this one, and gets memory that it and those before it
    /// leave.
    pub(crate) fn successor(&self, capacity_hint: usize) -> Self {
        let table = &self.table;
        let arena = table.arena.successor(capacity_hint);
        Memtable::create_in(arena, Arc::clone(&table.merged_and_held), capacity_hint)
    }

    /// Gives `key` the value from `sequence` on.
    #[inline]
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8], sequence: SequenceNumber) {
        self.prepare(EntryKind::Put, key, value).insert(sequence);
    }

    /// Gives `key` the value from `sequence` on until it expires; it is stamped.
    #[inline]
    pub(crate) fn put_expiring(&mut self, key: &[u8], stamped: &[u8], sequence: SequenceNumber) {
        self.prepare(EntryKind::PutExpiring, key, stamped).insert(sequence);
    }

    /// Gives `key` an operand more from `sequence` on.
    #[inline]
    pub(crate) fn merge(&mut self, key: &[u8], operand: &[u8], sequence: SequenceNumber) {
        self.prepare(EntryKind::Merge, key, operand).insert(sequence);
    }

    /// The same, of an operand with its stamp in front.
    #[inline]
    pub(crate) fn merge_stamped(&mut self, key: &[u8], stamped: &[u8], sequence: SequenceNumber) {
        self.prepare(EntryKind::MergeStamped, key, stamped).insert(sequence);
    }

    /// Makes `key` absent from `sequence` on.
    #[inline]
    pub(crate) fn delete(&mut self, key: &[u8], sequence: SequenceNumber) {
        self.prepare(EntryKind::Delete, key, &[]).insert(sequence);
    }

    /// Does for a write to one key whatever needs no sequence number. Readers see nothing of it, nor does
    /// anything remain but some memory, until it is inserted.
    #[inline]
    pub(crate) fn prepare(&mut self, kind: EntryKind, key: &[u8], value: &[u8]) -> Prepared<'_> {
        let Self { table, nodes, entries } = self;
        prepare(nodes, entries, kind, Expected::find(table, key), value)
    }

    /// Looks for the place of `key` in `table`, the memtable of this writer, and asks for the memory there:
    /// for a caller that does something else before he writes to `key`, or to others.
    #[inline]
    pub(crate) fn expect<'t, 'k>(&self, table: &'t Memtable, key: &'k [u8]) -> Expected<'t, 'k> {
        self.assert_own(table);
        Expected::find(table, key)
    }

    /// As [`prepare`](Self::prepare), for a key that was expected.
    #[inline]
    pub(crate) fn prepare_expected<'w>(
        &'w mut self,
        kind: EntryKind,
        expected: Expected<'w, '_>,
        value: &[u8],
    ) -> Prepared<'w> {
        self.assert_own(expected.table);
        prepare(&mut self.nodes, &mut self.entries, kind, expected, value)
    }

    #[inline]
    fn assert_own(&self, table: &Memtable) {
        assert!(std::ptr::eq(table, &raw const *self.table), "a key of another memtable");
    }

    /// Ends the writing of a memtable in which everything was written with [`BEFORE_ITS_NUMBER`], and makes
    /// it the commit `sequence`: for readers at that number or a later one all of it has happened. No reader
    /// may have had it before.
    pub(crate) fn number(self, sequence: SequenceNumber) -> Arc<Memtable> {
        let last = self.table.counters.last_sequence.load(Ordering::Relaxed);
        assert!(last <= BEFORE_ITS_NUMBER.0, "a memtable of entries up to {last} becomes commit {sequence}");
        self.table.whole.store(sequence.0, Ordering::Release);
        self.table
    }

    /// Makes all keys in `[start, end)` absent that were written with a lower sequence number.
    pub(crate) fn delete_range(&mut self, start: &[u8], end: &[u8], sequence: SequenceNumber) {
        assert!(start < end, "a range deletion from {start:?} up to {end:?}");
        let table: &Memtable = &self.table;
        table.counters.admit(sequence);
        let mut memory = ranges::Memory { nodes: &mut self.nodes, entries: &mut self.entries };
        table.deletions.delete(&table.arena, &mut memory, start, end, sequence);
        table.counters.count(sequence, self.nodes.used() + self.entries.used());
    }
}

impl<'t, 'k> Expected<'t, 'k> {
    #[inline]
    fn find(table: &'t Memtable, key: &'k [u8]) -> Self {
        let in_filter = table.filter.spot(key);
        in_filter.prefetch(&table.filter);
        let leaf = table.points.leaf_ahead(&table.arena, key);
        Self { key, table, in_filter, leaf }
    }

    /// Where the writer is to put the key now.
    #[inline]
    fn spot(&self) -> Option<Spot<'t>> {
        let found = self.leaf.and_then(|leaf| Spot::still_within(leaf, self.key));
        found.or_else(|| self.table.points.spot(&self.table.arena, self.key))
    }
}

#[inline]
fn prepare<'w>(
    nodes: &'w mut Bump,
    entries: &'w mut Bump,
    kind: EntryKind,
    expected: Expected<'w, '_>,
    value: &[u8],
) -> Prepared<'w> {
    let spot = expected.spot();
    let Expected { key, table, in_filter, .. } = expected;
    let older = spot.as_ref().and_then(|spot| spot.newest());
    let draft = Draft::write(&table.arena, entries, older, kind, key, value);
    Prepared { table, nodes, entries, in_filter, spot, draft }
}

/// A write to one key that has its place and its memory, and lacks its sequence number. It ends with the call
/// that made it: between that and the insertion nothing else can be written.
pub(crate) struct Prepared<'w> {
    table: &'w Memtable,
    nodes: &'w mut Bump,
    entries: &'w Bump,
    in_filter: FilterSpot,
    spot: Option<Spot<'w>>,
    draft: Draft<'w>,
}

impl Prepared<'_> {
    /// Makes it a write of the commit `sequence`: for readers at that number or a later one it has happened.
    #[inline]
    pub(crate) fn insert(self, sequence: SequenceNumber) {
        let Self { table, nodes, entries, in_filter, spot, draft } = self;
        table.counters.admit(sequence);
        let mut memory = NodeMemory { arena: &table.arena, bump: nodes };
        table.filter.add(in_filter);
        table.points.put(&mut memory, spot, draft.number(sequence));
        table.counters.count(sequence, nodes.used() + entries.used());
    }
}
