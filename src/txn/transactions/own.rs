//! What a transaction has written: the batch that it will commit, and an index over it.
//!
//! The index, a memtable for each family, is made when somebody reads and there is more than a little to look
//! through, and goes on from where it was. What is rolled back is cut off the batch; an index that holds any
//! of it is made anew.

use std::collections::BTreeMap;

use crate::codec::expiry::{self, Expiry};
use crate::codec::ids::{FamilyId, SequenceNumber};
use crate::codec::key::{self, ABOVE_EVERY_KEY};
use crate::column_family::family::Family;
use crate::column_family::reading::value::Value;
use crate::column_family::view::{OWN_WRITES, OwnWrites};
use crate::error::Result;
use crate::memtable::{Found, Memtable, MemtableWriter};
use crate::sync::{Arc, Mutex};
use crate::txn::batch::WriteBatch;
use crate::txn::operation::{Operation, Operations};
use crate::txn::pipeline::Write;
use crate::txn::tally::{Part, Share};

/// Operations through which a look-up goes one by one.
const FEW: usize = 16;

/// What memtables of an index are expected to come to, in bytes, at least.
const SMALL: usize = 4 << 10;

pub(super) struct Own {
    database: u64,
    batch: WriteBatch,
    batch_memory: Part,
    index: Mutex<Index>,
}

struct Index {
    tables: BTreeMap<FamilyId, MemtableWriter>,
    /// Bytes of the batch, and operations, that are in it.
    bytes: usize,
    operations: u64,
    memory: Part,
    /// Bytes of memory that the tables take.
    table_bytes: usize,
}

impl Index {
    fn new(memory: Part) -> Self {
        Self { tables: BTreeMap::new(), bytes: 0, operations: 0, memory, table_bytes: 0 }
    }

    /// Forgets all that was taken in.
    fn clear(&mut self) {
        self.tables.clear();
        (self.bytes, self.operations, self.table_bytes) = (0, 0, 0);
        self.memory.set(0);
    }

    fn last(&self) -> SequenceNumber {
        SequenceNumber(OWN_WRITES.0 + self.operations)
    }

    /// Takes in what was added to the batch.
    fn catch_up(&mut self, payload: &[u8]) {
        for operation in Operations::new(&payload[self.bytes..]) {
            let (family, operation) = operation.unwrap_or_else(|error| panic!("an own batch: {error}"));
            self.operations += 1;
            let number = self.last();
            let room = payload.len().max(SMALL);
            let mut before = None;
            let writer = self.tables.entry(family).or_insert_with(|| {
                before = Some(0);
                Memtable::create(room)
            });
            let before = before.unwrap_or_else(|| memory_of(writer));
            match operation {
                Operation::Put { key, value } => writer.put(key, value, number),
                Operation::PutExpiring { key, value } => writer.put_expiring(key, value.stamped, number),
                Operation::Merge { key, operand } => writer.merge(key, operand, number),
                Operation::MergeExpiring { key, operand } => {
                    writer.merge_stamped(key, operand.stamped, number);
                }
                Operation::Delete { key } => writer.delete(key, number),
                Operation::DeleteRange { start, end } => {
                    writer.delete_range(start, end.unwrap_or(&ABOVE_EVERY_KEY), number);
                }
            }
            self.table_bytes += memory_of(writer) - before;
        }
        self.bytes = payload.len();
        self.memory.set(self.table_bytes);
    }
}

/// Bytes of memory that a table of an index takes.
fn memory_of(writer: &MemtableWriter) -> usize {
    size_of::<MemtableWriter>() + size_of::<Memtable>() + writer.table().bytes()
}

/// What a transaction has written to a key.
pub(super) enum OwnWrite {
    Nothing,
    /// A value with its expiry, or 0; or a deletion.
    Value(Option<(Value, Expiry)>),
    /// Operands.
    Operands {
        /// Whether they follow a value or a deletion of its own.
        are_on_own: bool,
    },
}

impl OwnWrite {
    /// What an own write makes of a key.
    fn of(found: Found<'_>) -> Self {
        match found {
            Found::Put(value) => Self::Value(Some((Value::copy(value), 0))),
            Found::Expiring(stamped) => {
                Self::Value(expiry::split(stamped).map(|(expiry, value)| (Value::copy(value), expiry)))
            }
            Found::Deleted => Self::Value(None),
            Found::Operands(operands) => Self::Operands { are_on_own: !operands.are_open() },
        }
    }

    /// Whether the key has the same value whatever others wrote to it.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Value(_) | Self::Operands { are_on_own: true })
    }
}

