//! Damaged files. Of a sample database (small families with large values and long keys; a tree of three
//! levels; one that lives in its log alone; large pages) bytes of the data file and of log segments are
//! flipped, overwritten, cut, swapped, copied, moved and extended, files are removed and exchanged. Then, as
//! the input says, checksums are made right again (of pages and what repeats them, catalog, superblock, log
//! segments, log records), so that the damage reaches what lies behind them. The database is opened for
//! reading or writing, verified, scanned from both ends, read at single keys; where it opened it is written
//! to, merged, compacted, checkpointed, closed and opened again.
//!
//! Nothing may panic or hang, and no more memory may be in use than 8 MiB and eight times the length of the
//! files: a counting allocator ends the process there. What is read without error from a database whose
//! checksums were left alone must be right: all its reads together must agree with the state after one
//! commit, the last one if the log was not touched.
//!
//! Run with
//! `cargo +nightly fuzz run corrupt_database fuzz/corpus/corrupt_database fuzz/seeds/corrupt_database -- -timeout=30 -rss_limit_mb=4096`.
#![no_main]

#[global_allocator]
static ALLOCATOR: peristyle_fuzz::allocation::Limited = peristyle_fuzz::allocation::Limited;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| peristyle_fuzz::corrupt_database::run(bytes));
