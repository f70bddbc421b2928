//! The engines are compared at equal durability: here they show that they keep to it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use peristyle_benches::engine::{Batch, Durability, Setup};
use peristyle_benches::peers::{self, Peer};

const FAMILIES: usize = 2;
const BATCHED: u8 = 100;
const ALL: u8 = 150;
/// Tells the writer below which engine to write with, and where.
const ENGINE: &str = "BENCHES_WRITE_WITH";
const DIRECTORY: &str = "BENCHES_WRITE_TO";

const SETUP: Setup = Setup::with_memory(FAMILIES, 64 << 20, 64 << 20);

/// Writes 100 entries in one batch and 50 one by one to each family.
fn write(peer: &Peer, directory: &Path, durability: Durability) -> Result<()> {
    let engine = peer.open.context("the engine is not compiled in")?(directory, &SETUP)?;
    for family in 0..FAMILIES {
        let mut writer = engine.writer(durability)?;
        let mut batch = Batch::default();
        (0..BATCHED).for_each(|key| batch.push(&[key], &[key, family as u8]));
        writer.write(family, &batch)?;
        for key in BATCHED..ALL {
            writer.put(family, &[key], &[key, family as u8])?;
        }
    }
    kill_this_process()
}

fn kill_this_process() -> ! {
    // SAFETY: sends a signal to this very process, and touches no memory.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    unreachable!("a killed process goes on")
}

fn read_back(peer: &Peer, directory: &Path) -> Result<()> {
    let engine = peer.open.context("the engine is not compiled in")?(directory, &SETUP)?;
    for family in 0..FAMILIES {
        engine.read(family, &mut |reader| {
            for key in 0..ALL {
                let mut equal = false;
                let found = reader.get(&[key], &mut |value| equal = value == [key, family as u8])?;
                ensure!(found && equal, "entry {key} of family {family} is lost");
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn survives(peer: &Peer, durability: Durability) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let name = match durability {
        Durability::Unsynced => "a_writer_that_is_killed_unsynced",
        Durability::Sync => "a_writer_that_is_killed_synced",
    };
    let status = Command::new(std::env::current_exe()?)
        .args(["--exact", name, "--ignored"])
        .env(ENGINE, peer.name)
        .env(DIRECTORY, directory.path())
        .stdout(Stdio::null())
        .status()?;
    ensure!(std::os::unix::process::ExitStatusExt::signal(&status) == Some(libc::SIGKILL), "{status}");
    read_back(peer, directory.path())
}

fn ordered_writer(durability: Durability) -> Result<()> {
    let name = std::env::var(ENGINE).context("is started by the other tests")?;
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).context("is started by the other tests")?);
    write(&Peer::by_name(&name).context("there is no such engine")?, &directory, durability)
}

#[test]
#[ignore = "is started by the test of unsynced writes, and kills itself"]
fn a_writer_that_is_killed_unsynced() -> Result<()> {
    ordered_writer(Durability::Unsynced)
}

#[test]
#[ignore = "is started by the test of synced writes, and kills itself"]
fn a_writer_that_is_killed_synced() -> Result<()> {
    ordered_writer(Durability::Sync)
}

#[test]
fn acknowledged_unsynced_writes_survive_a_killed_process() {
    for peer in peers::all().iter().filter(|peer| peer.open.is_some() && peer.survives_a_kill) {
        if let Err(error) = survives(peer, Durability::Unsynced) {
            panic!("{}: {error:#}", peer.name);
        }
    }
}

#[test]
fn acknowledged_synced_writes_survive_a_killed_process() {
    for peer in peers::all().iter().filter(|peer| peer.open.is_some()) {
        if let Err(error) = survives(peer, Durability::Sync) {
            panic!("{}: {error:#}", peer.name);
        }
    }
}
