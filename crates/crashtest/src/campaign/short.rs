//! A disk that becomes full, and stays so for a while.
//!
//! What frees something is never refused there: deletions, dropping families, merges, checkpoints,
//! compaction, closing and opening, in any order. Puts may be, until there is room again: because others made
//! some, or because enough was deleted. Whenever the process is killed or power is lost meanwhile, what was
//! acknowledged is there, also when it is opened on the full disk.

use std::time::Duration;

use peristyle::Durability::{Buffered, Sync};
use peristyle::ErrorKind;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::disk::{Image, RandomDecisions, SimulatedDisk};
use crate::ledger::Crash;
use crate::probe::{Probe, catch};
use crate::recovery::{look, read_state, reopen, unreadable};
use crate::run::{Run, Setup};
use crate::step::{Step, Write};
use crate::tally::Tally;
use crate::violation::{Checked, Kind, Violation};
use crate::writer::{Outcome, Writer};

/// Keys of each family.
const KEYS: u16 = 300;
/// The writer's own family.
const OWN: u8 = 2;
/// Puts that are refused before the disk counts as full.
const REFUSED: usize = 2;
/// Puts of drawn lengths.
const DRAWN: usize = 5000;
/// Bytes of a value of which the disk does not hold one for each key.
const LONG: u16 = 6000;
/// How often what may still be refused a moment later is tried again, and how long it rests before.
const TRIES: usize = 300;
const PAUSE: Duration = Duration::from_millis(10);
/// Moments of power loss that are looked at.
const CRASHES: usize = 4;
/// Blocks that others free in the end.
const FREED: u64 = 4000;

/// Carries out the workload of a seed.
///
/// # Errors
/// A broken promise.
pub fn run_seed(seed: u64, base: &Image, tally: &Tally) -> Checked<()> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let setup = Setup {
        deltas: random.random(),
        roomy: random.random(),
        automatic: random.random(),
        maps: random.random(),
        ..Setup::MANUAL
    };
    let found = read_state(&reopen(&SimulatedDisk::from_image(base).without_log(), setup)?)?;
    let disk = SimulatedDisk::from_image(base);
    disk.limit(random.random_range(100..400));
    let run = Run::open(&disk, setup).map_err(|error| unreadable(&error))?;
    let mut writer = Writer::new(0, &found).forgiving(ErrorKind::OutOfSpace);
    catch(|| {
        done(&run, &mut writer, &Step::Create(OWN))?;
        fill(&run, &mut writer, &mut random)?;
        for _ in 0..random.random_range(4..14) {
            let step = freeing(&mut random);
            done(&run, &mut writer, &step)?;
        }
        Ok(())
    })?;
    let full_until = disk.operations();
    catch(|| look(&reopen_on_full(&disk.cached(), setup)?).map(drop))
        .map_err(|violation| violation.within("opened on the full disk"))?;
    let ledger = catch(|| {
        if random.random() {
            disk.limit(FREED);
        } else {
            for family in [0, 1, OWN] {
                let all = Write::DeleteRange(family, 0, KEYS);
                done(&run, &mut writer, &Step::Commit(vec![all], Buffered))?;
            }
            done(&run, &mut writer, &Step::Compact)?;
        }
        goes_on(&run, &mut writer)?;
        writer.finish(&run)?;
        run.forsake();
        Ok(run.ledger(vec![writer]))
    })?;
    let probe = Probe { tally, setup };
    let shown = probe.recover(&disk.cached())?;
    ledger.check(&shown, disk.operations(), Crash::Kill)?;
    for _ in 0..CRASHES {
        let moment = random.random_range(full_until / 2..=full_until);
        let image = disk.crash(moment, &mut RandomDecisions::new(random.random()));
        let recovered = probe.recover(&image)?;
        probe.check(&ledger, &image, &recovered, moment, Crash::PowerLoss)?;
    }
    Ok(())
}

