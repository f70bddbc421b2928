//! Somebody who does random things in one transaction after the other, and notes them.

use std::time::Duration;

use peristyle::{
    ColumnFamily, ColumnFamilyDatabase, ErrorKind, IsolationLevel, LockMode, PreparedTransaction, Result,
    Transaction, Value,
};

use crate::common::random::Random;
use crate::history::{Committed, Op};

pub(crate) const FAMILIES: u8 = 2;
pub(crate) const KEYS: u64 = 8;

/// What makes transactions differ.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) level: IsolationLevel,
    /// Whether what is read is left out of the check.
    pub(crate) untracked: bool,
    /// Whether what is written is locked, and keys that are read.
    pub(crate) locks: bool,
    /// Whether keys that are read are noted as locked, and are not.
    pub(crate) pretends: bool,
    /// Whether some are prepared, and decided later.
    pub(crate) prepares: bool,
    /// How long one waits for a lock.
    pub(crate) patience: Duration,
}

struct Open {
    transaction: Transaction,
    /// The last commit at its beginning.
    began: u64,
    ops: Vec<Op>,
}

/// One that is prepared: its name, and what is known of it.
pub(crate) struct Undecided {
    name: String,
    began: u64,
    ops: Vec<Op>,
}

impl Undecided {
    /// What is known of it in a later life of the database: what it read at a moment of an earlier one, and
    /// what is not held until it is decided, is left out.
    pub(crate) fn of_later_life(mut self, level: IsolationLevel) -> Self {
        let is_held = |op: &Op| {
            let is_read = matches!(op, Op::Get(..) | Op::Range(..));
            !is_read || level == IsolationLevel::Serializable
        };
        self.ops.retain(is_held);
        self
    }
}

pub(crate) struct Player {
    manner: Manner,
    random: Random,
    families: Vec<ColumnFamily>,
    open: Option<Open>,
    pub(crate) undecided: Vec<Undecided>,
    /// Values written so far; each is another.
    written: u32,
    number: u32,
    pub(crate) committed: Vec<Committed>,
    pub(crate) refused: u32,
}

/// The value of a number, long enough for a few of them to fill a memtable.
fn encode(value: u32) -> Vec<u8> {
    [&value.to_be_bytes()[..], &[7; 200]].concat()
}

pub(crate) fn decode(value: &[u8]) -> u32 {
    u32::from_be_bytes(value[..4].try_into().unwrap())
}

impl Player {
    pub(crate) fn new(number: u32, manner: Manner, random: Random, families: Vec<ColumnFamily>) -> Self {
        let (open, undecided, committed) = (None, Vec::new(), Vec::new());
        Self { manner, random, families, open, undecided, written: 0, number, committed, refused: 0 }
    }

    fn at(&mut self) -> (u8, u8) {
        (self.random.below(u64::from(FAMILIES)) as u8, self.random.below(KEYS) as u8)
    }

    fn value(&mut self) -> u32 {
        self.written += 1;
        self.number << 24 | self.written
    }

    fn range(&mut self) -> (u8, u8, u8) {
        let (family, start) = self.at();
        (family, start, start + 1 + self.random.below(4) as u8)
    }

    /// Does one thing more; now and then commits.
    pub(crate) fn step(&mut self, db: &ColumnFamilyDatabase) {
        if !self.undecided.is_empty() && self.random.once_in(12) {
            return self.decide(db);
        }
        let Some(mut open) = self.open.take() else {
            if self.random.once_in(6) {
                return self.write_plainly();
            }
            let settings = db.transaction().level(self.manner.level).pessimistic(self.manner.locks);
            let transaction = settings.lock_timeout(self.manner.patience).begin().unwrap();
            let began = transaction.began_at().unwrap_or(db.snapshot().unwrap().sequence_number()).0;
            self.open = Some(Open { transaction, began, ops: Vec::new() });
            return;
        };
        match self.random.below(10) {
            0..=2 => {
                let at = self.at();
                let family = &self.families[usize::from(at.0)];
                if self.manner.locks && self.random.once_in(2) {
                    let mode = if self.random.once_in(2) { LockMode::Shared } else { LockMode::Exclusive };
                    let found = open.transaction.get_for_update(family, [at.1], mode);
                    let read = |found: Option<Value>| Op::GetLocked(at, found.map(|value| decode(&value)));
                    return self.go_on(open, found.map(read));
                }
                let found = if self.manner.untracked {
                    open.transaction.get_untracked(family, [at.1])
                } else {
                    open.transaction.get(family, [at.1])
                };
                let found = found.unwrap().map(|value| decode(&value));
                open.ops.push(if self.manner.pretends {
                    Op::GetLocked(at, found)
                } else {
                    Op::Get(at, found)
                });
            }
            3..=4 => {
                let range = self.range();
                open.ops.push(self.read_range(&open.transaction, range));
            }
            5..=6 => {
                let (at, value) = (self.at(), self.value());
                let put = open.transaction.put(&self.families[usize::from(at.0)], [at.1], encode(value));
                return self.go_on(open, put.map(|()| Op::Put(at, value)));
            }
            7 => {
                let at = self.at();
                let deleted = open.transaction.delete(&self.families[usize::from(at.0)], [at.1]);
                return self.go_on(open, deleted.map(|()| Op::Delete(at)));
            }
            8 if self.random.once_in(2) => {
                let (family, start, end) = self.range();
                let handle = &self.families[usize::from(family)];
                let deleted = open.transaction.delete_range(handle, [start]..[end]);
                return self.go_on(open, deleted.map(|()| Op::DeleteRange(family, start, end)));
            }
            _ => return self.end(db, open),
        }
        self.open = Some(open);
    }

