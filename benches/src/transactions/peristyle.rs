//! Peristyle: its levels, and writes outside of transactions beside them.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use peristyle::{
    ColumnFamily, ColumnFamilyDatabase, FamilyOptions, IsolationLevel, LockMode, Transaction, WriteBatch,
};

use super::{Access, Kind, Store, take};

pub(super) const KINDS: [Kind; 6] = [
    Kind { reads: false, ..Kind::new("Peristyle, batches", |path| open(path, Way::Batch)) },
    Kind {
        reads: false,
        ..Kind::new("Peristyle, single writes", |path| open(path, Way::Singles { beside: false }))
    },
    Kind {
        reads: false,
        ..Kind::new("Peristyle, single writes beside an open transaction", |path| {
            open(path, Way::Singles { beside: true })
        })
    },
    Kind::new("Peristyle, serializable", |path| open(path, Way::Optimistic(IsolationLevel::Serializable))),
    Kind::new("Peristyle, snapshot", |path| open(path, Way::Optimistic(IsolationLevel::Snapshot))),
    Kind::new("Peristyle, pessimistic", |path| open(path, Way::Pessimistic)),
];

/// For how long anybody waits for a lock: longer than any does.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy)]
enum Way {
    Batch,
    Singles { beside: bool },
    Optimistic(IsolationLevel),
    Pessimistic,
}

struct Peristyle {
    db: ColumnFamilyDatabase,
    family: ColumnFamily,
    way: Way,
    /// Open while others write.
    beside: Mutex<Option<Transaction>>,
}

fn open(path: &Path, way: Way) -> Result<Box<dyn Store>> {
    let db = ColumnFamilyDatabase::open(path)?;
    let family = db.create_column_family("entries", FamilyOptions::default())?;
    Ok(Box::new(Peristyle { db, family, way, beside: Mutex::new(None) }))
}

impl Store for Peristyle {
    fn run(&self, work: &mut dyn FnMut(&mut dyn Access) -> Result<()>) -> Result<u64> {
        let (level, locks) = match self.way {
            Way::Batch => {
                let mut batch = Batch { batch: WriteBatch::new(), family: &self.family };
                work(&mut batch)?;
                self.db.write(&batch.batch)?;
                return Ok(0);
            }
            Way::Singles { .. } => {
                work(&mut Single(&self.family))?;
                return Ok(0);
            }
            Way::Optimistic(level) => (level, false),
            Way::Pessimistic => (IsolationLevel::ReadCommitted, true),
        };
        let settings = self.db.transaction().level(level).pessimistic(locks).lock_timeout(PATIENCE);
        let mut runs = 0;
        settings.tries(u32::MAX).run(|transaction| {
            runs += 1;
            work(&mut InTransaction { transaction, family: &self.family, locks })
        })?;
        Ok(runs - 1)
    }

    fn quiet(&self) -> Result<()> {
        let mut beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner);
        *beside = None;
        self.db.flush()?;
        self.db.wait_until_idle()?;
        if let Way::Singles { beside: true } = self.way {
            let transaction = self.db.begin()?;
            transaction.get(&self.family, [])?;
            *beside = Some(transaction);
        }
        Ok(())
    }
}

struct Batch<'a> {
    batch: WriteBatch,
    family: &'a ColumnFamily,
}

impl Access for Batch<'_> {
    fn get(&mut self, _key: &[u8], _to_write: bool, _value: &mut Vec<u8>) -> Result<bool> {
        Ok(false)
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.batch.put(self.family, key, value);
        Ok(())
    }
}

struct Single<'a>(&'a ColumnFamily);

impl Access for Single<'_> {
    fn get(&mut self, _key: &[u8], _to_write: bool, _value: &mut Vec<u8>) -> Result<bool> {
        Ok(false)
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.0.put(key, value)?;
        Ok(())
    }
}

struct InTransaction<'a> {
    transaction: &'a mut Transaction,
    family: &'a ColumnFamily,
    locks: bool,
}

impl Access for InTransaction<'_> {
    fn get(&mut self, key: &[u8], to_write: bool, value: &mut Vec<u8>) -> Result<bool> {
        let mode = if to_write { LockMode::Exclusive } else { LockMode::Shared };
        let found = match self.locks {
            true => self.transaction.get_for_update(self.family, key, mode)?,
            false => self.transaction.get(self.family, key)?,
        };
        Ok(take(found, value))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.transaction.put(self.family, key, value)?)
    }
}
