//! What campaigns have done so far, and what they found.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::violation::{Kind, Violation};

/// A broken promise, and how to meet it again.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What is wrong.
    pub violation: Violation,
    /// The arguments of the command that runs the same again.
    pub arguments: String,
    /// The shortest list of steps that shows it.
    pub steps: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.violation)?;
        writeln!(f, "  again: cargo run --release -p peristyle-crashtest -- {}", self.arguments)?;
        write!(f, "  steps: {}", self.steps)
    }
}

/// Counters that all workers share.
#[derive(Debug)]
pub struct Tally {
    /// Different crash images that were recovered.
    pub images: AtomicU64,
    /// Those of them that a crash inside a recovery left.
    pub double_crashes: AtomicU64,
    /// Processes killed.
    pub kills: AtomicU64,
    /// Failed calls of the disk.
    pub io_errors: AtomicU64,
    /// Workloads carried out.
    pub workloads: AtomicU64,
    findings: Mutex<Vec<Finding>>,
    /// Whether the first finding is enough.
    quick: bool,
    stopped: AtomicBool,
    /// When something was counted last, in milliseconds since `started`.
    alive: AtomicU64,
    started: Instant,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            images: AtomicU64::new(0),
            double_crashes: AtomicU64::new(0),
            kills: AtomicU64::new(0),
            io_errors: AtomicU64::new(0),
            workloads: AtomicU64::new(0),
            findings: Mutex::default(),
            quick: false,
            stopped: AtomicBool::new(false),
            alive: AtomicU64::new(0),
            started: Instant::now(),
        }
    }
}

/// Findings after which nothing more is tried.
const MAX_FINDINGS: usize = 3;

impl Tally {
    /// A tally for which the first finding is enough.
    pub fn quick() -> Self {
        Self { quick: true, ..Self::default() }
    }

    /// Whether the first finding is enough, and need not be short.
    pub fn is_quick(&self) -> bool {
        self.quick
    }

    /// Counts one more.
    pub fn add(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
        self.alive.store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// How long nothing was counted.
    pub fn silence(&self) -> Duration {
        let alive = Duration::from_millis(self.alive.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(alive)
    }

    /// Notes a broken promise.
    pub fn find(&self, finding: Finding) {
        let mut findings = self.findings.lock();
        findings.push(finding);
        if self.quick || findings.len() >= MAX_FINDINGS {
            self.stopped.store(true, Ordering::Relaxed);
        }
    }

    /// Whether enough was found.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Everything that was found.
    pub fn findings(&self) -> Vec<Finding> {
        self.findings.lock().clone()
    }

    /// Findings of one kind.
    fn count(&self, kind: Kind) -> usize {
        self.findings.lock().iter().filter(|finding| finding.violation.kind == kind).count()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        write!(
            f,
            "images={} double_crashes={} kills={} io_errors={} lost={} torn={} resurrected={}",
            number(&self.images),
            number(&self.double_crashes),
            number(&self.kills),
            number(&self.io_errors),
            self.count(Kind::Lost),
            self.count(Kind::Torn),
            self.count(Kind::Resurrected)
        )?;
        for (name, kind) in [("unsound", Kind::Unsound), ("wrong", Kind::Wrong), ("panicked", Kind::Panicked)]
        {
            if self.count(kind) > 0 {
                write!(f, " {name}={}", self.count(kind))?;
            }
        }
        Ok(())
    }
}
