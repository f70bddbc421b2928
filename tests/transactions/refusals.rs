//! One transaction and one other commit, in every way that either can be made: the first is refused if and
//! only if the other changed what it relies on.

use peristyle::{
    ColumnFamily, ColumnFamilyDatabase, ErrorKind, FamilyOptions, IsolationLevel, MemoryStorage, Transaction,
    WriteBatch,
};

use crate::common::{failure, shrunken};

/// What is there at first, with room between.
const KEYS: [&str; 5] = ["b", "d", "f", "h", "j"];

/// A value so long that some fill a memtable.
const VALUE: [u8; 1500] = [7; 1500];

struct Fixture {
    db: ColumnFamilyDatabase,
    cf: ColumnFamily,
    other: ColumnFamily,
}

impl Fixture {
    fn new() -> Self {
        let db =
            shrunken().automatic_maintenance(false).storage(MemoryStorage::new()).open("memory").unwrap();
        let cf = db.create_column_family("one", FamilyOptions::default()).unwrap();
        let other = db.create_column_family("other", FamilyOptions::default()).unwrap();
        let fixture = Self { db, cf, other };
        fixture.reset();
        fixture
    }

    fn reset(&self) {
        self.cf.delete_range(..).unwrap();
        self.other.delete_range(..).unwrap();
        for key in KEYS {
            self.cf.put(key, "old").unwrap();
        }
    }

    fn begin(&self, level: IsolationLevel) -> Transaction {
        self.db.transaction().level(level).begin().unwrap()
    }
}

/// A way to write to a key.
#[derive(Debug, Clone, Copy)]
enum Write {
    Put,
    Delete,
    /// From the key on, up to and without the next letter.
    DeleteRange,
    Batch,
    /// A batch that goes into memtables of its own.
    LargeBatch,
    Transaction,
    Update,
}

const WRITES: [Write; 7] = [
    Write::Put,
    Write::Delete,
    Write::DeleteRange,
    Write::Batch,
    Write::LargeBatch,
    Write::Transaction,
    Write::Update,
];

impl Write {
    fn to(self, Fixture { db, cf, other }: &Fixture, key: &str) {
        match self {
            Self::Put => drop(cf.put(key, "new").unwrap()),
            Self::Delete => drop(cf.delete(key).unwrap()),
            Self::DeleteRange => drop(cf.delete_range(key.as_bytes()..&[key.as_bytes()[0] + 1]).unwrap()),
            Self::Batch => {
                let mut batch = WriteBatch::new();
                batch.put(other, "x", "y").put(cf, key, "new");
                db.write(&batch).unwrap();
            }
            Self::LargeBatch => {
                let mut batch = WriteBatch::new();
                for n in 0..20u8 {
                    batch.put(cf, [b"z", &[n][..]].concat(), VALUE);
                }
                db.write(batch.put(cf, key, "new")).unwrap();
            }
            Self::Transaction => {
                let mut transaction = db.begin().unwrap();
                transaction.put(cf, key, "new").unwrap();
                transaction.commit().unwrap();
            }
            Self::Update => drop(cf.update(key, |_| Some("newer")).unwrap()),
        }
    }
}

/// What becomes of the memtable in which the other commit stands.
#[derive(Debug, Clone, Copy)]
enum Then {
    Nothing,
    /// Merged, and others with it.
    Merged,
    /// Merged, and everything rewritten, and others written since.
    Compacted,
}

const THENS: [Then; 3] = [Then::Nothing, Then::Merged, Then::Compacted];

impl Then {
    fn happens(self, Fixture { db, cf, .. }: &Fixture) {
        match self {
            Self::Nothing => {}
            Self::Merged => db.flush().unwrap(),
            Self::Compacted => {
                for n in 0..20u8 {
                    cf.put([b"y", &[n][..]].concat(), VALUE).unwrap();
                }
                db.compact().unwrap();
                cf.put("y", "later").unwrap();
            }
        }
    }
}

/// A way to read keys from "d" up to "h", and no others.
#[derive(Debug, Clone, Copy)]
enum Read {
    Gets,
    Contains,
    MultiGet,
    Range,
    RangeFromBack,
    RangeFromBoth,
    RangePartly,
    RangePartlyFromBack,
    CursorUp,
    CursorDown,
    CursorToAndFro,
    Scan,
}

const READS: [Read; 12] = [
    Read::Gets,
    Read::Contains,
    Read::MultiGet,
    Read::Range,
    Read::RangeFromBack,
    Read::RangeFromBoth,
    Read::RangePartly,
    Read::RangePartlyFromBack,
    Read::CursorUp,
    Read::CursorDown,
    Read::CursorToAndFro,
    Read::Scan,
];

