//! Disks that fail: every call of a workload in turn, once and for good, with each error and each way of a
//! failed sync. And disks that lie: bits that rot, writes that are lost or land elsewhere. And disks with a
//! page that cannot be read (`sick`), and what happens to a database that lies closed (`aged`). And a disk
//! that is full for a while (`short`).
//!
//! After the first failure nothing may be acknowledged and nothing wrong be read. Then the process is killed
//! and started again with the memory of the system as it is; what it shows must survive the loss of power
//! that follows. And power is lost at once. Only what the system lacks at present, descriptors or memory,
//! ends nothing: everything goes on once it is there again.

use std::ops::Range;

use parking_lot::Mutex;
use peristyle::Durability::{Buffered, Sync};
use peristyle::{Error, ErrorKind};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::campaign::{aged, short, sick};
use crate::disk::{
    Everything, Fault, FaultKind, Honesty, Image, Nothing, Operation, RandomDecisions, SimulatedDisk,
    SyncFailure,
};
use crate::ledger::{Crash, Ledger, Recovered};
use crate::probe::{Probe, catch};
use crate::recovery::{look, read_all, read_state};
use crate::run::{FAMILIES, Run, Setup};
use crate::step::{Mixture, Step, Write};
use crate::tally::{Finding, Tally};
use crate::violation::{Checked, Kind, Violation};
use crate::writer::{Outcome, Writer};

/// A workload in which everything happens once.
fn all_of_it() -> Vec<Step> {
    let put = |family, key, len, durability| Step::Commit(vec![Write::Put(family, key, len)], durability);
    vec![
        put(0, 1, 100, Buffered),
        put(1, 2, 2000, Sync),
        Step::Unlogged(Write::Put(0, 3, 60)),
        Step::Flush,
        Step::Commit(vec![Write::Put(0, 4, 300), Write::Delete(1, 2), Write::Put(1, 5, 30)], Buffered),
        Step::Snapshot,
        Step::Merge,
        Step::Commit(vec![Write::Merge(0, 1, 40), Write::Merge(1, 2, 40)], Buffered),
        Step::Unlogged(Write::Merge(0, 3, 20)),
        Step::Update(1, 2, 150, Buffered),
        Step::Told,
        Step::Prepare(vec![Write::Put(0, 2, 300), Write::DeleteRange(1, 1, 9)]),
        Step::Create(2),
        put(2, 1, 500, Buffered),
        Step::Commit(vec![Write::Merge(0, 1, 30)], Buffered),
        Step::Checkpoint,
        put(0, 6, 9000, Buffered),
        put(0, 7, 9000, Buffered),
        Step::Commit(vec![Write::DeleteRange(0, 1, 5)], Sync),
        Step::Read,
        Step::Rename(2, 3),
        Step::Compare,
        Step::Compact,
        put(1, 8, 5000, Sync),
        Step::Drop(3),
        Step::CreateBoth,
        Step::Decide(true),
        Step::Prepare(vec![Write::Put(0, 2, 70), Write::Put(1, 3, 70)]),
        put(3, 1, 200, Buffered),
        Step::Close,
        put(0, 9, 100, Sync),
        Step::Decide(false),
        Step::Read,
    ]
}

/// A workload that writes the same pages again and again: what stands where a write was lost is a page of the
/// same family and number.
fn over_and_over() -> Vec<Step> {
    let put = |family, key, len| Step::Commit(vec![Write::Put(family, key, len)], Buffered);
    let round = |round: u16| [put(0, 1, 100 + round), put(1, 2, 900 + round), Step::Flush];
    (0..8).flat_map(round).chain([Step::Read]).collect()
}

/// With what an opening fails where a call of the disk does.
fn may_keep_from_opening(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Io | ErrorKind::OutOfSpace | ErrorKind::OutOfResources)
}