impl Own {
    /// Nothing yet, for families of this database; what it takes counts as a part of `share`.
    pub(super) fn new(database: u64, share: &Arc<Share>) -> Self {
        let index = Mutex::new(Index::new(share.part()));
        Self { database, batch: WriteBatch::new(), batch_memory: share.part(), index }
    }

    pub(super) fn batch(&self) -> &WriteBatch {
        &self.batch
    }

    /// Does what `write` does to the batch, or nothing if that cannot be. `write` calls nothing of the
    /// user's, which might panic: its savepoint would stay, and be taken for one of the user's.
    pub(super) fn write(&mut self, write: impl FnOnce(&mut WriteBatch)) -> Result<()> {
        self.batch.set_savepoint();
        write(&mut self.batch);
        let checked = self.batch.check(self.database);
        match checked {
            Ok(()) => self.batch.release_savepoint(),
            Err(_) => self.batch.rollback_to_savepoint(),
        };
        self.batch_memory.set(self.batch.memory());
        checked
    }

    /// What is written from now on may be given up by [`roll_back`](Self::roll_back). Savepoints are stacked.
    pub(super) fn set_savepoint(&mut self) {
        self.batch.set_savepoint();
    }

    /// Forgets the last savepoint.
    pub(super) fn release(&mut self) {
        self.batch.release_savepoint();
    }

    /// Forgets the last savepoint and what was written since.
    pub(super) fn roll_back(&mut self) {
        self.batch.rollback_to_savepoint();
        let index = self.index.get_mut();
        if index.bytes > self.batch.payload().len() {
            index.clear();
        }
    }

    /// What was written to `key` of `family`.
    pub(super) fn find(&self, family: FamilyId, key: &[u8]) -> OwnWrite {
        if self.batch.is_empty() {
            return OwnWrite::Nothing;
        }
        if self.batch.len() <= FEW {
            return self.find_among_few(family, key);
        }
        let mut index = self.index.lock();
        index.catch_up(self.batch.payload());
        let last = index.last();
        let found = index.tables.get(&family).and_then(|writer| writer.table().get(key, last));
        found.map_or(OwnWrite::Nothing, OwnWrite::of)
    }

    fn find_among_few(&self, family: FamilyId, wanted: &[u8]) -> OwnWrite {
        /// As [`OwnWrite`], of what is not copied yet.
        enum Last<'b> {
            Nothing,
            Value(Option<(&'b [u8], Expiry)>),
            Operands { are_on_own: bool },
        }
        let operations = Operations::new(self.batch.payload()).map_while(Result::ok);
        let mut last = Last::Nothing;
        for (_, operation) in operations.filter(|(of, _)| *of == family) {
            match operation {
                Operation::Put { key, value } if key == wanted => last = Last::Value(Some((value, 0))),
                Operation::PutExpiring { key, value } if key == wanted => {
                    last = Last::Value(Some((value.value(), value.expires_at())));
                }
                Operation::Delete { key } if key == wanted => last = Last::Value(None),
                Operation::Merge { key, .. } | Operation::MergeExpiring { key, .. } if key == wanted => {
                    let are_on_own = matches!(last, Last::Value(_) | Last::Operands { are_on_own: true });
                    last = Last::Operands { are_on_own };
                }
                Operation::DeleteRange { start, end }
                    if key::compare(start, wanted).is_le()
                        && end.is_none_or(|end| key::compare(wanted, end).is_lt()) =>
                {
                    last = Last::Value(None);
                }
                _ => {}
            }
        }
        match last {
            Last::Nothing => OwnWrite::Nothing,
            Last::Value(value) => OwnWrite::Value(value.map(|(value, expiry)| (Value::copy(value), expiry))),
            Last::Operands { are_on_own } => OwnWrite::Operands { are_on_own },
        }
    }

    /// All that was written to `family`, as a source for cursors: what is written later does not show in it.
    pub(super) fn source(&self, family: &Family) -> Option<OwnWrites> {
        if self.batch.is_empty() {
            return None;
        }
        let mut index = self.index.lock();
        index.catch_up(self.batch.payload());
        let at = index.last();
        index.tables.get(&family.id()).map(|writer| OwnWrites { table: Arc::clone(writer.table()), at })
    }

    /// The batch as the pipeline takes it.
    pub(super) fn as_write(&self) -> Write<'_> {
        Write {
            families: self.batch.families(),
            payload: self.batch.payload(),
            operations: self.batch.len() as u64,
            has_range_deletions: self.batch.has_range_deletions(),
        }
    }
}
