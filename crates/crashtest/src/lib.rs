//! Crashes Peristyle on a simulated disk, and on real ones, and checks what is left.
//!
//! [`disk`] is the simulated disk: tests and fuzzers drive it directly.

pub mod disk;