/// Lies that the sweep goes through: a quarter of each sort.
const LIES: u64 = 1600;
/// Workloads of the sweep on a disk with a page that cannot be read.
const SICK: u64 = 400;
/// Workloads of the sweep after which the database ages.
const AGED: u64 = 100;
/// Workloads of the sweep on a disk that becomes full and stays so for a while.
const FULL: u64 = 12;

/// What goes wrong with the disk in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Calls fail.
    Fails(Fault),
    /// A write is not carried out as it should be.
    Lies(u64, Honesty),
    /// A bit flips while the database is closed; the seed says which.
    Rots(u64),
    /// A page of a family cannot be read while the database is at work; all else follows from the seed.
    Sick(u64),
    /// A sector goes bad, or a file of the log goes, while the database is closed; all else follows from the
    /// seed.
    Ages(u64),
    /// The disk becomes full, and stays so for a while; all else follows from the seed.
    Full(u64),
}

/// What one run of the campaign does.
#[derive(Debug, Clone)]
struct Case {
    steps: Vec<Step>,
    maps: bool,
    from_nothing: bool,
    trouble: Trouble,
    seed: u64,
}

/// The campaign: workers take one case after the other.
#[derive(Debug)]
pub struct Errors {
    base: Image,
    seed: u64,
    sweep: Mutex<Sweep>,
}

/// Goes through all calls of the workload in which everything happens.
#[derive(Debug)]
struct Sweep {
    /// The fault to come: kind and whether it lasts, then the call.
    kinds: std::vec::IntoIter<(FaultKind, bool, bool)>,
    kind: Option<(FaultKind, bool, bool)>,
    nth: u64,
    /// Calls that were found to be there.
    calls: u64,
    lies: Range<u64>,
    sick: Range<u64>,
    aged: Range<u64>,
    full: Range<u64>,
    random: u64,
}

impl Errors {
    /// The campaign that `seed` gives: the sweep, then random workloads without end.
    pub fn new(base: &Image, seed: u64) -> Self {
        let kinds = FaultKind::ALL.into_iter().flat_map(|kind| {
            [(false, false), (true, false), (false, true), (true, true)]
                .map(|(lasting, nothing)| (kind, lasting, nothing))
        });
        let mut kinds = kinds.collect::<Vec<_>>().into_iter();
        let kind = kinds.next();
        let sweep = Sweep {
            kinds,
            kind,
            nth: 0,
            calls: u64::MAX,
            lies: 0..LIES,
            sick: 0..SICK,
            aged: 0..AGED,
            full: 0..FULL,
            random: 0,
        };
        Self { base: base.clone(), seed, sweep: Mutex::new(sweep) }
    }

