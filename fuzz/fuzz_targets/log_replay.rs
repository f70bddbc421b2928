//! The log alone, given to replay: logs that were written and then damaged as in `corrupt_database`, with or
//! without repaired checksums; logs whose segments and records are whole but say what the fuzzer chooses
//! (numbers, lengths, predecessors, ends, what was durable), with any mark of the superblock; segments of
//! arbitrary bytes. Whatever is replayed is decoded as batches.
//!
//! Nothing may panic or hang, or take more memory than 1 MiB and eight times the log. Sequence numbers
//! ascend. Of a log that was written and whose checksums were left alone, what is replayed is a prefix of
//! what was written. A log that can be replayed is started anew and appended to, and must then give the same
//! as before, followed by what was appended.
//!
//! Run with
//! `cargo +nightly fuzz run log_replay fuzz/corpus/log_replay fuzz/seeds/log_replay -- -timeout=30 -rss_limit_mb=4096`.
#![no_main]

#[global_allocator]
static ALLOCATOR: peristyle_fuzz::allocation::Limited = peristyle_fuzz::allocation::Limited;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| peristyle_fuzz::log_replay::run(bytes));
