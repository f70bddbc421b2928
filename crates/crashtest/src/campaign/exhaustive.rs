//! All workloads of up to three operations, each with a crash at every point of the disk's log that the last
//! operation reaches: what comes before is what a shorter workload covers.
//!
//! At each point: nothing persisted, everything persisted, all but one thing, one thing only, one write torn.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;
use peristyle::Durability::{Buffered, Sync};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::disk::{
    Decisions, Everything, Fate, Grain, Image, Nothing, SimulatedDisk, Single, Timeline, Unsynced, Unwritten,
};
use crate::ledger::{Crash, Ledger, Recovered};
use crate::probe::{Probe, catch};
use crate::recovery::{read_state, unreadable};
use crate::run::{Run, Setup};
use crate::step::{Step, Write};
use crate::tally::{Finding, Tally};
use crate::violation::{Checked, Violation};
use crate::writer::Writer;

/// The operations, and the steps of each.
pub fn operations() -> Vec<(&'static str, Vec<Step>)> {
    let commit = |writes: Vec<Write>, durability| Step::Commit(writes, durability);
    vec![
        ("put", vec![commit(vec![Write::Put(0, 2, 40)], Buffered)]),
        ("put synced", vec![commit(vec![Write::Put(1, 3, 1500)], Sync)]),
        ("put unlogged", vec![Step::Unlogged(Write::Put(2, 4, 60))]),
        ("delete", vec![commit(vec![Write::Delete(0, 2)], Buffered)]),
        ("delete range", vec![commit(vec![Write::DeleteRange(0, 1, 7)], Buffered)]),
        (
            "batch",
            vec![commit(vec![Write::Put(0, 5, 300), Write::Delete(1, 2), Write::Put(1, 9, 30)], Buffered)],
        ),
        (
            "operands",
            vec![commit(
                vec![Write::Merge(0, 2, 30), Write::Merge(0, 7, 30), Write::Merge(0, 2, 9)],
                Buffered,
            )],
        ),
        ("update and be told", vec![Step::Update(0, 2, 45, Buffered), Step::Told]),
        ("prepare", vec![Step::Prepare(vec![Write::Put(0, 2, 50), Write::DeleteRange(1, 1, 4)])]),
        ("commit what is prepared", vec![Step::Decide(true)]),
        ("flush", vec![Step::Flush]),
        ("merge", vec![Step::Merge]),
        ("checkpoint", vec![Step::Checkpoint]),
        (
            "log rotation",
            vec![
                commit(vec![Write::Put(0, 6, 9000)], Buffered),
                commit(vec![Write::Put(1, 6, 9000)], Buffered),
            ],
        ),
        ("snapshot", vec![Step::Snapshot, Step::Iterate(0)]),
        ("create", vec![Step::Create(2), commit(vec![Write::Put(2, 1, 50)], Buffered)]),
        (
            "create several",
            vec![Step::Drop(3), Step::CreateBoth, commit(vec![Write::Put(3, 1, 50)], Buffered)],
        ),
        ("drop", vec![Step::Drop(3)]),
        ("rename", vec![Step::Rename(3, 2)]),
        ("compact", vec![Step::Compact]),
        ("copy", vec![Step::Copy]),
        ("close", vec![Step::Close]),
    ]
}

/// Half of the workloads write deltas.
fn setup(workload: &[usize]) -> Setup {
    Setup { deltas: workload.iter().sum::<usize>() % 2 == 1, ..Setup::MANUAL }
}

/// What all of these workloads start from: the usual, and a family of the writer's own.
fn start(base: &Image) -> Checked<Image> {
    let disk = SimulatedDisk::from_image(base).without_log();
    let run = Run::open(&disk, Setup::MANUAL).map_err(|error| unreadable(&error))?;
    let mut writer = Writer::new(0, &read_state(&run.db())?);
    writer.perform(&run, &Step::Create(3))?;
    writer.perform(&run, &Step::Commit(vec![Write::Put(3, 1, 50), Write::Put(0, 4, 70)], Sync))?;
    run.end();
    Ok(disk.cached())
}

/// Images that were recovered, and what that gave.
#[derive(Default)]
struct Seen {
    images: HashMap<u128, Arc<Recovered>>,
    /// Each outcome once.
    outcomes: HashMap<u64, Arc<Recovered>>,
}

