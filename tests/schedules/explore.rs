//! Which schedules are tried.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shuttle::scheduler::{
    PctScheduler, RandomScheduler, ReplayScheduler, Schedule, Scheduler, Task, TaskId,
    UncontrolledNondeterminismCheckScheduler,
};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use crate::common::cases;
use crate::common::random::Random;

/// Steps after which a schedule counts as one that does not end.
const MOST_STEPS: usize = 2_000_000;
/// Preemptions of a schedule that has few, at places of the scheduler's choice, and one more.
const DEPTHS: [usize; 2] = [2, 5];

/// Runs `body` in many schedules: half of them in gusts, half with few preemptions.
pub(crate) fn explore(usual: u32, body: fn()) {
    if let Some(file) = std::env::var_os("PERISTYLE_SCHEDULE") {
        return run(ReplayScheduler::new_from_file(PathBuf::from(file)).unwrap(), body);
    }
    let mut random = Random::announced();
    let schedules = cases(usual) as usize;
    // A schedule that cannot be repeated is of little use: here and there one is, and must go the same way.
    let repeated = Gusts::new(random.next(), schedules.div_ceil(20));
    run(UncontrolledNondeterminismCheckScheduler::new(repeated), body);
    run(Gusts::new(random.next(), schedules), body);
    for depth in DEPTHS {
        run(PctScheduler::new_from_seed(random.next(), depth, schedules.div_ceil(DEPTHS.len())), body);
    }
}

fn run(scheduler: impl Scheduler + 'static, body: fn()) {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    config.max_steps = MaxSteps::FailAfter(MOST_STEPS);
    config.failure_persistence = FailurePersistence::File(Some(env!("CARGO_TARGET_TMPDIR").into()));
    config.silence_warnings = true;
    let tried = Tried(Arc::default());
    let counted = Arc::clone(&tried.0);
    Runner::new(scheduler, config).run(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        body();
    });
}

/// Counts schedules; says of a failure which one it came with.
struct Tried(Arc<AtomicUsize>);

impl Drop for Tried {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed in schedule {} of its scheduler", self.0.load(Ordering::Relaxed));
        }
    }
}

/// Goes on with the thread that ran last for a while, then with one at random. How long a while is on average
/// is drawn anew for each schedule: from one step, which is a random walk, to about a thousand, in which
/// others freeze, merge and checkpoint between two steps of a reader. Neither a walk nor the few preemptions
/// of a bounded scheduler get there often.
#[derive(Debug)]
struct Gusts {
    random: Random,
    walk: RandomScheduler,
    /// One step in so many is a change.
    length: u64,
}

impl Gusts {
    const LONGEST: u64 = 10;

    fn new(seed: u64, schedules: usize) -> Self {
        Self { random: Random::new(seed), walk: RandomScheduler::new_from_seed(seed, schedules), length: 1 }
    }
}

impl Scheduler for Gusts {
    fn new_execution(&mut self) -> Option<Schedule> {
        self.length = 1 << self.random.below(Self::LONGEST + 1);
        self.walk.new_execution()
    }

    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, yielding: bool) -> Option<TaskId> {
        let stays = !yielding && !self.random.once_in(self.length);
        let current_runs = current.filter(|current| runnable.iter().any(|task| task.id() == *current));
        match current_runs {
            Some(current) if stays => Some(current),
            _ => self.walk.next_task(runnable, current, yielding),
        }
    }

    fn next_u64(&mut self) -> u64 {
        self.walk.next_u64()
    }
}