    /// The next case; whether it belongs to the sweep.
    fn next(&self) -> (Case, bool) {
        let mut sweep = self.sweep.lock();
        while let Some((kind, lasting, from_nothing)) = sweep.kind {
            if sweep.nth < sweep.calls {
                let fault = Fault { kind, nth: sweep.nth, lasting };
                sweep.nth += 1;
                let case = Case {
                    steps: all_of_it(),
                    maps: sweep.nth.is_multiple_of(2),
                    from_nothing,
                    trouble: Trouble::Fails(fault),
                    seed: sweep.nth,
                };
                return (case, true);
            }
            sweep.kind = sweep.kinds.next();
            sweep.nth = 0;
            sweep.calls = u64::MAX;
        }
        if let Some(number) = sweep.lies.next() {
            let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ number);
            let (steps, trouble) = match number % 4 {
                0 => (all_of_it(), Trouble::Lies(number / 4, Honesty::Lost)),
                1 => {
                    let place = Honesty::Misdirected(random.random_range(0..400) * 512);
                    (all_of_it(), Trouble::Lies(number / 4, place))
                }
                2 => (over_and_over(), Trouble::Lies(number / 4, Honesty::Lost)),
                _ => (all_of_it(), Trouble::Rots(number / 4)),
            };
            let case = Case { steps, maps: true, from_nothing: false, trouble, seed: number };
            return (case, true);
        }
        let seeded = |number: u64| self.seed.wrapping_add(number);
        let sick = sweep.sick.next().map(|number| (number, Trouble::Sick(seeded(number))));
        let next = sick.or_else(|| sweep.aged.next().map(|number| (number, Trouble::Ages(seeded(number)))));
        let next = next.or_else(|| sweep.full.next().map(|number| (number, Trouble::Full(seeded(number)))));
        if let Some((number, trouble)) = next {
            return (Case::of(trouble, number), true);
        }
        sweep.random += 1;
        (Case::random(self.seed.wrapping_add(sweep.random)), false)
    }

    /// Carries out the next case. `false` once the sweep is through.
    pub fn work(&self, tally: &Tally) -> bool {
        let (case, swept) = self.next();
        match case.run(&self.base, tally) {
            Ok(true) => {}
            Ok(false) => {
                // No call was left to fail.
                let mut sweep = self.sweep.lock();
                if let (Trouble::Fails(fault), Some((kind, lasting, from_nothing))) =
                    (case.trouble, sweep.kind)
                    && swept
                    && (kind, lasting, from_nothing) == (fault.kind, fault.lasting, case.from_nothing)
                {
                    sweep.calls = sweep.calls.min(fault.nth);
                }
            }
            Err(violation) => {
                tally.find(Finding {
                    violation,
                    // The sweep is the same for every seed, so the first random case is what a seed adds to
                    // it.
                    arguments: format!(
                        "--campaign errors --seed {}",
                        if swept { self.seed } else { case.seed - 1 }
                    ),
                    steps: format!("{case:?}"),
                });
            }
        }
        swept
    }
}

/// Runs the random case of a seed on its own.
///
/// # Errors
/// A broken promise.
pub fn run_seed(seed: u64, base: &Image, tally: &Tally) -> Checked<()> {
    Case::random(seed).run(base, tally).map(drop)
}

impl Case {
    /// One of which all else follows from the trouble.
    fn of(trouble: Trouble, seed: u64) -> Self {
        Self { steps: Vec::new(), maps: true, from_nothing: false, trouble, seed }
    }

    fn random(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mixture = Mixture { keys: 12, unlogged: random.random(), reopens: true, maintains: true };
        // A handle that is dropped cannot tell that it failed, so there is nothing to hold it against.
        let steps = (0..random.random_range(3..50)).map(|_| match mixture.step(&mut random) {
            Step::Abandon => Step::Close,
            step => step,
        });
        let steps = steps.collect();
        let trouble = match random.random_range(0..200) {
            199 => return Self::of(Trouble::Full(seed), seed),
            number => number / 20,
        };
        let trouble = match trouble {
            0 => Trouble::Lies(random.random_range(0..60), Honesty::Lost),
            1 => {
                let place = Honesty::Misdirected(random.random_range(0..600) * 512);
                Trouble::Lies(random.random_range(0..60), place)
            }
            2 => Trouble::Rots(random.random_range(0..1 << 32)),
            3 => Trouble::Sick(seed),
            4 => Trouble::Ages(seed),
            _ => Trouble::Fails(Fault {
                kind: FaultKind::ALL[random.random_range(0..FaultKind::ALL.len())],
                nth: random.random_range(0..120),
                lasting: random.random(),
            }),
        };
        let (maps, from_nothing) = (random.random(), random.random_range(0..6) == 0);
        Self { steps, maps, from_nothing, trouble, seed }
    }

    fn setup(&self) -> Setup {
        Setup { maps: self.maps, deltas: self.seed % 2 == 1, roomy: self.seed % 4 == 1, ..Setup::MANUAL }
    }

