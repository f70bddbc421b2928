//! Transfers between accounts by many threads, and an auditor who counts the money all the while. Half way
//! through, the process that does it is killed and another one goes on with what it left: no coin is lost.
//!
//! ```sh
//! cargo run --release --example bank -- --seconds 10 --threads 8 --level serializable
//! cargo run --release --example bank -- --seconds 10 --threads 8 --level read-committed
//! cargo run --release --example bank -- --seconds 10 --threads 8 --level snapshot --pessimistic
//! ```

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use peristyle::{
    ColumnFamily, ColumnFamilyDatabase, Error, FamilyOptions, IsolationLevel, LockMode, WriteBatch,
};

/// What each account holds at first.
const OPENING_BALANCE: u64 = 1000;
/// Tries of a transfer; with few accounts and many threads some take many.
const TRIES: u32 = 1000;

#[derive(Parser)]
struct Arguments {
    /// For how long, in seconds, the kill in the middle included
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Threads that transfer
    #[arg(long, default_value_t = 8)]
    threads: u64,
    /// Number of accounts
    #[arg(long, default_value_t = 100)]
    accounts: u64,
    #[arg(long, value_enum, default_value_t = Level::Serializable)]
    level: Level,
    /// Lock accounts before they are read, and lock what is written; what is read at the level read-committed
    /// is locked in any case
    #[arg(long)]
    pessimistic: bool,
    /// Where the bank is, or will be; if not given, in a new directory that is removed in the end
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Transfers until it is killed
    #[arg(long, hide = true)]
    until_killed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    Serializable,
    Snapshot,
    ReadCommitted,
}

impl From<Level> for IsolationLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Serializable => Self::Serializable,
            Level::Snapshot => Self::Snapshot,
            Level::ReadCommitted => Self::ReadCommitted,
        }
    }
}

struct Bank {
    db: ColumnFamilyDatabase,
    accounts: ColumnFamily,
    journal: ColumnFamily,
    size: u64,
    level: IsolationLevel,
    /// Whether what is read is locked, and whether what is written is.
    locks: bool,
    pessimistic: bool,
    transfers: AtomicU64,
    refused: AtomicU64,
    retries: AtomicU64,
    audits: AtomicU64,
    closing: AtomicBool,
}

fn number(value: &[u8]) -> u64 {
    value.try_into().map_or(0, u64::from_be_bytes)
}

impl Bank {
    fn open(directory: &Path, arguments: &Arguments) -> peristyle::Result<Self> {
        let db = ColumnFamilyDatabase::open(directory)?;
        let accounts = db.column_family_or_create("accounts", FamilyOptions::default())?;
        let journal = db.column_family_or_create("journal", FamilyOptions::default())?;
        if accounts.is_empty()? {
            let mut batch = WriteBatch::new();
            for account in 0..arguments.accounts {
                batch.put(&accounts, account.to_be_bytes(), OPENING_BALANCE.to_be_bytes());
            }
            db.write(&batch)?;
        }
        let size = accounts.len()?;
        let pessimistic = arguments.pessimistic;
        // Where a commit is not checked, only a lock keeps others from what was read.
        let locks = pessimistic || arguments.level == Level::ReadCommitted;
        let level = arguments.level.into();
        let (transfers, refused, retries, audits) = Default::default();
        let closing = AtomicBool::new(false);
        Ok(Self {
            db,
            accounts,
            journal,
            size,
            level,
            locks,
            pessimistic,
            transfers,
            refused,
            retries,
            audits,
            closing,
        })
    }

