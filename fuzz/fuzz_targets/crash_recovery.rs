//! Crashes at any moment, on the simulated disk of `crates/crashtest`. The bytes say what a writer does
//! (commits of every durability, merges, checkpoints, compactions, families that come, go and change names,
//! snapshots, closing and opening), behind which operation of the disk the machine stops, and of every write,
//! length and directory entry that was not synced whether it is there, in part, in another order, or not. Up
//! to four crashes follow each other, each on what the one before left: a crash without steps before it is
//! one inside recovery.
//!
//! After each crash the database must open, be readable and verify without a fault, and hold what is
//! promised: a prefix of the commits, the same in all families, that is no shorter than what was made
//! durable, and nothing besides.
//!
//! Run with
//! `cargo +nightly fuzz run crash_recovery fuzz/corpus/crash_recovery fuzz/seeds/crash_recovery -- -timeout=30 -rss_limit_mb=4096`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| peristyle_fuzz::crash_recovery::run(bytes));
