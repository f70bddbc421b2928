//! Sample databases: their files, and what they hold.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::OnceLock;

use peristyle::{
    ColumnFamilyDatabase, DatabaseBuilder, Durability, FamilyOptions, FileMode, MemoryStorage,
    StorageBackend, WriteBatch,
};

use crate::format::{SLOT_LEN, SLOTS, log, put, segment_id, superblock, u32_at, u64_at};
use crate::repair::{Repairs, catalog_extents, records, repair};

/// Path and content of every file but the lock, sorted by path: the data file comes first.
pub type Files = Vec<(String, Vec<u8>)>;

/// Name of every family, and its entries.
pub type State = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

/// Samples are made with this in place of a random one, so that an input means the same in every process.
const DATABASE_ID: [u8; 16] = [0x5a; 16];

/// A database as a killed process left it.
#[derive(Debug)]
pub struct Sample {
    pub files: Files,
    /// Number of a file, and where in it a part with a checksum of its own stands.
    pub regions: Vec<(usize, Range<usize>)>,
    /// What was in it when the superblock was written, then after each commit in the log.
    pub states: Vec<State>,
}

pub fn builder(storage: &MemoryStorage) -> DatabaseBuilder {
    ColumnFamilyDatabase::builder()
        .storage(storage.clone())
        .page_size(4096)
        .cache_bytes(256 << 10)
        .write_buffer_bytes(256 << 10)
        .log_limit_bytes(64 << 10)
        .merge_cost(0)
        .background_threads(1)
        .automatic_maintenance(false)
}

/// A directory in memory that holds `files`.
pub fn storage(files: &Files) -> MemoryStorage {
    let storage = MemoryStorage::new();
    storage.create_directory("wal").expect("a directory in memory");
    for (path, bytes) in files {
        let file = storage.open(path, FileMode::Create).expect("a file in memory");
        file.write_at(bytes, 0).expect("a write in memory");
    }
    storage
}

/// The files of a database that may be open.
pub fn files(storage: &MemoryStorage) -> Files {
    let mut files = Vec::new();
    for (directory, prefix) in [("", ""), ("wal", "wal/")] {
        let names = storage.list(directory).unwrap_or_default();
        for path in names.into_iter().map(|name| format!("{prefix}{name}")).filter(|path| path != "LOCK") {
            let file = storage.open(&path, FileMode::Read).expect("a file that is listed");
            let mut bytes = vec![0; file.len().expect("a length in memory") as usize];
            file.read_at(&mut bytes, 0).expect("a read in memory");
            files.push((path, bytes));
        }
    }
    files.sort();
    files
}

/// All samples; made when first asked for.
pub fn samples() -> &'static [Sample] {
    static SAMPLES: OnceLock<Vec<Sample>> = OnceLock::new();
    SAMPLES.get_or_init(make)
}

fn make() -> Vec<Sample> {
    vec![mixed(4096), deep(), logged(), mixed(32 << 10)]
}

/// Makes a database and keeps account.
struct Maker {
    storage: MemoryStorage,
    page_size: u32,
    db: ColumnFamilyDatabase,
    states: Vec<State>,
    /// Length of the data file before the first restart.
    data_len: Option<usize>,
}

impl Maker {
    fn new(page_size: u32, families: &[&str]) -> Self {
        let storage = MemoryStorage::new();
        let db = Self::open(&storage, page_size);
        let mut state = State::new();
        for name in families {
            db.create_column_family(name, FamilyOptions::default()).expect("a new family");
            state.insert((*name).to_owned(), BTreeMap::new());
        }
        Self { storage, page_size, db, states: vec![state], data_len: None }
    }

    /// With memtables so large that none gets full, and a log so long that it need not get shorter: what
    /// another thread merges it merges at any time.
    fn open(storage: &MemoryStorage, page_size: u32) -> ColumnFamilyDatabase {
        let builder = builder(storage).page_size(page_size);
        let builder = builder.write_buffer_bytes(16 << 20).log_limit_bytes(256 << 10);
        builder.open("sample").expect("a sound database")
    }

