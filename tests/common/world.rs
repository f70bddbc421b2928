//! A database and a model of it, to which operations are applied side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use peristyle::{
    ColumnFamily, ColumnFamilyDatabase, Cursor, DatabaseBuilder, Durability, ErrorKind, FamilyId,
    FamilyOptions, FamilySnapshot, FilterVerdict, IsolationLevel, LockMode, MemoryStorage, MergeOperands,
    MergeOperator, MergeResult, Snapshot, Swap, TransactionCursor, WriteBatch, merge_operators,
};

pub(crate) use super::entries::Entries;
use super::entries::{Order, longest_first};
use super::operation::{Content, End, Key, Operation, Range, Step, Write};
use super::storage::TestStorage;
use super::transaction;
use super::{assert_clean, eventually, failure};

/// The most families, snapshots and cursors that a world holds at once.
const MAX_FAMILIES: usize = 6;
const MAX_SNAPSHOTS: usize = 4;
const MAX_CURSORS: usize = 3;

/// Where the database lives.
pub(crate) enum Place {
    Memory(TestStorage),
    Files(tempfile::TempDir),
}

impl Place {
    pub(crate) fn memory() -> Self {
        Self::Memory(TestStorage::new())
    }

    pub(crate) fn files() -> Self {
        Self::Files(tempfile::tempdir().unwrap())
    }

    pub(crate) fn open(&self, builder: &DatabaseBuilder) -> ColumnFamilyDatabase {
        let builder = builder
            .clone()
            .merge_operator(merge_operators::append(SEPARATOR))
            .merge_operator(OneByOne)
            .key_order(longest_first());
        match self {
            Self::Memory(storage) => builder.clone().storage(storage.clone()).open("memory").unwrap(),
            Self::Files(directory) => builder.clone().open(directory.path().join("database")).unwrap(),
        }
    }

    /// The place as a process killed now would leave it, if that can be had.
    pub(crate) fn killed(&self) -> Option<Self> {
        match self {
            Self::Memory(storage) => Some(Self::Memory(storage.copy())),
            Self::Files(_) => None,
        }
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Memory(_) => None,
            Self::Files(directory) => Some(directory.path()),
        }
    }
}

const SEPARATOR: &str = "+";

/// Appends as the other operator does, and combines nothing.
struct OneByOne;

impl MergeOperator for OneByOne {
    fn name(&self) -> &str {
        "append one by one"
    }

    fn merge(&self, _: &[u8], existing: Option<&[u8]>, operands: MergeOperands<'_>) -> MergeResult {
        let parts: Vec<&[u8]> = existing.into_iter().chain(operands).collect();
        Ok(parts.join(SEPARATOR.as_bytes()))
    }
}

/// Options of a new family: of some with a merge operator or an order of keys, of some with a filter, which
/// looks at all that it is shown and must make no difference.
fn options_of(name: u8, fill: u8) -> FamilyOptions {
    let mut options = Order::of_new(fill).give(FamilyOptions::default().page_fill(fill));
    if name >= 2 {
        options = options.filter("keeps all", |entry| {
            assert_eq!(entry.value()?.len(), entry.value_len());
            Ok(FilterVerdict::Keep)
        });
    }
    match name % 4 {
        1 => options.merge_operator(merge_operators::append(SEPARATOR)),
        3 => options.merge_operator(OneByOne),
        _ => options,
    }
}

/// Whether a family with these options has a merge operator.
pub(crate) fn merges(options: &FamilyOptions) -> bool {
    options.merge_operator_name().is_some()
}

/// What the merge operators make of a value and an operand.
pub(crate) fn merged(old: Option<&Arc<[u8]>>, operand: &[u8]) -> Arc<[u8]> {
    match old {
        Some(old) => [old, SEPARATOR.as_bytes(), operand].concat().into(),
        None => operand.into(),
    }
}

struct Known {
    name: String,
    options: FamilyOptions,
    handle: ColumnFamily,
    entries: Entries,
}

struct HeldSnapshot {
    snapshot: Snapshot,
    families: Vec<(ColumnFamily, Entries)>,
}

/// Where a cursor should stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    Nowhere,
    Before,
    On(usize),
    After,
}

