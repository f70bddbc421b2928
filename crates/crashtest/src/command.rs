//! The campaigns as a command: splits the budget, shows progress, and says what came out.

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

use crate::campaign::errors::Errors;
use crate::campaign::exhaustive::Exhaustive;
use crate::campaign::{base, kill, random};
use crate::disk::Image;
use crate::panics;
use crate::tally::{Finding, Tally};
use crate::violation::{Kind, Violation};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Campaign {
    /// All workloads of up to three operations, with a crash at every point.
    Exhaustive,
    /// Long workloads of several writers, with crashes at random.
    Random,
    /// Every call of the disk fails; disks that lie.
    Errors,
    /// Real processes are killed.
    Kill,
}

/// How much is done, and of what.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Crash images to recover (default 100000, or as many as the minutes allow)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub images: Option<u64>,
    /// Minutes to run at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub minutes: Option<u64>,
    /// What gives the workloads and the crashes (default: another one each time)
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// One campaign instead of all of them
    #[arg(long, value_enum, value_name = "NAME")]
    pub campaign: Option<Campaign>,
    /// Ends with the first thing that is found, and does not look for the shortest way to it
    #[arg(long, hide = true)]
    pub quick: bool,
}

/// Images of a run without limits.
const USUAL_IMAGES: u64 = 100_000;
/// Of so many images, one kill.
const IMAGES_PER_KILL: u64 = 2_000;
/// Kills at least.
const FEWEST_KILLS: u64 = 50;
/// How long nothing may happen. A recovery takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// One campaign's share.
struct Budget {
    images: u64,
    kills: u64,
    until: Option<Instant>,
}

struct Session<'a> {
    tally: &'a Tally,
    base: Image,
    seed: u64,
    bar: ProgressBar,
}

/// Runs what `arguments` ask for.
pub fn run(arguments: &Arguments) -> ExitCode {
    panics::watch();
    let seed = arguments.seed.unwrap_or_else(rand::random);
    let tally = if arguments.quick { Tally::quick() } else { Tally::default() };
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise} {prefix:11} {msg}") {
        bar.set_style(style);
    }
    let images =
        arguments.images.unwrap_or(if arguments.minutes.is_some() { u64::MAX } else { USUAL_IMAGES });
    let end = arguments.minutes.map(|minutes| Instant::now() + Duration::from_secs(minutes * 60));
    let session = Session { tally: &tally, base: base(), seed, bar };
    std::thread::scope(|scope| {
        let done = std::sync::mpsc::channel::<()>();
        let (tally, bar) = (&tally, &session.bar);
        let finished = done.0;
        let waiting = done.1;
        scope.spawn(move || {
            while let Err(std::sync::mpsc::RecvTimeoutError::Timeout) =
                waiting.recv_timeout(Duration::from_millis(200))
            {
                bar.set_message(tally.to_string());
                bar.tick();
                if tally.silence() > PATIENCE {
                    hang(tally, seed);
                }
            }
        });
        match arguments.campaign {
            Some(campaign) => session.carry_out(campaign, &session.budget(campaign, images, end, true)),
            // The random one last: it takes what the others leave.
            None => {
                for campaign in [Campaign::Errors, Campaign::Kill, Campaign::Exhaustive, Campaign::Random] {
                    session.carry_out(campaign, &session.budget(campaign, images, end, false));
                }
            }
        }
        drop(finished);
    });
    session.bar.finish_and_clear();
    conclude(&tally, seed)
}

/// Says what was found and how to find it again.
fn conclude(tally: &Tally, seed: u64) -> ExitCode {
    for message in panics::seen() {
        let violation = Violation::new(Kind::Panicked, message);
        let known = tally.findings().iter().any(|finding| finding.violation.kind == Kind::Panicked);
        if !known {
            tally.find(Finding {
                violation,
                arguments: format!("--seed {seed}"),
                steps: "a thread of the engine".into(),
            });
        }
    }
    let findings = tally.findings();
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        eprintln!("seed {seed}");
    }
    println!("{tally}");
    if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Nothing has happened for too long.
fn hang(tally: &Tally, seed: u64) -> ! {
    tally.find(Finding {
        violation: Violation::new(Kind::Hung, format!("nothing happened for {PATIENCE:?}")),
        arguments: format!("--seed {seed}"),
        steps: "whatever was under way".into(),
    });
    let _ = conclude(tally, seed);
    std::process::exit(1);
}

impl Session<'_> {
    fn images(&self) -> u64 {
        self.tally.images.load(Ordering::Relaxed)
    }

    /// The share of a campaign: all of what is left, or a part.
    fn budget(&self, campaign: Campaign, images: u64, end: Option<Instant>, alone: bool) -> Budget {
        let left = images.saturating_sub(self.images());
        let share = match campaign {
            Campaign::Errors => 4,
            Campaign::Kill => 16,
            Campaign::Exhaustive => 2,
            Campaign::Random => 1,
        };
        let share = if alone { 1 } else { share };
        let until = end.map(|end| {
            let now = Instant::now();
            now + end.saturating_duration_since(now) / share
        });
        let kills = if images == u64::MAX { u64::MAX } else { (images / IMAGES_PER_KILL).max(FEWEST_KILLS) };
        Budget { images: self.images().saturating_add(left / u64::from(share)), kills, until }
    }

    fn is_over(&self, budget: &Budget) -> bool {
        self.tally.is_stopped() || budget.until.is_some_and(|until| Instant::now() >= until)
    }

    fn carry_out(&self, campaign: Campaign, budget: &Budget) {
        let enough = || self.is_over(budget) || self.images() >= budget.images;
        self.bar.set_prefix(format!("{campaign:?}").to_lowercase());
        match campaign {
            Campaign::Exhaustive => match Exhaustive::new(&self.base, self.seed) {
                Ok(exhaustive) => {
                    self.in_parallel(|_| while !enough() && exhaustive.work(self.tally, &enough) {})
                }
                Err(violation) => self.tally.find(Finding {
                    violation,
                    arguments: format!("--campaign exhaustive --seed {}", self.seed),
                    steps: "making what the workloads start from".into(),
                }),
            },
            Campaign::Random => {
                let next = std::sync::atomic::AtomicU64::new(self.seed);
                self.in_parallel(|_| {
                    let mut first = next.load(Ordering::Relaxed) == self.seed;
                    // The workload of the seed itself is carried out in any case.
                    while std::mem::take(&mut first) || !enough() {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        random::run_seed(seed, &self.base, self.tally);
                        if self.is_over(budget) {
                            break;
                        }
                    }
                });
            }
            Campaign::Errors => {
                let errors = Errors::new(&self.base, self.seed);
                self.in_parallel(|_| {
                    // The sweep is gone through in any case.
                    while !self.is_over(budget) && (errors.work(self.tally) || !enough()) {}
                });
            }
            Campaign::Kill => {
                let enough =
                    || self.is_over(budget) || self.tally.kills.load(Ordering::Relaxed) >= budget.kills;
                self.in_parallel(|worker| kill::work(self.seed ^ worker, self.tally, &enough));
            }
        }
    }

    /// Runs workers. Recoveries wait for their threads to start and end, so there are more workers than
    /// processors.
    fn in_parallel(&self, work: impl Fn(u64) + Sync) {
        let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get) as u64;
        std::thread::scope(|scope| {
            for worker in 0..processors * 2 {
                let work = &work;
                scope.spawn(move || work(worker));
            }
        });
    }
}