    /// One commit: ranges are deleted, then keys set.
    fn commit(
        &mut self,
        writes: &[(&str, Vec<u8>, Vec<u8>)],
        deletions: &[(&str, Range<Vec<u8>>)],
        how: Durability,
    ) {
        let mut state = self.states.last().expect("a state").clone();
        let mut batch = WriteBatch::new();
        for (name, range) in deletions {
            let family = self.db.column_family(name).expect("a family");
            batch.delete_range(&family, range.clone());
            state.get_mut(*name).expect("a family").retain(|key, _| !range.contains(key));
        }
        for (name, key, value) in writes {
            let family = self.db.column_family(name).expect("a family");
            batch.put(&family, key, value);
            state.get_mut(*name).expect("a family").insert(key.clone(), value.clone());
        }
        self.db.write_with(&batch, how).expect("a commit");
        self.states.push(state);
    }

    fn drop_family(&mut self, name: &str) {
        self.db.drop_column_family(name).expect("a family");
        self.states.last_mut().expect("a state").remove(name);
        self.settle();
    }

    /// Everything is merged and durable: the log holds nothing more.
    fn settle(&mut self) {
        self.db.flush().expect("a flush");
        self.db.checkpoint().expect("a checkpoint");
        self.states.drain(..self.states.len() - 1);
    }

    /// The process is killed and the database opened again.
    fn restart(&mut self) {
        let files = self.files();
        self.data_len = Some(files[0].1.len());
        self.storage = storage(&files);
        self.db = Self::open(&self.storage, self.page_size);
    }

    /// The files as far as they are not a matter of chance.
    fn files(&self) -> Files {
        let mut files = in_use(files(&self.storage));
        // What is replayed is merged at some time. Nothing is settled after a restart, so that nothing leads
        // there.
        if let Some(len) = self.data_len {
            files[0].1.truncate(len);
        }
        files
    }

    fn finish(self) -> Sample {
        let mut files = self.files();
        for (path, bytes) in &mut files {
            if segment_id(path).is_some() {
                put(bytes, log::DATABASE_ID, &DATABASE_ID);
            } else {
                for slot in SLOTS {
                    put(bytes, slot + superblock::DATABASE_ID, &DATABASE_ID);
                }
            }
        }
        repair(&mut files, Repairs { superblock: true, segments: true, ..Repairs::NONE });
        Sample { regions: regions(&files), files, states: self.states }
    }
}

/// Without a segment that was made ahead of need: whether there is one is a matter of chance, and what is
/// written after a restart is numbered behind it.
fn in_use(mut files: Files) -> Files {
    let is_in_use =
        |id: u64, bytes: &[u8]| bytes.starts_with(b"PERISLOG") && u64_at(bytes, log::SEGMENT_ID) == Some(id);
    files.retain(|(path, bytes)| segment_id(path).is_none_or(|id| is_in_use(id, bytes)));
    files
}

fn regions(files: &Files) -> Vec<(usize, Range<usize>)> {
    let mut pages = repair(&mut files.clone(), Repairs::NONE);
    pages.sort_by_key(|page| page.start);
    let mut regions = Vec::new();
    for (number, (path, bytes)) in files.iter().enumerate() {
        if segment_id(path).is_some() {
            regions.push((number, 0..log::SEGMENT_HEADER_LEN.min(bytes.len())));
            regions.extend(records(bytes).into_iter().map(|record| (number, record)));
        } else {
            regions.extend(SLOTS.map(|slot| (number, slot..slot + SLOT_LEN)));
            let page_size = u32_at(bytes, superblock::PAGE_SIZE).expect("a superblock") as usize;
            regions.extend(catalog_extents(bytes, 0, page_size).into_iter().map(|extent| (number, extent)));
            regions.extend(pages.iter().map(|page| (number, page.clone())));
        }
    }
    regions
}

fn number(n: u32) -> Vec<u8> {
    n.to_be_bytes().to_vec()
}

