//! Long workloads of one to three writers, made from a seed, that crash at random moments.

use std::collections::HashSet;
#[cfg(not(shuttle))]
use std::thread;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
#[cfg(shuttle)]
use shuttle::thread;

use super::shrink::shrink;
use crate::disk::{Everything, Image, Nothing, RandomDecisions, SimulatedDisk};
use crate::history::State;
use crate::ledger::{Crash, Ledger};
use crate::probe::{Probe, catch};
use crate::recovery::read_state;
use crate::run::{FAMILIES, Run, Setup};
use crate::step::{Mixture, Step};
use crate::tally::{Finding, Tally};
use crate::violation::Checked;
use crate::writer::Writer;

/// A workload: how the database is set up, and what each writer does.
#[derive(Debug, Clone)]
pub struct Workload {
    /// The database's settings.
    pub setup: Setup,
    /// Whether the disk holds nothing at first.
    pub from_nothing: bool,
    /// Steps of each writer.
    pub writers: Vec<Vec<Step>>,
}

impl Workload {
    /// The workload that a seed gives.
    pub fn from_seed(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let automatic = random.random_range(0..3) == 0;
        let mut setup = Setup {
            automatic,
            threads: random.random_range(1..3),
            sync_interval: if automatic { 2 } else { 3_600_000 },
            maps: random.random_range(0..4) > 0,
            deltas: false,
            roomy: false,
        };
        let count = *[1, 1, 2, 3].get(random.random_range(0..4)).unwrap_or(&1);
        let mixture = Mixture {
            keys: if random.random() { 12 } else { 200 },
            unlogged: random.random_range(0..4) == 0,
            reopens: count == 1,
            maintains: random.random_range(0..8) > 0,
        };
        let most = if random.random_range(0..4) == 0 { 200 } else { 60 };
        let steps = random.random_range(5..most) / count;
        let mut list = || (0..=steps).map(|_| mixture.step(&mut random)).collect();
        let mut writers: Vec<Vec<Step>> = (0..count).map(|_| list()).collect();
        let from_nothing = random.random_range(0..8) == 0;
        // Drawn last: the steps of a seed do not depend on it.
        setup.deltas = random.random();
        setup.roomy = random.random_range(0..3) == 0;
        // Processes that end after two steps each: many small segments of the log.
        if count == 1 && random.random_range(0..12) == 0 {
            let steps: Vec<Step> = writers.remove(0);
            let ends = steps.chunks(2).flat_map(|steps| steps.iter().cloned().chain([Step::Abandon]));
            writers.push(ends.take(200).collect());
        }
        Self { setup, from_nothing, writers }
    }

    /// Carries it out.
    fn run(&self, base: &Image) -> Checked<(SimulatedDisk, Ledger)> {
        let (disk, base) = if self.from_nothing {
            (SimulatedDisk::new(), None)
        } else {
            (SimulatedDisk::from_image(base), Some(()))
        };
        catch(|| {
            let run = Run::open(&disk, self.setup).map_err(|error| crate::recovery::unreadable(&error))?;
            let base = match base {
                Some(()) => read_state(&run.db())?,
                None => State::default(),
            };
            let mut writers: Vec<Writer> =
                (0..self.writers.len()).map(|number| Writer::new(number, &base)).collect();
            if self.from_nothing {
                writers[0].found(&run, &FAMILIES)?;
                writers[1..].iter_mut().for_each(|writer| writer.find(&FAMILIES));
            }
            let mut outcomes: Vec<Checked<()>> = vec![Ok(()); writers.len()];
            // The body does nothing but spawn: shuttle asks for that.
            thread::scope(|scope| {
                for ((writer, steps), outcome) in writers.iter_mut().zip(&self.writers).zip(&mut outcomes) {
                    let run = &run;
                    scope.spawn(move || {
                        *outcome = catch(|| {
                            for step in steps {
                                writer.perform(run, step)?;
                            }
                            writer.finish(run)
                        });
                    });
                }
            });
            outcomes.into_iter().collect::<Checked<()>>()?;
            run.end();
            Ok((disk.clone(), run.ledger(writers)))
        })
    }
}

/// Images that one workload gives at most.
const IMAGES: usize = 60;

/// Carries a workload out and lets it crash at so many moments, as `seed` says.
///
/// # Errors
/// A broken promise.
pub fn crash(workload: &Workload, base: &Image, seed: u64, images: usize, tally: &Tally) -> Checked<()> {
    let mut random = ChaCha8Rng::seed_from_u64(!seed);
    let (disk, ledger) = workload.run(base)?;
    tally.add(&tally.workloads);
    let probe = Probe {
        tally,
        setup: Setup {
            maps: workload.setup.maps,
            deltas: workload.setup.deltas,
            roomy: workload.setup.roomy,
            ..Setup::MANUAL
        },
    };
    let mut timeline = disk.timeline();
    let mut moments: Vec<usize> = (0..images).map(|_| random.random_range(0..=timeline.len())).collect();
    moments.sort_unstable();
    let mut seen = HashSet::new();
    for moment in moments {
        timeline.advance(moment);
        let (image, crash) = match random.random_range(0..10) {
            0 => (timeline.cached(), Crash::Kill),
            1 => (timeline.image(&mut Nothing), Crash::PowerLoss),
            2 => (timeline.image(&mut Everything), Crash::PowerLoss),
            _ => (timeline.image(&mut RandomDecisions::new(random.random())), Crash::PowerLoss),
        };
        if !seen.insert((image.hash(), crash == Crash::Kill)) {
            continue;
        }
        let within = |violation: crate::violation::Violation| {
            violation.within(format!("{crash:?} behind {moment} of {} operations", disk.operations()))
        };
        let twice = random.random_range(0..8) == 0;
        let recovered =
            if twice { probe.recover_twice(&image) } else { probe.recover(&image) }.map_err(within)?;
        probe.check(&ledger, &image, &recovered, moment, crash).map_err(within)?;
        if random.random_range(0..3) == 0 {
            probe.interrupt(&image, &recovered, &mut random).map_err(within)?;
        }
    }
    Ok(())
}

/// Runs the workload of one seed; a failure is shrunk and noted.
pub fn run_seed(seed: u64, base: &Image, tally: &Tally) {
    let workload = Workload::from_seed(seed);
    if let Err(violation) = crash(&workload, base, seed, IMAGES, tally) {
        let shrunk = if tally.is_quick() { workload } else { shorten(&workload, base, seed) };
        let arguments = format!("--campaign random --seed {seed} --images 1");
        tally.find(Finding { violation, arguments, steps: format!("{shrunk:?}") });
    }
}

/// The shortest workload that is found to fail as well. Several writers do not always do the same, nor does
/// maintenance that starts by itself: so each is tried more than once.
fn shorten(workload: &Workload, base: &Image, seed: u64) -> Workload {
    let scratch = Tally::default();
    let mut shortest = workload.clone();
    let fails = |workload: &Workload| {
        (0..3u64)
            .any(|round| crash(workload, base, seed.wrapping_add(round << 32), IMAGES, &scratch).is_err())
    };
    for writer in 0..workload.writers.len() {
        let steps = shrink(&shortest.writers[writer], 60, |steps| {
            let mut candidate = shortest.clone();
            candidate.writers[writer] = steps.to_vec();
            fails(&candidate)
        });
        shortest.writers[writer] = steps;
    }
    shortest
}
