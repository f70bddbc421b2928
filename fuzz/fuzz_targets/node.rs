//! Nodes of the trees, checksums aside. Pages and runs of arbitrary bytes are read as leaves and inner nodes:
//! every key, entry, child and search. In a tree of three levels, with nodes of one page and of several and
//! with value runs, one node is changed as the input says, and everything that can be done with a tree is
//! done: point reads, counts, walks both ways, check, merges, range deletions, repacking. And trees are built
//! by merges of entries and range deletions and held against a sorted map: every entry, both walks, searches
//! and counts around chosen keys, every invariant.
//!
//! Nothing may panic or hang, no answer may point out of a node, errors must be corruption; what was built
//! must be right.
//!
//! Run with
//! `cargo +nightly fuzz run node fuzz/corpus/node fuzz/seeds/node -- -timeout=30 -rss_limit_mb=4096 -max_len=8192`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| peristyle_fuzz::node::run(bytes));
