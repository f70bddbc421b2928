//! Recovers crash images and checks them: on their own, again, interrupted, and with new writes on top.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::disk::{Image, RandomDecisions, SimulatedDisk};
use crate::ledger::{Crash, Ledger, Recovered};
use crate::recovery::{look, read_state, reopen, unreadable};
use crate::run::{FAMILIES, Place, Run, Setup};
use crate::step::{Mixture, Step};
use crate::tally::Tally;
use crate::violation::{Checked, Kind, Violation};
use crate::writer::Writer;

/// Recovers images for one campaign.
#[derive(Debug, Clone, Copy)]
pub struct Probe<'a> {
    /// What recoveries are counted in.
    pub tally: &'a Tally,
    /// How databases are opened.
    pub setup: Setup,
}

/// Turns a panic into a violation.
///
/// # Errors
/// What `check` gives, or the panic.
pub fn catch<T>(check: impl FnOnce() -> Checked<T>) -> Checked<T> {
    catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(Violation::new(Kind::Panicked, text))
    })
}

impl Probe<'_> {
    /// Opens an image, reads all of it and verifies it.
    ///
    /// # Errors
    /// What is wrong.
    pub fn recover(&self, image: &Image) -> Checked<Recovered> {
        self.tally.add(&self.tally.images);
        catch(|| {
            let db = reopen(&SimulatedDisk::from_image(image).without_log(), self.setup)?;
            look(&db)
        })
    }

    /// Recovers what is on `disk`, and does so again: the second time nothing may be different.
    ///
    /// # Errors
    /// What is wrong.
    pub fn recover_twice(&self, image: &Image) -> Checked<Recovered> {
        self.tally.add(&self.tally.images);
        catch(|| {
            let disk = SimulatedDisk::from_image(image).without_log();
            let first = look(&reopen(&disk, self.setup)?)?;
            let second = look(&reopen(&disk, self.setup)?)?;
            same(&first, &second, "a second recovery")
        })
    }

    /// Checks what `image` gave; says in what it differs if it is wrong.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(
        &self,
        ledger: &Ledger,
        image: &Image,
        recovered: &Recovered,
        moment: usize,
        crash: Crash,
    ) -> Checked<()> {
        ledger.check(recovered, moment, crash).map_err(|violation| {
            let disk = SimulatedDisk::from_image(image).without_log();
            let found = catch(|| read_state(&reopen(&disk, self.setup)?));
            let differences = found.map_or_else(
                |violation| violation.to_string(),
                |found| ledger.explain(&found, moment, crash),
            );
            Violation { message: format!("{}; {differences}", violation.message), ..violation }
        })
    }

    /// Recovers `image`, which gave `expected`, lets it crash in the middle, recovers what that leaves,
    /// writes to it, and lets that crash as well.
    ///
    /// # Errors
    /// What is wrong.
    pub fn interrupt(&self, image: &Image, expected: &Recovered, random: &mut ChaCha8Rng) -> Checked<()> {
        let disk = SimulatedDisk::from_image(image);
        let db = catch(|| reopen(&disk, self.setup))?;
        drop(db);
        let timeline = disk.timeline();
        let moment = random.random_range(0..=timeline.len());
        let image = if random.random_range(0..4) == 0 {
            let mut timeline = timeline;
            timeline.advance(moment);
            timeline.cached()
        } else {
            disk.crash(moment, &mut RandomDecisions::new(random.random()))
        };
        self.tally.add(&self.tally.double_crashes);
        let second = self.recover(&image).map_err(|violation| {
            violation.within(format!("after a crash behind {moment} operations of a recovery"))
        })?;
        same(expected, &second, "a recovery after an interrupted one")?;
        if random.random_range(0..2) == 0 { self.go_on(&image, random) } else { Ok(()) }
    }

    /// `image` with all that was prepared rolled back: the next writer knows nothing of it.
    fn decide(&self, image: &Image) -> Checked<Image> {
        let disk = SimulatedDisk::from_image(image).without_log();
        let db = reopen(&disk, self.setup)?;
        for prepared in db.prepared_transactions().map_err(|error| unreadable(&error))? {
            prepared.rollback().map_err(|error| unreadable(&error))?;
        }
        drop(db);
        Ok(disk.cached())
    }

    /// Writes to what `image` holds, and lets that crash.
    fn go_on(&self, image: &Image, random: &mut ChaCha8Rng) -> Checked<()> {
        let disk = SimulatedDisk::from_image(&catch(|| self.decide(image))?);
        let ledger = catch(|| {
            let db = reopen(&disk, self.setup)?;
            let base = read_state(&db)?;
            let run = Run::over(Place::Simulated(disk.clone()), self.setup, db);
            let mut writer = Writer::new(0, &base);
            let missing: Vec<&str> =
                FAMILIES.into_iter().filter(|name| base.family_sum(name).is_none()).collect();
            writer.found(&run, &missing)?;
            let mixture = Mixture { keys: 12, unlogged: false, reopens: false, maintains: true };
            for _ in 0..random.random_range(1..12) {
                writer.perform(&run, &mixture.step(random))?;
            }
            writer.perform(&run, &Step::Read)?;
            writer.finish(&run)?;
            run.end();
            Ok(run.ledger(vec![writer]))
        })?;
        let moment = random.random_range(0..=disk.operations());
        let image = disk.crash(moment, &mut RandomDecisions::new(random.random()));
        let recovered = self.recover(&image)?;
        // Writers that were at work before stand still now: what they left is the base.
        self.check(&ledger, &image, &recovered, moment, Crash::PowerLoss)
    }
}

fn same(first: &Recovered, second: &Recovered, what: &str) -> Checked<Recovered> {
    if first == second {
        return Ok(second.clone());
    }
    let message = format!(
        "{what} gives something else: number {} instead of {}, families {:?} instead of {:?}",
        second.last_sequence, first.last_sequence, second.sums.families, first.sums.families
    );
    Err(Violation::new(Kind::Torn, message))
}
