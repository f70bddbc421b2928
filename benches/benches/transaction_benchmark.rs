//! Transactions of four reads and four writes by many threads, beside plain batches of the same four writes
//! and beside RocksDB's two kinds.
//!
//! Run it with `benches/run transaction_benchmark`. *Disjoint*: each thread has keys of its own. *Contended*:
//! all threads share few keys. A refused transaction is run again, and counts once. All commits are unsynced
//! and logged. Every kind has a new database with the same entries; kinds take turns, and the medians of the
//! rounds are printed.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use peristyle::{ColumnFamily, ColumnFamilyDatabase, FamilyOptions, IsolationLevel, LockMode, WriteBatch};

/// Reads, and writes, of a transaction.
const KEYS: usize = 4;
const VALUE_BYTES: usize = 100;

#[derive(Parser)]
#[command(about = "Transactions: Peristyle beside plain batches and RocksDB")]
struct Arguments {
    #[arg(long, default_value_t = 8)]
    threads: u64,
    /// Entries of each database
    #[arg(long, default_value_t = 400_000)]
    entries: u64,
    /// Keys that all threads share where they contend
    #[arg(long, default_value_t = 100)]
    shared: u64,
    /// Seconds for each kind in each round
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Little of everything
    #[arg(long)]
    quick: bool,
    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

type Chosen = [[u8; 8]; KEYS];

/// A database with a way to do transactions.
trait Kind: Sync {
    fn load(&self, entries: u64) -> Result<()>;
    /// Does one until it is committed. Says how often it was refused.
    fn transact(&self, keys: &Chosen, value: &[u8]) -> Result<u64>;
}

struct Peristyle {
    db: ColumnFamilyDatabase,
    family: ColumnFamily,
    /// `None`: plain batches, which read nothing.
    level: Option<IsolationLevel>,
    /// Whether what is read and written is locked.
    locks: bool,
}

impl Peristyle {
    fn open(path: &Path, level: Option<IsolationLevel>, locks: bool) -> Result<Box<dyn Kind>> {
        let db = ColumnFamilyDatabase::open(path)?;
        let family = db.create_column_family("entries", FamilyOptions::default())?;
        Ok(Box::new(Self { db, family, level, locks }))
    }
}

impl Kind for Peristyle {
    fn load(&self, entries: u64) -> Result<()> {
        for first in (0..entries).step_by(1000) {
            let mut batch = WriteBatch::new();
            for key in first..entries.min(first + 1000) {
                batch.put(&self.family, key.to_be_bytes(), [0; VALUE_BYTES]);
            }
            self.db.write(&batch)?;
        }
        Ok(self.db.flush()?)
    }

    fn transact(&self, keys: &Chosen, value: &[u8]) -> Result<u64> {
        let Some(level) = self.level else {
            let mut batch = WriteBatch::new();
            for key in keys {
                batch.put(&self.family, key, value);
            }
            self.db.write(&batch)?;
            return Ok(0);
        };
        let mut runs = 0;
        let settings = self.db.transaction().level(level).pessimistic(self.locks).tries(u32::MAX);
        settings.run(|transaction| {
            runs += 1;
            for key in keys {
                std::hint::black_box(match self.locks {
                    true => transaction.get_for_update(&self.family, key, LockMode::Exclusive)?,
                    false => transaction.get(&self.family, key)?,
                });
            }
            keys.iter().try_for_each(|key| transaction.put(&self.family, key, value))
        })?;
        Ok(runs - 1)
    }
}

#[cfg(feature = "rocksdb")]
mod rocks {
    use std::path::Path;

    use anyhow::Result;
    use peristyle_benches::peers::provide_missing_symbols;
    use rocksdb::{
        Error, ErrorKind, OptimisticTransactionDB, OptimisticTransactionOptions, Options, Transaction,
        TransactionDB, TransactionDBOptions, TransactionOptions, WriteOptions,
    };

    use super::{Chosen, Kind, VALUE_BYTES};

    fn options() -> Options {
        provide_missing_symbols();
        let mut options = Options::default();
        options.create_if_missing(true);
        options.increase_parallelism(std::thread::available_parallelism().map_or(2, |n| n.get() as i32));
        options
    }

    fn again(error: &Error) -> bool {
        matches!(error.kind(), ErrorKind::Busy | ErrorKind::TryAgain | ErrorKind::TimedOut)
    }

    fn run<D>(transaction: Transaction<'_, D>, keys: &Chosen, value: &[u8]) -> Result<(), Error> {
        for key in keys {
            std::hint::black_box(transaction.get_for_update(key, true)?);
        }
        keys.iter().try_for_each(|key| transaction.put(key, value))?;
        transaction.commit()
    }