impl Read {
    /// Whether it sees gaps.
    fn sees_gaps(self) -> bool {
        !matches!(self, Self::Gets | Self::Contains | Self::MultiGet)
    }

    fn with(self, transaction: &Transaction, cf: &ColumnFamily) {
        let keys = ["d", "e", "f", "g", "h"];
        match self {
            Self::Gets => {
                for key in keys {
                    transaction.get(cf, key).unwrap();
                }
            }
            Self::Contains => {
                for key in keys {
                    transaction.contains_key(cf, key).unwrap();
                }
            }
            Self::MultiGet => drop(transaction.multi_get(cf, keys).unwrap()),
            Self::Range => assert_eq!(transaction.range(cf, "d"..="h").unwrap().count(), 3),
            Self::RangeFromBack => assert_eq!(transaction.range(cf, "d"..="h").unwrap().rev().count(), 3),
            Self::RangeFromBoth => {
                let mut range = transaction.range(cf, "d"..="h").unwrap();
                assert_eq!(range.next().unwrap().unwrap().0, "d");
                assert_eq!(range.next_back().unwrap().unwrap().0, "h");
                assert_eq!(range.next_back().unwrap().unwrap().0, "f");
                assert!(range.next().is_none());
            }
            Self::RangePartly => assert_eq!(transaction.range(cf, "d"..).unwrap().take(3).count(), 3),
            Self::RangePartlyFromBack => {
                assert_eq!(transaction.range(cf, ..="h").unwrap().rev().take(3).count(), 3);
            }
            Self::CursorUp => {
                let mut cursor = transaction.cursor(cf).unwrap();
                assert!(cursor.seek("d").unwrap() && cursor.next().unwrap() && cursor.next().unwrap());
                assert_eq!(cursor.key(), b"h");
            }
            Self::CursorDown => {
                let mut cursor = transaction.cursor(cf).unwrap();
                assert!(cursor.seek_for_prev("h").unwrap() && cursor.prev().unwrap());
                assert!(cursor.prev().unwrap());
                assert_eq!(cursor.key(), b"d");
            }
            Self::CursorToAndFro => {
                let mut cursor = transaction.cursor_in(cf, "d".."h\0").unwrap();
                assert!(cursor.seek("e").unwrap() && cursor.prev().unwrap());
                assert!(!cursor.prev().unwrap());
                assert!(cursor.next().unwrap() && cursor.next().unwrap() && cursor.next().unwrap());
                assert!(!cursor.next().unwrap());
            }
            Self::Scan => {
                let mut cursor = transaction.cursor(cf).unwrap();
                cursor.seek("d").unwrap();
                let scanned = cursor.scan(|key, _| match key {
                    b"h" => std::ops::ControlFlow::Break(()),
                    _ => std::ops::ControlFlow::Continue(()),
                });
                assert!(scanned.unwrap().is_break());
            }
        }
    }
}

#[track_caller]
fn assert_conflict_at(refused: peristyle::Result<peristyle::SequenceNumber>, cf: &ColumnFamily, key: &str) {
    let error = failure(refused, ErrorKind::Conflict);
    let conflict = error.conflict().expect("a conflict says what was changed");
    assert_eq!(conflict.family, cf.id());
    let key = key.as_bytes();
    assert!(conflict.start.as_slice() <= key, "{error}");
    assert!(conflict.end.as_deref().is_none_or(|end| key < end), "{error}");
    assert_eq!(error.location().family, Some(cf.id().0));
    assert!(error.to_string().contains("\"one\""), "{error}");
}

#[test]
fn a_serializable_commit_is_refused_if_and_only_if_what_was_read_has_changed() {
    let mut thens = THENS.iter().cycle();
    for read in READS {
        let fixture = Fixture::new();
        for write in WRITES {
            for (key, was_read) in [
                ("a", false),
                ("b", false),
                ("c", false),
                ("d", true),
                ("e", true),
                ("ee", read.sees_gaps()),
                ("f", true),
                ("h", true),
                ("ha", false),
                ("i", false),
                ("j", false),
            ] {
                fixture.reset();
                let then = thens.next().unwrap();
                let mut transaction = fixture.begin(IsolationLevel::Serializable);
                read.with(&transaction, &fixture.cf);
                write.to(&fixture, key);
                then.happens(&fixture);
                transaction.put(&fixture.other, "mine", "1").unwrap();
                let committed = transaction.commit();
                if was_read {
                    assert_conflict_at(committed, &fixture.cf, key);
                    assert!(fixture.other.get("mine").unwrap().is_none());
                } else if let Err(error) = committed {
                    panic!("{read:?}, then {write:?} to {key}, {then:?}: {error}");
                }
                let statistics = fixture.db.statistics();
                assert_eq!((statistics.transactions_open, statistics.transaction_bytes_kept), (0, 0));
            }
        }
    }
}

