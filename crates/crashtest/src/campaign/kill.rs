//! Processes that are killed: real files, merges and checkpoints in flight, and acknowledgements over a pipe.
//!
//! A child opens the database in a directory and lets writers carry out the steps that a seed gives, saying
//! after each that it is done. The parent kills it, opens what is left, and goes through the same steps to
//! know what must be there. The next child goes on from that. Some children fork while they write: what they
//! fork inherits the database, and may do nothing to it.

use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use peristyle::{ColumnFamilyDatabase, ErrorKind, SequenceNumber};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::history::State;
use crate::ledger::{Crash, Floor, Ledger};
use crate::probe::catch;
use crate::recovery::{look, read_state};
use crate::run::{FAMILIES, Place, Run, Setup};
use crate::step::{Mixture, Step};
use crate::tally::{Finding, Tally};
use crate::violation::{Checked, Kind, Violation};
use crate::writer::{Outcome, Writer};

/// The subcommand that plays the child.
pub const CHILD: &str = "kill-child";

/// Writers of a child.
const CHILD_WRITERS: usize = 3;

/// Kills that one directory sees.
const KILLS_PER_DIRECTORY: usize = 8;

/// Of so many children, one forks.
#[cfg(unix)]
const FORKING: u64 = 3;
/// And that before one step in so many.
#[cfg(unix)]
const STEPS_PER_FORK: u32 = 24;

/// How long what a killed child has forked may keep the database.
const LET_GO_WITHIN: Duration = Duration::from_secs(60);

/// Steps after which a child is surely killed.
const MAX_STEPS: usize = 400;

const SETUP: Setup =
    Setup { automatic: true, threads: 2, sync_interval: 3, maps: true, deltas: true, roomy: false };
/// Every other child's memtables have room for all that the log holds.
const ROOMY: Setup = Setup { roomy: true, ..SETUP };

/// The steps of one writer, without end.
struct Steps {
    random: ChaCha8Rng,
    mixture: Mixture,
}

impl Steps {
    fn new(seed: u64, writer: usize) -> Self {
        let random = ChaCha8Rng::seed_from_u64(seed ^ (writer as u64) << 56);
        let mixture =
            Mixture { keys: 300, unlogged: seed.is_multiple_of(4), reopens: false, maintains: true };
        Self { random, mixture }
    }
}

impl Iterator for Steps {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        Some(self.mixture.step(&mut self.random))
    }
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> Violation {
    Violation::new(Kind::Wrong, format!("{what}: {error}"))
}

/// Tells the parent; ends the process when it is gone.
fn say(line: &str) {
    if std::io::stdout().lock().write_all(format!("{line}\n").as_bytes()).is_err() {
        std::process::exit(1);
    }
}

/// Writes until it is killed.
pub fn play_child(directory: &Path, seed: u64) -> std::process::ExitCode {
    if let Err(violation) = catch(|| write_until_killed(directory, seed)) {
        say(&format!("violation {violation}"));
    }
    std::process::ExitCode::FAILURE
}

fn write_until_killed(directory: &Path, seed: u64) -> Checked<()> {
    let place = Place::Files(directory.to_owned());
    let setup = if seed.is_multiple_of(2) { SETUP } else { ROOMY };
    let db = place.open(setup).map_err(|error| failed("opening", &error))?;
    let base = read_state(&db)?;
    let run = Run::over(place, setup, db);
    let outcomes: Vec<Checked<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CHILD_WRITERS)
            .map(|number| {
                let (run, base) = (&run, &base);
                scope.spawn(move || {
                    let mut writer = Writer::new(number, base);
                    let mut random = ChaCha8Rng::seed_from_u64(!seed ^ (number as u64) << 56);
                    for (index, step) in Steps::new(seed, number).enumerate() {
                        at_times_fork(run, seed, &mut random)?;
                        let outcome = writer.perform(run, &step);
                        match outcome.map_err(|violation| violation.within(format!("in {step}")))? {
                            Outcome::Done => say(&format!("done {number} {index}")),
                            Outcome::Refused(error) | Outcome::Failed(error) => {
                                return Err(failed(&format!("in {step}"), &error));
                            }
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(Ok(()))).collect()
    });
    outcomes.into_iter().collect()
}

#[cfg(unix)]
fn at_times_fork(run: &Run, seed: u64, random: &mut ChaCha8Rng) -> Checked<()> {
    if std::env::var_os("NOFORK").is_none()
        && seed.is_multiple_of(FORKING)
        && random.random_range(0..STEPS_PER_FORK) == 0
    {
        crate::fork::fork(run.db(), FAMILIES[random.random_range(0..FAMILIES.len())], random)?;
    }
    Ok(())
}

#[cfg(not(unix))]
fn at_times_fork(_: &Run, _: u64, _: &mut ChaCha8Rng) -> Checked<()> {
    Ok(())
}

/// Opens what a killed child leaves, as soon as what that has forked ends as well.
fn open_after_kill(place: &Place) -> Checked<ColumnFamilyDatabase> {
    let since = Instant::now();
    loop {
        match place.open(SETUP) {
            Err(error) if error.kind() == ErrorKind::Locked && since.elapsed() < LET_GO_WITHIN => {
                std::thread::sleep(Duration::from_millis(1));
            }
            opened => {
                let message = |error| format!("the database does not open: {error}");
                return opened.map_err(|error| Violation::new(Kind::Lost, message(error)));
            }
        }
    }
}

/// Kills children until `enough`.
pub fn work(seed: u64, tally: &Tally, enough: &dyn Fn() -> bool) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    while !enough() {
        let seed = random.random();
        if let Err(violation) = catch(|| kill_in_one_directory(seed, tally, enough)) {
            tally.find(Finding {
                violation,
                arguments: format!("--campaign kill --seed {seed}"),
                steps: "what was carried out when the process was killed is another thing each time".into(),
            });
        }
    }
}

fn kill_in_one_directory(seed: u64, tally: &Tally, enough: &dyn Fn() -> bool) -> Checked<()> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let directory = tempfile::tempdir().map_err(|error| failed("making a directory", &error))?;
    let path = directory.path().join("database");
    found(&path)?;
    for _ in 0..KILLS_PER_DIRECTORY {
        if enough() {
            break;
        }
        kill_once(&path, &mut random)?;
        tally.add(&tally.kills);
    }
    Ok(())
}

