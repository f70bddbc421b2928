//! The open database: what users hold, and how the layers are wired together.
//!
//! Start reading at [`ColumnFamilyDatabase`], then [`open`], [`checkpoint`], [`crew`] and [`background`].

mod background;
mod budget;
mod catalog_file;
mod checkpoint;
#[cfg(all(test, not(loom)))]
mod checkpoint_tests;
mod copy;
mod copy_layout;
mod crew;
#[cfg(all(test, not(any(loom, shuttle))))]
mod crew_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod cursor_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod damage_tests;
mod database;
#[cfg(all(test, not(loom)))]
mod ended_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod expired_tests;
mod families;
mod filters;
mod full_disk;
#[cfg(all(test, not(any(loom, shuttle))))]
mod gone_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod hidden_tests;
#[cfg(all(test, not(loom)))]
mod independence_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod join_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod large_tests;
mod log_length;
#[cfg(all(test, not(any(loom, shuttle))))]
mod log_length_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod lost_log_tests;
mod maintain;
mod memory;
mod open;
#[cfg(all(test, not(loom)))]
mod open_tests;
#[cfg(all(test, not(loom)))]
mod operands_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod options_tests;
mod place;
mod prepared;
#[cfg(all(test, not(any(loom, shuttle))))]
mod prepared_tests;
mod progress;
mod read_catalog;
mod recovery;
#[cfg(all(test, not(any(loom, shuttle))))]
mod recovery_tests;
mod registry;
mod replay_part;
mod replayer;
mod resources;
mod shared;
mod space;
mod space_report;
mod statistics;
mod stretch;
mod synced;
#[cfg(all(test, not(any(loom, shuttle))))]
mod synced_tests;
mod transactions;
#[cfg(all(test, not(any(loom, shuttle))))]
mod transactions_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod unwinding_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod update_tests;
mod verify;
#[cfg(all(test, not(any(loom, shuttle))))]
mod verify_tests;
mod waiting;
#[cfg(all(test, not(any(loom, shuttle))))]
mod waits_tests;
mod watch;
#[cfg(all(test, not(any(loom, shuttle))))]
mod watch_tests;
mod write_catalog;

pub use copy::CopyReport;
pub use database::ColumnFamilyDatabase;
pub use memory::MemoryReport;
pub use prepared::PreparedTransaction;
pub use recovery::{LostLog, RecoveryReport};
pub use resources::{SharedResources, SharedResourcesBuilder};
pub use space_report::{FamilySpace, SpaceReport};
pub use statistics::{FamilyProperties, LockStatistics, LogStatistics, Statistics, WaitStatistics, Waits};
pub use transactions::Locks;
pub use verify::{VerifyOptions, VerifyProgress, VerifyReport};
