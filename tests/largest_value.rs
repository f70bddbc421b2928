//! The largest value there can be, once through everything. Needs some 20 GiB of memory and 15 GiB of disk:
//!
//! ```text
//! cargo test --release --test largest_value -- --ignored
//! ```

use peristyle::{ColumnFamilyDatabase, ErrorKind, FamilyOptions};

const LARGEST: usize = u32::MAX as usize;

fn byte(position: usize) -> u8 {
    (position as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7]
}

#[track_caller]
fn assert_value(value: &[u8]) {
    assert_eq!(value.len(), LARGEST);
    assert!(
        value.iter().enumerate().all(|(position, &found)| found == byte(position)),
        "the value is another one"
    );
}

#[test]
#[ignore = "takes 20 GiB of memory"]
fn the_largest_value_is_logged_replayed_merged_read_and_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("database");
    let mut value: Vec<u8> = (0..LARGEST).map(byte).collect();
    {
        let db = ColumnFamilyDatabase::open(&path).unwrap();
        let family = db.create_column_family("large", FamilyOptions::default()).unwrap();
        family.put("small", "1").unwrap();
        family.put("large", &value).unwrap();
        value.push(0);
        assert_eq!(family.put("too large", &value).unwrap_err().kind(), ErrorKind::ValueTooLarge);
        assert_value(&family.get("large").unwrap().unwrap());
        // Not closed: the next open finds it in the log, unless it was merged meanwhile.
    }
    drop(value);
    let db = ColumnFamilyDatabase::open(&path).unwrap();
    let family = db.column_family("large").unwrap();
    assert_value(&family.get("large").unwrap().unwrap());
    db.flush().unwrap();
    db.checkpoint().unwrap();
    assert_value(&family.get("large").unwrap().unwrap());
    drop(family);
    db.close().unwrap();
    let db = ColumnFamilyDatabase::open(&path).unwrap();
    assert_eq!(db.recovery_report().records, 0);
    let family = db.column_family("large").unwrap();
    assert_value(&family.get("large").unwrap().unwrap());
    assert!(db.verify().unwrap().is_clean());
    family.delete("large").unwrap();
    db.compact().unwrap();
    assert_eq!(family.get("small").unwrap().unwrap(), "1");
    assert!(db.statistics().data_file_bytes < 64 << 20, "{:?}", db.statistics());
}