    /// Whether the trouble came up.
    fn run(&self, base: &Image, tally: &Tally) -> Checked<bool> {
        tally.add(&tally.workloads);
        match self.trouble {
            Trouble::Fails(fault) => self.fail(fault, base, tally),
            Trouble::Lies(..) | Trouble::Rots(_) => self.lie(base, tally).map(|()| true),
            Trouble::Sick(seed) => sick::run_seed(seed, base, tally).map(|()| true),
            Trouble::Ages(seed) => aged::run_seed(seed, base, tally).map(|_| true),
            Trouble::Full(seed) => short::run_seed(seed, base, tally).map(|()| true),
        }
    }

    /// A new disk, and what a writer finds on it.
    fn disk(&self, base: &Image) -> SimulatedDisk {
        if self.from_nothing { SimulatedDisk::new() } else { SimulatedDisk::from_image(base) }
    }

    /// Carries out the steps until one fails; then none may succeed. `None` if the database did not open.
    fn perform(&self, disk: &SimulatedDisk, base: &Image) -> Checked<Option<Ledger>> {
        let run = match Run::open(disk, self.setup()) {
            Ok(run) => run,
            Err(error) if may_keep_from_opening(error.kind()) => return Ok(None),
            Err(error) => return Err(Violation::new(Kind::Wrong, format!("opening failed with: {error}"))),
        };
        let found = if self.from_nothing {
            crate::history::State::default()
        } else {
            let quiet = SimulatedDisk::from_image(base).without_log();
            read_state(&crate::recovery::reopen(&quiet, self.setup())?)?
        };
        let reverts = matches!(
            self.trouble,
            Trouble::Fails(Fault { kind: FaultKind::Sync(SyncFailure::Reverted, _), .. })
        );
        let mut writer = Writer::new(0, &found).forgiving(ErrorKind::Io);
        if reverts {
            // What was written and is gone is missed where it is read.
            writer = writer.forgiving(ErrorKind::Corruption);
        }
        if matches!(self.trouble, Trouble::Fails(Fault { kind, .. }) if kind.is_lack()) {
            writer = writer.forgiving(ErrorKind::OutOfResources);
        }
        let mut alive = true;
        if self.from_nothing {
            alive = matches!(writer.found(&run, &FAMILIES)?, Outcome::Done);
        }
        let founded = alive;
        for step in &self.steps {
            if !alive {
                break;
            }
            alive = !matches!(writer.perform(&run, step)?, Outcome::Failed(_)) && run.is_open();
        }
        if !alive && run.is_open() && writer.failure().is_some() {
            let put = |durability| Step::Commit(vec![Write::Put(0, 11, 10)], durability);
            // Without its families there is nothing to write to, or to read.
            let into_families = if founded { vec![put(Buffered), put(Sync), Step::Read] } else { Vec::new() };
            for step in into_families.into_iter().chain([Step::Flush, Step::Sync, Step::Checkpoint]) {
                writer.perform(&run, &step)?;
            }
        }
        if let Trouble::Fails(Fault { kind, .. }) = self.trouble
            && kind.is_lack()
        {
            if let Some(error) = writer.failure() {
                let message = format!("what the system lacked for a while ended all writing: {error}");
                return Err(Violation::new(Kind::Wrong, message));
            }
            disk.heal();
            if run.is_open() && founded {
                short::goes_on(&run, &mut writer)?;
            }
        }
        if run.is_open() {
            writer.finish(&run)?;
        }
        run.forsake();
        Ok(Some(run.ledger(vec![writer])))
    }

    /// The most records in which damaged families can be carried along: one of each family in each step.
    fn most_carried(&self) -> u64 {
        // Two families are the writer's own, one is of what is prepared; closing is a step, too.
        let families = FAMILIES.len() + 3;
        (families * (self.steps.len() + 1)) as u64
    }

