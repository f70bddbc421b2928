//! The engines, one file each, behind one cargo feature each.
//!
//! What "equal durability" and "equal memory" mean for an engine is said at the top of its file.

use crate::engine::{Feature, Open};

#[cfg(feature = "canopydb")]
mod canopydb;
#[cfg(feature = "fjall")]
mod fjall;
#[cfg(feature = "leveldb")]
mod leveldb;
#[cfg(feature = "leveldb")]
mod leveldb_interface;
#[cfg(feature = "lmdb")]
mod lmdb;
#[cfg(feature = "engine")]
mod peristyle;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
#[cfg(feature = "rocksdb")]
mod rocksdb_compatibility;
#[cfg(feature = "rocksdb")]
pub use rocksdb_compatibility::provide_missing_symbols;
#[cfg(feature = "sled")]
mod sled;

/// The engine that the others are compared with.
pub const SUBJECT: &str = "peristyle";

/// An engine that can take part in a comparison.
#[derive(Clone, Copy)]
pub struct Peer {
    /// Name on the command line and in every output.
    pub name: &'static str,
    /// The cargo feature that compiles it in.
    pub feature: &'static str,
    /// Where its promise differs from what the comparison asks of all; empty if nowhere.
    pub remark: &'static str,
    /// Whether its unsynced writes survive a killed process, as is asked of all.
    pub survives_a_kill: bool,
    /// What it does not have, and why.
    pub lacks: &'static [(Feature, &'static str)],
    /// How to open it; `None` if it is not compiled in.
    pub open: Option<Open>,
}

impl Peer {
    /// Finds a peer by its name.
    pub fn by_name(name: &str) -> Option<Self> {
        all().into_iter().find(|peer| peer.name == name)
    }

    /// Why the peer cannot run, or `None` if it can.
    pub fn skipped(&self) -> Option<String> {
        self.open
            .is_none()
            .then(|| format!("not compiled in (cargo feature `{}` of peristyle-benches)", self.feature))
    }

    /// Why the peer cannot take part in what needs some features, or `None` if it can.
    pub fn lacks_one_of(&self, needs: &[Feature]) -> Option<&'static str> {
        self.lacks.iter().find(|(feature, _)| needs.contains(feature)).map(|(_, reason)| *reason)
    }
}

macro_rules! peer {
    ($name:literal, $feature:literal, $survives:literal, $remark:literal, $lacks:expr, $open:path) => {
        Peer {
            name: $name,
            feature: $feature,
            remark: $remark,
            survives_a_kill: $survives,
            lacks: $lacks,
            #[cfg(feature = $feature)]
            open: Some($open),
            #[cfg(not(feature = $feature))]
            open: None,
        }
    };
}

/// What all but one are not asked for.
const NOT_ASKED: (Feature, &str) = (Feature::OwnApi, "the row uses Peristyle's own interface");

/// All engines that the benchmarks know, whether compiled in or not.
pub fn all() -> Vec<Peer> {
    vec![
        peer!("peristyle", "engine", true, "", &[], peristyle::open),
        peer!("rocksdb", "rocksdb", true, "", &[NOT_ASKED], rocksdb::open_as_users_do),
        peer!("rocksdb-tuned", "rocksdb", true, "", &[NOT_ASKED], rocksdb::open_tuned),
        peer!(
            "leveldb",
            "leveldb",
            true,
            "has no families: where there are several, all keys lie in one database behind the number of their family",
            &[
                NOT_ASKED,
                (Feature::Families, "it has no families to create"),
                (Feature::RangeDeletes, "it has no range deletions"),
            ],
            leveldb::open
        ),
        peer!(
            "lmdb",
            "lmdb",
            true,
            "unsynced: MDB_NOSYNC, where a power loss may damage the whole file, not only the last commits",
            &[
                NOT_ASKED,
                (
                    Feature::Snapshots,
                    "a thread has one read transaction at a time, and has to read beside the one that is held"
                ),
                (Feature::Families, "how many families there may be is fixed when it is opened"),
                (Feature::RangeDeletes, "it has no range deletions"),
                (Feature::Log, "it has no log"),
                (Feature::MixedDurabilities, "its durability is that of the whole environment"),
            ],
            lmdb::open
        ),
        peer!(
            "redb",
            "redb",
            false,
            "unsynced: Durability::None keeps commits in memory, so a killed process loses them (less than asked)",
            &[
                NOT_ASKED,
                (Feature::RangeDeletes, "it has no range deletions"),
                (Feature::Log, "it has no log"),
            ],
            redb::open
        ),
        peer!(
            "fjall",
            "fjall",
            true,
            "",
            &[NOT_ASKED, (Feature::RangeDeletes, "it has no range deletions")],
            fjall::open
        ),
        peer!(
            "canopydb",
            "canopydb",
            true,
            "families are databases of one environment, so what is held of several is a moment of each",
            &[NOT_ASKED],
            canopydb::open
        ),
        peer!(
            "sled",
            "sled",
            false,
            "unsynced: writes reach the operating system every 500 ms, so a killed process loses the last (less than asked)",
            &[
                NOT_ASKED,
                (Feature::Snapshots, "it has no snapshots"),
                (Feature::RangeDeletes, "it has no range deletions"),
                (Feature::Log, "its log and its data are one"),
            ],
            sled::open
        ),
    ]
}

