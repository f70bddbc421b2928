//! One transaction, and what it should see and leave behind.

use peristyle::{
    ColumnFamily, ColumnFamilyDatabase, Durability, ErrorKind, IsolationLevel, LockMode, Result, Savepoint,
    Transaction,
};

use super::failure;
use super::operation::{Key, Step, TransactionStep, Write};
use super::world::{Entries, HeldCursor, assert_entry, assert_value, merged, merges};

/// A family, and what the transaction sees in it.
pub(crate) type Seen = (ColumnFamily, Entries);

struct Open {
    transaction: Transaction,
    families: Vec<Seen>,
    savepoints: Vec<(Savepoint, Vec<Entries>)>,
    cursor: Option<HeldCursor<peristyle::TransactionCursor>>,
}

fn level(number: u8) -> IsolationLevel {
    [IsolationLevel::Serializable, IsolationLevel::Snapshot, IsolationLevel::ReadCommitted]
        [usize::from(number) % 3]
}

/// Does `steps` to `families` in one transaction, and commits it if asked to, or gives it up. `number` says
/// how: its level, whether it locks what it writes, and whether it is prepared before it ends. Gives what the
/// families hold then. Nobody else writes to them, so there is no conflict.
pub(crate) fn run(
    db: &ColumnFamilyDatabase,
    families: &[Seen],
    number: u8,
    steps: &[TransactionStep],
    durability: Durability,
    commits: bool,
) -> Option<Vec<Entries>> {
    loop {
        let settings = db.transaction().level(level(number)).durability(durability);
        let transaction = settings.pessimistic(number / 3 % 2 == 1).begin().unwrap();
        let mut open =
            Open { transaction, families: families.to_vec(), savepoints: Vec::new(), cursor: None };
        match steps.iter().try_for_each(|step| open.step(step)) {
            // As below.
            Err(error) if error.kind() == ErrorKind::TransactionTooOld => continue,
            done => done.unwrap(),
        }
        for (handle, entries) in &open.families {
            let mut all = open.transaction.iter(handle).unwrap();
            entries.iter().for_each(|entry| assert_entry(all.next().transpose().unwrap(), Some(entry)));
            assert_entry(all.next().transpose().unwrap(), None);
        }
        let is_prepared = number / 6 % 2 == 1;
        if !commits && !is_prepared {
            return None;
        }
        let ended = if is_prepared {
            decide(db, open.transaction, commits)
        } else {
            open.transaction.commit().map(|_| ())
        };
        match ended {
            // Others, who play in other families, have written more meanwhile than may be kept for it.
            Err(error) if error.kind() == ErrorKind::TransactionTooOld => {}
            committed => {
                committed.unwrap();
                if !commits {
                    return None;
                }
                return Some(open.families.into_iter().map(|(_, entries)| entries).collect());
            }
        }
    }
}

/// Prepares it, finds it in the list, and decides it.
fn decide(db: &ColumnFamilyDatabase, transaction: Transaction, commits: bool) -> peristyle::Result<()> {
    let name = transaction.id().to_string();
    drop(transaction.prepare(&name)?);
    let prepared = db.prepared_transactions().unwrap();
    let prepared = prepared.iter().find(|prepared| prepared.name() == name.as_bytes()).unwrap();
    let decided = if commits { prepared.commit().map(|_| ()) } else { prepared.rollback() };
    decided.unwrap();
    assert_eq!(prepared.commit().unwrap_err().kind(), ErrorKind::TransactionNotFound);
    Ok(())
}

impl Open {
    fn index(&self, family: u8) -> usize {
        usize::from(family) % self.families.len()
    }

    /// Fails only with what [`run`] begins again for.
    fn write(&mut self, write: &Write) -> Result<()> {
        let (Write::Put(family, ..)
        | Write::Merge(family, ..)
        | Write::Delete(family, _)
        | Write::DeleteRange(family, _)) = write;
        let index = self.index(*family);
        let (handle, entries) = &mut self.families[index];
        match write {
            Write::Put(_, key, content) => {
                let (key, value) = (entries.order().key(key), content.bytes());
                self.transaction.put(handle, &key, &value)?;
                entries.insert(key, value.into());
            }
            Write::Merge(_, key, content) if merges(&handle.options()) => {
                let (key, operand) = (entries.order().key(key), content.bytes());
                self.transaction.merge(handle, &key, &operand)?;
                let value = merged(entries.get(&key), &operand);
                entries.insert(key, value);
            }
            Write::Merge(..) => {}
            Write::Delete(_, key) => {
                let key = entries.order().key(key);
                self.transaction.delete(handle, &key)?;
                entries.remove(&key);
            }
            Write::DeleteRange(_, range) => {
                let range = entries.order().bounds(range);
                self.transaction.delete_range(handle, range.clone())?;
                entries.remove_range(&range);
            }
        }
        Ok(())
    }