/// Parts of what was seen that are locked each on its own.
const SHARDS: usize = 16;

/// The campaign: workers take one workload after the other.
pub struct Exhaustive {
    operations: Vec<(&'static str, Vec<Step>)>,
    start: Image,
    workloads: Vec<Vec<usize>>,
    next: Mutex<usize>,
    seen: [Mutex<Seen>; SHARDS],
    seed: u64,
}

impl std::fmt::Debug for Exhaustive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exhaustive").field("workloads", &self.workloads.len()).finish_non_exhaustive()
    }
}

impl Exhaustive {
    /// All workloads, the shorter ones first; the long ones in an order that `seed` gives, so that any part
    /// of them is a fair one.
    ///
    /// # Errors
    /// What they start from cannot be made.
    pub fn new(base: &Image, seed: u64) -> Checked<Self> {
        let operations = operations();
        let count = operations.len();
        let mut workloads: Vec<Vec<usize>> = vec![Vec::new()];
        workloads.extend((0..count).map(|one| vec![one]));
        workloads.extend((0..count * count).map(|two| vec![two / count, two % count]));
        let mut long: Vec<Vec<usize>> = (0..count.pow(3))
            .map(|three| vec![three / count / count, three / count % count, three % count])
            .collect();
        long.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        workloads.extend(long);
        Ok(Self {
            operations,
            start: catch(|| start(base))?,
            workloads,
            next: Mutex::new(0),
            seen: Default::default(),
            seed,
        })
    }

    /// Workloads in all.
    pub fn len(&self) -> usize {
        self.workloads.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.workloads.is_empty()
    }

    /// Carries out the next workload with all of its crashes; `false` if there was none, or `enough` says so.
    pub fn work(&self, tally: &Tally, enough: &dyn Fn() -> bool) -> bool {
        let index = {
            let mut next = self.next.lock();
            *next += 1;
            *next - 1
        };
        let Some(workload) = self.workloads.get(index) else { return false };
        if let Err(violation) = self.crash(workload, tally, enough) {
            let names: Vec<&str> = workload.iter().map(|operation| self.operations[*operation].0).collect();
            tally.find(Finding {
                violation,
                arguments: format!("--campaign exhaustive --seed {}", self.seed),
                steps: names.join(", "),
            });
        }
        true
    }

    /// Carries out a workload: the disk, what was done, and the length of the log before the last operation.
    fn run(&self, workload: &[usize]) -> Checked<(SimulatedDisk, Ledger, usize)> {
        let disk = SimulatedDisk::from_image(&self.start);
        catch(|| {
            let run = Run::open(&disk, setup(workload)).map_err(|error| unreadable(&error))?;
            let mut writer = Writer::new(0, &read_state(&run.db())?);
            let mut before = 0;
            for operation in workload {
                before = disk.operations();
                for step in &self.operations[*operation].1 {
                    writer.perform(&run, step)?;
                }
            }
            writer.perform(&run, &Step::Read)?;
            writer.finish(&run)?;
            run.end();
            Ok((disk.clone(), run.ledger(vec![writer]), before))
        })
    }

