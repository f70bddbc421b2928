//! Threads that work at the same time, and a watch that counts what they have done.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::measure::Progress;

/// How much one thread has done; alone in its cache lines, so that counting costs the others nothing.
#[derive(Default)]
#[repr(align(128))]
pub struct Count(AtomicU64);

impl Count {
    /// Sets the count, which only the thread that counts does.
    #[inline]
    pub fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    /// The count of now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One count for each of some threads.
pub fn counts(threads: usize) -> Vec<Count> {
    (0..threads).map(|_| Count::default()).collect()
}

/// Runs `work` on threads with the numbers `0..threads`; returns what they return and the seconds from the
/// start of the first to the end of the last.
pub fn on_threads<T: Send>(
    threads: usize,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<(Vec<T>, f64)> {
    let start = Instant::now();
    let results: Vec<_> = std::thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        running.into_iter().map(|thread| thread.join()).collect()
    });
    let seconds = start.elapsed().as_secs_f64();
    let results =
        results.into_iter().map(|result| result.unwrap_or_else(|_| Err(anyhow!("a thread panicked"))));
    Ok((results.collect::<Result<_>>()?, seconds))
}

/// Runs `work` and watches meanwhile how the sum of the counts grows.
pub fn watched<T>(what: &str, counts: &[Count], work: impl FnOnce() -> T) -> Result<(T, Progress)> {
    let total = || counts.iter().map(Count::get).sum::<u64>();
    let done = AtomicBool::new(false);
    let (result, points) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let start = Instant::now();
            let mut points = vec![(0.0, 0)];
            let mut pause = Duration::from_millis(10);
            while !done.load(Ordering::Acquire) {
                std::thread::park_timeout(pause);
                points.push((start.elapsed().as_secs_f64(), total()));
                // Long runs are looked at less often: a curve wants no more than some hundred points.
                pause = pause.max(start.elapsed() / 200);
            }
            points
        });
        let result = work();
        done.store(true, Ordering::Release);
        watch.thread().unpark();
        (result, watch.join())
    });
    let points = points.map_err(|_| anyhow!("the watch panicked"))?;
    Ok((result, Progress { what: what.into(), points }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_sees_all_that_was_counted() -> Result<()> {
        let counts = counts(3);
        let (outcome, progress) = watched("steps", &counts, || {
            on_threads(3, |thread| {
                counts[thread].set(10);
                Ok(thread)
            })
        })?;
        assert_eq!(outcome?.0, [0, 1, 2]);
        assert_eq!(progress.points.last().map(|point| point.1), Some(30));
        Ok(())
    }

    #[test]
    fn the_failure_of_one_thread_is_the_failure_of_all() {
        let outcome =
            on_threads(2, |thread| if thread == 1 { Err(anyhow!("thread 1 fails")) } else { Ok(()) });
        assert!(outcome.is_err_and(|error| error.to_string() == "thread 1 fails"));
    }
}
