//! Every operation against a model of sorted maps: the fuzzer's bytes seed the random numbers from which the property tests'
//! strategy makes operations up. (Bytes used as the random numbers themselves run out, and what then draws from nothing but zeros
//! until it likes the outcome never ends.)
//!
//! Run with `cargo +nightly fuzz run differential`.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use common::world::{Place, World};
use common::{shrunken, strategy};
use libfuzzer_sys::fuzz_target;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

fuzz_target!(|bytes: &[u8]| {
    let mut seed = [0; 32];
    for (i, byte) in bytes.iter().enumerate() {
        seed[i % 32] ^= byte.rotate_left(i as u32 / 32);
    }
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let Ok(operations) = prop::collection::vec(strategy::operation(), 1..60).new_tree(&mut runner) else {
        return;
    };
    let mut world = World::new(Place::memory(), shrunken().automatic_maintenance(false));
    for operation in &operations.current() {
        world.apply(operation);
    }
    world.check();
});
