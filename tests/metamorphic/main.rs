//! One script of operations of every kind, played in several ways: settings, storage, ends of the database,
//! one thread or several. Whatever the way, each operation must give what a model of sorted maps gives; so
//! all ways give the same.
//!
//! ```sh
//! cargo test --test metamorphic                                            # few scripts, always the same
//! PERISTYLE_SECONDS=7200 cargo test --release --test metamorphic           # new ones, for two hours
//! ```
//!
//! A script that fails is made as short as can be, printed with its ways, and kept in `main.regressions`,
//! from where it is played again before all others.

#[path = "../common/mod.rs"]
mod common;
mod script;
mod way;

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, RngSeed, TestRunner};

use common::world::{COUNTS, World, count, reopen};
use peristyle::{ColumnFamilyDatabase, FamilyOptions};
use script::{Script, script};
use way::{Way, way};

/// Scripts of the usual run.
const FEW: u32 = 24;
/// Ways in which each script is played.
const WAYS: usize = 3;

fn config(cases: u32, rng_seed: RngSeed) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed,
        max_shrink_time: 300_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        source_file: Some(file!()),
        ..ProptestConfig::default()
    }
}

/// For how long new scripts are to be played; `None`: the usual ones, once.
fn time_limit() -> Option<Duration> {
    let text = std::env::var("PERISTYLE_SECONDS").ok()?;
    let seconds = text.parse().unwrap_or_else(|_| panic!("PERISTYLE_SECONDS is {text:?}, not a number"));
    Some(Duration::from_secs(seconds))
}

/// Plays scripts in several ways each.
fn play_many(cases: u32, seed: RngSeed) {
    let played = TestRunner::new(config(cases, seed)).run(
        &(script(), prop::collection::vec(way(), 1..=WAYS)),
        |(script, ways)| {
            ways.iter().for_each(|way| play(&script, way));
            Ok(())
        },
    );
    if let Err(failure) = played {
        panic!("{failure}");
    }
}

/// Plays `script` in one way.
fn play(script: &Script, way: &Way) {
    let mut place = way.place();
    let mut db = place.open(&way.settings(0));
    db.create_column_family(COUNTS, FamilyOptions::default()).unwrap();
    let mut parts: Vec<World> = (0..script.parts()).map(|number| World::part(db.clone(), number)).collect();
    for (number, phase) in script.phases.iter().enumerate() {
        parts.iter_mut().for_each(|part| part.set_durability(way.durability(number)));
        if way.is_threaded() {
            phase.play_at_once(&mut parts);
        } else {
            phase.play_in_turn(&mut parts);
        }
        parts.iter().for_each(World::check);
        check_counts(&db, &parts);
        let left: Vec<_> = parts.iter_mut().map(|part| part.leave(phase.end)).collect();
        (place, db) = reopen(place, &way.settings(number + 1), db, phase.end);
        for (part, left) in parts.iter_mut().zip(left) {
            part.come_back(db.clone(), left);
        }
        let names: usize = parts.iter().map(|part| part.names().len()).sum();
        assert_eq!(db.column_family_names().len(), names + 1, "families that nobody made");
        check_counts(&db, &parts);
    }
    parts.iter().for_each(World::check);
}

/// What all have added together must be there.
fn check_counts(db: &ColumnFamilyDatabase, parts: &[World]) {
    let counts = db.column_family(COUNTS).unwrap();
    for number in 0..4 {
        let added: u64 = parts.iter().map(|part| part.counted(number)).sum();
        assert_eq!(count(counts.get([number]).unwrap().as_deref()), added, "count {number}");
    }
}

#[test]
fn a_script_has_one_outcome_however_it_is_played() {
    let Some(limit) = time_limit() else { return play_many(FEW, RngSeed::Fixed(16)) };
    let started = Instant::now();
    let mut scripts = 0;
    while started.elapsed() < limit {
        play_many(FEW, RngSeed::Random);
        scripts += FEW;
    }
    println!("{scripts} scripts, up to {WAYS} ways each, in {:?}", started.elapsed());
}
