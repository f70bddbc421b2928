//! What random tests draw from, those in `src` as well: how many cases they try, and from which seed.
//!
//! The seed is the same in every run, so that who changed nothing sees no failure that others do not see.
//! `PERISTYLE_SEED` gives another: a number, or `new` for one that is made up and printed when a test fails.
//! `PERISTYLE_CASES` is how many cases each test tries.

#[cfg(not(fuzzing))]
use proptest::{prelude::ProptestConfig, test_runner::RngSeed};

/// What is drawn from where nothing else is asked for.
const USUAL_SEED: u64 = 20_261_130;

/// A number of cases: `PERISTYLE_CASES` if that is set, else `usual`; under miri a few.
pub(crate) fn cases(usual: u32) -> u32 {
    match std::env::var("PERISTYLE_CASES") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("PERISTYLE_CASES is {text:?}, not a number")),
        Err(_) if cfg!(miri) => usual.min(2),
        Err(_) => usual,
    }
}

/// The seed that `PERISTYLE_SEED` asks for. Prints it, to be seen when the test fails.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("PERISTYLE_SEED").as_deref() {
        Ok("new") => {
            use std::hash::{BuildHasher, RandomState};
            RandomState::new().hash_one(0u8)
        }
        Ok(text) => {
            text.parse().unwrap_or_else(|_| panic!("PERISTYLE_SEED is {text:?}, not a number or `new`"))
        }
        Err(_) => USUAL_SEED,
    };
    println!("PERISTYLE_SEED={seed}");
    seed
}

/// For a property that is usually tried with `usual` cases.
#[cfg(not(fuzzing))]
pub(crate) fn config(usual: u32) -> ProptestConfig {
    ProptestConfig { cases: cases(usual), rng_seed: RngSeed::Fixed(seed()), ..ProptestConfig::default() }
}
