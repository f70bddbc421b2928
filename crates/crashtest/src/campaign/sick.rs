//! A page of one family that cannot be read, or whose bits flipped, under a database that is at work.
//!
//! Everything goes on but that family: whoever needs the page is told, writes to the family may be refused,
//! and nothing else is. What every other family holds is right, and the family can be dropped; what is left
//! is sound.

use std::ops::Range;

use peristyle::{ColumnFamilyDatabase, ErrorKind};
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::disk::{Image, Sickness, SimulatedDisk};
use crate::history::is_unlogged;
use crate::probe::catch;
use crate::recovery::{look, read_family, read_state, reopen, unreadable};
use crate::run::{FAMILIES, Run, Setup};
use crate::step::{Mixture, Step, Write};
use crate::tally::Tally;
use crate::violation::{Checked, Kind, Violation};
use crate::writer::{Outcome, Writer};

const PAGE: u64 = 4096;
/// Where pages begin in the data file.
const FIRST_PAGE: u64 = 64 << 10;

/// Carries out the workload of a seed on a disk with one page that is sick.
///
/// # Errors
/// A broken promise.
pub fn run_seed(seed: u64, base: &Image, tally: &Tally) -> Checked<()> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let Some((place, family)) = pages(base).choose(&mut random).cloned() else { return Ok(()) };
    let sickness = if random.random() { Sickness::Unreadable } else { Sickness::Flipped };
    let setup = Setup { deltas: random.random(), automatic: random.random(), ..Setup::MANUAL };
    let disk = SimulatedDisk::from_image(base).without_log();
    let found = read_state(&reopen(&SimulatedDisk::from_image(base).without_log(), setup)?)?;
    disk.sicken("data", place, sickness);
    tally.add(&tally.workloads);
    tally.add(&tally.io_errors);
    catch(|| {
        let run = Run::open(&disk, setup).map_err(|error| {
            Violation::new(Kind::Lost, format!("a sick page keeps the database from opening: {error}"))
        })?;
        let mut writer = Writer::new(0, &found).forgiving(ErrorKind::Io).forgiving(ErrorKind::Corruption);
        let mixture = Mixture { keys: 12, unlogged: true, reopens: true, maintains: true };
        for _ in 0..random.random_range(4..40) {
            let step = mixture.step(&mut random);
            perform(&run, &mut writer, &step)?;
        }
        for (number, name) in FAMILIES.into_iter().enumerate().filter(|(_, name)| *name != family) {
            let put = Write::Put(number as u8, 3, 20);
            let step = match is_unlogged(name) {
                true => Step::Unlogged(put),
                false => Step::Commit(vec![put], peristyle::Durability::Sync),
            };
            if let Outcome::Refused(error) = perform(&run, &mut writer, &step)? {
                let message = format!("family {family} is sick, and a write to {name} is refused: {error}");
                return Err(Violation::new(Kind::Wrong, message));
            }
        }
        check_others(&run.db(), &writer, family)?;
        // A family with keys that are kept for a decision stays until there is one.
        perform(&run, &mut writer, &Step::Decide(false))?;
        leave_behind(run.db(), family)?;
        writer.finish(&run)?;
        run.forsake();
        drop(reopen(&disk, setup).and_then(|db| look(&db))?);
        Ok(())
    })
}

fn perform(run: &Run, writer: &mut Writer, step: &Step) -> Checked<Outcome> {
    let outcome = writer.perform(run, step).map_err(|violation| violation.within(format!("in {step}")))?;
    match outcome {
        Outcome::Failed(error) => {
            let message = format!("a page of one family is sick, and {step} ended all writing: {error}");
            Err(Violation::new(Kind::Wrong, message))
        }
        outcome => Ok(outcome),
    }
}

/// What the other families hold is what was written.
fn check_others(db: &ColumnFamilyDatabase, writer: &Writer, sick: &str) -> Checked<()> {
    for name in FAMILIES.into_iter().filter(|name| *name != sick) {
        let family = db.column_family(name).and_then(|family| family.snapshot());
        let sums = family.and_then(|family| read_family(&family, |_, _| ()));
        let sums = sums.map_err(|error| unreadable(&error))??;
        if Some(sums[0]) != writer.sum_of(name) {
            let message = format!("family {sick} is sick, and {name} does not hold what was written to it");
            return Err(Violation::new(Kind::Wrong, message));
        }
    }
    Ok(())
}

/// The family is dropped, and everything is made durable without it.
fn leave_behind(db: ColumnFamilyDatabase, family: &str) -> Checked<()> {
    let left = db.flush().and_then(|()| db.drop_column_family(family)).and_then(|()| db.flush());
    let left = left.and_then(|()| db.compact());
    left.map_err(|error| Violation::new(Kind::Wrong, format!("a sick family cannot be left behind: {error}")))
}

/// The pages of families that are always there, and whose they are.
fn pages(image: &Image) -> Vec<(Range<u64>, &'static str)> {
    let Some(data) = image.file("data") else { return Vec::new() };
    let mut pages = Vec::new();
    let mut header = [0; 32];
    for start in (FIRST_PAGE..data.len().saturating_sub(PAGE - 1)).step_by(PAGE as usize) {
        data.read(&mut header, start);
        let family = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        // By kind, length in pages, and zeros that are reserved: a catalog is none.
        let is_page = (1..=3).contains(&header[24]) && header[26..32] == [0, 0, 1, 0, 0, 0];
        if is_page && let Some(name) = family.checked_sub(1).and_then(|index| FAMILIES.get(index)) {
            pages.push((start..start + PAGE, *name));
        }
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sick_page_is_its_familys_alone() {
        let (base, tally) = (crate::campaign::base(), Tally::default());
        assert!(pages(&base).len() >= 3);
        for seed in 0..150 {
            if let Err(violation) = run_seed(seed, &base, &tally) {
                panic!("seed {seed}: {violation}");
            }
        }
    }
}
