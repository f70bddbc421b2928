//! What the fuzz targets do with the bytes that they are given. Each target in `fuzz_targets` is one module
//! here: [`differential`], [`crash_recovery`], [`corrupt_database`], [`log_replay`], [`node`].
//!
//! [`input`] makes choices of bytes; [`operations`] makes operations of them. [`sample`] makes databases,
//! [`damage`] damages their files, and [`repair`] makes their checksums right again; [`format`] says what it
//! must know of the format. [`allocation`] refuses memory beyond a limit. [`seeds`] writes the corpora that
//! fuzzing begins with.

#[path = "../../tests/common/mod.rs"]
mod common;

pub mod allocation;
pub mod corrupt_database;
pub mod crash_recovery;
pub mod damage;
pub mod differential;
pub mod format;
pub mod input;
pub mod log_replay;
pub mod node;
pub mod operations;
pub mod repair;
pub mod sample;
pub mod seeds;