/// What a held cursor is: of a family or of a transaction.
pub(crate) trait Walker {
    fn first(&mut self) -> peristyle::Result<bool>;
    fn last(&mut self) -> peristyle::Result<bool>;
    fn next(&mut self) -> peristyle::Result<bool>;
    fn prev(&mut self) -> peristyle::Result<bool>;
    fn seek(&mut self, key: &[u8]) -> peristyle::Result<bool>;
    fn seek_for_prev(&mut self, key: &[u8]) -> peristyle::Result<bool>;
    fn scan(&mut self, visit: &mut Visit<'_>) -> peristyle::Result<ControlFlow<Vec<u8>>>;
    fn scan_back(&mut self, visit: &mut Visit<'_>) -> peristyle::Result<ControlFlow<Vec<u8>>>;
    fn is_valid(&self) -> bool;
    fn key(&self) -> &[u8];
    fn value(&self) -> peristyle::Result<&[u8]>;
    fn owned_value(&self) -> peristyle::Result<peristyle::Value>;
}

/// What a scan shows its entries to.
pub(crate) type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<Vec<u8>> + 'v;

macro_rules! walker {
    ($cursor:ty) => {
        impl Walker for $cursor {
            fn first(&mut self) -> peristyle::Result<bool> {
                self.first()
            }

            fn last(&mut self) -> peristyle::Result<bool> {
                self.last()
            }

            fn next(&mut self) -> peristyle::Result<bool> {
                self.next()
            }

            fn prev(&mut self) -> peristyle::Result<bool> {
                self.prev()
            }

            fn seek(&mut self, key: &[u8]) -> peristyle::Result<bool> {
                self.seek(key)
            }

            fn seek_for_prev(&mut self, key: &[u8]) -> peristyle::Result<bool> {
                self.seek_for_prev(key)
            }

            fn scan(&mut self, visit: &mut Visit<'_>) -> peristyle::Result<ControlFlow<Vec<u8>>> {
                self.scan(visit)
            }

            fn scan_back(&mut self, visit: &mut Visit<'_>) -> peristyle::Result<ControlFlow<Vec<u8>>> {
                self.scan_back(visit)
            }

            fn is_valid(&self) -> bool {
                self.is_valid()
            }

            fn key(&self) -> &[u8] {
                self.key()
            }

            fn value(&self) -> peristyle::Result<&[u8]> {
                self.value()
            }

            fn owned_value(&self) -> peristyle::Result<peristyle::Value> {
                self.owned_value()
            }
        }
    };
}

walker!(Cursor);
walker!(TransactionCursor);

pub(crate) struct HeldCursor<C> {
    cursor: C,
    order: Order,
    entries: Vec<(Vec<u8>, Arc<[u8]>)>,
    stand: Stand,
}

/// A database, or a part of it with families of its own, its model, and what is held of it.
pub(crate) struct World {
    /// Where the database lives and how it is opened, if this is all of it.
    whole: Option<(Place, DatabaseBuilder)>,
    db: Option<ColumnFamilyDatabase>,
    /// Tells the families of this part from those of others.
    number: u8,
    /// What all writes have, whatever they ask for.
    durability: Option<Durability>,
    families: Vec<Known>,
    snapshots: Vec<HeldSnapshot>,
    cursors: [Option<HeldCursor<Cursor>>; MAX_CURSORS],
    /// What it has added to counts that others add to.
    counted: BTreeMap<u8, u64>,
    /// Whether something was written that no log holds since everything was flushed.
    unlogged: bool,
}

/// The family of counts to which all parts of a database add.
pub(crate) const COUNTS: &str = "counts";

/// A count as it is stored.
pub(crate) fn count(value: Option<&[u8]>) -> u64 {
    value.map_or(0, |value| u64::from_be_bytes(value.try_into().unwrap()))
}

/// What stays of a part while its database is closed.
pub(crate) struct Left(Vec<(String, FamilyOptions, FamilyId, Entries)>);

/// Names an entry in a message without printing a long one.
fn brief(bytes: &[u8]) -> String {
    match bytes.len() {
        0..=64 => format!("{:?}", bytes.escape_ascii().to_string()),
        len => format!("{:?}... ({len} bytes)", bytes[..32].escape_ascii().to_string()),
    }
}

#[track_caller]
fn assert_bytes(found: &[u8], expected: &[u8], what: &str) {
    assert!(found == expected, "{what}: found {}, expected {}", brief(found), brief(expected));
}

#[track_caller]
pub(crate) fn assert_value(found: Option<&[u8]>, expected: Option<&Arc<[u8]>>, key: &[u8]) {
    let expected = expected.map(|value| &value[..]);
    assert!(
        found == expected,
        "value of {}: found {:?}, expected {:?}",
        brief(key),
        found.map(brief),
        expected.map(brief)
    );
}

#[track_caller]
pub(crate) fn assert_entry(
    found: Option<(peristyle::Key, peristyle::Value)>,
    expected: Option<(&Vec<u8>, &Arc<[u8]>)>,
) {
    match (found, expected) {
        (None, None) => {}
        (Some((key, value)), Some((expected_key, expected_value))) => {
            assert_bytes(&key, expected_key, "key");
            assert_value(Some(&value), Some(expected_value), &key);
        }
        (found, expected) => panic!(
            "found {:?}, expected {:?}",
            found.map(|(key, _)| brief(&key)),
            expected.map(|(key, _)| brief(key))
        ),
    }
}

/// Compares everything that a family's moment tells with the model.
#[track_caller]
pub(crate) fn assert_same(moment: &FamilySnapshot, entries: &Entries) {
    assert_eq!(moment.len().unwrap(), entries.len() as u64, "number of entries");
    assert_eq!(moment.is_empty().unwrap(), entries.is_empty());
    let mut forward = moment.iter();
    for expected in entries {
        assert_entry(forward.next().transpose().unwrap(), Some(expected));
    }
    assert_entry(forward.next().transpose().unwrap(), None);
    let mut backward = moment.iter();
    for expected in entries.iter().rev() {
        assert_entry(backward.next_back().transpose().unwrap(), Some(expected));
    }
    assert_entry(backward.next_back().transpose().unwrap(), None);
    for (key, value) in entries {
        assert_value(moment.get(key).unwrap().as_deref(), Some(value), key);
        assert!(moment.contains_key(key).unwrap(), "{} is not contained", brief(key));
    }
}

impl World {
    /// A database with two families.
    pub(crate) fn new(place: Place, builder: DatabaseBuilder) -> Self {
        let mut world = Self::part(place.open(&builder), 0);
        world.whole = Some((place, builder));
        world
    }

    /// Two families in a database of which others use other parts. Who has the whole ends it and opens it
    /// again, with [`leave`](Self::leave) and [`come_back`](Self::come_back).
    pub(crate) fn part(db: ColumnFamilyDatabase, number: u8) -> Self {
        let mut world = Self {
            whole: None,
            db: Some(db),
            number,
            durability: None,
            families: Vec::new(),
            snapshots: Vec::new(),
            cursors: [const { None }; MAX_CURSORS],
            counted: BTreeMap::new(),
            unlogged: false,
        };
        for name in 0..2 {
            world.apply(&Operation::Create { name, fill: 100 - 3 * name });
        }
        world
    }

    /// Gives all writes from now on this durability, or the one that they ask for.
    pub(crate) fn set_durability(&mut self, durability: Option<Durability>) {
        self.durability = durability;
    }

    fn family_name(&self, name: u8) -> String {
        match name {
            0 => "é".repeat(127) + &self.number.to_string(),
            1 => " ".repeat(usize::from(self.number) + 1),
            _ => format!("family {name} of {}", self.number),
        }
    }

    /// What it has added to each count.
    pub(crate) fn counted(&self, number: u8) -> u64 {
        self.counted.get(&number).copied().unwrap_or(0)
    }

    /// Names of its families.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.families.iter().map(|known| known.name.clone()).collect()
    }

    pub(crate) fn db(&self) -> &ColumnFamilyDatabase {
        self.db.as_ref().expect("the database is open between operations")
    }

    fn index(&self, number: u8) -> Option<usize> {
        (number as usize).checked_rem(self.families.len())
    }

    /// The durability of a write that asks for this one.
    fn note(&mut self, asked: Durability) -> Durability {
        let durability = self.durability.unwrap_or(asked);
        self.unlogged |= durability == Durability::None;
        durability
    }

    /// Applies one operation to both, and compares what they say.
    pub(crate) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Put(..)
            | Operation::Merge(..)
            | Operation::Delete(..)
            | Operation::DeleteRange(..)
            | Operation::DeletePrefix(..)
            | Operation::Update(..)
            | Operation::Swap(..)
            | Operation::Batch(..)
            | Operation::Fill { .. }
            | Operation::Transaction(..)
            | Operation::Count(..)
            | Operation::Erode { .. }
            | Operation::DeleteRanges { .. } => self.write(operation),
            Operation::Get(..)
            | Operation::MultiGet(..)
            | Operation::Measure(_)
            | Operation::Walk(..)
            | Operation::Prefix(..) => self.read(operation),
            Operation::Cursor { slot, family, anew, steps } => {
                self.walk_cursor(*slot, *family, anew.as_ref(), steps);
            }
            Operation::Snapshot | Operation::Compare(_) | Operation::Release(_) => self.hold(operation),
            Operation::Create { .. }
            | Operation::Rename { .. }
            | Operation::DropFamily(_)
            | Operation::SetOptions { .. } => {
                self.change(operation);
            }
            _ => self.keep(operation),
        }
    }

    /// Compares everything with the model, and verifies the database.
    pub(crate) fn check(&self) {
        let present: BTreeSet<_> = self.db().column_family_names().into_iter().collect();
        assert!(self.names().is_subset(&present));
        assert!(self.whole.is_none() || self.names().len() == present.len(), "{present:?}");
        let handles = self.db().column_families().unwrap();
        assert_eq!(handles.iter().map(ColumnFamily::name).collect::<BTreeSet<_>>(), present);
        for known in &self.families {
            assert_same(&known.handle.snapshot().unwrap(), &known.entries);
            assert_eq!(known.handle.options(), known.options);
        }
        for held in &self.snapshots {
            held.check();
        }
        assert_clean(self.db());
    }

    fn write(&mut self, operation: &Operation) {
        match operation {
            Operation::Put(family, key, content, durability) => {
                let Some(index) = self.index(*family) else { return };
                let durability = self.note(*durability);
                let known = &mut self.families[index];
                let (key, value) = (known.entries.order().key(key), content.bytes());
                known.handle.put_with(&key, &value, durability).unwrap();
                known.entries.insert(key, value.into());
            }
            Operation::Merge(family, key, content, durability) => {
                let Some(index) = self.index(*family) else { return };
                let durability = self.note(*durability);
                let known = &mut self.families[index];
                let (key, operand) = (known.entries.order().key(key), content.bytes());
                let outcome = known.handle.merge_with(&key, &operand, durability);
                if merges(&known.options) {
                    outcome.unwrap();
                    let value = merged(known.entries.get(&key), &operand);
                    known.entries.insert(key, value);
                } else {
                    failure(outcome, ErrorKind::MergeOperatorMissing);
                }
            }
            Operation::Delete(family, key, durability) => {
                let Some(index) = self.index(*family) else { return };
                let durability = self.note(*durability);
                let known = &mut self.families[index];
                let key = known.entries.order().key(key);
                known.handle.delete_with(&key, durability).unwrap();
                known.entries.remove(&key);
            }
            Operation::DeleteRange(family, range, durability) => {
                let Some(index) = self.index(*family) else { return };
                let durability = self.note(*durability);
                let known = &mut self.families[index];
                let range = known.entries.order().bounds(range);
                known.handle.delete_range_with(range.clone(), durability).unwrap();
                known.entries.remove_range(&range);
            }
            Operation::DeletePrefix(family, prefix, durability) => {
                let Some(index) = self.index(*family) else { return };
                let durability = self.note(*durability);
                let known = &mut self.families[index];
                let prefix = known.entries.order().key(prefix);
                let outcome = known.handle.delete_prefix_with(&prefix, durability);
                if !known.entries.order().has_prefixes() {
                    failure(outcome, ErrorKind::NoPrefixes);
                    return;
                }
                outcome.unwrap();
                known.entries.retain(|key, _| !key.starts_with(&prefix));
            }
            Operation::Update(family, key, set, durability) => {
                let Some(index) = self.index(*family) else { return };
                let durability = self.note(*durability);
                let key = self.families[index].entries.order().key(key);
                self.families[index].update(&key, *set, durability);
            }
            Operation::Swap(family, key, expected, new, durability) => {
                let Some(index) = self.index(*family) else { return };
                let durability = self.note(*durability);
                let key = self.families[index].entries.order().key(key);
                self.families[index].swap(&key, *expected, *new, durability);
            }
            Operation::Batch(writes, durability) => {
                let durability = self.note(*durability);
                self.write_batch(writes, durability);
            }
            Operation::Count(number, durability) => {
                let Ok(counts) = self.db().column_family(COUNTS) else { return };
                let settings = self.db().transaction().tries(u32::MAX);
                let durability = self.note(*durability);
                // Some wait for each other, and others run again.
                let locks = number % 2 == 1;
                let level = if locks { IsolationLevel::ReadCommitted } else { IsolationLevel::Serializable };
                let settings = settings.level(level).pessimistic(locks).lock_timeout(Duration::MAX);
                let counted = settings.durability(durability).run(|transaction| {
                    let present = match locks {
                        true => transaction.get_for_update(&counts, [*number], LockMode::Exclusive)?,
                        false => transaction.get(&counts, [*number])?,
                    };
                    let present = count(present.as_deref());
                    transaction.put(&counts, [*number], (present + 1).to_be_bytes())
                });
                counted.unwrap();
                *self.counted.entry(*number).or_default() += 1;
            }
            Operation::Transaction(level, steps, durability, commits) => {
                if self.families.is_empty() {
                    return;
                }
                let durability = self.note(*durability);
                let seen = self.families.iter().map(|known| (known.handle.clone(), known.entries.clone()));
                let seen: Vec<_> = seen.collect();
                let left = transaction::run(self.db(), &seen, *level, steps, durability, *commits);
                for (known, entries) in self.families.iter_mut().zip(left.into_iter().flatten()) {
                    known.entries = entries;
                }
            }
            Operation::Fill { family, start, count, step, content } => {
                let put = |n: u32| {
                    let content = Content { seed: content.seed.wrapping_add(n as u8), ..*content };
                    Write::Put(*family, number_key(n), content)
                };
                let numbers = (0..u32::from(*count)).map(|n| start + n * u32::from(*step));
                let writes: Vec<_> = numbers.map(put).collect();
                let durability = self.note(Durability::Buffered);
                self.write_batch(&writes, durability);
            }
            Operation::Erode { family, start, count, step } => {
                for n in 0..u32::from(*count) {
                    let key = number_key(start + n * u32::from(*step));
                    self.write(&Operation::Delete(*family, key, Durability::Buffered));
                }
            }
            Operation::DeleteRanges { family, start, count, step, width } => {
                for n in 0..u32::from(*count) {
                    let start = start + n * u32::from(*step);
                    let end = start + u32::from(*width);
                    let range = (Bound::Included(number_key(start)), Bound::Excluded(number_key(end)));
                    self.write(&Operation::DeleteRange(*family, range, Durability::Buffered));
                }
            }
            _ => unreachable!("{operation:?} writes nothing"),
        }
    }

    fn write_batch(&mut self, writes: &[Write], durability: Durability) {
        if self.families.is_empty() {
            return;
        }
        // Made of two, and with something that is taken back: it comes to the same.
        let (mut batch, mut rest) = (WriteBatch::new(), WriteBatch::with_capacity(100));
        for (number, write) in writes.iter().enumerate() {
            let batch = if number < writes.len() / 2 { &mut batch } else { &mut rest };
            let (Write::Put(family, ..)
            | Write::Merge(family, ..)
            | Write::Delete(family, _)
            | Write::DeleteRange(family, _)) = write;
            let index = *family as usize % self.families.len();
            let Known { handle, entries, options, .. } = &mut self.families[index];
            match write {
                Write::Put(_, key, content) => {
                    let (key, value) = (entries.order().key(key), content.bytes());
                    batch.put(handle, &key, &value);
                    entries.insert(key, value.into());
                }
                Write::Merge(_, key, content) if merges(options) => {
                    let (key, operand) = (entries.order().key(key), content.bytes());
                    batch.merge(handle, &key, &operand);
                    let value = merged(entries.get(&key), &operand);
                    entries.insert(key, value);
                }
                Write::Merge(..) => {}
                Write::Delete(_, key) => {
                    let key = entries.order().key(key);
                    batch.delete(handle, &key);
                    entries.remove(&key);
                }
                Write::DeleteRange(_, range) => {
                    let range = entries.order().bounds(range);
                    batch.delete_range(handle, range.clone());
                    entries.remove_range(&range);
                }
            }
        }
        let first = &self.families[0].handle;
        batch.set_savepoint();
        batch.put(first, "taken back", "").delete_range(first, ..);
        assert!(batch.rollback_to_savepoint());
        batch.append(&rest);
        assert_eq!(batch.iter().count(), batch.len());
        let sequence = self.db().write_with(&batch, durability).unwrap();
        let last = self.db().snapshot().unwrap().sequence_number();
        assert!(last == sequence || last > sequence && self.whole.is_none(), "{last} after {sequence}");
    }

    fn read(&self, operation: &Operation) {
        let (Operation::Get(family, _)
        | Operation::MultiGet(family, _)
        | Operation::Measure(family)
        | Operation::Walk(family, ..)
        | Operation::Prefix(family, _)) = operation
        else {
            unreachable!("{operation:?} reads nothing")
        };
        let Some(index) = self.index(*family) else { return };
        let Known { handle, entries, .. } = &self.families[index];
        match operation {
            Operation::Get(_, key) => {
                let key = entries.order().key(key);
                assert_value(handle.get(&key).unwrap().as_deref(), entries.get(&key), &key);
                assert_eq!(handle.contains_key(&key).unwrap(), entries.contains_key(&key));
            }
            Operation::MultiGet(_, keys) => {
                let keys: Vec<_> = keys.iter().map(|key| entries.order().key(key)).collect();
                let values = handle.multi_get(&keys).unwrap();
                assert_eq!(values.len(), keys.len());
                for (key, value) in keys.iter().zip(values) {
                    assert_value(value.as_deref(), entries.get(key), key);
                }
            }
            Operation::Measure(_) => {
                assert_eq!(handle.len().unwrap(), entries.len() as u64, "number of entries");
                assert_eq!(handle.is_empty().unwrap(), entries.is_empty());
                assert_entry(handle.first().unwrap(), entries.first_key_value());
                assert_entry(handle.last().unwrap(), entries.last_key_value());
                let parts = 1 + entries.len() % 5;
                let points = handle.split_points(.., parts).unwrap();
                assert!(
                    points.len() < parts && points.is_sorted_by(|a, b| entries.order().compare(a, b).is_lt()),
                    "{points:?}"
                );
                // How far they may be off depends on what waits in memtables and deltas.
                let (_len, _size) =
                    (handle.approximate_len(..).unwrap(), handle.approximate_size(..).unwrap());
            }
            Operation::Walk(_, range, turns) => {
                let range = entries.order().bounds(range);
                let mut iter = handle.range(range.clone()).unwrap();
                let mut model = entries.within(&range);
                for from_back in turns {
                    let (found, expected) = if *from_back {
                        (iter.next_back(), model.next_back())
                    } else {
                        (iter.next(), model.next())
                    };
                    assert_entry(found.transpose().unwrap(), expected);
                }
                for expected in model {
                    assert_entry(iter.next().transpose().unwrap(), Some(expected));
                }
                assert_entry(iter.next_back().transpose().unwrap(), None);
                assert_entry(iter.next().transpose().unwrap(), None);
            }
            Operation::Prefix(_, key) => {
                let prefix = entries.order().key(key);
                let mut iter = handle.prefix(&prefix).unwrap();
                if !entries.order().has_prefixes() {
                    failure(iter.next().unwrap(), ErrorKind::NoPrefixes);
                    return;
                }
                for expected in entries.iter().filter(|(key, _)| key.starts_with(&prefix)) {
                    assert_entry(iter.next().transpose().unwrap(), Some(expected));
                }
                assert_entry(iter.next().transpose().unwrap(), None);
            }
            _ => {}
        }
    }

    fn walk_cursor(&mut self, slot: u8, family: u8, anew: Option<&Range>, steps: &[Step]) {
        let slot = slot as usize % MAX_CURSORS;
        if anew.is_some() || self.cursors[slot].is_none() {
            let Some(index) = self.index(family) else { return };
            let known = &self.families[index];
            let order = known.entries.order();
            let range = anew.map_or((Bound::Unbounded, Bound::Unbounded), |range| order.bounds(range));
            let entries = known.entries.within(&range);
            let cursor = match anew {
                Some(_) => known.handle.cursor_in(range.clone()).unwrap(),
                None => known.handle.cursor().unwrap(),
            };
            self.cursors[slot] = Some(HeldCursor::new(cursor, order, entries));
        }
        let Some(held) = &mut self.cursors[slot] else { return };
        steps.iter().for_each(|step| held.step(step));
    }

    fn hold(&mut self, operation: &Operation) {
        match operation {
            Operation::Snapshot if self.snapshots.len() < MAX_SNAPSHOTS => {
                let families =
                    self.families.iter().map(|known| (known.handle.clone(), known.entries.clone()));
                let families = families.collect();
                self.snapshots.push(HeldSnapshot { snapshot: self.db().snapshot().unwrap(), families });
            }
            Operation::Compare(number) if !self.snapshots.is_empty() => {
                self.snapshots[*number as usize % self.snapshots.len()].check();
            }
            Operation::Release(number) if !self.snapshots.is_empty() => {
                let index = *number as usize % self.snapshots.len();
                self.snapshots.remove(index);
            }
            _ => {}
        }
    }

    fn change(&mut self, operation: &Operation) {
        match operation {
            Operation::Create { name, fill } => {
                let options = options_of(*name, *fill);
                let name = self.family_name(*name);
                let exists = self.families.iter().any(|known| known.name == name);
                if exists {
                    failure(self.db().create_column_family(&name, options), ErrorKind::FamilyExists);
                } else if self.families.len() < MAX_FAMILIES {
                    let handle = self.db().create_column_family(&name, options.clone()).unwrap();
                    assert_eq!(handle.name(), name);
                    let entries = Entries::ordered(Order::of(&options));
                    self.families.push(Known { name, options, handle, entries });
                }
            }
            Operation::Rename { family, name } => {
                let Some(index) = self.index(*family) else { return };
                let name = self.family_name(*name);
                let from = self.families[index].name.clone();
                let taken = from != name && self.families.iter().any(|known| known.name == name);
                let outcome = self.db().rename_column_family(&from, &name);
                if taken {
                    failure(outcome, ErrorKind::FamilyExists);
                } else {
                    outcome.unwrap();
                    assert_eq!(self.families[index].handle.name(), name);
                    self.families[index].name = name;
                }
            }
            Operation::SetOptions { family, fill, share } => {
                let Some(index) = self.index(*family) else { return };
                // Without a merge operator: that stays.
                let options =
                    FamilyOptions::default().page_fill(*fill).cache_share(*share).memtable_share(*share);
                let known = &mut self.families[index];
                known.handle.set_options(options).unwrap();
                let own = std::mem::take(&mut known.options);
                known.options = own.page_fill(*fill).cache_share(*share).memtable_share(*share);
            }
            Operation::DropFamily(family) => {
                let Some(index) = self.index(*family) else { return };
                let known = self.families.remove(index);
                self.db().drop_column_family(&known.name).unwrap();
                failure(known.handle.get("key"), ErrorKind::FamilyDropped);
                failure(known.handle.put("key", "value"), ErrorKind::FamilyDropped);
                failure(self.db().column_family(&known.name), ErrorKind::FamilyNotFound);
            }
            _ => unreachable!("{operation:?} changes no family"),
        }
    }

    fn keep(&mut self, operation: &Operation) {
        match operation {
            Operation::Sync => self.db().sync().unwrap(),
            Operation::Told => self.be_told(),
            Operation::Flush => self.flush(),
            Operation::FlushFamily(family) => {
                let Some(index) = self.index(*family) else { return };
                self.db().flush_column_family(&self.families[index].handle).unwrap();
            }
            Operation::Checkpoint => self.db().checkpoint().unwrap(),
            Operation::Compact => {
                self.db().compact().unwrap();
            }
            Operation::CompactFamily(family) => {
                let Some(index) = self.index(*family) else { return };
                self.db().compact_column_family(&self.families[index].handle).unwrap();
            }
            Operation::Verify => assert_clean(self.db()),
            Operation::Copy => self.copy(),
            Operation::Reopen(end) => self.reopen(*end),
            _ => unreachable!("{operation:?} keeps nothing"),
        }
    }

    /// A copy holds what the database does, and is one that can be written to.
    fn copy(&self) {
        let memory = MemoryStorage::new();
        let before = self.db().snapshot().unwrap().sequence_number();
        let report = self.db().checkpoint_into(memory.clone()).unwrap();
        assert!(report.sequence_number >= before);
        let builder = self.whole.as_ref().map_or_else(super::shrunken, |(_, builder)| builder.clone());
        let copy = Place::Memory(TestStorage::over(memory)).open(&builder);
        for Known { name, options, handle, entries } in &self.families {
            let family = copy.column_family(name).unwrap();
            assert_eq!((family.id(), &family.options()), (handle.id(), options));
            assert_same(&family.snapshot().unwrap(), entries);
            family.put("of the copy", "alone").unwrap();
        }
        assert_clean(&copy);
        copy.close().unwrap();
    }

    fn be_told(&self) {
        let db = self.db();
        let last = db.snapshot().unwrap().sequence_number();
        let told = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&told);
        db.on_synced(last, move |outcome| tell.store(outcome.is_ok(), Ordering::Release)).unwrap();
        eventually("a callback that is called", || told.load(Ordering::Acquire));
        assert!(db.synced_through() >= last);
    }

    /// Makes everything durable, also what no log holds.
    pub(crate) fn flush(&mut self) {
        self.db().flush().unwrap();
        self.unlogged = false;
        for known in &self.families {
            let properties = self.db().family_properties(&known.handle).unwrap();
            assert_eq!(properties.entries_in_memtables, 0, "a flush left something in memory");
            if properties.deltas == 0 {
                assert_eq!(properties.entries_in_tree, known.entries.len() as u64);
            }
        }
    }

    /// Before the database ends, which is killed or not: what is held of it is compared and given back.
    pub(crate) fn leave(&mut self, end: End) -> Left {
        if end == End::Kill && self.unlogged {
            self.flush();
        }
        for held in self.snapshots.drain(..) {
            held.check();
        }
        self.cursors = [const { None }; MAX_CURSORS];
        self.db = None;
        self.unlogged = false;
        let families = std::mem::take(&mut self.families).into_iter();
        Left(families.map(|known| (known.name, known.options, known.handle.id(), known.entries)).collect())
    }

    /// The database was opened again.
    pub(crate) fn come_back(&mut self, db: ColumnFamilyDatabase, left: Left) {
        for (name, options, id, entries) in left.0 {
            let handle = db.column_family(&name).unwrap();
            assert_eq!(handle.id(), id);
            assert_eq!(handle.options(), options);
            assert_same(&handle.snapshot().unwrap(), &entries);
            self.families.push(Known { name, options, handle, entries });
        }
        self.db = Some(db);
    }

    /// Ends the database and opens it again.
    fn reopen(&mut self, end: End) {
        let (place, builder) = self.whole.take().expect("who has a part does not end the whole");
        let (names, db) = (self.names(), self.db().clone());
        let left = self.leave(end);
        let (place, db) = reopen(place, &builder, db, end);
        assert_eq!(db.column_family_names().into_iter().collect::<BTreeSet<_>>(), names);
        self.come_back(db, left);
        self.whole = Some((place, builder));
    }
}