/// Sleeps until `busy` has been false in three looks in a row, 2 ms apart.
///
/// For engines whose background work can be watched but not waited for: between two jobs an engine
/// may seem idle for a moment.
#[cfg(any(feature = "rocksdb", feature = "fjall", feature = "leveldb"))]
pub(crate) fn wait_while(mut busy: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let mut quiet_looks = 0;
    while quiet_looks < 3 {
        quiet_looks = if busy()? { 0 } else { quiet_looks + 1 };
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Batch, Direction, Durability, Reader, Setup};

    const SETUP: Setup = Setup::with_memory(2, 64 << 20, 64 << 20);

    fn write_and_read_back(peer: &Peer, durability: Durability) -> anyhow::Result<()> {
        let Some(open) = peer.open else { return Ok(()) };
        let directory = tempfile::tempdir()?;
        let engine = open(directory.path(), &SETUP)?;
        assert!(!engine.version().is_empty());
        for family in 0..2 {
            let mut writer = engine.writer(durability)?;
            let mut batch = Batch::default();
            for key in 0..100u8 {
                batch.push(&[key], &[key, family as u8]);
            }
            writer.write(family, &batch)?;
            writer.put(family, &[100], &[100, family as u8])?;
        }
        engine.flush_until_quiet()?;
        for family in 0..2 {
            engine.read(family, &mut |reader| {
                let mut found = Vec::new();
                assert!(reader.get(&[7], &mut |value| found = value.to_vec())?);
                assert_eq!(found, [7, family as u8]);
                assert!(!reader.get(&[200], &mut |_| ())?);
                let mut keys = Vec::new();
                reader.scan(&[], Direction::Forward, &mut |key, _| {
                    keys.push(key[0]);
                    true
                })?;
                assert_eq!(keys, (0..=100).collect::<Vec<_>>());
                keys.clear();
                reader.scan(&[50], Direction::Backward, &mut |key, _| {
                    keys.push(key[0]);
                    keys.len() < 3
                })?;
                assert_eq!(keys, [50, 49, 48]);
                keys.clear();
                reader.scan(&[50, 1], Direction::Backward, &mut |key, _| {
                    keys.push(key[0]);
                    false
                })?;
                assert_eq!(keys, [50]);
                Ok(())
            })?;
        }
        Ok(())
    }

    #[test]
    fn every_peer_reads_back_what_it_was_given_in_order() {
        for peer in all() {
            for durability in [Durability::Unsynced, Durability::Sync] {
                if let Err(error) = write_and_read_back(&peer, durability) {
                    panic!("{} {durability}: {error:#}", peer.name);
                }
            }
        }
    }

    fn change_two_families_and_compact(peer: &Peer) -> anyhow::Result<()> {
        let Some(open) = peer.open else { return Ok(()) };
        let directory = tempfile::tempdir()?;
        let engine = open(directory.path(), &SETUP)?;
        {
            let mut writer = engine.writer(Durability::Unsynced)?;
            let mut batches = [Batch::default(), Batch::default()];
            (0..100u8).for_each(|key| batches[0].push(&[key], &[1]));
            (0..50u8).for_each(|key| batches[1].push(&[key], &[2]));
            writer.write_together(&[(0, &batches[0]), (1, &batches[1])])?;
            batches.iter_mut().for_each(Batch::clear);
            (0..100u8).step_by(2).for_each(|key| batches[0].remove(&[key]));
            batches[1].push(&[200], &[3]);
            writer.write_together(&[(0, &batches[0]), (1, &batches[1])])?;
        }
        engine.flush_until_quiet()?;
        let engine = engine.compact()?;
        for (family, expected) in [(0, 50), (1, 51)] {
            engine.read(family, &mut |reader| {
                assert_eq!(reader.count()?, expected);
                assert_eq!(reader.get(&[2], &mut |_| ())?, family == 1);
                assert_eq!(reader.get(&[200], &mut |_| ())?, family == 1);
                Ok(())
            })?;
        }
        Ok(())
    }

    #[test]
    fn every_peer_changes_two_families_together_and_keeps_them_when_compacted() {
        for peer in all() {
            if let Err(error) = change_two_families_and_compact(&peer) {
                panic!("{}: {error:#}", peer.name);
            }
        }
    }

    fn hold_and_remove(peer: &Peer) -> anyhow::Result<()> {
        let Some(open) = peer.open else { return Ok(()) };
        let directory = tempfile::tempdir()?;
        let engine = open(directory.path(), &Setup::defaults(2))?;
        let mut writer = engine.writer(Durability::Unsynced)?;
        for family in 0..2 {
            (0..10u8).try_for_each(|key| writer.put(family, &[key], &[key]))?;
        }
        let keys_in = |reader: &mut dyn Reader, from: u8, to: u8| {
            let mut keys = Vec::new();
            reader.range(&[from], &[to], &mut |key, _| {
                keys.push(key[0]);
                keys.len() < 5
            })?;
            Ok::<_, anyhow::Error>(keys)
        };
        let can = |feature| peer.lacks_one_of(&[feature]).is_none();
        let held = if can(Feature::Snapshots) { Some(engine.hold()?) } else { None };
        writer.remove(1, &[3])?;
        if can(Feature::RangeDeletes) {
            writer.remove_range(1, &[4], &[6])?;
        } else {
            [4, 5].into_iter().try_for_each(|key| writer.remove(1, &[key]))?;
        }
        engine.read(1, &mut |reader| {
            assert_eq!(keys_in(reader, 2, 8)?, [2, 6, 7]);
            assert!(keys_in(reader, 3, 6)?.is_empty());
            assert_eq!(keys_in(reader, 0, 9)?, [0, 1, 2, 6, 7]);
            assert_eq!(reader.count()?, 7);
            Ok(())
        })?;
        engine.read(0, &mut |reader| {
            assert_eq!(keys_in(reader, 2, 4)?, [2, 3]);
            Ok(())
        })?;
        if let Some(held) = &held {
            held.read(1, &mut |reader| {
                assert_eq!(keys_in(reader, 2, 6)?, [2, 3, 4, 5]);
                assert!(reader.get(&[4], &mut |value| assert_eq!(value, [4]))?);
                assert_eq!(reader.count()?, 10);
                let mut last = None;
                reader.scan(&[200], Direction::Backward, &mut |key, _| {
                    last = Some(key[0]);
                    false
                })?;
                assert_eq!(last, Some(9));
                Ok(())
            })?;
        }
        Ok(())
    }

    #[test]
    fn every_peer_removes_what_it_is_told_to_and_holds_what_was() {
        for peer in all() {
            if let Err(error) = hold_and_remove(&peer) {
                panic!("{}: {error:#}", peer.name);
            }
        }
    }

    #[test]
    fn families_can_be_added_where_that_is_not_lacking() -> anyhow::Result<()> {
        for peer in all().iter().filter(|peer| peer.lacks_one_of(&[Feature::Families]).is_none()) {
            let Some(open) = peer.open else { continue };
            let directory = tempfile::tempdir()?;
            let mut engine = open(directory.path(), &Setup::defaults(1))?;
            engine.create_family()?;
            let families = if engine.create_families(2)? { 4 } else { 2 };
            for family in 0..families {
                engine.writer(Durability::Unsynced)?.put(family, &[1], &[family as u8])?;
            }
            drop(engine);
            let engine = open(directory.path(), &Setup::defaults(families))?;
            for family in 0..families {
                engine.read(family, &mut |reader| {
                    let mut right = false;
                    reader.get(&[1], &mut |value| right = value == [family as u8])?;
                    assert!(right, "{}: family {family}", peer.name);
                    Ok(())
                })?;
            }
        }
        Ok(())
    }
}
