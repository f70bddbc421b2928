//! That a family has a merge operator is said wherever an older engine looks before it reads anything.

use crate::codec::features::Features;
use crate::db::ColumnFamilyDatabase;
use crate::segment::Superblock;
use crate::storage::{FileMode, MemoryStorage, StorageBackend};
use crate::{FamilyOptions, WriteBatch, merge_operators};

fn with_operator() -> FamilyOptions {
    FamilyOptions::default().merge_operator(merge_operators::append(","))
}

#[test]
fn an_older_engine_refuses_a_database_before_an_operand_can_be_written() {
    for later in [false, true] {
        let storage = MemoryStorage::new();
        let open = || ColumnFamilyDatabase::builder().storage(storage.clone()).open("memory").unwrap();
        let features = || {
            let file = storage.open("data", FileMode::Read).unwrap();
            Superblock::load(&*file, "data").unwrap().0.features
        };
        let db = open();
        db.create_column_family("plain", FamilyOptions::default()).unwrap();
        if later {
            db.create_column_family("lists", FamilyOptions::default()).unwrap();
            db.flush().unwrap();
        }
        assert_eq!(features(), Features::default());
        let lists = match later {
            true => db.ensure_column_family("lists", with_operator()).unwrap(),
            false => db.create_column_family("lists", with_operator()).unwrap(),
        };
        assert_eq!(features(), Features::OF_OPERANDS);
        db.write(WriteBatch::new().merge(&lists, "key", "1")).unwrap();
        db.flush().unwrap();
        assert_eq!(features(), Features::OF_OPERANDS);
        drop(lists);
        db.close().unwrap();
        let db = open();
        db.flush().unwrap();
        assert_eq!(features(), Features::OF_OPERANDS);
        let name = db.column_family("lists").unwrap().options().merge_operator_name().map(str::to_owned);
        assert_eq!(name.as_deref(), Some("peristyle.append(,)"));
        assert!(db.column_family("plain").unwrap().options().merge_operator_name().is_none());
    }
}