/// Makes the database, with the families that are always there.
fn found(path: &Path) -> Checked<()> {
    let make = || -> peristyle::Result<()> {
        let db = SETUP.builder().open(path)?;
        for name in FAMILIES {
            db.create_column_family(name, crate::chain::family_options())?;
        }
        db.close()
    };
    make().map_err(|error| failed("making a database", &error))
}

/// What a child said before it died: of each writer, how many steps are done.
type Heard = [usize; CHILD_WRITERS];

fn kill_once(path: &Path, random: &mut ChaCha8Rng) -> Checked<()> {
    let place = Place::Files(path.to_owned());
    let (base, base_sequence) = {
        let db = place.open(SETUP).map_err(|error| failed("opening", &error))?;
        let last = decide(&db, random).map_err(|error| failed("deciding", &error))?;
        (read_state(&db)?, last.0)
    };
    let seed = random.random();
    let heard = listen_and_kill(path, seed, random)?;
    let db = open_after_kill(&place)?;
    let recovered = look(&db)?;
    let ledger = retell(&base, base_sequence, seed, heard);
    ledger.check(&recovered, usize::MAX, Crash::Kill)?;
    if random.random() { db.close().map_err(|error| failed("closing", &error)) } else { Ok(()) }
}

/// Decides what killed children have prepared, so that it is in nobody's way. The last number after that.
fn decide(db: &ColumnFamilyDatabase, random: &mut ChaCha8Rng) -> peristyle::Result<SequenceNumber> {
    for prepared in db.prepared_transactions()? {
        if random.random() { prepared.commit().map(drop)? } else { prepared.rollback()? }
    }
    Ok(db.snapshot()?.sequence_number())
}

/// What the child did, and may have done.
fn retell(base: &State, base_sequence: u64, seed: u64, heard: Heard) -> Ledger {
    let mut histories = Vec::new();
    let mut floor = Floor::default();
    for (number, done) in heard.into_iter().enumerate() {
        let mut writer = Writer::new(number, base);
        let mut moment = 0;
        for (index, step) in Steps::new(seed, number).take(done + 1).enumerate() {
            moment += 1;
            let is_done = index < done;
            writer.follow(&step, moment, is_done);
            if is_done && matches!(step, Step::Flush | Step::Compact) {
                floor.events[number] = writer.events();
            }
        }
        histories.push(writer.into_histories());
    }
    Ledger::new(histories, vec![floor], base_sequence)
}

fn listen_and_kill(path: &Path, seed: u64, random: &mut ChaCha8Rng) -> Checked<Heard> {
    let program = std::env::current_exe().map_err(|error| failed("finding the program", &error))?;
    let mut child = Command::new(program)
        .arg(CHILD)
        .arg(path)
        .arg(seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed("starting a child", &error))?;
    let mut heard = Heard::default();
    let mut violation = None;
    let mut hear = |line: &str| {
        let mut words = line.split(' ');
        match (words.next(), words.next().map(str::parse), words.next().map(str::parse::<usize>)) {
            (Some("done"), Some(Ok(writer)), Some(Ok(index))) => {
                let writer: usize = writer;
                if let Some(done) = heard.get_mut(writer) {
                    *done = index + 1;
                }
            }
            (Some("violation"), ..) => violation = Some(line.to_owned()),
            _ => {}
        }
    };
    let mut lines = BufReader::new(child.stdout.take().expect("it was piped")).lines().map_while(Result::ok);
    if random.random_range(0..8) == 0 {
        // While it opens. The time is not waited for anything: it makes the moment random.
        std::thread::sleep(Duration::from_micros(random.random_range(0..20_000)));
    } else {
        lines.by_ref().take(random.random_range(1..MAX_STEPS)).for_each(|line| hear(&line));
    }
    // It may have ended by itself, which it says why.
    let _ = child.kill();
    // What it said before it died, it had done; its last line may be cut off.
    for line in
        lines.filter(|line| line.ends_with(|last: char| last.is_ascii_digit()) || !line.starts_with("done"))
    {
        hear(&line);
    }
    let status = child.wait().map_err(|error| failed("waiting for a child", &error))?;
    match violation {
        Some(line) => Err(Violation::new(Kind::Wrong, format!("a child found: {line}"))),
        None if status.code().is_some() => {
            Err(Violation::new(Kind::Panicked, format!("a child ended by itself: {status}")))
        }
        None => Ok(heard),
    }
}

/// The arguments of the child's subcommand.
#[derive(Debug, Clone, clap::Args)]
pub struct ChildArguments {
    /// The database.
    pub directory: PathBuf,
    /// What gives the steps.
    pub seed: u64,
}