/// Small families with deltas, a dropped one, large values, keys that make their leaf a run of pages; commits
/// of all kinds in the log.
fn mixed(page_size: u32) -> Sample {
    let mut maker = Maker::new(page_size, &["a", "b", "gone"]);
    for family in ["a", "b", "gone"] {
        let writes: Vec<_> = (0..300).map(|n| (family, number(n), vec![n as u8; 40])).collect();
        maker.commit(&writes, &[], Durability::None);
        maker.settle();
        let large = (family, b"large".to_vec(), vec![7; 20_000]);
        let long = (family, [&b"long"[..], &[b'k'; 6000]].concat(), vec![8; 10]);
        maker.commit(&[large, long], &[], Durability::None);
        maker.settle();
        // Among the keys of the tree: that makes a delta.
        let newer: Vec<_> = (5..300).step_by(30).map(|n| (family, number(n), vec![n as u8; 30])).collect();
        maker.commit(&newer, &[], Durability::None);
        maker.settle();
    }
    maker.drop_family("gone");
    let late = ["a", "b"].map(|family| (family, b"late".to_vec(), b"entry".to_vec()));
    let ranges = ["a", "b"].map(|family| (family, number(10)..number(20)));
    maker.commit(&late, &ranges, Durability::Sync);
    maker.commit(&[("a", b"large".to_vec(), vec![9; 3000])], &[], Durability::Buffered);
    maker.commit(&[("b", number(15), vec![1; 7])], &[("a", number(0)..number(200))], Durability::Buffered);
    maker.commit(&[("a", Vec::new(), Vec::new())], &[], Durability::Sync);
    maker.finish()
}

/// A tree of three levels, nothing in the log. Small, because its separators are long.
fn deep() -> Sample {
    let mut maker = Maker::new(4096, &["deep"]);
    for group in 0..12u8 {
        let writes = (0..8u8).map(|n| {
            let key = [&[group][..], &[b'x'; 500], &[n]].concat();
            ("deep", key, vec![n; if n == 7 && group.is_multiple_of(4) { 2000 } else { 700 }])
        });
        maker.commit(&writes.collect::<Vec<_>>(), &[], Durability::None);
        maker.settle();
    }
    maker.finish()
}

/// Everything in the log: several segments, two restarts, synced commits among others.
fn logged() -> Sample {
    let mut maker = Maker::new(4096, &["x", "y"]);
    for n in 0..40u32 {
        let how = if n.is_multiple_of(7) { Durability::Sync } else { Durability::Buffered };
        let range = [("x", number(n / 2)..number(n / 2 + 1))];
        let deletions = if n % 5 == 4 { &range[..] } else { &[] };
        let writes = [("x", number(n), vec![n as u8; 900]), ("y", number(n % 6), number(n))];
        maker.commit(&writes, deletions, how);
        if n % 18 == 17 {
            maker.restart();
        }
    }
    maker.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_the_same_in_every_process() {
        for _ in 0..10 {
            for (number, (again, first)) in make().iter().zip(samples()).enumerate() {
                for (file, other) in again.files.iter().zip(&first.files) {
                    let differs = file.1.iter().zip(&other.1).position(|(a, b)| a != b);
                    assert_eq!(
                        (&file.0, file.1.len(), differs),
                        (&other.0, other.1.len(), None),
                        "sample {number}"
                    );
                }
                assert_eq!(again.files.len(), first.files.len(), "sample {number}");
            }
        }
    }

    #[test]
    fn a_sound_sample_holds_its_last_state_and_repair_changes_nothing() {
        for (number, sample) in samples().iter().enumerate() {
            let db = builder(&storage(&sample.files)).open("sample").unwrap();
            let last = sample.states.last().unwrap();
            assert_eq!(db.column_family_names().len(), last.len());
            for (name, entries) in last {
                let family = db.column_family(name).unwrap();
                let found = family.iter().unwrap().map(|entry| entry.unwrap());
                let found: BTreeMap<_, _> =
                    found.map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
                assert!(found == *entries, "family {name} of sample {number}");
            }
            let mut repaired = sample.files.clone();
            let pages = repair(&mut repaired, Repairs::ALL);
            assert!(repaired == sample.files, "repair changed sample {number}");
            if number == 1 {
                let levels = pages.iter().map(|page| sample.files[0].1[page.start + 25]);
                assert_eq!(levels.max(), Some(2), "a tree of three levels");
            }
            println!(
                "sample {number}: {} bytes, {} pages, {} regions, {} states",
                sample.files.iter().map(|(_, bytes)| bytes.len()).sum::<usize>(),
                pages.len(),
                sample.regions.len(),
                sample.states.len()
            );
            assert!(db.verify().unwrap().is_clean());
            let deltas =
                |name: &String| db.family_properties(&db.column_family(name).unwrap()).unwrap().deltas;
            assert_eq!(last.keys().any(|name| deltas(name) > 0), number % 3 == 0, "sample {number}");
            assert!(pages.len() as u64 >= 2 || last.values().all(|entries| entries.len() < 50));
        }
        assert_eq!(samples()[2].states.len(), 41);
    }
}