    /// Notes what was done, in a transaction that is as before if it was refused; then some give up.
    fn go_on(&mut self, mut open: Open, done: Result<Op>) {
        match done {
            Ok(op) => open.ops.push(op),
            Err(error) => {
                let may_be = [ErrorKind::Conflict, ErrorKind::LockTimeout, ErrorKind::Deadlock];
                let is_locked = self.manner.locks && may_be.contains(&error.kind());
                assert!(is_locked || self.is_held_back(error.kind()), "{error}");
                self.refused += 1;
                if self.random.once_in(2) {
                    return;
                }
            }
        }
        self.open = Some(open);
    }

    fn read_range(&mut self, transaction: &Transaction, (family, start, end): (u8, u8, u8)) -> Op {
        let handle = &self.families[usize::from(family)];
        let mut found = Vec::new();
        if self.manner.untracked {
            let mut cursor = transaction.cursor_untracked(handle, [start]..[end]).unwrap();
            while cursor.next().unwrap() {
                found.push((cursor.key()[0], decode(cursor.value().unwrap())));
            }
        } else if self.random.once_in(3) {
            let mut cursor = transaction.cursor_in(handle, [start]..[end]).unwrap();
            while cursor.prev().unwrap() {
                found.push((cursor.key()[0], decode(cursor.value().unwrap())));
            }
            found.reverse();
        } else if self.random.once_in(2) {
            let mut cursor = transaction.cursor_in(handle, [start]..[end]).unwrap();
            while cursor.next().unwrap() {
                found.push((cursor.key()[0], decode(cursor.value().unwrap())));
            }
        } else {
            let entries = transaction.range(handle, [start]..[end]).unwrap().map(Result::unwrap);
            found.extend(entries.map(|(key, value)| (key[0], decode(&value))));
        }
        Op::Range(family, start, end, found)
    }

    /// Whether somebody who is prepared may be why something was refused.
    fn is_held_back(&self, kind: ErrorKind) -> bool {
        self.manner.prepares && matches!(kind, ErrorKind::AwaitsDecision | ErrorKind::LockTimeout)
    }

    fn end(&mut self, db: &ColumnFamilyDatabase, Open { transaction, began, ops }: Open) {
        if self.random.once_in(10) {
            return transaction.rollback();
        }
        if self.manner.prepares && self.random.once_in(2) {
            let name = format!("{} {began} {}", self.number, transaction.id());
            match transaction.prepare(&name) {
                Ok(_) => self.undecided.push(Undecided { name, began, ops }),
                Err(error) => {
                    let is_refused = error.kind() == ErrorKind::Conflict || self.is_held_back(error.kind());
                    assert!(is_refused, "{error}");
                    assert!(find(db, &name).is_none(), "what was refused is prepared");
                    self.refused += 1;
                }
            }
            return;
        }
        let writes = !transaction.is_empty();
        match transaction.commit() {
            Ok(number) => {
                self.committed.push(Committed { began, number: writes.then_some(number.0), ops });
            }
            Err(error) => {
                assert!(error.kind() == ErrorKind::Conflict || self.is_held_back(error.kind()), "{error}");
                self.refused += 1;
            }
        }
    }

    /// Decides one that is prepared.
    pub(crate) fn decide(&mut self, db: &ColumnFamilyDatabase) {
        let Undecided { name, began, ops } =
            self.undecided.swap_remove(self.random.below(self.undecided.len() as u64) as usize);
        let prepared = find(db, &name).expect("what was prepared is there until it is decided");
        if self.random.once_in(4) {
            prepared.rollback().unwrap();
        } else {
            let number = prepared.commit().unwrap().0;
            self.committed.push(Committed { began, number: Some(number), ops });
        }
    }

    /// Writes outside of any transaction.
    fn write_plainly(&mut self) {
        let (at, value) = (self.at(), self.value());
        let family = &self.families[usize::from(at.0)];
        let (number, op) = if self.random.once_in(4) {
            (family.delete_range([at.1]..[at.1 + 2]), Op::DeleteRange(at.0, at.1, at.1 + 2))
        } else {
            (family.put([at.1], encode(value)), Op::Put(at, value))
        };
        let number = match number {
            Err(error) if self.manner.locks && error.kind() == ErrorKind::LockTimeout => return,
            Err(error) if self.is_held_back(error.kind()) => return,
            number => number.unwrap(),
        };
        self.committed.push(Committed { began: number.0 - 1, number: Some(number.0), ops: vec![op] });
    }
}

fn find(db: &ColumnFamilyDatabase, name: &str) -> Option<PreparedTransaction> {
    db.prepared_transactions().unwrap().into_iter().find(|prepared| prepared.name() == name.as_bytes())
}