/// Ends `db`, of which nobody else has anything, and opens it again.
pub(crate) fn reopen(
    place: Place,
    builder: &DatabaseBuilder,
    db: ColumnFamilyDatabase,
    end: End,
) -> (Place, ColumnFamilyDatabase) {
    let killed = if end == End::Kill { place.killed() } else { None };
    match end {
        End::Close => db.close().unwrap(),
        End::Drop | End::Kill => drop(db),
    }
    let place = killed.unwrap_or(place);
    let db = place.open(builder);
    if end == End::Close {
        assert_eq!(db.recovery_report().records_applied, 0, "a closed database was replayed");
    }
    (place, db)
}

impl Known {
    fn update(&mut self, key: &[u8], set: bool, durability: Durability) {
        let before = self.entries.get(key).cloned();
        let grown = |old: Option<&[u8]>| {
            [b"was ", &old.unwrap_or_default()[..old.map_or(0, |old| old.len().min(50))]].concat()
        };
        let mut calls = 0;
        let change = |old: Option<&[u8]>| {
            calls += 1;
            assert_value(old, before.as_ref(), key);
            set.then(|| grown(old))
        };
        self.handle.update_with(key, change, durability).unwrap();
        assert_eq!(calls, 1, "a closure was called again, and nobody else writes");
        if set {
            self.entries.insert(key.to_vec(), grown(before.as_deref()).into());
        } else {
            self.entries.remove(key);
        }
    }