    fn fail(&self, fault: Fault, base: &Image, tally: &Tally) -> Checked<bool> {
        let disk = self.disk(base);
        disk.fail(fault);
        let mut ledger = catch(|| self.perform(&disk, base))?;
        if let (FaultKind::Io | FaultKind::Interrupted, Some(ledger)) = (fault.kind, &mut ledger) {
            ledger.carried = self.most_carried();
        }
        for _ in 0..disk.struck() {
            tally.add(&tally.io_errors);
        }
        if disk.struck() == 0 {
            return Ok(false);
        }
        let moment = disk.operations();
        let probe = Probe { tally, setup: self.setup() };
        let lied = disk.lied_at();
        // What families there are stands in no log: where a sync lied about that, later commits can be there
        // without it.
        let is_blurred = |ledger: &Ledger| lied.is_some_and(|moment| ledger.changes_families_after(moment));
        let check = |recovered: &Recovered, crash| match &ledger {
            Some(ledger) if !is_blurred(ledger) => ledger.check(recovered, moment, crash),
            _ => Ok(()),
        };
        let power_loss = lied.map_or(Crash::PowerLoss, Crash::Deceived);
        let reverts = matches!(fault.kind, FaultKind::Sync(SyncFailure::Reverted, _));
        let kill = if reverts { power_loss } else { Crash::Kill };
        // The process is started again, and power is lost later.
        let restarted = disk.restart();
        let outcome = catch(|| look(&crate::recovery::reopen(&restarted, self.setup())?));
        tally.add(&tally.images);
        if let Some(shown) = forgive_lies(outcome, lied).map_err(|v| v.within("started again"))? {
            check(&shown, kill).map_err(|violation| violation.within("started again"))?;
            let image = restarted.crash(restarted.operations(), &mut Nothing);
            let after = forgive_lies(probe.recover(&image), lied)
                .map_err(|violation| violation.within("power lost after it was started again"))?;
            if let Some(after) = after
                && lied.is_none()
                && after != shown
            {
                let message = format!(
                    "what was shown after a restart was not durable: number {} then, {} now",
                    shown.last_sequence, after.last_sequence
                );
                return Err(Violation::new(Kind::Lost, message));
            }
        }
        // Power is lost at once.
        let images = [
            disk.crash(moment, &mut Nothing),
            disk.crash(moment, &mut Everything),
            disk.crash(moment, &mut RandomDecisions::new(self.seed)),
        ];
        for image in images {
            let recovered = forgive_lies(probe.recover(&image), lied).map_err(|v| v.within("power lost"))?;
            if let Some(recovered) = recovered {
                check(&recovered, power_loss).map_err(|violation| violation.within("power lost"))?;
            }
        }
        Ok(true)
    }

    fn lie(&self, base: &Image, tally: &Tally) -> Checked<()> {
        let disk = self.disk(base);
        if let Trouble::Lies(writes, honesty) = self.trouble {
            disk.deceive(writes, honesty);
        }
        let Some(ledger) = catch(|| self.perform(&disk, base))? else { return Ok(()) };
        let moment = disk.operations();
        let image = disk.crash(moment, &mut Everything);
        if let Trouble::Rots(number) = self.trouble {
            for place in number * ROTTEN_AT_ONCE..(number + 1) * ROTTEN_AT_ONCE {
                let mut image = image.clone();
                let in_log = rot(&mut image, place);
                self.check_damaged(&ledger, &image, moment, in_log, tally)
                    .map_err(|violation| violation.within(format!("a bit has flipped, place {place}")))?;
            }
        } else if let Some(operation) = disk.timeline().operations().iter().position(is_dishonest) {
            let in_log = disk.timeline().is_in_directory(operation, "wal");
            self.check_damaged(&ledger, &image, moment, in_log, tally)?;
        }
        Ok(())
    }

