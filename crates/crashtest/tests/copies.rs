//! A machine that goes down while a copy is made leaves the copy whole or refused, at every instant of it,
//! and the source as a crash without a copy does.

use std::collections::BTreeMap;

use peristyle::{ColumnFamilyDatabase, ErrorKind, FamilyOptions, MemoryStorage};
use peristyle_crashtest::campaign::base;
use peristyle_crashtest::disk::{Decisions, Everything, Image, Nothing, RandomDecisions, SimulatedDisk};
use peristyle_crashtest::ledger::Crash;
use peristyle_crashtest::recovery::{look, read_state, reopen};
use peristyle_crashtest::run::{Run, Setup};
use peristyle_crashtest::step::{Step, Write};
use peristyle_crashtest::writer::Writer;

type Content = BTreeMap<String, Vec<(Vec<u8>, Vec<u8>)>>;

fn content(db: &ColumnFamilyDatabase) -> Content {
    let entries = |name: &String| {
        let entries = db.column_family(name).unwrap().iter().unwrap();
        let entries = entries.map(|entry| entry.map(|(key, value)| (key.into(), value.into())).unwrap());
        (name.clone(), entries.collect())
    };
    db.column_family_names().iter().map(entries).collect()
}

fn open(image: &Image, create: bool) -> peristyle::Result<ColumnFamilyDatabase> {
    let disk = SimulatedDisk::from_image(image);
    ColumnFamilyDatabase::builder().create_if_missing(create).storage(disk).open("copy")
}

/// A small database with something in trees, memtables and log.
fn source() -> ColumnFamilyDatabase {
    let builder = ColumnFamilyDatabase::builder().automatic_maintenance(false).page_size(4096);
    let db = builder.storage(MemoryStorage::new()).open("source").unwrap();
    for name in ["a", "b"] {
        let family = db.create_column_family(name, FamilyOptions::default()).unwrap();
        for n in 0..60u32 {
            family.put(n.to_be_bytes(), vec![n as u8; 10 + n as usize * 20]).unwrap();
        }
        db.flush().unwrap();
        for n in 0..9u32 {
            family.put(n.to_be_bytes(), "in the log").unwrap();
        }
    }
    db
}

#[test]
fn a_copy_that_is_cut_short_by_a_crash_is_whole_or_refused() {
    let source = source();
    let expected = content(&source);
    let disk = SimulatedDisk::new();
    source.checkpoint_into(disk.clone()).unwrap();
    let (mut refused, mut whole) = (0, 0);
    for operations in 0..=disk.operations() {
        let mut decisions: Vec<Box<dyn Decisions>> = vec![Box::new(Nothing), Box::new(Everything)];
        decisions.extend((0..12).map(|seed| {
            Box::new(RandomDecisions::new(seed * 1000 + operations as u64)) as Box<dyn Decisions>
        }));
        for (number, decisions) in decisions.iter_mut().enumerate() {
            let image = disk.crash(operations, &mut **decisions);
            let what = format!("after {operations} of {} operations, {number}", disk.operations());
            for create in [false, true] {
                match open(&image, create) {
                    Ok(copy) if content(&copy) == expected => {
                        assert!(copy.verify().unwrap().is_clean(), "{what}");
                        whole += 1;
                    }
                    // Nothing says that there was to be a copy.
                    Ok(copy) => {
                        assert!(create && content(&copy).is_empty(), "{what}: {:?}", content(&copy).keys());
                        assert_eq!(image.files().count(), 0, "{what}");
                    }
                    Err(error) => {
                        let is_refusal =
                            matches!(error.kind(), ErrorKind::NotADatabase | ErrorKind::DatabaseNotFound);
                        assert!(is_refusal, "{what}: {error}");
                        assert!(operations < disk.operations(), "the copy was made, and is gone: {error}");
                        refused += 1;
                    }
                }
            }
        }
    }
    assert!(refused > 100 && whole >= 28, "{refused} were refused, {whole} whole");
}

#[test]
fn the_source_of_a_copy_recovers_as_ever_from_a_crash_at_any_instant_of_it() {
    let disk = SimulatedDisk::from_image(&base());
    let run = Run::open(&disk, Setup::MANUAL).unwrap();
    let mut writer = Writer::new(0, &read_state(&run.db()).unwrap());
    let put = |key| {
        Step::Commit(vec![Write::Put(0, key, 50), Write::Put(1, key, 700)], peristyle::Durability::Buffered)
    };
    for step in [put(1), Step::Merge, put(2), Step::Copy, put(3), Step::Checkpoint, Step::Copy] {
        writer.perform(&run, &step).unwrap();
    }
    run.forsake();
    let ledger = run.ledger(vec![writer]);
    for moment in 0..=disk.operations() {
        for (crash, mut decisions) in [
            (Crash::PowerLoss, Box::new(Nothing) as Box<dyn Decisions>),
            (Crash::PowerLoss, Box::new(RandomDecisions::new(moment as u64))),
            (Crash::Kill, Box::new(Everything)),
        ] {
            let image = disk.crash(moment, &mut *decisions);
            let recovered =
                look(&reopen(&SimulatedDisk::from_image(&image), Setup::MANUAL).unwrap()).unwrap();
            ledger.check(&recovered, moment, crash).unwrap();
        }
    }
}
