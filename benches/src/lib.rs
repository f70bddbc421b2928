//! Benchmarks of Peristyle beside its peers.