    /// What is damaged is noticed, or harms nothing.
    fn check_damaged(
        &self,
        ledger: &Ledger,
        image: &Image,
        moment: usize,
        in_log: bool,
        tally: &Tally,
    ) -> Checked<()> {
        tally.add(&tally.images);
        tally.add(&tally.io_errors);
        let Some(recovered) = catch(|| read_damaged(image, self.setup()))? else { return Ok(()) };
        // What stands at the end of the log and is damaged cannot be told from what was never written.
        let crash = if in_log { Crash::Deceived(0) } else { Crash::Kill };
        ledger.check(&recovered, moment, crash).map_err(|violation| {
            let kind = if violation.kind == Kind::Lost { Kind::Lost } else { Kind::Wrong };
            Violation { kind, ..violation }.within("damage was not noticed")
        })
    }
}

fn is_dishonest(operation: &Operation) -> bool {
    matches!(operation, Operation::Write { honesty, .. } if *honesty != Honesty::Honest)
}

/// Bytes of which one is flipped for each number.
const ROTTEN: u64 = 32;
/// Flips that follow one workload, each on its own.
const ROTTEN_AT_ONCE: u64 = 40;

/// Flips a bit in the block that `number` counts, of those that hold anything. Says whether it is one of the
/// log's.
fn rot(image: &mut Image, number: u64) -> bool {
    let mut blocks: Vec<(String, u64)> = Vec::new();
    for (path, content) in image.files() {
        let mut bytes = vec![0; content.len() as usize];
        content.read(&mut bytes, 0);
        let written = bytes.chunks(ROTTEN as usize).enumerate();
        let written = written.filter(|(_, block)| block.iter().any(|&byte| byte != 0));
        blocks.extend(written.map(|(index, _)| (path.to_owned(), index as u64 * ROTTEN)));
    }
    let Some((path, start)) = blocks.get((number % blocks.len().max(1) as u64) as usize) else {
        return false;
    };
    let mut random = ChaCha8Rng::seed_from_u64(number);
    if let Some(content) = image.file_mut(path) {
        let offset = start + random.random_range(0..ROTTEN.min(content.len() - start));
        let mut byte = [0];
        content.read(&mut byte, offset);
        byte[0] ^= 1 << random.random_range(0..8);
        content.write(&byte, offset);
    }
    path.starts_with("wal/")
}

/// Whether an error says where the damage is.
fn is_located(error: &Error) -> bool {
    error.location().file.is_some()
}

/// What of a damaged image can be read, or `None` if an error says that it cannot, and where.
fn read_damaged(image: &Image, setup: Setup) -> Checked<Option<Recovered>> {
    let disk = SimulatedDisk::from_image(image).without_log();
    let refuse = |error: Error| {
        let is_honest =
            matches!(error.kind(), ErrorKind::Corruption | ErrorKind::NotADatabase | ErrorKind::NewerFormat);
        if is_honest && is_located(&error) {
            return Ok(None);
        }
        Err(Violation::new(Kind::Wrong, format!("damage gives an error that does not say where: {error}")))
    };
    let db = match setup.open(&disk) {
        Ok(db) => db,
        Err(error) => return refuse(error),
    };
    match db.verify() {
        Ok(report) => {
            if let Some(fault) = report.faults.iter().find(|fault| !is_located(fault)) {
                return Err(Violation::new(Kind::Wrong, format!("a fault that does not say where: {fault}")));
            }
        }
        Err(error) => return refuse(error),
    }
    let sums = match read_all(&db, |_, _, _| ()) {
        Ok(sums) => sums?,
        Err(error) => return refuse(error),
    };
    Ok(Some(Recovered { sums, last_sequence: db.recovery_report().last_sequence.0 }))
}

/// Where a sync succeeded that had not written everything, the database may say so instead of opening.
fn forgive_lies(outcome: Checked<Recovered>, lied: Option<usize>) -> Checked<Option<Recovered>> {
    match outcome {
        Ok(recovered) => Ok(Some(recovered)),
        Err(violation) if lied.is_some() && violation.kind == Kind::Lost => Ok(None),
        Err(violation) => Err(violation),
    }
}
