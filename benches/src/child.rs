//! Runs one engine once, in a child process.
//!
//! Peak memory can only be read for a whole process, memory that one engine leaves behind would
//! slow down the next, and a peer that crashes must not take the comparison with it. So the
//! benchmark starts itself again for each run, with the hidden command `run-one`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::peers::Peer;
use crate::workload::{Measured, WritePhase};

/// All that a child needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Name of the engine.
    pub engine: String,
    /// What to run.
    pub phase: WritePhase,
    /// An empty directory for the database.
    pub directory: PathBuf,
    /// Where to put the result, as JSON.
    pub result: PathBuf,
}

/// Runs an engine in a child process and returns what it measured.
///
/// The database and everything else that the child leaves is below `scratch` and is removed.
/// A child that takes longer than `limit` is killed.
pub fn run(engine: &str, phase: &WritePhase, scratch: &Path, limit: Duration) -> Result<Measured> {
    let place =
        tempfile::Builder::new().prefix(engine).tempdir_in(scratch).context("no place for the database")?;
    let directory = place.path().join("database");
    std::fs::create_dir(&directory)?;
    let result = place.path().join("result.json");
    let complaints = place.path().join("complaints");
    let order = Order { engine: engine.into(), phase: phase.clone(), directory, result: result.clone() };
    let mut child = Command::new(std::env::current_exe()?)
        .arg("run-one")
        .arg(serde_json::to_string(&order)?)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&complaints)?)
        .spawn()
        .context("the benchmark cannot start itself")?;
    let outcome = wait(&mut child, limit);
    let complaints = std::fs::read_to_string(&complaints).unwrap_or_default();
    outcome.with_context(|| last_lines(&complaints, 5))?;
    let result = std::fs::read_to_string(result).context("the child left no result")?;
    serde_json::from_str(&result).context("the child left a result that cannot be read")
}

/// What the child does with its order.
pub fn obey(order: &str) -> Result<()> {
    let order: Order = serde_json::from_str(order).context("the order cannot be read")?;
    let peer =
        Peer::by_name(&order.engine).with_context(|| format!("there is no engine {}", order.engine))?;
    let open = peer.open.with_context(|| peer.skipped().unwrap_or_default())?;
    let engine = open(&order.directory, &order.phase.setup).context("opening failed")?;
    let measured = order.phase.run(engine.as_ref(), &order.directory)?;
    std::fs::write(&order.result, serde_json::to_string(&measured)?)?;
    drop(engine);
    Ok(())
}

fn wait(child: &mut Child, limit: Duration) -> Result<()> {
    let start = Instant::now();
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
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join(" | ")
}
