//! Benchmarks of Peristyle beside its peers.
//!
//! Every engine stands behind the same small trait ([`engine::Engine`]), gets the same entries, the
//! same memory and the same durability, and runs in a process of its own, so that peak memory, CPU
//! time and bytes written belong to that engine alone.
//!
//! 1. [`engine`]: the trait, the setup all engines share, and the batch they are handed.
//! 2. [`peers`]: one file for each engine, and the list of them.
//! 3. [`workload`]: the entries to write, the writing itself, and the check that they can be read.
//! 4. [`child`]: runs one engine once in a child process.
//! 5. [`arguments`], [`usage`], [`machine`], [`report`]: the command line, what the process
//!    consumed, what it ran on, and the table, the JSON lines and the page that come out.

pub mod arguments;
pub mod child;
pub mod engine;
pub mod machine;
pub mod peers;
pub mod report;
pub mod usage;
pub mod workload;
