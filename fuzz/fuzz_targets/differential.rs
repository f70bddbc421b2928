//! Operations against a model of sorted maps: every write, read, walk, snapshot, change of families, merge,
//! checkpoint, reopening and kill that the tests of the interface know, in the order that the fuzzer's bytes
//! say, in a database of shrunken sizes in memory. Whatever the database answers must be what the model says;
//! at the end everything is compared and verified.
//!
//! Run with
//! `cargo +nightly fuzz run differential fuzz/corpus/differential fuzz/seeds/differential -- -timeout=30 -rss_limit_mb=4096`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| peristyle_fuzz::differential::run(bytes));