/// A database on a disk that has no room but what its files have.
fn reopen_on_full(image: &Image, setup: Setup) -> Checked<peristyle::ColumnFamilyDatabase> {
    let disk = SimulatedDisk::from_image(image).without_log();
    disk.limit(0);
    reopen(&disk, setup)
}

/// Puts until that is refused: values of the drawn lengths, and if these leave room, long ones.
///
/// # Errors
/// The disk does not become full.
fn fill(run: &Run, writer: &mut Writer, random: &mut ChaCha8Rng) -> Checked<()> {
    let longest = random.random_range(300..6000);
    let mut refused = 0;
    for count in 0..2 * DRAWN {
        let family = [0, 1, OWN][random.random_range(0..3)];
        let len = if count < DRAWN { random.random_range(8..longest) } else { LONG };
        let put = Write::Put(family, random.random_range(0..KEYS), len);
        let durability = if random.random_range(0..20) == 0 { Sync } else { Buffered };
        if let Outcome::Refused(_) = perform(run, writer, &Step::Commit(vec![put], durability))? {
            refused += 1;
            if refused == REFUSED {
                return Ok(());
            }
        }
    }
    Err(Violation::new(Kind::Wrong, "the disk does not become full"))
}

/// Something that a full disk is left by.
fn freeing(random: &mut ChaCha8Rng) -> Step {
    let family = [0, 1, OWN][random.random_range(0..3)];
    let key = random.random_range(0..KEYS);
    let durability = if random.random() { Sync } else { Buffered };
    match random.random_range(0..14) {
        0..3 => {
            let deletes = (0..30).map(|n| Write::Delete(family, (key + 7 * n) % KEYS)).collect();
            Step::Commit(deletes, durability)
        }
        3..6 => Step::Commit(vec![Write::DeleteRange(family, key, key + KEYS / 4)], durability),
        6 => Step::Drop(OWN),
        7 => Step::Flush,
        8 => Step::Checkpoint,
        9 => Step::Compact,
        10 => Step::CompactFamily(family),
        11 => Step::Sync,
        12 => Step::Close,
        _ => Step::Abandon,
    }
}

fn perform(run: &Run, writer: &mut Writer, step: &Step) -> Checked<Outcome> {
    match writer.perform(run, step).map_err(|violation| violation.within(format!("in {step}")))? {
        Outcome::Failed(error) => {
            let message = format!("nothing failed, and {step} ended all writing: {error}");
            Err(Violation::new(Kind::Wrong, message))
        }
        outcome => Ok(outcome),
    }
}

/// Carries out what may not be refused.
fn done(run: &Run, writer: &mut Writer, step: &Step) -> Checked<()> {
    match perform(run, writer, step)? {
        Outcome::Refused(error) => {
            let message = format!("{step} is refused on a full disk: {error}");
            Err(Violation::new(Kind::Wrong, message))
        }
        _ => Ok(()),
    }
}

/// There is room, and everything else, again: whatever is asked for is done, as soon as what waited a moment
/// has tried again.
///
/// # Errors
/// A broken promise.
pub fn goes_on(run: &Run, writer: &mut Writer) -> Checked<()> {
    for family in [0, 1, 0, 1] {
        let put = Step::Commit(vec![Write::Put(family, 11, 300)], Buffered);
        for step in [put, Step::Flush, Step::Checkpoint] {
            let mut tries = 0;
            while let Outcome::Refused(error) = perform(run, writer, &step)? {
                tries += 1;
                if tries == TRIES {
                    let message = format!("nothing is lacking any more, and {step} is refused: {error}");
                    return Err(Violation::new(Kind::Wrong, message));
                }
                std::thread::sleep(PAUSE);
            }
        }
    }
    done(run, writer, &Step::Read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_left_and_everything_goes_on() {
        let (base, tally) = (crate::campaign::base(), Tally::default());
        for seed in 0..4 {
            if let Err(violation) = run_seed(seed, &base, &tally) {
                panic!("seed {seed}: {violation}");
            }
        }
    }
}
