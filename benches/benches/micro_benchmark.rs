//! The parts of the engine, one by one, as far as the public API can tell them apart.
//!
//! Run it with `benches/run micro_benchmark`, a part of it with `benches/run micro_benchmark node_search`.
//!
//! Nothing runs in the background but what is timed: merges and checkpoints are made by hand. All but the log
//! lies in memory. Every benchmark checks that what it wants to leave out stayed out, and panics if not.
//!
//! | benchmark | part | what is kept out, and how |
//! |---|---|---|
//! | `read_floor` | what every read pays: pinning the epoch, the visible number, the view | all else: the family is empty |
//! | `node_search/levels/N` | search in N nodes, one above the other | memory: 256 neighbouring keys are read, so that all nodes are in the processor's cache; memtables: they are merged; copying: the value is not asked for. Two levels differ by the search of one inner node, the first from the floor by that of a leaf |
//! | `memtable_insert/*` | inserts into a memtable that grows to 100,000 entries | the log: `Durability::None`; merges: the memtable is not filled up. `batches` leaves out most of the commit, too |
//! | `memtable_read/found` | search in a memtable of 100,000 entries | the tree: it is empty |
//! | `memtable_read/absent` | the memtable's filter | the same |
//! | `log_append/unlogged`, `log_append/buffered` | their difference is the append of a tiny record | the memtable: keys ascend, so that its inserts are the cheapest and the same on both sides. The log lies in a real file |
//! | `merge/N_onto_M` | merging N entries, spread evenly, into a tree of M | writing, checkpoints, files: only the time that the engine counts as merging is taken |
//! | `cache_hit` | a read of any leaf of a large tree that is cached | memtables: they are merged; disk: no read may miss. Beyond `node_search/levels/3` this is the frame table and the memory's latency |
//! | `cache_miss` | finding room for a page, reading and checking it | the disk: the file lies in memory. Nearly every read must miss, and half of the leaves are in the way of the next ones |
//! | `cursor_step/*` | a step to the next or the previous entry, with its key and value | memory: a tree that fits the processor's cache; page reads: all is cached |
//! | `cursor_step/forward_merging` | the same where one entry of ten stands in a memtable | the same |
//! | `iter_step/*` | all entries, of 72 bytes each, by steps of a cursor, a scan, and an iterator | the same |

use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use peristyle::{
    ColumnFamily, ColumnFamilyDatabase, DatabaseBuilder, Durability, FamilyOptions, MemoryStorage, WriteBatch,
};

/// Entries of a filled memtable.
const FILL: u64 = 100_000;

/// Bytes of a value, but where records are to be tiny.
const VALUE: [u8; 100] = [7; 100];

/// Keys that a read benchmark takes turns with.
const PICKS: usize = 1 << 16;

type Key = [u8; 16];