    fn crash(&self, workload: &[usize], tally: &Tally, enough: &dyn Fn() -> bool) -> Checked<()> {
        let (disk, ledger, before) = self.run(workload)?;
        tally.add(&tally.workloads);
        let mut timeline = disk.timeline();
        let probe = Probe { tally, setup: setup(workload) };
        let mut here = HashSet::new();
        for moment in before..=timeline.len() {
            timeline.advance(moment);
            if enough() {
                return Ok(());
            }
            for_each_image(&timeline, &mut |image, what| {
                let hash = image.hash();
                if !here.insert((hash, moment)) {
                    return Ok(());
                }
                let within = |violation: Violation| {
                    violation.within(format!("{what} behind {moment} of {} operations", timeline.len()))
                };
                let recovered = self.recover(&probe, image, hash).map_err(within)?;
                probe.check(&ledger, image, &recovered, moment, Crash::PowerLoss).map_err(within)?;
                if what == What::All {
                    probe.check(&ledger, image, &recovered, moment, Crash::Kill).map_err(within)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// What an image gives when it is recovered, which is done once for each. Some are recovered twice, or
    /// interrupted.
    fn recover(&self, probe: &Probe<'_>, image: &Image, hash: u128) -> Checked<Arc<Recovered>> {
        let shard = &self.seen[(hash % SHARDS as u128) as usize];
        if let Some(recovered) = shard.lock().images.get(&hash) {
            return Ok(Arc::clone(recovered));
        }
        let choice = (hash >> 64) as u64;
        let recovered =
            if choice.is_multiple_of(8) { probe.recover_twice(image)? } else { probe.recover(image)? };
        if choice % 8 == 1 {
            probe.interrupt(image, &recovered, &mut ChaCha8Rng::seed_from_u64(choice))?;
        }
        let mut hasher = DefaultHasher::new();
        recovered.hash(&mut hasher);
        let mut seen = shard.lock();
        let recovered =
            Arc::clone(seen.outcomes.entry(hasher.finish()).or_insert_with(|| Arc::new(recovered)));
        seen.images.insert(hash, Arc::clone(&recovered));
        Ok(recovered)
    }
}

/// What persisted. The numbers count what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Nothing,
    All,
    Metadata,
    AllBut(usize),
    Only(usize),
    OnlyWithMetadata(usize),
    TornInBytes(usize, Fate),
    TornInSectors(usize, Fate),
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => write!(f, "nothing of the unsynced persisted"),
            Self::All => write!(f, "everything persisted"),
            Self::Metadata => write!(f, "lengths and entries persisted"),
            Self::AllBut(index) => write!(f, "everything but unsynced thing {index} persisted"),
            Self::Only(index) => write!(f, "unsynced thing {index} alone persisted"),
            Self::OnlyWithMetadata(index) => {
                write!(f, "unsynced thing {index}, lengths and entries persisted")
            }
            Self::TornInBytes(index, fate) => write!(f, "unsynced write {index} was torn: {fate:?} bytes"),
            Self::TornInSectors(index, fate) => {
                write!(f, "unsynced write {index} was torn: {fate:?} sectors")
            }
        }
    }
}

fn for_each_image(timeline: &Timeline, each: &mut dyn FnMut(&Image, What) -> Checked<()>) -> Checked<()> {
    let mut give = |what: What, decisions: &mut dyn Decisions| each(&timeline.image(decisions), what);
    give(What::Nothing, &mut Nothing)?;
    give(What::All, &mut Everything)?;
    let unsynced = timeline.unsynced(Grain::Sector);
    let bytes = timeline.unsynced(Grain::Byte);
    let one = Single {
        index: usize::MAX,
        fate: Fate::Dropped,
        data: Fate::Dropped,
        metadata: Fate::Kept,
        unwritten: Unwritten::Zeros,
        grain: Grain::Sector,
    };
    if !unsynced.is_empty() {
        give(What::Metadata, &mut Single { unwritten: Unwritten::Noise(1), ..one })?;
    }
    for (index, (what, in_bytes)) in unsynced.iter().zip(&bytes).enumerate() {
        give(What::AllBut(index), &mut Single { index, data: Fate::Kept, ..one })?;
        let only = Single { index, fate: Fate::Kept, metadata: Fate::Dropped, ..one };
        give(What::Only(index), &mut only.clone())?;
        let (Unsynced::Data { grains }, Unsynced::Data { grains: bytes }) = (*what, *in_bytes) else {
            continue;
        };
        let mut with_metadata = Single { metadata: Fate::Kept, unwritten: Unwritten::Old(0), ..only };
        give(What::OnlyWithMetadata(index), &mut with_metadata)?;
        for fate in [Fate::Prefix(bytes / 2), Fate::Suffix(bytes / 2)] {
            let mut torn = Single { index, fate, data: Fate::Kept, grain: Grain::Byte, ..one };
            give(What::TornInBytes(index, fate), &mut torn)?;
        }
        if grains > 1 {
            for fate in [Fate::Prefix(grains / 2), Fate::Suffix(grains / 2), Fate::Subset(index as u64)] {
                let mut torn = Single { index, fate, data: Fate::Kept, ..one };
                give(What::TornInSectors(index, fate), &mut torn)?;
            }
        }
    }
    Ok(())
}
