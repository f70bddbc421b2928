//! Transactions by many threads, of every kind that Peristyle and its peers have, beside plain batches and
//! single writes.
//!
//! Run it with `benches/run transaction_benchmark`. Four reads and four writes each: *disjoint*, where each
//! thread has keys of its own, and *shared*, where all threads share few keys; then new orders and payments
//! of TPC-C, after which what they have counted is checked. A refused transaction is run again, and counts
//! once. All commits are unsynced. Every kind has a new database with the same entries, and is quiet before
//! each measurement; kinds take turns, and the medians of the rounds are printed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use peristyle_benches::transactions::{Access, Store, kinds};
use peristyle_benches::workload::tpcc::{Size, Terminal};

/// Reads, and writes, of a transaction.
const KEYS: usize = 4;
const VALUE_BYTES: usize = 100;
/// Entries that a transaction loads.
const LOADED_TOGETHER: u64 = 500;

#[derive(Parser)]
#[command(about = "Transactions: Peristyle beside plain batches and its peers")]
struct Arguments {
    #[arg(long, default_value_t = 8)]
    threads: u32,
    /// Entries of each database
    #[arg(long, default_value_t = 400_000)]
    entries: u64,
    /// Keys that all threads share where they contend
    #[arg(long, default_value_t = 100)]
    shared: u64,
    /// Warehouses of TPC-C
    #[arg(long, default_value_t = 4)]
    warehouses: u32,
    /// Seconds for each kind in each round, three times
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only kinds whose names contain one of these, separated by commas
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<String>,
    /// Little of everything
    #[arg(long)]
    quick: bool,
    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// What all threads do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Load {
    Disjoint,
    Shared,
    Orders,
}

const LOADS: [Load; 3] = [Load::Disjoint, Load::Shared, Load::Orders];

/// Transactions in a second, and of a thousand how many were refused.
type Figures = (f64, f64);

/// Does a transaction, and says how often it was refused.
type Step = dyn FnMut(&dyn Store) -> Result<u64>;

impl Arguments {
    fn size(&self) -> Size {
        let (customers, items) = if self.quick { (10, 100) } else { (300, 5000) };
        Size { warehouses: self.warehouses, customers, items }
    }

    fn load(&self, store: &dyn Store) -> Result<()> {
        for first in (0..self.entries).step_by(LOADED_TOGETHER as usize) {
            let keys = first..self.entries.min(first + LOADED_TOGETHER);
            let put = |access: &mut dyn Access, key: u64| access.put(&key.to_be_bytes(), &[0; VALUE_BYTES]);
            store.run(&mut |access| keys.clone().try_for_each(|key| put(access, key)))?;
        }
        self.size().load(store)
    }

    /// What thread `number` does over and over. Says how often that was refused.
    fn step(&self, load: Load, number: u32, seed: u64) -> Box<Step> {
        if load == Load::Orders {
            let mut terminal = Terminal::new(self.size(), number, seed);
            return Box::new(move |store: &dyn Store| terminal.transact(store));
        }
        let own = self.entries / u64::from(self.threads);
        let first = u64::from(number) * own;
        let keys = if load == Load::Shared { 0..self.shared } else { first..first + own };
        let (mut random, mut found) = (fastrand::Rng::with_seed(seed), Vec::new());
        Box::new(move |store: &dyn Store| {
            let mut chosen: [u64; KEYS] = std::array::from_fn(|_| random.u64(keys.clone()));
            // In one order, so that locks make no deadlocks.
            chosen.sort_unstable();
            let value = [random.u8(..); VALUE_BYTES];
            store.run(&mut |access| {
                for key in chosen {
                    std::hint::black_box(access.get(&key.to_be_bytes(), true, &mut found)?);
                }
                chosen.iter().try_for_each(|key| access.put(&key.to_be_bytes(), &value))
            })
        })
    }

    fn measure(&self, store: &dyn Store, load: Load, round: u64) -> Result<Figures> {
        store.quiet()?;
        let (done, refused, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let started = Instant::now();
        thread::scope(|scope| {
            let workers: Vec<_> = (0..self.threads)
                .map(|number| {
                    let (done, refused, over) = (&done, &refused, &over);
                    scope.spawn(move || {
                        let mut step = self.step(load, number, u64::from(number) << 8 | round);
                        while !over.load(Ordering::Relaxed) {
                            refused.fetch_add(step(store)?, Ordering::Relaxed);
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(())
                    })
                })
                .collect();
            thread::sleep(Duration::from_secs_f64(self.seconds));
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
}

fn median(mut figures: Vec<Figures>) -> String {
    figures.sort_by(|a, b| a.0.total_cmp(&b.0));
    match figures.get(figures.len() / 2) {
        Some((rate, refused)) => format!("{rate:.0} | {refused:.1}"),
        None => "- | -".into(),
    }
}

fn main() -> Result<()> {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        (arguments.entries, arguments.seconds, arguments.rounds) = (20_000, 0.1, 1);
    }
    let (shared, warehouses) = (arguments.shared, arguments.warehouses);
    println!(
        "| kind | disjoint keys, transactions/s | refused, of 1000 | {shared} shared keys | refused | \
         orders and payments, {warehouses} warehouses | refused |"
    );
    println!("|---|---|---|---|---|---|---|");
    let is_chosen =
        |name: &str| arguments.kinds.is_empty() || arguments.kinds.iter().any(|part| name.contains(part));
    let kinds: Vec<_> = kinds().into_iter().filter(|kind| is_chosen(kind.name)).collect();
    let mut open = Vec::new();
    for kind in &kinds {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let store = (kind.open)(&directory.path().join("database"))?;
        arguments.load(&*store)?;
        open.push((store, directory));
    }
    let mut figures = vec![LOADS.map(|_| Vec::new()); kinds.len()];
    for round in 0..arguments.rounds {
        for ((kind, (store, _)), figures) in kinds.iter().zip(&open).zip(&mut figures) {
            for (load, figures) in LOADS.into_iter().zip(figures) {
                if load != Load::Orders || kind.reads {
                    figures.push(arguments.measure(&**store, load, round as u64)?);
                }
            }
        }
    }
    for ((kind, (store, _)), figures) in kinds.iter().zip(&open).zip(figures) {
        if kind.reads {
            arguments.size().check(&**store)?;
        }
        println!("| {} | {} |", kind.name, figures.map(median).join(" | "));
    }
    Ok(())
}
