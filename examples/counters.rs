//! Page views by minute: many threads count, each view is one merge that reads nothing, and whoever wants to
//! know asks while they count. Counts live for some minutes, and then they are gone.
//!
//! ```sh
//! cargo run --release --example counters -- --seconds 10 --threads 8
//! ```
//!
//! The database has a clock of its own, which runs faster, so that there is something to see in a few
//! seconds. In the end what is left is held against what was counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use peristyle::{ColumnFamily, ColumnFamilyDatabase, FamilyOptions, FamilySnapshot, merge_operators};

const MINUTE: u64 = 60;
const PAGES: [&str; 6] = ["/", "/docs", "/download", "/blog", "/about", "/contact"];

#[derive(Parser)]
struct Arguments {
    /// For how long, in seconds
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Threads that count
    #[arg(long, default_value_t = 4)]
    threads: u64,
    /// How long counts live, in minutes of the database's clock
    #[arg(long, default_value_t = 5)]
    keep: u64,
    /// Seconds of the database's clock in a second
    #[arg(long, default_value_t = 60.0)]
    speed: f64,
}

/// Views of each page in each minute.
type Counts = BTreeMap<(u64, String), u64>;

/// A clock that begins now, at a full minute, and runs faster.
#[derive(Clone, Copy)]
struct Clock {
    started: Instant,
    began: SystemTime,
    speed: f64,
}

impl Clock {
    fn new(speed: f64) -> Self {
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let began = SystemTime::UNIX_EPOCH + Duration::from_secs(since - since % MINUTE);
        Self { started: Instant::now(), began, speed }
    }

    fn now(self) -> SystemTime {
        self.began + self.started.elapsed().mul_f64(self.speed)
    }

    /// Seconds since 1970.
    fn second(self) -> u64 {
        self.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    fn minute(self) -> u64 {
        self.second() / MINUTE
    }

    /// Waits until `minute` is over, or `end` has come. Says whether it is over.
    fn wait_for_end_of(self, minute: u64, end: Instant) -> bool {
        while self.minute() <= minute {
            if Instant::now() >= end {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        true
    }
}

/// Minutes come in order, so that those of a while are neighbours.
fn key(minute: u64, page: &str) -> Vec<u8> {
    [&minute.to_be_bytes(), page.as_bytes()].concat()
}

/// All that is counted at one moment, from `minute` on until `end`.
fn counted(moment: &FamilySnapshot, minute: u64, end: u64) -> peristyle::Result<Counts> {
    let mut counts = Counts::new();
    for entry in moment.range(key(minute, "")..key(end, "")) {
        let (key, value) = entry?;
        let (minute, page) = key.split_at(size_of::<u64>());
        let minute = minute.try_into().map_or(0, u64::from_be_bytes);
        let views = value[..].try_into().map_or(0, u64::from_le_bytes);
        counts.insert((minute, String::from_utf8_lossy(page).into_owned()), views);
    }
    Ok(counts)
}

/// Counts views until it is told to end. Returns what it has counted.
fn count(
    views: &ColumnFamily,
    clock: Clock,
    visitor: u64,
    closing: &AtomicBool,
) -> peristyle::Result<Counts> {
    let mut random = visitor.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut counts = Counts::new();
    while !closing.load(Ordering::Relaxed) {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Half of those who come to a page go on to none of those behind it.
        let page = PAGES[((random >> 33) as u32).trailing_ones() as usize % PAGES.len()];
        let minute = clock.minute();
        views.merge(key(minute, page), 1u64.to_le_bytes())?;
        *counts.entry((minute, page.to_owned())).or_default() += 1;
    }
    Ok(counts)
}

fn print_row(minute: u64, counts: &Counts) {
    let row = PAGES.map(|page| {
        let views = counts.get(&(minute, page.to_owned())).copied().unwrap_or(0);
        format!("{views:>10}")
    });
    println!("{:02}:{:02} {}", minute / 60 % 24, minute % 60, row.concat());
}

fn print_head() {
    println!("      {}", PAGES.map(|page| format!("{page:>10}")).concat());
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    if arguments.keep == 0 || arguments.speed <= 0.0 {
        return Err("counts live for a minute at least, and the clock goes on".into());
    }
    let directory = tempfile::tempdir()?;
    let clock = Clock::new(arguments.speed);
    let db =
        ColumnFamilyDatabase::builder().clock(move || clock.now()).open(directory.path().join("counters"))?;
    let options = FamilyOptions::default()
        .merge_operator(merge_operators::add_u64())
        .expire_after(Duration::from_secs(arguments.keep * MINUTE));
    let views = db.column_family_or_create("views", options)?;

    let first = clock.minute();
    let end = Instant::now() + Duration::from_secs_f64(arguments.seconds);
    let closing = AtomicBool::new(false);
    let written = thread::scope(|scope| {
        let counting: Vec<_> = (0..arguments.threads)
            .map(|visitor| {
                let (views, closing) = (&views, &closing);
                scope.spawn(move || count(views, clock, visitor, closing))
            })
            .collect();
        print_head();
        // Each minute that is over is looked at while the next one is counted.
        let asking = || -> peristyle::Result<()> {
            for minute in first.. {
                if !clock.wait_for_end_of(minute, end) {
                    break;
                }
                print_row(minute, &counted(&views.snapshot()?, minute, minute + 1)?);
            }
            Ok(())
        };
        let asked = asking();
        closing.store(true, Ordering::Relaxed);
        let mut written = Counts::new();
        for counting in counting {
            let counted = match counting.join() {
                Ok(counted) => counted?,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            counted.into_iter().for_each(|(place, views)| *written.entry(place).or_default() += views);
        }
        asked.map(|()| written)
    })?;

    let left = counted(&views.snapshot()?, first, u64::MAX)?;
    let end = clock.second();
    println!("what is left in the minute {}:", end / MINUTE - first + 1);
    print_head();
    left.keys().map(|(minute, _)| *minute).collect::<BTreeSet<_>>().into_iter().for_each(|minute| {
        print_row(minute, &left);
    });
    for (place @ (minute, page), views) in &written {
        match left.get(place) {
            Some(found) => assert_eq!(found, views, "views of {page} in minute {minute}"),
            None => {
                assert!((minute + arguments.keep) * MINUTE <= end, "those of {minute} are gone too early")
            }
        }
    }
    assert!(left.keys().all(|place| written.contains_key(place)), "views that nobody has counted");
    println!("{} views were counted, and what is left has them all", written.values().sum::<u64>());
    db.compact()?;
    db.close()?;
    Ok(())
}
