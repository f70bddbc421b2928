//! The campaigns: each makes workloads, lets them crash in its way, and checks what is left.

pub mod aged;
pub mod errors;
pub mod exhaustive;
pub mod kill;
pub mod random;
pub mod short;
pub mod shrink;
pub mod sick;

use peristyle::Durability;

use crate::chain::family_options;
use crate::disk::{Image, SimulatedDisk};
use crate::run::{FAMILIES, Setup};

/// What most workloads start from: the families that are always there, with trees, and something in the log.
///
/// # Panics
/// If the engine fails on a disk that does not.
pub fn base() -> Image {
    let disk = SimulatedDisk::new().without_log();
    let make = || -> peristyle::Result<()> {
        let db = Setup::MANUAL.open(&disk)?;
        for (number, name) in FAMILIES.into_iter().enumerate() {
            let family = db.create_column_family(name, family_options())?;
            let durability = if number == 2 { Durability::None } else { Durability::Buffered };
            for writer in 0..crate::digest::WRITERS as u8 {
                for key in 0..6u8 {
                    let value = vec![writer ^ key; 20 + usize::from(key) * 300];
                    family.put_with([writer, 0, 0, 0, 0, key * 2], value, durability)?;
                }
            }
        }
        db.flush()?;
        db.column_family(FAMILIES[0])?.put([0, 0, 0, 0, 0, 1], "in the log")?;
        drop(db);
        Ok(())
    };
    make().unwrap_or_else(|error| panic!("the base could not be made: {error}"));
    disk.cached()
}