    fn swap(&mut self, key: &[u8], expected: Option<Content>, new: Option<Content>, durability: Durability) {
        let present = self.entries.get(key).cloned();
        let expected: Option<Arc<[u8]>> =
            expected.map(|content| content.bytes().into()).or_else(|| present.clone());
        let new: Option<Arc<[u8]>> = new.map(|content| content.bytes().into());
        let swap =
            self.handle.compare_and_swap_with(key, expected.as_deref(), new.as_deref(), durability).unwrap();
        match swap {
            Swap::Done(_) => {
                assert!(present == expected, "{} was swapped, and had another value", brief(key));
                match new {
                    Some(new) => drop(self.entries.insert(key.to_vec(), new)),
                    None => drop(self.entries.remove(key)),
                }
            }
            Swap::Differs(found) => {
                assert!(present != expected, "{} was not swapped", brief(key));
                assert_value(found.as_deref(), present.as_ref(), key);
            }
        }
    }
}

fn number_key(number: u32) -> Key {
    Key { head: number.to_be_bytes().to_vec(), stretch: 0, tail: Vec::new() }
}

impl HeldSnapshot {
    #[track_caller]
    fn check(&self) {
        for (handle, entries) in &self.families {
            assert_same(&self.snapshot.column_family(handle).unwrap(), entries);
        }
    }
}

