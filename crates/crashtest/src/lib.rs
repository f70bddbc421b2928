//! Crashes Peristyle on a simulated disk, and on real ones, and checks what is left.
//!
//! [`disk`] is the simulated disk: tests and fuzzers drive it directly. A workload is a list of [`step`]s,
//! carried out by a [`writer`] on a [`run`]; the writer notes in a [`history`] what it did and when that was
//! acknowledged, and the [`ledger`] of all writers judges what a [`recovery`] finds.

pub mod campaign;
pub mod chain;
pub mod command;
pub mod digest;
pub mod disk;
#[cfg(unix)]
pub mod fork;
pub mod history;
pub mod ledger;
pub mod mutants;
pub mod panics;
pub mod probe;
pub mod recovery;
pub mod run;
pub mod step;
pub mod tally;
pub mod violation;
pub mod writer;
