//! Every operation against a model of sorted maps, with small sizes so that few operations cross every
//! boundary.
//!
//! `PERISTYLE_CASES` raises the number of cases, `PERISTYLE_SEED` changes them. A failure prints the shortest
//! list of operations that shows it.

mod common;

use common::operation::Operation;
use common::world::{Place, World};
use common::{sampling, shrunken, strategy};
use peristyle::DatabaseBuilder;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

fn config(usual: u32) -> ProptestConfig {
    ProptestConfig {
        max_shrink_time: 120_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..sampling::config(usual)
    }
}

fn run(place: Place, builder: DatabaseBuilder, operations: &[Operation]) {
    let mut world = World::new(place, builder);
    for operation in operations {
        world.apply(operation);
    }
    world.check();
}

/// Memtables that hold all that a case writes, so that many range deletions and versions come together in
/// one; or the usual ones of 4 KiB.
fn with_room(builder: DatabaseBuilder, room: bool) -> DatabaseBuilder {
    if room { builder.write_buffer_bytes(64 << 20) } else { builder }
}

/// Merges write deltas wherever they can, or where the engine finds them worth it.
fn with_deltas(deltas: bool) -> DatabaseBuilder {
    if deltas { shrunken().merge_cost(0) } else { shrunken() }
}

fn operations(most: usize) -> impl Strategy<Value = Vec<Operation>> {
    prop::collection::vec(strategy::operation(), 1..most)
}

proptest! {
    #![proptest_config(config(120))]

    #[test]
    fn in_memory_the_database_does_what_sorted_maps_do(operations in operations(100), deltas: bool, room: bool) {
        run(Place::memory(), with_room(with_deltas(deltas), room).automatic_maintenance(false), &operations);
    }
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn with_maintenance_of_its_own_and_larger_pages_too(operations in operations(100), pages in 0u32..4, deltas: bool) {
        run(Place::memory(), with_deltas(deltas).page_size(4096 << pages).background_threads(2), &operations);
    }
}

proptest! {
    #![proptest_config(config(16))]

    #[test]
    fn in_files_the_database_does_what_sorted_maps_do(operations in operations(100), automatic: bool) {
        run(Place::files(), shrunken().automatic_maintenance(automatic), &operations);
    }
}
