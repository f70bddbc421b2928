//! RocksDB's two kinds. What is read is read for update, shared if it is not written: no less makes them
//! serializable.

use anyhow::Result;
use rocksdb::{
    Error, ErrorKind, MultiThreaded, OptimisticTransactionDB, OptimisticTransactionOptions, Options,
    Transaction, TransactionDB, TransactionDBOptions, TransactionOptions, WriteOptions,
};

use super::{Access, Kind, Store, take};
use crate::peers::{provide_missing_symbols, wait_while};

pub(super) const KINDS: [Kind; 2] = [
    Kind::new("RocksDB, OptimisticTransactionDB", |path| {
        Ok(Box::new(Optimistic(OptimisticTransactionDB::open(&options(), path)?)))
    }),
    Kind::new("RocksDB, TransactionDB", |path| {
        // The wrapper of one thread cannot be asked what it has to do.
        Ok(Box::new(Pessimistic(TransactionDB::<MultiThreaded>::open(
            &options(),
            &TransactionDBOptions::default(),
            path,
        )?)))
    }),
];

fn options() -> Options {
    provide_missing_symbols();
    let mut options = Options::default();
    options.create_if_missing(true);
    options.increase_parallelism(std::thread::available_parallelism().map_or(2, |n| n.get() as i32));
    options
}

/// Returns when neither flushes nor compactions are left to do.
fn until_quiet(property: impl Fn(&str) -> Result<Option<u64>, Error>) -> Result<()> {
    const WORK: [&str; 4] = [
        "rocksdb.mem-table-flush-pending",
        "rocksdb.compaction-pending",
        "rocksdb.num-running-flushes",
        "rocksdb.num-running-compactions",
    ];
    wait_while(|| {
        let mut work = 0;
        for name in WORK {
            work += property(name)?.unwrap_or(0);
        }
        Ok(work > 0)
    })
}

fn until_committed<'a, D: 'a>(
    begin: impl Fn() -> Transaction<'a, D>,
    work: &mut dyn FnMut(&mut dyn Access) -> Result<()>,
) -> Result<u64> {
    let mut refused = 0;
    loop {
        let transaction = begin();
        let done = work(&mut InTransaction(&transaction)).and_then(|()| Ok(transaction.commit()?));
        match done {
            Ok(()) => return Ok(refused),
            Err(error) if error.downcast_ref().is_some_and(is_passing) => refused += 1,
            Err(error) => return Err(error),
        }
    }
}

fn is_passing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Busy | ErrorKind::TryAgain | ErrorKind::TimedOut)
}

struct InTransaction<'a, 'd, D>(&'a Transaction<'d, D>);

impl<D> Access for InTransaction<'_, '_, D> {
    fn get(&mut self, key: &[u8], to_write: bool, value: &mut Vec<u8>) -> Result<bool> {
        Ok(take(self.0.get_for_update(key, to_write)?, value))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.0.put(key, value)?)
    }
}

struct Optimistic(OptimisticTransactionDB);

impl Store for Optimistic {
    fn run(&self, work: &mut dyn FnMut(&mut dyn Access) -> Result<()>) -> Result<u64> {
        let mut settings = OptimisticTransactionOptions::default();
        settings.set_snapshot(true);
        until_committed(|| self.0.transaction_opt(&WriteOptions::default(), &settings), work)
    }

    fn quiet(&self) -> Result<()> {
        self.0.flush()?;
        until_quiet(|name| self.0.property_int_value(name))
    }
}

struct Pessimistic(TransactionDB<MultiThreaded>);

impl Store for Pessimistic {
    fn run(&self, work: &mut dyn FnMut(&mut dyn Access) -> Result<()>) -> Result<u64> {
        let settings = TransactionOptions::default();
        until_committed(|| self.0.transaction_opt(&WriteOptions::default(), &settings), work)
    }

    fn quiet(&self) -> Result<()> {
        self.0.flush()?;
        until_quiet(|name| self.0.property_int_value(name))
    }
}
