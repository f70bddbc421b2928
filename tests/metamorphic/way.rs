//! A way to play a script: all that must make no difference.

use std::time::Duration;

use peristyle::{ColumnFamilyDatabase, DatabaseBuilder, Durability, LockedWrites};
use proptest::prelude::*;

use crate::common::world::Place;

#[derive(Debug, Clone)]
pub(crate) struct Way {
    /// Whether each player has a thread of his own.
    threaded: bool,
    /// Whether the database lives in files, which cannot be copied in mid-flight: there a kill is a drop.
    in_files: bool,
    /// How the database is opened for each phase, over and over.
    settings: Vec<Settings>,
}

#[derive(Debug, Clone)]
struct Settings {
    page_size: u32,
    write_buffer_bytes: u64,
    cache_bytes: u64,
    log_limit_bytes: u64,
    merge_cost: u32,
    background_threads: usize,
    automatic_maintenance: bool,
    max_descriptors: usize,
    sync_milliseconds: u64,
    transaction_memory_bytes: u64,
    /// How long others wait for locks and for decisions, in milliseconds; nobody has to.
    patience: u64,
    /// What all writes have; `None`: what they ask for.
    durability: Option<Durability>,
}

impl Way {
    pub(crate) fn is_threaded(&self) -> bool {
        self.threaded
    }

    pub(crate) fn place(&self) -> Place {
        if self.in_files { Place::files() } else { Place::memory() }
    }

    fn of_phase(&self, phase: usize) -> &Settings {
        &self.settings[phase % self.settings.len()]
    }

    pub(crate) fn durability(&self, phase: usize) -> Option<Durability> {
        self.of_phase(phase).durability
    }

    /// Settings for `phase`.
    pub(crate) fn settings(&self, phase: usize) -> DatabaseBuilder {
        let settings = self.of_phase(phase);
        ColumnFamilyDatabase::builder()
            .page_size(settings.page_size)
            .write_buffer_bytes(settings.write_buffer_bytes)
            .cache_bytes(settings.cache_bytes)
            .log_limit_bytes(settings.log_limit_bytes)
            .merge_cost(settings.merge_cost)
            .background_threads(settings.background_threads)
            .automatic_maintenance(settings.automatic_maintenance)
            .max_descriptors(settings.max_descriptors)
            .sync_interval(Duration::from_millis(settings.sync_milliseconds))
            .transaction_memory_bytes(settings.transaction_memory_bytes)
            .locked_writes(LockedWrites::Wait(Duration::from_millis(settings.patience)))
            .decision_wait(Duration::from_millis(settings.patience))
    }
}

fn settings() -> impl Strategy<Value = Settings> {
    let sizes = (12u32..=15, 18u32..=25, 16u32..=24, 16u32..=24);
    let keeping = (prop::sample::select(vec![0, 1, 8, u32::MAX]), 1usize..=3, any::<bool>());
    let durability = prop_oneof![
        4 => Just(None),
        1 => prop::sample::select(vec![Durability::Sync, Durability::Buffered, Durability::None]).prop_map(Some),
    ];
    let transactions = (16u32..=26, prop::sample::select(vec![0, 1000]));
    (sizes, keeping, 2usize..=8, 1u64..2000, durability, transactions).prop_map(
        |(sizes, keeping, max_descriptors, sync_milliseconds, durability, transactions)| Settings {
            page_size: 1 << sizes.0,
            write_buffer_bytes: 1 << sizes.1,
            cache_bytes: 1 << sizes.2,
            log_limit_bytes: 1 << sizes.3,
            merge_cost: keeping.0,
            background_threads: keeping.1,
            automatic_maintenance: keeping.2,
            max_descriptors,
            sync_milliseconds,
            transaction_memory_bytes: 1 << transactions.0,
            patience: transactions.1,
            durability,
        },
    )
}

pub(crate) fn way() -> impl Strategy<Value = Way> {
    (any::<bool>(), prop::bool::weighted(0.2), prop::collection::vec(settings(), 1..=3))
        .prop_map(|(threaded, in_files, settings)| Way { threaded, in_files, settings })
}