    /// Moves `amount`, or what there is of it, in one transaction, and notes it in the journal.
    fn transfer(&self, from: u64, to: u64, amount: u64) -> peristyle::Result<()> {
        let mut runs = 0;
        let settings = self.db.transaction().level(self.level).pessimistic(self.pessimistic);
        let moved = settings.tries(TRIES).run(|transaction| {
            runs += 1;
            let mut balance = |account: u64| {
                let key = account.to_be_bytes();
                let value = match self.locks {
                    true => transaction.get_for_update(&self.accounts, key, LockMode::Exclusive)?,
                    false => transaction.get(&self.accounts, key)?,
                };
                Ok::<_, Error>(value.map_or(0, |value| number(&value)))
            };
            let (payer, payee) = (balance(from)?, balance(to)?);
            let amount = amount.min(payer);
            transaction.put(&self.accounts, from.to_be_bytes(), (payer - amount).to_be_bytes())?;
            transaction.put(&self.accounts, to.to_be_bytes(), (payee + amount).to_be_bytes())?;
            transaction.put(
                &self.journal,
                [from.to_be_bytes(), to.to_be_bytes()].concat(),
                amount.to_be_bytes(),
            )
        });
        self.retries.fetch_add(runs - 1, Ordering::Relaxed);
        match moved {
            Ok(()) => self.transfers.fetch_add(1, Ordering::Relaxed),
            Err(error) if error.conflict().is_some() || !error.awaited().is_empty() => {
                self.refused.fetch_add(1, Ordering::Relaxed)
            }
            Err(error) => return Err(error),
        };
        Ok(())
    }

    fn transfer_until_closed(&self, teller: u64) -> peristyle::Result<()> {
        let mut random = teller.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = |bound: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        while !self.closing.load(Ordering::Relaxed) {
            let from = below(self.size);
            let to = (from + 1 + below(self.size - 1)) % self.size;
            self.transfer(from, to, below(100))?;
        }
        Ok(())
    }

    /// Counts the money of one moment.
    ///
    /// # Panics
    /// If any is missing, or there is more than there was.
    fn audit(&self) -> peristyle::Result<()> {
        let moment = self.db.snapshot()?;
        let mut sum = 0;
        for entry in moment.column_family(&self.accounts)?.iter() {
            sum += number(&entry?.1);
        }
        assert_eq!(sum, self.size * OPENING_BALANCE, "the money of the bank at {}", moment.sequence_number());
        self.audits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn audit_until_closed(&self) -> peristyle::Result<()> {
        while !self.closing.load(Ordering::Relaxed) {
            self.audit()?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn work(&self, threads: u64, time: Duration) -> peristyle::Result<()> {
        thread::scope(|scope| {
            let tellers = (0..threads).map(|teller| scope.spawn(move || self.transfer_until_closed(teller)));
            let mut all: Vec<_> = tellers.collect();
            all.push(scope.spawn(|| self.audit_until_closed()));
            thread::sleep(time);
            self.closing.store(true, Ordering::Relaxed);
            all.into_iter().try_for_each(|thread| match thread.join() {
                Ok(worked) => worked,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }
}

/// Has another process do the same, until it is killed.
fn work_until_killed(arguments: &Arguments, directory: &Path, time: Duration) -> std::io::Result<()> {
    let level = match arguments.level {
        Level::Serializable => "serializable",
        Level::Snapshot => "snapshot",
        Level::ReadCommitted => "read-committed",
    };
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--until-killed", "--level", level, "--directory"])
        .arg(directory)
        .args(arguments.pessimistic.then_some("--pessimistic"))
        .args(["--threads", &arguments.threads.to_string(), "--accounts", &arguments.accounts.to_string()])
        .stdin(Stdio::null())
        .spawn()?;
    thread::sleep(time);
    // One that ended by itself found something wrong, and has said what.
    if let Some(status) = child.try_wait()? {
        return Err(std::io::Error::other(format!("the bank was closed before its time: {status}")));
    }
    child.kill()?;
    child.wait().map(drop)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    if arguments.accounts < 2 {
        return Err("a transfer needs two accounts".into());
    }
    let temporary = tempfile::tempdir()?;
    let directory = arguments.directory.clone().unwrap_or_else(|| temporary.path().join("bank"));
    if arguments.until_killed {
        return Ok(Bank::open(&directory, &arguments)?.work(arguments.threads, Duration::MAX)?);
    }
    let half = Duration::from_secs_f64(arguments.seconds / 2.0);
    work_until_killed(&arguments, &directory, half)?;
    let bank = Bank::open(&directory, &arguments)?;
    bank.audit()?;
    println!("killed after {half:?}: {} pairs have made transfers, and no coin is lost", bank.journal.len()?);
    bank.work(arguments.threads, half)?;
    bank.audit()?;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{} transfers in {half:?}, run again {} times, given up {} times; {} audits, each of {} coins",
        count(&bank.transfers),
        count(&bank.retries),
        count(&bank.refused),
        count(&bank.audits),
        bank.size * OPENING_BALANCE,
    );
    bank.db.close()?;
    Ok(())
}