    fn until_committed(mut once: impl FnMut() -> Result<(), Error>) -> Result<u64> {
        let mut refused = 0;
        loop {
            match once() {
                Ok(()) => return Ok(refused),
                Err(error) if again(&error) => refused += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(super) struct Optimistic(OptimisticTransactionDB);

    impl Optimistic {
        pub(super) fn open(path: &Path) -> Result<Box<dyn Kind>> {
            Ok(Box::new(Self(OptimisticTransactionDB::open(&options(), path)?)))
        }
    }

    impl Kind for Optimistic {
        fn load(&self, entries: u64) -> Result<()> {
            (0..entries).try_for_each(|key| self.0.put(key.to_be_bytes(), [0; VALUE_BYTES]))?;
            Ok(self.0.flush()?)
        }

        fn transact(&self, keys: &Chosen, value: &[u8]) -> Result<u64> {
            let mut settings = OptimisticTransactionOptions::default();
            settings.set_snapshot(true);
            until_committed(|| run(self.0.transaction_opt(&WriteOptions::default(), &settings), keys, value))
        }
    }

    pub(super) struct Pessimistic(TransactionDB);

    impl Pessimistic {
        pub(super) fn open(path: &Path) -> Result<Box<dyn Kind>> {
            Ok(Box::new(Self(TransactionDB::open(&options(), &TransactionDBOptions::default(), path)?)))
        }
    }

    impl Kind for Pessimistic {
        fn load(&self, entries: u64) -> Result<()> {
            Ok((0..entries).try_for_each(|key| self.0.put(key.to_be_bytes(), [0; VALUE_BYTES]))?)
        }

        fn transact(&self, keys: &Chosen, value: &[u8]) -> Result<u64> {
            // In one order, so that there are no deadlocks.
            let mut keys = *keys;
            keys.sort_unstable();
            let settings = TransactionOptions::default();
            until_committed(|| run(self.0.transaction_opt(&WriteOptions::default(), &settings), &keys, value))
        }
    }
}

type Open = fn(&Path) -> Result<Box<dyn Kind>>;

fn kinds() -> Vec<(&'static str, Open)> {
    let mut kinds: Vec<(_, Open)> = vec![
        ("Peristyle, batches of 4", |path| Peristyle::open(path, None, false)),
        ("Peristyle, serializable", |path| Peristyle::open(path, Some(IsolationLevel::Serializable), false)),
        ("Peristyle, snapshot", |path| Peristyle::open(path, Some(IsolationLevel::Snapshot), false)),
        ("Peristyle, pessimistic", |path| Peristyle::open(path, Some(IsolationLevel::ReadCommitted), true)),
    ];
    #[cfg(feature = "rocksdb")]
    kinds.extend::<[(_, Open); 2]>([
        ("RocksDB, OptimisticTransactionDB", rocks::Optimistic::open),
        ("RocksDB, TransactionDB", rocks::Pessimistic::open),
    ]);
    kinds
}

/// Transactions in a second, and of a thousand how many were refused.
fn measure(kind: &dyn Kind, arguments: &Arguments, contended: bool, round: u64) -> Result<(f64, f64)> {
    let (done, refused, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let started = Instant::now();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..arguments.threads)
            .map(|thread| {
                let (done, refused, over) = (&done, &refused, &over);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(round << 32 | thread);
                    let own = arguments.entries / arguments.threads;
                    let keys = if contended { 0..arguments.shared } else { thread * own..(thread + 1) * own };
                    while !over.load(Ordering::Relaxed) {
                        let chosen = std::array::from_fn(|_| random.u64(keys.clone()).to_be_bytes());
                        let value = [random.u8(..); VALUE_BYTES];
                        refused.fetch_add(kind.transact(&chosen, &value)?, Ordering::Relaxed);
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        thread::sleep(Duration::from_secs_f64(arguments.seconds));
        over.store(true, Ordering::Relaxed);
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(worked) => worked,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
    .map(|()| {
        let (done, refused) = (done.into_inner() as f64, refused.into_inner() as f64);
        (done / started.elapsed().as_secs_f64(), 1000.0 * refused / (done + refused).max(1.0))
    })
}

fn median(mut figures: Vec<(f64, f64)>) -> (f64, f64) {
    figures.sort_by(|a, b| a.0.total_cmp(&b.0));
    figures[figures.len() / 2]
}

fn main() -> Result<()> {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        (arguments.entries, arguments.seconds, arguments.rounds) = (20_000, 0.2, 1);
    }
    println!(
        "| kind | disjoint keys, transactions/s | refused, of 1000 | {} shared keys, transactions/s | refused, of 1000 |",
        arguments.shared
    );
    println!("|---|---|---|---|---|");
    let kinds = kinds();
    let directories: Vec<_> =
        kinds.iter().map(|_| tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))).collect();
    let mut open = Vec::new();
    for ((_, kind), directory) in kinds.iter().zip(&directories) {
        let directory = directory.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
        let kind = kind(&directory.path().join("database"))?;
        kind.load(arguments.entries)?;
        open.push(kind);
    }
    let mut figures = vec![[Vec::new(), Vec::new()]; kinds.len()];
    for round in 0..arguments.rounds {
        for (kind, figures) in open.iter().zip(&mut figures) {
            for (figures, contended) in figures.iter_mut().zip([false, true]) {
                figures.push(measure(&**kind, &arguments, contended, round as u64)?);
            }
        }
    }
    for ((name, _), [disjoint, contended]) in kinds.iter().zip(figures) {
        let ((alone, refused), (shared, refused_shared)) = (median(disjoint), median(contended));
        println!("| {name} | {alone:.0} | {refused:.1} | {shared:.0} | {refused_shared:.1} |");
    }
    Ok(())
}
