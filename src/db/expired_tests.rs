//! What has expired where operands may be folded onto it.

use std::time::{Duration, UNIX_EPOCH};

use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage, merge_operators};

#[test]
fn a_key_that_somebody_writes_keeps_no_other_from_being_deleted() {
    let now = Arc::new(AtomicU64::new(100));
    let clock = Arc::clone(&now);
    let db = ColumnFamilyDatabase::builder()
        .automatic_maintenance(false)
        .storage(MemoryStorage::new())
        .clock(move || UNIX_EPOCH + Duration::from_secs(clock.load(Ordering::SeqCst)))
        .open("memory")
        .unwrap();
    let options = FamilyOptions::default().expire_each().merge_operator(merge_operators::append(","));
    let family = db.create_column_family("family", options).unwrap();
    for key in ["a", "b", "c"] {
        family.put_with_ttl(key, "value", Duration::from_secs(5)).unwrap();
    }
    db.compact().unwrap();
    now.store(110, Ordering::SeqCst);
    family.delete("b").unwrap();
    let pipeline = &db.shared().pipeline;
    assert_eq!(pipeline.delete_expired(family.family(), b"").unwrap(), None);
    // `a` and `c` are deleted in the memtable as `b` is.
    assert_eq!(db.family_properties(&family).unwrap().entries_in_memtables, 3);
}