    fn get_for_update(&mut self, family: u8, key: &Key, mode: LockMode) -> Result<()> {
        let index = self.index(family);
        let (handle, entries) = &self.families[index];
        let key = entries.order().key(key);
        let found = self.transaction.get_for_update(handle, &key, mode)?;
        assert_value(found.as_deref(), entries.get(&key), &key);
        Ok(())
    }

    fn get(&self, family: u8, key: &Key) {
        let (handle, entries) = &self.families[self.index(family)];
        let key = entries.order().key(key);
        let expected = entries.get(&key);
        assert_value(self.transaction.get(handle, &key).unwrap().as_deref(), expected, &key);
        assert_value(self.transaction.get_untracked(handle, &key).unwrap().as_deref(), expected, &key);
        assert_eq!(self.transaction.contains_key(handle, &key).unwrap(), expected.is_some());
    }

    fn step(&mut self, step: &TransactionStep) -> Result<()> {
        match step {
            TransactionStep::Write(write) => return self.write(write),
            TransactionStep::GetForUpdate(family, key, shared) => {
                let mode = if *shared { LockMode::Shared } else { LockMode::Exclusive };
                return self.get_for_update(*family, key, mode);
            }
            TransactionStep::Get(family, key) => self.get(*family, key),
            TransactionStep::Walk(family, range, turns) => {
                let (handle, entries) = &self.families[self.index(*family)];
                let range = entries.order().bounds(range);
                let mut iter = self.transaction.range(handle, range.clone()).unwrap();
                let mut model = entries.within(&range);
                for from_back in turns {
                    let (found, expected) = if *from_back {
                        (iter.next_back(), model.next_back())
                    } else {
                        (iter.next(), model.next())
                    };
                    assert_entry(found.transpose().unwrap(), expected);
                }
            }
            TransactionStep::Prefix(family, prefix) => {
                let (handle, entries) = &self.families[self.index(*family)];
                let prefix = entries.order().key(prefix);
                let iter = self.transaction.prefix(handle, &prefix);
                if !entries.order().has_prefixes() {
                    failure(iter, ErrorKind::NoPrefixes);
                    return Ok(());
                }
                let mut iter = iter.unwrap();
                for expected in entries.iter().filter(|(key, _)| key.starts_with(&prefix)) {
                    assert_entry(iter.next().transpose().unwrap(), Some(expected));
                }
                assert_entry(iter.next().transpose().unwrap(), None);
            }
            TransactionStep::Cursor(family, anew, steps) => self.walk(*family, anew.as_ref(), steps),
            TransactionStep::Savepoint => {
                let entries = self.families.iter().map(|(_, entries)| entries.clone()).collect();
                self.savepoints.push((self.transaction.savepoint(), entries));
            }
            TransactionStep::RollBackTo(number) if !self.savepoints.is_empty() => {
                let index = usize::from(*number) % self.savepoints.len();
                self.savepoints.truncate(index + 1);
                let (point, entries) = &self.savepoints[index];
                self.transaction.rollback_to(point).unwrap();
                for ((_, seen), entries) in self.families.iter_mut().zip(entries) {
                    seen.clone_from(entries);
                }
            }
            TransactionStep::Release(number) if !self.savepoints.is_empty() => {
                let index = usize::from(*number) % self.savepoints.len();
                self.transaction.release(&self.savepoints[index].0).unwrap();
                self.savepoints.truncate(index);
            }
            TransactionStep::RollBackTo(_) | TransactionStep::Release(_) => {}
        }
        Ok(())
    }

    /// Moves a cursor, which shows what the transaction saw when it was made.
    fn walk(&mut self, family: u8, anew: Option<&super::operation::Range>, steps: &[Step]) {
        if anew.is_some() || self.cursor.is_none() {
            let (handle, entries) = &self.families[self.index(family)];
            let order = entries.order();
            let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
            let range = anew.map_or(all, |range| order.bounds(range));
            let cursor = self.transaction.cursor_in(handle, range.clone()).unwrap();
            self.cursor = Some(HeldCursor::new(cursor, order, entries.within(&range)));
        }
        if let Some(cursor) = &mut self.cursor {
            steps.iter().for_each(|step| cursor.step(step));
        }
    }
}