impl<C: Walker> HeldCursor<C> {
    /// A new cursor that walks `entries`.
    pub(crate) fn new<'a>(
        cursor: C,
        order: Order,
        entries: impl Iterator<Item = (&'a Vec<u8>, &'a Arc<[u8]>)>,
    ) -> Self {
        let entries = entries.map(|(key, value)| (key.clone(), Arc::clone(value))).collect();
        Self { cursor, order, entries, stand: Stand::Nowhere }
    }

    pub(crate) fn step(&mut self, step: &Step) {
        let last = self.entries.len().checked_sub(1);
        let on = |index: Option<usize>, none: Stand| index.map_or(none, Stand::On);
        let first = (!self.entries.is_empty()).then_some(0);
        let (moved, stand) = match step {
            Step::First => (self.cursor.first(), on(first, Stand::After)),
            Step::Last => (self.cursor.last(), on(last, Stand::Before)),
            Step::Seek(key) => {
                let key = self.order.key(key);
                let index =
                    self.entries.partition_point(|(entry, _)| self.order.compare(entry, &key).is_lt());
                let index = (index < self.entries.len()).then_some(index);
                (self.cursor.seek(&key), on(index, Stand::After))
            }
            Step::SeekForPrev(key) => {
                let key = self.order.key(key);
                let is_met = |entry: &[u8]| self.order.compare(entry, &key).is_le();
                let index = self.entries.partition_point(|(entry, _)| is_met(entry)).checked_sub(1);
                (self.cursor.seek_for_prev(&key), on(index, Stand::Before))
            }
            Step::Next => {
                let stand = match self.stand {
                    Stand::Nowhere | Stand::Before => on(first, Stand::After),
                    Stand::On(index) if Some(index) == last => Stand::After,
                    Stand::On(index) => Stand::On(index + 1),
                    Stand::After => Stand::After,
                };
                (self.cursor.next(), stand)
            }
            Step::Prev => {
                let stand = match self.stand {
                    Stand::Nowhere | Stand::After => on(last, Stand::Before),
                    Stand::On(index) => on(index.checked_sub(1), Stand::Before),
                    Stand::Before => Stand::Before,
                };
                (self.cursor.prev(), stand)
            }
            Step::Scan(most) => {
                let start = match self.stand {
                    Stand::Nowhere | Stand::Before => 0,
                    Stand::On(index) => index,
                    Stand::After => self.entries.len(),
                };
                let end = self.entries.len().min(start + usize::from(*most));
                let mut expected = self.entries[start..end].iter();
                let mut left = *most;
                let scanned = self.cursor.scan(&mut |key, value| show(&mut expected, key, value, &mut left));
                assert_eq!(expected.len(), 0, "{step:?} should have shown more");
                (broke_with(scanned, &self.cursor), if left == 0 { Stand::On(end - 1) } else { Stand::After })
            }
            Step::ScanBack(most) => {
                let end = match self.stand {
                    Stand::Nowhere | Stand::After => self.entries.len(),
                    Stand::On(index) => index + 1,
                    Stand::Before => 0,
                };
                let start = end.saturating_sub(usize::from(*most));
                let mut expected = self.entries[start..end].iter().rev();
                let mut left = *most;
                let scanned =
                    self.cursor.scan_back(&mut |key, value| show(&mut expected, key, value, &mut left));
                assert_eq!(expected.len(), 0, "{step:?} should have shown more");
                (broke_with(scanned, &self.cursor), if left == 0 { Stand::On(start) } else { Stand::Before })
            }
        };
        self.stand = stand;
        let valid = matches!(stand, Stand::On(_));
        assert_eq!(moved.unwrap(), valid, "{step:?} should lead to {stand:?}");
        assert_eq!(self.cursor.is_valid(), valid);
        let (key, value): (&[u8], &[u8]) = match stand {
            Stand::On(index) => (&self.entries[index].0, &self.entries[index].1),
            _ => (&[], &[]),
        };
        assert_bytes(self.cursor.key(), key, "key under the cursor");
        assert_bytes(self.cursor.value().unwrap(), value, "value under the cursor");
        assert_bytes(&self.cursor.owned_value().unwrap(), value, "value under the cursor");
    }
}

/// Whether a scan broke, and if so with the key of the entry that its cursor stands on.
fn broke_with(
    scanned: peristyle::Result<ControlFlow<Vec<u8>>>,
    cursor: &impl Walker,
) -> peristyle::Result<bool> {
    Ok(match scanned? {
        ControlFlow::Continue(()) => false,
        ControlFlow::Break(key) => {
            assert_bytes(cursor.key(), &key, "key that a scan broke with");
            true
        }
    })
}

/// A scan shows an entry: the next one that is expected. Breaks at the last of `left` entries, with its key.
fn show<'e>(
    expected: &mut impl Iterator<Item = &'e (Vec<u8>, Arc<[u8]>)>,
    key: &[u8],
    value: &[u8],
    left: &mut u8,
) -> ControlFlow<Vec<u8>> {
    let (expected_key, expected_value) = expected.next().expect("a scan goes on beyond the last entry");
    assert_bytes(key, expected_key, "key that a scan shows");
    assert_bytes(value, expected_value, "value that a scan shows");
    *left -= 1;
    if *left == 0 { ControlFlow::Break(key.to_vec()) } else { ControlFlow::Continue(()) }
}