#[test]
fn a_snapshot_commit_is_refused_if_and_only_if_what_it_writes_was_written() {
    for write in WRITES {
        let fixture = Fixture::new();
        for then in THENS {
            for (key, own, refused) in [
                ("d", Own::Put("d"), true),
                ("d", Own::Delete("d"), true),
                ("d", Own::Put("c"), false),
                ("d", Own::Delete("e"), false),
                ("d", Own::DeleteRange("c", "e"), true),
                ("d", Own::DeleteRange("d", "dd"), true),
                ("d", Own::DeleteRange("b", "d"), false),
                ("d", Own::DeleteRange("e", "f"), false),
            ] {
                fixture.reset();
                let mut transaction = fixture.begin(IsolationLevel::Snapshot);
                assert!(transaction.get(&fixture.cf, "d").unwrap().is_some());
                match own {
                    Own::Put(key) => transaction.put(&fixture.cf, key, "mine").unwrap(),
                    Own::Delete(key) => transaction.delete(&fixture.cf, key).unwrap(),
                    Own::DeleteRange(start, end) => {
                        transaction.delete_range(&fixture.cf, start..end).unwrap();
                    }
                }
                write.to(&fixture, key);
                then.happens(&fixture);
                let committed = transaction.commit();
                if refused {
                    assert_conflict_at(committed, &fixture.cf, key);
                } else if let Err(error) = committed {
                    panic!("{own:?} beside {write:?} to {key}, {then:?}: {error}");
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Own {
    Put(&'static str),
    Delete(&'static str),
    DeleteRange(&'static str, &'static str),
}

#[test]
fn what_is_read_untracked_may_change() {
    let fixture = Fixture::new();
    let mut transaction = fixture.begin(IsolationLevel::Serializable);
    assert_eq!(transaction.get_untracked(&fixture.cf, "d").unwrap().unwrap(), "old");
    let mut cursor = transaction.cursor_untracked(&fixture.cf, ..).unwrap();
    while cursor.next().unwrap() {}
    fixture.cf.put("d", "new").unwrap();
    transaction.put(&fixture.cf, "mine", "1").unwrap();
    transaction.commit().unwrap();
}

#[test]
fn what_a_transaction_wrote_itself_it_does_not_rely_on() {
    let fixture = Fixture::new();
    let mut transaction = fixture.begin(IsolationLevel::Serializable);
    transaction.put(&fixture.cf, "d", "mine").unwrap();
    transaction.delete_range(&fixture.cf, "e".."g").unwrap();
    assert_eq!(transaction.get(&fixture.cf, "d").unwrap().unwrap(), "mine");
    assert!(!transaction.contains_key(&fixture.cf, "f").unwrap());
    // So that there is something to be checked.
    assert!(transaction.get(&fixture.cf, "b").unwrap().is_some());
    fixture.cf.put("d", "theirs").unwrap();
    fixture.cf.put("f", "theirs").unwrap();
    transaction.commit().unwrap();
    assert_eq!(fixture.cf.get("d").unwrap().unwrap(), "mine");
    assert!(fixture.cf.get("f").unwrap().is_none());
}

#[test]
fn what_own_writes_hid_from_a_walk_it_does_not_rely_on() {
    let walks: [fn(&Transaction, &ColumnFamily); 3] = [
        |transaction, cf| transaction.range(cf, "a".."k").unwrap().for_each(|entry| drop(entry.unwrap())),
        |transaction, cf| {
            transaction.range(cf, "a".."k").unwrap().rev().for_each(|entry| drop(entry.unwrap()))
        },
        |transaction, cf| {
            let mut cursor = transaction.cursor_in(cf, "a".."k").unwrap();
            while cursor.next().unwrap() {}
        },
    ];
    let mut thens = THENS.iter().cycle();
    for walk in walks {
        let fixture = Fixture::new();
        let Fixture { db, cf, other } = &fixture;
        for (first, end, refused) in [
            ("d", "d\0", false),
            ("d", "d\0\0", true),
            ("e", "g", false),
            ("e", "e\0", false),
            ("dd", "f", true),
            ("f", "gg", true),
            ("c", "c\0", true),
            ("h", "h\0", true),
            ("i", "i\0", true),
        ] {
            for as_range in [false, true] {
                if !as_range && end != format!("{first}\0") {
                    continue;
                }
                fixture.reset();
                let mut transaction = fixture.begin(IsolationLevel::Serializable);
                let before = transaction.savepoint();
                transaction.put(cf, "d", "mine").unwrap();
                transaction.delete_range(cf, "e".."g").unwrap();
                walk(&transaction, cf);
                // What is written after it hid nothing, and what is taken back has hidden what it hid.
                transaction.put(cf, "i", "mine").unwrap();
                assert!(transaction.cursor_untracked(cf, ..).unwrap().seek("i").unwrap());
                if as_range {
                    transaction.rollback_to(&before).unwrap();
                }
                transaction.put(other, "mine", "1").unwrap();
                if as_range {
                    cf.delete_range(first..end).unwrap();
                } else {
                    cf.put(first, "theirs").unwrap();
                }
                thens.next().unwrap().happens(&fixture);
                let committed = transaction.commit();
                assert_eq!(committed.is_err(), refused, "{first:?} up to {end:?}, {as_range}: {committed:?}");
                assert_eq!(db.statistics().transactions_open, 0);
            }
        }
    }
}

#[test]
fn two_that_read_what_the_other_writes_do_not_both_commit_unless_they_are_snapshots() {
    for (level, both) in [(IsolationLevel::Serializable, false), (IsolationLevel::Snapshot, true)] {
        let fixture = Fixture::new();
        let (mut first, mut second) = (fixture.begin(level), fixture.begin(level));
        // Over two families.
        assert!(first.get(&fixture.cf, "d").unwrap().is_some());
        assert!(second.get(&fixture.other, "d").unwrap().is_none());
        first.put(&fixture.other, "d", "first").unwrap();
        second.put(&fixture.cf, "d", "second").unwrap();
        first.commit().unwrap();
        assert_eq!(second.commit().is_ok(), both, "{level:?}");
    }
}

#[test]
fn a_transaction_that_only_reads_is_never_refused() {
    let fixture = Fixture::new();
    let transaction = fixture.begin(IsolationLevel::Serializable);
    assert_eq!(transaction.iter(&fixture.cf).unwrap().count(), KEYS.len());
    fixture.cf.delete_range(..).unwrap();
    fixture.db.flush().unwrap();
    assert_eq!(transaction.get(&fixture.cf, "d").unwrap().unwrap(), "old");
    transaction.commit().unwrap();
}

#[test]
fn a_family_that_was_created_later_is_empty_to_a_transaction_and_may_be_written() {
    let fixture = Fixture::new();
    let mut transaction = fixture.begin(IsolationLevel::Serializable);
    let mut second = fixture.begin(IsolationLevel::Serializable);
    let late = fixture.db.create_column_family("late", FamilyOptions::default()).unwrap();
    late.put("theirs", "1").unwrap();
    assert!(transaction.get(&late, "mine").unwrap().is_none());
    assert_eq!(second.iter(&late).unwrap().count(), 0);
    for one in [&mut transaction, &mut second] {
        one.put(&late, "mine", "1").unwrap();
        assert_eq!(one.get(&late, "mine").unwrap().unwrap(), "1");
        assert_eq!(one.iter(&late).unwrap().count(), 1);
    }
    // The iterator has met its own write, and before and behind it nothing where theirs is now.
    failure(second.commit(), ErrorKind::Conflict);
    failure(transaction.commit(), ErrorKind::Conflict);
}

#[test]
fn a_family_that_is_dropped_refuses_who_relies_on_it() {
    let fixture = Fixture::new();
    let mut reader = fixture.begin(IsolationLevel::Serializable);
    let mut writer = fixture.begin(IsolationLevel::Serializable);
    assert!(reader.get(&fixture.cf, "d").unwrap().is_some());
    reader.put(&fixture.other, "mine", "1").unwrap();
    writer.put(&fixture.cf, "d", "mine").unwrap();
    fixture.db.drop_column_family("one").unwrap();
    assert!(reader.get(&fixture.cf, "d").unwrap().is_some(), "it is still there at this moment");
    failure(reader.commit(), ErrorKind::FamilyDropped);
    failure(writer.commit(), ErrorKind::FamilyDropped);
    let late = fixture.begin(IsolationLevel::Serializable);
    failure(late.get(&fixture.cf, "d"), ErrorKind::FamilyDropped);
}
