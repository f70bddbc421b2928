//! Crashes of the simulated disk, in schedules of the threads that write to it.

use peristyle_crashtest::campaign::random::{Workload, crash};
use peristyle_crashtest::disk::Image;
use peristyle_crashtest::tally::Tally;
use shuttle::rand::RngCore;

use crate::explore::explore;

/// Moments of a schedule at which the disk crashes. What they leave is recovered in schedules of its own.
const CRASHES: usize = 8;

#[test]
fn a_crash_at_any_moment_of_any_schedule_breaks_no_promise() {
    explore(1000, || {
        let mut random = shuttle::rand::thread_rng();
        let (seed, workload) = loop {
            let seed = random.next_u64();
            let workload = Workload::from_seed(seed);
            if workload.writers.len() > 1 {
                // A base can be made before, but not outside of an execution.
                break (seed, Workload { from_nothing: true, ..workload });
            }
        };
        if let Err(violation) = crash(&workload, &Image::default(), seed, CRASHES, &Tally::default()) {
            panic!("{violation}\nseed {seed}: {workload:?}");
        }
    });
}
