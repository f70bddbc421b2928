//! What happens to a database while it lies closed: a sector of its superblock or of its catalog cannot be
//! read any more, or has a flipped bit, or a sector of its log cannot be read, or a file of its log is gone.
//!
//! Of superblock and catalog there are two, so one bad sector harms nothing: everything is there, and so it
//! is when the database is opened again. A missing file of the log is noticed, as is a sector of it that
//! cannot be read, unless nothing of it was needed: what opens holds everything.

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
/// Sectors of catalogs, and of logs, that are tried for each workload.
const TRIED: usize = 4;

/// How often damage to the log kept a database from opening.
#[derive(Debug, Clone, Copy, Default)]
pub struct Noticed {
    /// Files of it that were missing.
    pub missing: usize,
    /// Sectors of it that could not be read.
    pub unreadable: usize,
}

/// Carries out the workload of a seed, and lets what it leaves age in several ways.
///
/// # Errors
/// A broken promise.
pub fn run_seed(seed: u64, base: &Image, tally: &Tally) -> Checked<Noticed> {
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
    let mut noticed = Noticed::default();
    for path in &logs {
        let opens = catch(|| missing(&image, path, setup, &whole))
            .map_err(|violation| violation.within(format!("{path} is gone")))?;
        noticed.missing += usize::from(!opens);
        tally.add(&tally.images);
    }
    let sectors: Vec<(&String, u64)> =
        logs.iter().flat_map(|path| written_sectors(&image, path).map(move |start| (path, start))).collect();
    for &(path, start) in sectors.choose_multiple(&mut random, TRIED) {
        let opens = catch(|| unreadable_log(&image, path, start, setup, &whole)).map_err(|violation| {
            violation.within(format!("the sector at {start} of {path} is unreadable"))
        })?;
        noticed.unreadable += usize::from(!opens);
        tally.add(&tally.images);
    }
    Ok(noticed)
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

/// Whether the database opens while a sector of its log cannot be read. Once it can, everything is there.
fn unreadable_log(image: &Image, path: &str, start: u64, setup: Setup, whole: &Recovered) -> Checked<bool> {
    let disk = SimulatedDisk::from_image(image).without_log();
    disk.sicken(path, start..start + SECTOR, Sickness::Unreadable);
    let opens = match setup.open(&disk) {
        Ok(db) => holds(&look(&db)?, whole, "opened").map(|()| true)?,
        Err(error) if error.kind() == ErrorKind::Io && error.location().file.is_some() => false,
        Err(error) => return Err(Violation::new(Kind::Wrong, format!("opening failed with: {error}"))),
    };
    let again = SimulatedDisk::from_image(&disk.cached()).without_log();
    holds(&recover(&again, setup)?, whole, "opened when it could be read again")?;
    Ok(opens)
}

/// Where the sectors of a file start that hold anything.
fn written_sectors(image: &Image, path: &str) -> impl Iterator<Item = u64> {
    let mut bytes = Vec::new();
    if let Some(content) = image.file(path) {
        bytes.resize(content.len() as usize, 0);
        content.read(&mut bytes, 0);
    }
    let is_written = |sector: &[u8]| sector.iter().any(|&byte| byte != 0);
    let written: Vec<bool> = bytes.chunks(SECTOR as usize).map(is_written).collect();
    (0u64..).step_by(SECTOR as usize).zip(written).filter(|(_, written)| *written).map(|(start, _)| start)
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
        let mut all = Noticed::default();
        for seed in 0..60 {
            let noticed = run_seed(seed, &base, &tally);
            let noticed = noticed.unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
            all.missing += noticed.missing;
            all.unreadable += noticed.unreadable;
        }
        assert!(all.missing > 20 && all.unreadable > 20, "{all:?}");
    }
}
