//! Benchmarks of Peristyle beside its peers.
//!
//! Every engine stands behind the same small trait ([`engine::Engine`]), gets the same entries, the
//! same memory and the same durability, and runs in a process of its own, so that peak memory, CPU
//! time and bytes written belong to that engine alone.
//!
//! 1. [`engine`]: the traits, the setup all engines share, and the batch they are handed.
//! 2. [`peers`]: one file for each engine, and the list of them.
//! 3. [`workload`]: what the engines do, one file for each benchmark; [`entries`] and [`zipfian`] say with
//!    what, [`threads`] by how many.
//!    [`transactions`]: the same for databases that have any.
//! 4. [`measure`]: what one run yields.
//! 5. [`child`]: runs one engine once in a child process.
//! 6. [`comparison`]: lets the engines take turns.
//! 7. [`arguments`], [`usage`], [`machine`], [`report`]: the command line, what the process
//!    consumed, what it ran on, and the tables, the JSON lines and the page that come out.
//! 8. [`results`]: the README's table, from what all of them wrote.

pub mod arguments;
pub mod child;
pub mod comparison;
pub mod engine;
pub mod entries;
pub mod machine;
pub mod measure;
pub mod memory_limit;
pub mod peers;
pub mod report;
pub mod results;
pub mod threads;
pub mod transactions;
pub mod usage;
pub mod workload;
pub mod zipfian;
