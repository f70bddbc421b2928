//! Batches with parts so large that they are inserted apart, into memtables of their own, beside small ones.

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use common::random::Random;
use common::storage::TestStorage;
use common::{assert_clean, shrunken};
use peristyle::{ColumnFamily, ColumnFamilyDatabase, FamilyOptions, Snapshot, WriteBatch};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

const FAMILIES: usize = 3;
const KEYS: u64 = 300;

fn families(db: &ColumnFamilyDatabase) -> Vec<ColumnFamily> {
    let name = |n| format!("family {n}");
    (0..FAMILIES).map(|n| db.column_family_or_create(&name(n), FamilyOptions::default()).unwrap()).collect()
}

fn key(number: u64) -> Vec<u8> {
    format!("key {number:04}").into_bytes()
}

/// Some hundred operations on one family and a few on others, some of them range deletions, in any order.
fn batch(random: &mut Random, round: u64, families: &[ColumnFamily], models: &mut [Model]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    let large = random.below(FAMILIES as u64) as usize;
    for turn in 0..1 + random.below(400) {
        let of = if random.once_in(20) { random.below(FAMILIES as u64) as usize } else { large };
        let (family, model) = (&families[of], &mut models[of]);
        let number = random.below(KEYS);
        match random.below(40) {
            0 => {
                let range = key(number)..key(number + 1 + random.below(40));
                batch.delete_range(family, range.clone());
                model.retain(|key, _| !range.contains(key));
            }
            1..6 => {
                batch.delete(family, key(number));
                model.remove(&key(number));
            }
            _ => {
                let value = format!("{turn} of round {round}").into_bytes();
                batch.put(family, key(number), &value);
                model.insert(key(number), value);
            }
        }
    }
    batch
}

fn check(snapshot: &Snapshot, families: &[ColumnFamily], models: &[Model]) {
    for (family, model) in families.iter().zip(models) {
        let found = snapshot.column_family(family).unwrap();
        let entries: Vec<_> = found.iter().map(|entry| entry.unwrap()).collect();
        assert!(
            entries
                .iter()
                .map(|(key, value)| (&key[..], &value[..]))
                .eq(model.iter().map(|(key, value)| (&key[..], &value[..])))
        );
        assert_eq!(found.len().unwrap(), model.len() as u64);
        for number in (0..KEYS).step_by(7) {
            let value = found.get(key(number)).unwrap();
            assert_eq!(value.as_deref(), model.get(&key(number)).map(|value| &value[..]), "key {number}");
        }
    }
}

#[test]
fn large_and_small_parts_read_like_any_other_write_at_every_moment_and_after_a_kill() {
    let storage = TestStorage::new();
    let db = shrunken().storage(storage.clone()).open("memory").unwrap();
    let families = families(&db);
    let mut models = vec![Model::new(); FAMILIES];
    let mut random = Random::new(7);
    let mut kept: Vec<(Snapshot, Vec<Model>)> = Vec::new();
    for round in 0..120 {
        let batch = batch(&mut random, round, &families, &mut models);
        db.write(&batch).unwrap();
        let (of, number) = (random.below(FAMILIES as u64) as usize, random.below(KEYS));
        families[of].put(key(number), format!("single of round {round}")).unwrap();
        models[of].insert(key(number), format!("single of round {round}").into_bytes());
        check(&db.snapshot().unwrap(), &families, &models);
        if random.once_in(6) {
            kept.push((db.snapshot().unwrap(), models.clone()));
        }
        if kept.len() > 4 {
            kept.remove(random.below(4) as usize);
        }
        for (snapshot, models) in &kept {
            check(snapshot, &families, models);
        }
        if round % 20 == 19 {
            let killed = shrunken().storage(storage.copy()).open("memory").unwrap();
            check(&killed.snapshot().unwrap(), &self::families(&killed), &models);
            assert_clean(&killed);
        }
    }
    drop(kept);
    assert_clean(&db);
    db.close().unwrap();
    let db = shrunken().storage(storage).open("memory").unwrap();
    check(&db.snapshot().unwrap(), &self::families(&db), &models);
}

#[test]
fn a_large_batch_is_visible_whole_or_not_at_all_beside_others() {
    let db = shrunken().background_threads(2).storage(TestStorage::new()).open("memory").unwrap();
    let families = families(&db);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (db, families, ended) = (&db, &families, &ended);
        let writers: Vec<_> = (0..2u64)
            .map(|writer| {
                scope.spawn(move || {
                    for round in 0..60u64 {
                        let mut batch = WriteBatch::new();
                        // The first family's part is large, the second's small; in the third they take turns.
                        for number in 0..200u64 {
                            batch.put(&families[0], (number * 2 + writer).to_be_bytes(), round.to_be_bytes());
                        }
                        batch.put(&families[1], writer.to_be_bytes(), round.to_be_bytes());
                        for number in 0..[3, 200][(round % 2) as usize] {
                            batch.put(
                                &families[2],
                                [writer, number].map(u64::to_be_bytes).concat(),
                                round.to_be_bytes(),
                            );
                        }
                        db.write(&batch).unwrap();
                    }
                })
            })
            .collect();
        scope.spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let snapshot = db.snapshot().unwrap();
                for writer in 0..2u64 {
                    let read = |family: usize, key: &[u8]| {
                        snapshot.get(&families[family], key).unwrap().map(Vec::from)
                    };
                    let round = read(1, &writer.to_be_bytes());
                    for number in 0..200u64 {
                        assert_eq!(
                            read(0, &(number * 2 + writer).to_be_bytes()),
                            round,
                            "{number} of {writer}"
                        );
                    }
                    assert_eq!(read(2, &[writer, 0].map(u64::to_be_bytes).concat()), round);
                }
            }
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        ended.store(true, Ordering::Relaxed);
    });
    assert_clean(&db);
    db.close().unwrap();
}
