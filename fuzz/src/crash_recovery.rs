//! Crashes on the simulated disk.

use std::sync::OnceLock;

use peristyle::Durability;
use peristyle_crashtest::campaign;
use peristyle_crashtest::disk::{ByteDecisions, Everything, Image, Nothing, SimulatedDisk};
use peristyle_crashtest::history::State;
use peristyle_crashtest::ledger::Crash;
use peristyle_crashtest::probe::Probe;
use peristyle_crashtest::recovery::{read_state, reopen};
use peristyle_crashtest::run::{FAMILIES, Place, Run, Setup};
use peristyle_crashtest::step::{FILLING, Step, Write};
use peristyle_crashtest::tally::Tally;
use peristyle_crashtest::violation::Checked;
use peristyle_crashtest::writer::Writer;

use crate::input::Input;

/// Crashes of one input, one after the other, each on what the last one left.
const MAX_CRASHES: usize = 4;
/// Steps before a crash.
const MAX_STEPS: usize = 32;

/// Lets a database crash as the bytes say, again and again.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let way = input.u8();
    let setup = Setup { maps: way & 1 == 0, deltas: way & 8 == 0, ..Setup::MANUAL };
    let mut image = if way & 6 == 6 { Image::default() } else { base().clone() };
    let tally = Tally::default();
    let probe = Probe { tally: &tally, setup };
    for number in 0..MAX_CRASHES {
        match crash(&probe, &image, &mut input) {
            Ok(left) => image = left,
            Err(violation) => panic!("crash {number}: {violation}"),
        }
        if input.is_empty() {
            break;
        }
    }
}

fn base() -> &'static Image {
    static BASE: OnceLock<Image> = OnceLock::new();
    BASE.get_or_init(campaign::base)
}

/// Carries out steps on what is on `image` and lets that crash; what is recovered must be what the steps
/// promised. Returns what the crash left.
fn crash(probe: &Probe<'_>, image: &Image, input: &mut Input<'_>) -> Checked<Image> {
    let disk = SimulatedDisk::from_image(image);
    let db = reopen(&disk, probe.setup)?;
    let base = read_state(&db)?;
    let run = Run::over(Place::Simulated(disk.clone()), probe.setup, db);
    let mut writer = Writer::new(0, &base);
    writer.found(&run, &missing(&base))?;
    for _ in 0..input.below(MAX_STEPS) {
        if input.is_empty() {
            break;
        }
        writer.perform(&run, &step(input))?;
    }
    writer.finish(&run)?;
    run.end();
    let ledger = run.ledger(vec![writer]);

    // The last operations are as likely as all others together: there, what was acknowledged last is not yet
    // synced.
    let operations = disk.operations();
    let moment = match input.u8() {
        back @ 0..=127 => operations - usize::from(back).min(operations),
        _ => usize::from(input.u16()) % (operations + 1),
    };
    let mut timeline = disk.timeline();
    timeline.advance(moment);
    let kind = input.u8() % 8;
    let decisions = usize::from(input.u8());
    let (image, crash) = match kind {
        0 => (timeline.cached(), Crash::Kill),
        1 => (timeline.image(&mut Nothing), Crash::PowerLoss),
        2 => (timeline.image(&mut Everything), Crash::PowerLoss),
        _ => (timeline.image(&mut ByteDecisions::new(input.take(decisions))), Crash::PowerLoss),
    };
    let recovered = if kind == 3 { probe.recover_twice(&image) } else { probe.recover(&image) };
    let within = |violation: peristyle_crashtest::violation::Violation| {
        violation.within(format!("{crash:?} behind {moment} of {operations} operations"))
    };
    ledger.check(&recovered.map_err(within)?, moment, crash).map_err(within)?;
    Ok(image)
}

/// The families that are always there, as far as they are not: a crash came before they were made.
fn missing(base: &State) -> Vec<&'static str> {
    FAMILIES.into_iter().filter(|name| base.family_sum(name).is_none()).collect()
}

/// Of its bytes, 0 is the commit of one put.
fn step(input: &mut Input<'_>) -> Step {
    match input.u8() % 40 {
        0..=9 => Step::Commit(vec![write(input)], durability(input)),
        14 => {
            let (family, key) = (family(input), input.u16() % 64);
            Step::Update(family, key, 8 + u16::from(input.u8()), durability(input))
        }
        15 => Step::Told,
        10..=13 => {
            let durability = durability(input);
            Step::Commit((0..2 + input.below(6)).map(|_| write(input)).collect(), durability)
        }
        16..=17 => Step::Unlogged(match write(input) {
            Write::Put(_, key, len) => Write::Put(0, key, len),
            Write::Merge(_, key, len) => Write::Merge(0, key, len),
            Write::Delete(_, key) | Write::DeleteRange(_, key, _) => Write::Delete(0, key),
        }),
        18 => Step::Sync,
        19..=20 => Step::Flush,
        21 => Step::FlushFamily(family(input)),
        22..=23 => Step::Merge,
        24..=25 => Step::Checkpoint,
        26 => Step::Snapshot,
        27 => Step::Compare,
        28 => Step::Iterate(family(input)),
        29..=30 => Step::Create(own(input)),
        31 => Step::Drop(own(input)),
        32 => Step::Rename(own(input), own(input)),
        33..=34 => Step::Compact,
        35 => Step::CompactFamily(family(input)),
        36 => Step::Read,
        37 => Step::Close,
        _ => Step::Abandon,
    }
}

fn family(input: &mut Input<'_>) -> u8 {
    input.below(4) as u8
}

/// A family of the writer's own.
fn own(input: &mut Input<'_>) -> u8 {
    2 + input.below(2) as u8
}

fn durability(input: &mut Input<'_>) -> Durability {
    if input.bool() { Durability::Sync } else { Durability::Buffered }
}

fn write(input: &mut Input<'_>) -> Write {
    let (kind, family, key) = (input.below(8), family(input), input.below(64) as u16);
    match kind {
        0..=4 => {
            let merges = kind == 4;
            let len = match input.below(16) {
                0..=8 => 8 + input.below(112),
                9..=12 => input.below(1000),
                13 | 14 => input.below(5000),
                _ => usize::from(FILLING),
            };
            if merges { Write::Merge(family, key, len as u16) } else { Write::Put(family, key, len as u16) }
        }
        5 | 6 => Write::Delete(family, key),
        _ => Write::DeleteRange(family, key, key + 1 + input.below(16) as u16),
    }
}
