//! Runs one engine once, in a child process.
//!
//! Peak memory can only be read for a whole process, memory that one engine leaves behind would
//! slow down the next, and a peer that crashes must not take the comparison with it. So the
//! benchmark starts itself again for each run, with the hidden command `run-one`.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, Feature, Setup};
use crate::measure::Measured;
use crate::peers::Peer;

/// What one engine does in one run.
pub trait Task: Serialize + DeserializeOwned {
    /// Does it in a directory that is empty; returns what was measured, one measurement for each part of the
    /// [`Case`](crate::comparison::Case).
    fn run(&self, place: &Place) -> Result<Vec<Measured>>;

    /// What an engine has to have to take part.
    fn needs(&self) -> Vec<Feature> {
        Vec::new()
    }
}

/// All that a child needs to know, its task aside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Place {
    /// Name of the engine.
    engine: String,
    /// The directory for the database.
    directory: PathBuf,
    /// Where to put the result, as JSON.
    result: PathBuf,
    /// Where to put what is being done, for those who wait.
    step: PathBuf,
}

impl Place {
    /// The directory that holds the database.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Opens the engine.
    pub fn open(&self, setup: &Setup) -> Result<Box<dyn Engine>> {
        let open = self.peer()?.open.context("the engine is not compiled in")?;
        open(&self.directory, setup).context("opening failed")
    }

    /// A place for another database of the same engine, below that of the first.
    pub fn beside(&self, name: &str) -> Result<Self> {
        let place = Self { directory: self.directory.join(name), ..self.clone() };
        std::fs::create_dir(&place.directory)?;
        Ok(place)
    }

    /// Leaves something for the process that started this one, which may be killed after it.
    pub fn leave<T: Serialize>(&self, what: &T) -> Result<()> {
        Ok(std::fs::write(self.left(), serde_json::to_string(what)?)?)
    }

    /// What another process of the same place has left.
    pub fn take_up<T: DeserializeOwned>(&self) -> Result<T> {
        let what = std::fs::read_to_string(self.left()).context("the other process left nothing")?;
        serde_json::from_str(&what).context("the other process left what cannot be read")
    }

    fn left(&self) -> PathBuf {
        self.result.with_extension("left")
    }

    /// The engine's entry in the list of all.
    pub fn peer(&self) -> Result<Peer> {
        Peer::by_name(&self.engine).with_context(|| format!("there is no engine {}", self.engine))
    }

    /// Tells what is being done now.
    pub fn step(&self, step: &str) {
        // Who waits may do without it.
        let _ = std::fs::write(&self.step, step);
    }

    /// Makes the system forget what it holds of the database's files.
    pub fn forget_cached_pages(&self) -> Result<()> {
        forget_cached_pages(&self.directory)
    }

    /// Does another task with the same database in a further process.
    pub fn in_another_process<T: Task>(&self, task: &T) -> Result<ExitStatus> {
        let complaints = self.result.with_extension("complaints");
        let mut child = start(self, task, &complaints)?;
        let status = child.wait()?;
        let complaints = std::fs::read_to_string(&complaints).unwrap_or_default();
        let killed = status.signal() == Some(libc::SIGKILL);
        ensure!(status.success() || killed, "{status}: {}", last_lines(&complaints, 5));
        Ok(status)
    }
}

#[derive(Serialize, Deserialize)]
struct Order<T> {
    place: Place,
    task: T,
}

/// Runs an engine in a child process and returns what it measured.
///
/// The database and everything else that the child leaves is below `scratch` and is removed.
/// A child that takes longer than `limit` is killed. `told` is called with each step that the child takes.
pub fn run<T: Task>(
    engine: &str,
    task: &T,
    scratch: &Path,
    limit: Duration,
    mut told: impl FnMut(&str),
) -> Result<Vec<Measured>> {
    let root =
        tempfile::Builder::new().prefix(engine).tempdir_in(scratch).context("no place for the database")?;
    let place = Place {
        engine: engine.into(),
        directory: root.path().join("database"),
        result: root.path().join("result.json"),
        step: root.path().join("step"),
    };
    std::fs::create_dir(&place.directory)?;
    let complaints = root.path().join("complaints");
    let mut child = start(&place, task, &complaints)?;
    let outcome = wait(&mut child, limit, || {
        if let Ok(step) = std::fs::read_to_string(&place.step) {
            told(&step);
        }
    });
    let complaints = std::fs::read_to_string(&complaints).unwrap_or_default();
    outcome.with_context(|| last_lines(&complaints, 5))?;
    let result = std::fs::read_to_string(&place.result).context("the child left no result")?;
    serde_json::from_str(&result).context("the child left a result that cannot be read")
}

fn start<T: Task>(place: &Place, task: &T, complaints: &Path) -> Result<Child> {
    let order = Order { place: place.clone(), task };
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("run-one").arg(serde_json::to_string(&order)?);
    // What went wrong is told by the last lines of the complaints, not by a backtrace.
    command.env("RUST_BACKTRACE", "0");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(complaints)?);
    // SAFETY: between fork and exec, only one system call is made, which takes no memory. It ends the child
    // with its parent, whichever way that one ends.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    };
    command.spawn().context("the benchmark cannot start itself")
}

/// What the child does with its order.
pub fn obey<T: Task>(order: &str) -> Result<()> {
    let order: Order<T> = serde_json::from_str(order).context("the order cannot be read")?;
    let measured = order.task.run(&order.place)?;
    std::fs::write(&order.place.result, serde_json::to_string(&measured)?)?;
    Ok(())
}

/// Ends this process as a crash would: nothing is closed, nothing is dropped.
pub fn kill_this_process() -> ! {
    // SAFETY: sends a signal to this very process, and touches no memory.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    unreachable!("a killed process goes on")
}

fn wait(child: &mut Child, limit: Duration, mut look: impl FnMut()) -> Result<()> {
    const LOOK: Duration = Duration::from_millis(500);
    let start = Instant::now();
    let mut next_look = LOOK;
    loop {
        if let Some(status) = child.try_wait()? {
            if !status.success() {
                bail!("the child ended with {status}");
            }
            return Ok(());
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!("not done after {} seconds", limit.as_secs());
        }
        if start.elapsed() > next_look {
            look();
            next_look += LOOK;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join(" | ")
}

fn forget_cached_pages(directory: &Path) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.metadata()?.is_dir() {
            forget_cached_pages(&entry.path())?;
            continue;
        }
        let file = File::open(entry.path())?;
        file.sync_all()?;
        // SAFETY: the descriptor is open as long as `file` is; the call gives advice and touches no memory of
        // this process.
        let outcome = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        ensure!(outcome == 0, "the system does not forget {}: error {outcome}", entry.path().display());
    }
    Ok(())
}