/// The finalizer of SplitMix64, a bijection: the keys of the numbers from 0 are distinct and in random order.
fn key(number: u64) -> Key {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let mut key = [0; 16];
    key[..8].copy_from_slice(&mixed.to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

fn settings() -> DatabaseBuilder {
    ColumnFamilyDatabase::builder()
        .cache_bytes(1 << 30)
        .write_buffer_bytes(1 << 30)
        .background_threads(1)
        .automatic_maintenance(false)
        .default_durability(Durability::None)
}

fn in_memory() -> ColumnFamilyDatabase {
    settings().storage(MemoryStorage::new()).open("micro").unwrap()
}

/// A new family that gets all of the budgets.
fn family(db: &ColumnFamilyDatabase) -> ColumnFamily {
    let options = FamilyOptions::default().cache_share(1000).memtable_share(1000);
    db.create_column_family("part", options).unwrap()
}

/// Writes the entries of `keys` in batches.
fn write(db: &ColumnFamilyDatabase, family: &ColumnFamily, keys: impl Iterator<Item = Key>) {
    write_values(db, family, keys, &VALUE);
}

fn write_values(
    db: &ColumnFamilyDatabase,
    family: &ColumnFamily,
    keys: impl Iterator<Item = Key>,
    value: &[u8],
) {
    let mut batch = WriteBatch::new();
    for key in keys {
        batch.put(family, key, value);
        if batch.len() == 1000 {
            db.write(&batch).unwrap();
            batch.clear();
        }
    }
    db.write(&batch).unwrap();
}

/// A family whose tree holds the keys of the numbers below `entries`, all of them cached.
fn tree(entries: u64) -> (ColumnFamilyDatabase, ColumnFamily) {
    let db = in_memory();
    let family = family(&db);
    write(&db, &family, (0..entries).map(key));
    db.flush().unwrap();
    for number in 0..entries {
        assert!(family.contains_key(key(number)).unwrap());
    }
    (db, family)
}

/// What memtables a family has gone through, to see that none was merged meanwhile.
fn freezes(db: &ColumnFamilyDatabase) -> u64 {
    db.statistics().freezes
}

/// Keys of numbers below `bound` at random, one after the other and over again.
struct Picks {
    keys: Vec<Key>,
    next: usize,
}

impl Picks {
    fn new(mut pick: impl FnMut(&mut fastrand::Rng) -> Key) -> Self {
        let mut random = fastrand::Rng::with_seed(1);
        Self { keys: (0..PICKS).map(|_| pick(&mut random)).collect(), next: 0 }
    }

    fn below(bound: u64) -> Self {
        Self::new(|random| key(random.u64(..bound)))
    }

    #[inline]
    fn next(&mut self) -> &Key {
        self.next = (self.next + 1) % PICKS;
        &self.keys[self.next]
    }
}

fn node_search(c: &mut Criterion) {
    let db = in_memory();
    let empty = family(&db);
    let mut picks = Picks::below(FILL);
    c.bench_function("read_floor", |b| b.iter(|| empty.contains_key(picks.next()).unwrap()));

    for (levels, entries) in [(1, 40), (2, 4000), (3, 100_000)] {
        let (db, family) = tree(entries);
        assert_eq!(db.family_properties(&family).unwrap().tree_height, levels, "levels of {entries} entries");
        let neighbours: Vec<Key> =
            family.iter().unwrap().take(256).map(|entry| entry.unwrap().0[..].try_into().unwrap()).collect();
        let mut picks = Picks::new(|random| neighbours[random.usize(..neighbours.len())]);
        c.bench_function(&format!("node_search/levels/{levels}"), |b| {
            b.iter(|| assert!(family.contains_key(picks.next()).unwrap()));
        });
    }
}

/// Times `fill`, which writes `FILL` entries to a family that is new each time.
fn time_fills(db: &ColumnFamilyDatabase, fills: u64, mut fill: impl FnMut(&ColumnFamily)) -> Duration {
    let mut time = Duration::ZERO;
    for _ in 0..fills {
        let family = family(db);
        let start = Instant::now();
        fill(&family);
        time += start.elapsed();
        assert_eq!(freezes(db), 0, "the memtable was too small");
        db.drop_column_family("part").unwrap();
    }
    time
}

fn memtable_insert(c: &mut Criterion) {
    let db = in_memory();
    let mut group = c.benchmark_group("memtable_insert");
    group.throughput(Throughput::Elements(FILL)).sample_size(20);
    group.bench_function("ascending", |b| {
        b.iter_custom(|fills| {
            time_fills(&db, fills, |family| {
                for number in 0..FILL {
                    family.put(number.to_be_bytes(), VALUE).unwrap();
                }
            })
        });
    });
    group.bench_function("random", |b| {
        b.iter_custom(|fills| {
            time_fills(&db, fills, |family| {
                for number in 0..FILL {
                    family.put(key(number), VALUE).unwrap();
                }
            })
        });
    });
    group.bench_function("batches", |b| {
        b.iter_custom(|fills| time_fills(&db, fills, |family| write(&db, family, (0..FILL).map(key))));
    });
    group.finish();
}

fn memtable_read(c: &mut Criterion) {
    let db = in_memory();
    let family = family(&db);
    write(&db, &family, (0..FILL).map(key));
    let mut group = c.benchmark_group("memtable_read");
    let mut picks = Picks::below(FILL);
    group.bench_function("found", |b| b.iter(|| assert!(family.contains_key(picks.next()).unwrap())));
    let mut picks = Picks::new(|random| key(FILL + random.u64(..FILL)));
    group.bench_function("absent", |b| b.iter(|| assert!(!family.contains_key(picks.next()).unwrap())));
    group.finish();
    assert_eq!(freezes(&db), 0, "the entries left the memtable");
}

fn log_append(c: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let db = settings().open(directory.path()).unwrap();
    let mut group = c.benchmark_group("log_append");
    group.throughput(Throughput::Elements(FILL)).sample_size(20);
    for (name, durability) in [("unlogged", Durability::None), ("buffered", Durability::Buffered)] {
        let records = db.statistics().log.records;
        group.bench_function(name, |b| {
            b.iter_custom(|fills| {
                time_fills(&db, fills, |family| {
                    for number in 0..FILL {
                        family.put_with(number.to_be_bytes(), [7; 8], durability).unwrap();
                    }
                })
            });
        });
        let is_logged = db.statistics().log.records > records;
        assert_eq!(is_logged, durability == Durability::Buffered, "{durability:?}");
    }
    group.finish();
}

fn merge(c: &mut Criterion) {
    let mut group = c.benchmark_group("merge");
    group.sample_size(10);

    group.throughput(Throughput::Elements(FILL));
    group.bench_function("100000_onto_0", |b| {
        let db = in_memory();
        b.iter_custom(|merges| {
            let mut time = Duration::ZERO;
            for _ in 0..merges {
                let family = family(&db);
                write(&db, &family, (0..FILL).map(key));
                time += time_merge(&db);
                assert_eq!(family.len().unwrap(), FILL);
                db.drop_column_family("part").unwrap();
            }
            time
        });
    });

    const BASE: u64 = 1_000_000;
    let mut base = None;
    for entries in [10_000, 100_000] {
        group.throughput(Throughput::Elements(entries));
        group.bench_function(format!("{entries}_onto_{BASE}"), |b| {
            let (db, family) = base.get_or_insert_with(|| tree(BASE));
            b.iter_custom(|merges| {
                let mut time = Duration::ZERO;
                for merge in 0..merges {
                    // Another part of the keys each time; together they go around.
                    let first = merge * entries;
                    write(db, family, (first..first + entries).map(|number| key(number % BASE)));
                    time += time_merge(db);
                }
                time
            });
            assert_eq!(family.len().unwrap(), BASE);
        });
    }
    group.finish();
}

/// Flushes, and returns how much of that the engine spent on merging, which it does once.
fn time_merge(db: &ColumnFamilyDatabase) -> Duration {
    let before = db.statistics();
    db.flush().unwrap();
    let after = db.statistics();
    assert_eq!(after.merges, before.merges + 1, "merges in one flush");
    after.merge_time - before.merge_time
}

fn cache(c: &mut Criterion) {
    const ENTRIES: u64 = 1_000_000;
    let storage = MemoryStorage::new();
    let db = settings().storage(storage.clone()).open("micro").unwrap();
    let cached = family(&db);
    write(&db, &cached, (0..ENTRIES).map(key));
    db.flush().unwrap();
    (0..ENTRIES).for_each(|number| assert!(cached.contains_key(key(number)).unwrap()));

    let mut picks = Picks::below(ENTRIES);
    let before = cached.cache_stats();
    c.bench_function("cache_hit", |b| b.iter(|| assert!(cached.contains_key(picks.next()).unwrap())));
    assert_eq!(cached.cache_stats().misses, before.misses, "reads missed");
    drop(cached);
    db.close().unwrap();

    let db = settings().cache_bytes(4 << 20).storage(storage).open("micro").unwrap();
    let uncached = db.column_family("part").unwrap();
    let mut reads = 0u64;
    let before = uncached.cache_stats();
    c.bench_function("cache_miss", |b| {
        b.iter(|| {
            reads += 1;
            assert!(uncached.contains_key(picks.next()).unwrap());
        });
    });
    let misses = uncached.cache_stats().misses - before.misses;
    assert!(misses * 10 >= reads * 9, "only {misses} of {reads} reads missed");
    drop(uncached);
    db.close().unwrap();
}

fn cursor_step(c: &mut Criterion) {
    const ENTRIES: u64 = 4000;
    let (db, family) = tree(ENTRIES);
    let mut group = c.benchmark_group("cursor_step");
    let mut cursor = family.cursor().unwrap();
    group.bench_function("forward", |b| {
        b.iter(|| {
            if !cursor.next().unwrap() {
                cursor.first().unwrap();
            }
            black_box(cursor.key());
            black_box(cursor.value().unwrap());
        });
    });
    let mut cursor = family.cursor().unwrap();
    group.bench_function("backward", |b| {
        b.iter(|| {
            if !cursor.prev().unwrap() {
                cursor.last().unwrap();
            }
            black_box(cursor.key());
            black_box(cursor.value().unwrap());
        });
    });
    write(&db, &family, (0..ENTRIES).step_by(10).map(key));
    let mut cursor = family.cursor().unwrap();
    group.bench_function("forward_merging", |b| {
        b.iter(|| {
            if !cursor.next().unwrap() {
                cursor.first().unwrap();
            }
            black_box(cursor.key());
            black_box(cursor.value().unwrap());
        });
    });
    group.finish();
}

fn iter_step(c: &mut Criterion) {
    const ENTRIES: u64 = 4000;
    let db = in_memory();
    let family = family(&db);
    write_values(&db, &family, (0..ENTRIES).map(key), &VALUE[..56]);
    db.flush().unwrap();
    let mut group = c.benchmark_group("iter_step");
    group.throughput(Throughput::Elements(ENTRIES));
    group.bench_function("cursor_all", |b| {
        b.iter(|| {
            let mut cursor = family.cursor().unwrap();
            while cursor.next().unwrap() {
                black_box((cursor.key(), cursor.value().unwrap()));
            }
        });
    });
    group.bench_function("scan_all", |b| {
        b.iter(|| {
            let scanned = family.cursor().unwrap().scan(|key, value| {
                black_box((key, value));
                ControlFlow::<()>::Continue(())
            });
            assert!(scanned.unwrap().is_continue());
        });
    });
    group.bench_function("iter_all", |b| {
        b.iter(|| {
            for entry in family.iter().unwrap() {
                let (key, value) = entry.unwrap();
                black_box((&key[..], &value[..]));
            }
        });
    });
    group.finish();
}

criterion_group!(
    parts,
    node_search,
    memtable_insert,
    memtable_read,
    log_append,
    merge,
    cache,
    cursor_step,
    iter_step
);
criterion_main!(parts);
