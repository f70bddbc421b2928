//! What happens to a database while it lies closed: a sector of its superblock or of its catalog cannot be
//! read any more, or has a flipped bit, or a file of its log is gone.
//!
//! Of superblock and catalog there are two, so one bad sector harms nothing: everything is there, and so it
//! is when the database is opened again. A missing file of the log is noticed, unless nothing of it was
//! needed: what opens holds everything.

use std::ops::Range;

use peristyle::ErrorKind;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::disk::{Image, Sickness, SimulatedDisk};
use crate::ledger::Recovered;
use crate::probe::catch;
use crate::recovery::{look, read_state, reopen, unreadable};
use crate::run::{Run, Setup};
use crate::step::Mixture;
use crate::tally::Tally;
use crate::violation::{Checked, Kind, Violation};
use crate::writer::Writer;

const SECTOR: u64 = 512;
/// Where the slots of the superblock stand in the data file.
const SLOTS: [u64; 2] = [0, 32 << 10];
/// Where pages begin in the data file.
const FIRST_PAGE: u64 = 64 << 10;
const PAGE: u64 = 4096;
/// Sectors of catalogs that are tried for each workload.
const TRIED: usize = 4;

/// Carries out the workload of a seed, and lets what it leaves age in several ways. Says how many missing
/// files of the log kept the database from opening.
///
/// # Errors
/// A broken promise.
pub fn run_seed(seed: u64, base: &Image, tally: &Tally) -> Checked<usize> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let setup = Setup { deltas: random.random(), roomy: random.random(), ..Setup::MANUAL };
    let image = catch(|| workload(&mut random, base, setup))?;
    let whole = catch(|| recover(&SimulatedDisk::from_image(&image).without_log(), setup))?;
    tally.add(&tally.images);
    let slots = SLOTS.map(|start| start..start + SECTOR);
    let catalog = catalog_sectors(&image);
    let tried = catalog.choose_multiple(&mut random, TRIED).cloned();
    for sector in slots.into_iter().chain(tried) {
        let sickness = if random.random() { Sickness::Unreadable } else { Sickness::Flipped };
        catch(|| bad_sector(&image, &sector, sickness, setup, &whole)).map_err(|violation| {
            violation.within(format!("bytes {sector:?} of the data are {sickness:?}"))
        })?;
        tally.add(&tally.images);
    }
    let logs: Vec<String> =
        image.files().map(|(path, _)| path.to_owned()).filter(|path| path.starts_with("wal/")).collect();
    let mut refused = 0;
    for path in logs {
        let opens = catch(|| missing(&image, &path, setup, &whole))
            .map_err(|violation| violation.within(format!("{path} is gone")))?;
        refused += usize::from(!opens);
        tally.add(&tally.images);
    }
    Ok(refused)
}

/// What a workload leaves that is killed, or closes its database.
fn workload(random: &mut ChaCha8Rng, base: &Image, setup: Setup) -> Checked<Image> {
    let found = read_state(&reopen(&SimulatedDisk::from_image(base).without_log(), setup)?)?;
    let disk = SimulatedDisk::from_image(base).without_log();
    let run = Run::open(&disk, setup).map_err(|error| unreadable(&error))?;
    let mut writer = Writer::new(0, &found);
    let mixture = Mixture { keys: 12, unlogged: true, reopens: true, maintains: true };
    for _ in 0..random.random_range(2..30) {
        writer.perform(&run, &mixture.step(random))?;
    }
    writer.finish(&run)?;
    if random.random() {
        run.end();
    } else {
        run.forsake();
    }
    Ok(disk.cached())
}

fn recover(disk: &SimulatedDisk, setup: Setup) -> Checked<Recovered> {
    look(&reopen(disk, setup)?)
}

fn bad_sector(
    image: &Image,
    sector: &Range<u64>,
    sickness: Sickness,
    setup: Setup,
    whole: &Recovered,
) -> Checked<()> {
    let disk = SimulatedDisk::from_image(image).without_log();
    disk.sicken("data", sector.clone(), sickness);
    for opening in ["opened", "opened again"] {
        holds(&recover(&disk, setup).map_err(|violation| violation.within(opening))?, whole, opening)?;
    }
    Ok(())
}

/// Whether the database opens without a file of its log.
fn missing(image: &Image, path: &str, setup: Setup, whole: &Recovered) -> Checked<bool> {
    let mut image = image.clone();
    image.remove(path);
    let disk = SimulatedDisk::from_image(&image).without_log();
    match setup.open(&disk) {
        Ok(db) => holds(&look(&db)?, whole, "opened").map(|()| true),
        Err(error) if error.kind() == ErrorKind::Corruption => Ok(false),
        Err(error) => Err(Violation::new(Kind::Wrong, format!("opening failed with: {error}"))),
    }
}

fn holds(shown: &Recovered, whole: &Recovered, what: &str) -> Checked<()> {
    if shown == whole {
        return Ok(());
    }
    let message = format!(
        "{what}, it does not hold what it held: number {} instead of {}",
        shown.last_sequence, whole.last_sequence
    );
    Err(Violation::new(Kind::Lost, message))
}

/// The sectors of both copies of the catalog that the newest superblock names.
fn catalog_sectors(image: &Image) -> Vec<Range<u64>> {
    let Some(data) = image.file("data") else { return Vec::new() };
    let superblock = |slot: u64| {
        let mut bytes = [0; 80];
        data.read(&mut bytes, slot);
        let field = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        (field(16), [field(56), field(64)], field(72))
    };
    let (_, copies, len) = SLOTS.map(superblock).into_iter().max().expect("two slots");
    let starts = copies.into_iter().filter(|page| *page != u64::MAX).map(|page| FIRST_PAGE + page * PAGE);
    starts
        .flat_map(|start| (start..start + len).step_by(SECTOR as usize))
        .map(|start| start..start + SECTOR)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_sector_harms_nothing_and_a_missing_log_is_noticed() {
        let (base, tally) = (crate::campaign::base(), Tally::default());
        assert!(catalog_sectors(&base).len() >= 2);
        let refused: usize = (0..60)
            .map(|seed| {
                run_seed(seed, &base, &tally).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"))
            })
            .sum();
        assert!(refused > 20, "{refused} missing files were noticed");
    }
}
